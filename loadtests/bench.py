"""What every part of a run gets: how many rounds, how long each, who is missing, and where progress is shown.

The run is bounded in time. Each part says how many measurements it will make; when they cannot all be as long as they
should, the remaining ones become shorter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from loadtests.figures import Sample

SHORTEST_S: Final = 0.5
OVERHEAD_S: Final = 0.35
"""Of a measurement besides its own length: draining, reading counters, sealing packets."""

Entry = tuple[str, Callable[[float], Sample]]
"""A name, and what measures it for so many seconds."""


@dataclass
class Bench:
    """`show(text, done, planned)` is called as the run goes on."""

    rounds: int = 7
    seconds: float = 1.6
    budget_s: float = 570.0
    show: Callable[[str, int, int], None] = lambda text, done, planned: None
    missing: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    planned: int = 0
    done: int = 0
    started: float = field(default_factory=time.monotonic)

    def plan(self, measurements: int, aside_s: float = 0.0) -> None:
        """So many measurements will be made; `aside_s` goes into set-ups and waiting."""
        self.planned += measurements
        self.budget_s -= aside_s

    def tell(self, text: str) -> None:
        self.show(text, self.done, self.planned)

    def length(self) -> float:
        """Seconds for the next measurement."""
        left = self.budget_s - (time.monotonic() - self.started)
        fair = left / max(1, self.planned - self.done) - OVERHEAD_S
        return max(min(SHORTEST_S, self.seconds), min(self.seconds, fair))

    def alternate(self, title: str, entries: Sequence[Entry]) -> dict[str, list[Sample]]:
        """All entries in turn, round by round; every other round goes backwards, so that nobody is always first."""
        samples: dict[str, list[Sample]] = {name: [] for name, _ in entries}
        for number in range(self.rounds):
            for name, measure in entries if number % 2 == 0 else reversed(entries):
                self.tell(f"{title}: {name}, round {number + 1} of {self.rounds}")
                samples[name].append(measure(self.length()))
                self.done += 1
        return samples
