"""Sessions under faults, the laws afterwards, and that the laws would notice."""

from __future__ import annotations

import os
import time

import pytest

from tests.simulation.mutants import catches
from tests.simulation.quiet import simulated
from tests.simulation.run import Simulation, simulate
from tests.simulation.tally import Tally

# Orders of the marketplace, some of which are bookings of several sessions: a minute of one core (docs/simulation.md).
ORDERS = int(os.environ.get("SIMULATED_ORDERS", "11000"))


@pytest.mark.timeout(max(300, ORDERS // 10))
def test_laws_hold_for_sessions_under_every_kind_of_fault(capsys: pytest.CaptureFixture[str]) -> None:
    tally, began = Tally(), time.process_time()
    simulate(ORDERS, 1, tally)
    report = tally.report()
    with capsys.disabled():
        print(f"\n{report.splitlines()[0]}, in {time.process_time() - began:.0f} s of one core", end=" ")
    assert not tally.broken, report
    assert not tally.shortfalls(), report


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
