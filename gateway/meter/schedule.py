"""The schedule of a running session: what both are warned of and when, how long it may still last, what ends it.

Pure functions of the record, the union so far and `now` (wall ms). Warning times come from the settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gateway.session import SessionRecord

WarningReason = Literal["limit_ending", "cap_ending", "free_ending"]

WARNINGS_S: Final = (600, 300, 60, 30)  # R6
FREE_WARNINGS_S: Final = (60, 10)  # 5-money, What the two see


@dataclass(frozen=True, slots=True)
class Warn:
    """A warning that is due at `at`: `remaining_s` before the session's end, or before the first paid second."""

    at: int
    reason: WarningReason
    remaining_s: int


def ending(record: SessionRecord, warnings: Sequence[int] = WARNINGS_S) -> tuple[Warn, ...]:
    """All warnings before the limit or cap, in order of time; those longer than the limit are skipped."""
    deadline = record.deadline
    if deadline is None:
        return ()
    reason: WarningReason = "cap_ending" if record.limit_reason == "cap_reached" else "limit_ending"
    return tuple(
        Warn(deadline - s * 1000, reason, s) for s in sorted(warnings, reverse=True) if s * 1000 < record.limit_ms
    )


def free_ending(
    record: SessionRecord, union_ms: int, now: int, warnings: Sequence[int] = FREE_WARNINGS_S
) -> tuple[Warn, ...]:
    """Warnings before the first paid second, if the time ran on from `now` without a break; none if nothing is paid."""
    left = record.free_ms - union_ms
    if not record.priced or record.free_ms == 0 or record.free_ms >= record.limit_ms:
        return ()
    at = now + left
    return tuple(
        Warn(at - s * 1000, "free_ending", s) for s in sorted(warnings, reverse=True) if s * 1000 < record.free_ms
    )


def due(warns: Sequence[Warn], given: frozenset[tuple[str, int]], now: int) -> tuple[Warn, ...]:
    """Those whose time has come and that were not given yet. Of several that were missed (a pause of the process),
    only the last still tells the truth."""
    late = [w for w in warns if w.at <= now and (w.reason, w.remaining_s) not in given]
    newest = {w.reason: w for w in late}
    return tuple(newest.values())


def remaining_s(record: SessionRecord, now: int) -> int:
    """Whole seconds until the limit, rounded up so that 0 means over; the whole limit before the start."""
    deadline = record.deadline
    if deadline is None:
        return record.limit_ms // 1000
    return max(0, -((now - deadline) // 1000))
