"""Many sessions of one seed: over several processes, with progress, and with a tally that survives a stop.

The numbers of the seed are dealt out in blocks, and what comes back is merged in their order, so a stopped run is
exactly "all numbers below so many", and its state fits into one small file.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tests.simulation.run import simulate
from tests.simulation.tally import Tally

BLOCK = 1_000  # orders: some seconds; to enter the simulated world takes 70 ms
TOLD_S = 30


@dataclass(slots=True)
class Progress:
    """The orders `first` up to `next` of a seed are done, and this is what came of them."""

    seed: int
    first: int
    next: int
    tally: Tally = field(default_factory=Tally)

    def save(self, file: Path) -> None:
        state = {"seed": self.seed, "first": self.first, "next": self.next, "tally": self.tally.as_dict()}
        beside = file.with_name(file.name + ".new")
        beside.write_text(json.dumps(state))
        beside.replace(file)

    @classmethod
    def load(cls, file: Path) -> Progress:
        state = json.loads(file.read_text())
        return cls(state["seed"], state["first"], state["next"], Tally.from_dict(state["tally"]))


def run(progress: Progress, until: int, *, jobs: int, stop: Callable[[], bool], state: Path | None) -> None:
    """Simulate the orders from `progress.next` up to `until`; ends early, with whole blocks, when `stop` says so."""
    size = max(1, min(BLOCK, (until - progress.next) // (2 * jobs)))
    blocks = ((first, min(size, until - first)) for first in range(progress.next, until, size))
    told = _Told(progress)
    with ProcessPoolExecutor(jobs, initializer=_leave_signals_to_the_parent) as pool:

        def ordered() -> Iterator[Future[Tally]]:
            return (pool.submit(_block, progress.seed, *block) for block in blocks if not stop())

        begun = deque(islice(ordered(), 2 * jobs))
        try:
            while begun:
                tally = begun.popleft().result()
                begun.extend(islice(ordered(), 1))
                progress.tally.merge(tally)
                progress.next = min(until, progress.next + size)
                if told.after(tally) and state is not None:
                    progress.save(state)
        finally:
            if state is not None:
                progress.save(state)


def _block(seed: int, first: int, count: int) -> Tally:
    tally, began = Tally(), time.process_time()
    simulate(count, seed, tally, first=first)
    tally.cpu_s = time.process_time() - began
    return tally


def _leave_signals_to_the_parent() -> None:
    """^C reaches a whole group of processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def stopped_by_signal() -> Callable[[], bool]:
    """Whether we were asked to end, by ^C or SIGTERM; asked twice, we end at once."""
    asked: list[int] = []

    def ask(number: int, _: Any) -> None:
        asked.append(number)
        signal.signal(number, signal.SIG_DFL)
        print("Ending with the blocks that were begun; once more ends at once.", file=sys.stderr, flush=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    return lambda: bool(asked)


class _Told:
    """Each broken law on stderr at once, and twice a minute how far it is."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._sessions_before = progress.tally.sessions
        self._began = self._told_at = time.monotonic()

    def after(self, block: Tally) -> bool:
        """Whether it was time to tell."""
        for seed, found in block.broken:
            print(f"BROKEN {seed}: {'; '.join(found)[:400]}", file=sys.stderr, flush=True)
        now, tally = time.monotonic(), self._progress.tally
        if now - self._told_at < TOLD_S:
            return False
        self._told_at = now
        rate = (tally.sessions - self._sessions_before) / (now - self._began)
        counts = f"{self._progress.next} orders, {tally.sessions} sessions, {len(tally.broken)} broke a law"
        print(f"{counts}; {rate:.0f} sessions a second", file=sys.stderr, flush=True)
        return True
