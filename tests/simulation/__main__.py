"""`python -m tests.simulation --sessions N [--seed S]`, `--replay SEED:NUMBER`, `--mutants`."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.quiet import simulated
from tests.simulation.run import Simulation, simulate
from tests.simulation.tally import Tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--sessions", type=int, default=10_000, help="orders: some are bookings of several sessions")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9, help="end after so long, with the report")
    parser.add_argument("--replay", metavar="SEED:NUMBER", help="run one session again and tell its story")
    parser.add_argument("--mutants", action="store_true", help="show that deliberate bugs are caught")
    given = parser.parse_args()
    if given.replay:
        return _replay(given.replay)
    if given.mutants:
        from tests.simulation.mutants import catch_all

        return catch_all(given.seed)
    return _run(given.sessions, given.seed, given.minutes)


def _run(sessions: int, seed: int, minutes: float) -> int:
    tally, began = Tally(), time.process_time()
    said: list[str] = []
    until = time.monotonic() + 60 * minutes
    simulate(sessions, seed, tally, until=lambda: _told(tally, said) or time.monotonic() > until)
    took = time.process_time() - began
    print(tally.report())
    print(f"{took:.1f} s of one core, {tally.sessions / took:.0f} sessions a second; seed {seed}")
    shortfalls = tally.shortfalls()
    for line in shortfalls:
        print(f"NOT COVERED: {line}")
    return 1 if tally.broken or shortfalls else 0


def _told(tally: Tally, said: list[str]) -> bool:
    """Each broken law at once: a long run need not be waited for."""
    for seed, found in tally.broken[len(said) :]:
        said.append(seed)
        print(f"BROKEN {seed}: {'; '.join(found)[:400]}", file=sys.stderr, flush=True)
    return False


def _replay(seed: str) -> int:
    with simulated():
        one = Simulation(seed, trace=True)
        found = one.run()
    print(one.script)
    print(*(one.world.trace or ()), sep="\n")
    for event in one.processes.rules.events:
        print(f"event {event['sequence']:3} {event['created'] / 1000:.3f} {event['type']}")
    for name in ("session", "payment"):
        doc = one.processes.rules.docs.get(name)
        print(name, doc.body if doc else None)
    print("intents", one.processes.stripe.intents)
    print("rows", one.processes.rules.rows, "truth", one.processes.truth.stretches)
    print("BROKEN:", *(found or ["nothing"]), sep="\n  ")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
