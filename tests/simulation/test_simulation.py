"""Sessions under faults, and the laws afterwards."""

from __future__ import annotations

import os

from tests.simulation.run import simulate
from tests.simulation.tally import Tally

SESSIONS = int(os.environ.get("SIMULATED_SESSIONS", "1000"))


def test_laws_hold_for_sessions_under_every_kind_of_fault() -> None:
    tally = Tally()
    simulate(SESSIONS, 1, tally)
    assert not tally.broken, tally.report()
