"""Sessions under faults, the laws afterwards, and that the laws would notice."""

from __future__ import annotations

import os

import pytest

from tests.simulation.mutants import catches
from tests.simulation.quiet import simulated
from tests.simulation.run import Simulation, simulate
from tests.simulation.tally import Tally

# Some hundred sessions a second of one core; `python -m tests.simulation --sessions N` runs any number.
SESSIONS = int(os.environ.get("SIMULATED_SESSIONS", "1000"))


@pytest.mark.timeout(max(120, SESSIONS))
def test_laws_hold_for_sessions_under_every_kind_of_fault() -> None:
    tally = Tally()
    simulate(SESSIONS, 1, tally)
    assert not tally.broken, tally.report()
    paid = sum(tally.statuses[status] for status in ("captured", "refunded", "partially_refunded"))
    assert paid >= 0.6 * SESSIONS
    assert sum(tally.faults.values()) >= SESSIONS
    assert all(tally.faults_open.values())


def test_a_seed_replays_exactly() -> None:
    stories = []
    for _ in range(2):
        with simulated():
            one = Simulation("7:77", trace=True)
            one.run()
        stories.append((one.world.trace, one.world.steps, one.processes.rules.docs))
    assert stories[0] == stories[1]


@pytest.mark.parametrize(
    "name",
    ["drop the idempotency key", "take a time out for a failure", "capture a cent less", "round twice",
     "bill the grace time", "limit ignored", "double finalized", "gap in the sequence"],
)  # fmt: skip
def test_deliberate_bugs_are_caught(name: str) -> None:
    assert catches(name, 1, 200) is not None
