"""`python -m tests.simulation --sessions N [--seed S] [--jobs J --state FILE]`, `--replay SEED:NUMBER`, `--mutants`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.simulation import many
from tests.simulation.many import Progress
from tests.simulation.quiet import simulated
from tests.simulation.run import Simulation


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--sessions", type=int, default=10_000, help="orders: some are bookings of several sessions")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", type=int, default=0, dest="first", metavar="NUMBER", help="of the first order")
    parser.add_argument("--jobs", type=int, default=1, help="processes; what they find does not depend on it")
    parser.add_argument("--minutes", type=float, default=1e9, help="end after so long, with the report")
    parser.add_argument("--state", type=Path, metavar="FILE", help="keep the tally there, and go on where it ends")
    parser.add_argument("--replay", metavar="SEED:NUMBER", help="run one session again and tell its story")
    parser.add_argument("--mutants", action="store_true", help="show that deliberate bugs are caught")
    given = parser.parse_args()
    if given.replay:
        return _replay(given.replay)
    if given.mutants:
        from tests.simulation.mutants import catch_all

        return catch_all(given.seed)
    progress = Progress(given.seed, given.first, given.first)
    if given.state is not None and given.state.exists():
        progress = Progress.load(given.state)
        if (progress.seed, progress.first) != (given.seed, given.first):
            parser.error(f"{given.state} is of seed {progress.seed} from {progress.first}; name another file")
    return _run(progress, given)


def _run(progress: Progress, given: argparse.Namespace) -> int:
    asked, began = many.stopped_by_signal(), time.monotonic()
    stop = lambda: asked() or time.monotonic() > began + 60 * given.minutes  # noqa: E731
    many.run(progress, given.first + given.sessions, jobs=given.jobs, stop=stop, state=given.state)
    tally = progress.tally
    print(tally.report())
    print(
        f"seed {progress.seed}, orders {progress.first} to {progress.next - 1}: {tally.cpu_s:.1f} s of one core, "
        f"{tally.sessions / (tally.cpu_s or 1):.0f} sessions a second of it"
    )
    shortfalls = tally.shortfalls()
    for line in shortfalls:
        print(f"NOT COVERED: {line}")
    return 1 if tally.broken or shortfalls else 0


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
