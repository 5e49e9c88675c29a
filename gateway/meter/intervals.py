"""Time as a set: intervals, their union, and which part of a span of open gate is metered.

An interval is `(start, end)` in integer milliseconds, half-open; an empty one is dropped. Retries rewrite the same
interval and two owners may overlap: a union counts nothing twice (law 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

Interval = tuple[int, int]

# More, and a client that sends 100 ms and then listens for 7 s hears more for free; less, and one outage of the
# presence window already costs its caller something.
GIVEN_TAILS_MS: Final = 10_000


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


def without(intervals: Iterable[Interval], taken: Iterable[Interval]) -> tuple[Interval, ...]:
    """The instants of the union that are not in `taken`."""
    left = union(intervals)
    for start, end in union(taken):
        left = union(part for a, b in left for part in ((a, min(b, start)), (max(a, end), b)))
    return left


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
    """The interval of each stretch, in order (law 2 and its one kindness).

    A stretch that hang-up, limit or the API ended, or that runs, counts whole. Of one that silence ended the tail is
    not counted: nobody should pay for a broken network. But whoever falls silent may still be listening, so the
    kindness is bounded: over a session 10 s of tails are given, what exceeds them counts once the leg is back
    (6-media counts every tail then, which bills a caller for its first outage). A leg that never comes back is owed
    its tail in full. `returned`: the leg that fell silent last is heard again, although the gate is still shut.
    """
    left, last = GIVEN_TAILS_MS, len(stretches) - 1
    intervals = []
    for index, stretch in enumerate(stretches):
        given = stretch.tail_ms if index == last and not returned else min(stretch.tail_ms, left)
        left = max(0, left - given)
        intervals.append((stretch.start, stretch.end - given))
    return tuple(intervals)
