"""Time as a set: intervals, their union, and which part of a span of open gate is metered.

An interval is `(start, end)` in integer milliseconds, half-open; an empty one is dropped. Retries rewrite the same
interval and two owners may overlap: a union counts nothing twice (law 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Interval = tuple[int, int]


def union(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """The same set of instants as disjoint, sorted, non-touching intervals."""
    merged: list[Interval] = []
    for start, end in sorted(i for i in intervals if i[1] > i[0]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def length(intervals: Iterable[Interval]) -> int:
    """Milliseconds in the union."""
    return sum(end - start for start, end in union(intervals))


def clip(intervals: Iterable[Interval], start: int, end: int) -> tuple[Interval, ...]:
    """The union within `[start, end)`."""
    return union((max(a, start), min(b, end)) for a, b in intervals)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A span of open gate as the meter sees it; times in ms of any one clock.

    `heard`: the earlier leg's last arrival within it. `silent`: it ended because a leg was not heard any more (or
    because its page was loaded anew), so what lies after `heard` is a *tail*. `running`: it goes on.
    """

    number: int
    start: int
    end: int
    heard: int
    silent: bool = False
    running: bool = False

    @property
    def tail_ms(self) -> int:
        return max(0, self.end - max(self.heard, self.start)) if self.silent else 0


def metered(stretches: Sequence[Stretch], *, returned: bool) -> tuple[Interval, ...]:
    """The interval of each stretch, in order (law 2 and its one kindness, 6-media "Gate and presence").

    A stretch that hang-up, limit or the API ended, or that runs, counts whole. One that silence ended counts whole too
    once the silent leg came back (it heard through the tail), but ends at the earlier leg's last arrival while it has
    not. So at most one tail, shorter than the presence window, is ever unmetered. `returned`: the leg that fell silent
    last is heard again, although the gate is still shut.
    """
    last = len(stretches) - 1
    return tuple(
        (s.start, s.end - (s.tail_ms if index == last and not returned else 0)) for index, s in enumerate(stretches)
    )
