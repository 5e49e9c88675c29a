"""What one owner has metered of one session, and what of it is not in the ledger yet.

Core: told of rows, asked for the next write, told what became of it. `now` is CLOCK_BOOTTIME in ms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.meter.intervals import Interval
from gateway.meter.ledger import Lease, Write, Written

# Four tries within a lease: longer, and one slow second of Redis costs it.
RENEW_MS: Final = 1_000


class Tab:
    """`waiting`: rows that the ledger does not hold as they are. `fault`: why the ledger takes no more (`fenced`,
    `final`). `acked_at`: when Redis last confirmed our lease. `losses`: how often Redis was seen to have lost what it
    had answered. A tab that is `closed` renews no lease."""

    __slots__ = ("_rows", "_usage", "acked_at", "ahead_ms", "closed", "fault", "filed", "lease", "losses", "opened",
                 "sequence", "since", "waiting")  # fmt: skip

    def __init__(self, lease: Lease, now: int, *, sequence: int = 0, left_over: bool = False) -> None:
        """`left_over`: by a former process, whose clock is not known."""
        self.lease, self.acked_at, self.sequence = lease, now, sequence
        self.opened = None if left_over else now
        self._rows: dict[int, Interval] = {}
        self.waiting: dict[int, Interval] = {}
        self.since: int | None = None
        self.ahead_ms = self._usage = self.filed = self.losses = 0
        self.fault: str | None = None
        self.closed = False

    def put(self, rows: Mapping[int, Interval], now: int) -> None:
        """Rows as they are now; the same number again replaces the former."""
        if not rows or self.fault is not None:
            return
        self._rows.update(rows)
        self.waiting.update(rows)
        self.sequence += 1
        self.since = now if self.since is None else self.since

    def due(self, now: int) -> bool:
        """Whether anything is to be written: rows, also a former owner's that came while it was told so, or a lease to
        renew."""
        renews = self.fault is None and not self.closed
        return bool(self.waiting) or (renews and now - self.acked_at >= RENEW_MS)

    def write(self, now: int) -> Write:
        at = None if self.opened is None else self.lease.now + now - self.opened
        return Write(self.lease, dict(self.waiting), self.sequence, renew=not self.closed, at=at)

    def written(self, write: Write, result: Written, now: int) -> None:
        """Take the answer to a write. When the ledger's version fell, Redis has lost what it had answered (its last
        second, by a power failure): then everything is written again."""
        if result.code in ("away", "stale"):
            return
        if result.code in ("fenced", "final"):
            self.fault, self.waiting, self.since = result.code, {}, None
            return
        if result.code == "former":
            self.fault = self.fault or "fenced"
        self.acked_at, self.ahead_ms = now, result.ahead_ms
        lost = result.code == "restored" or result.usage < self._usage + bool(write.rows)
        self._usage = result.usage
        self.losses += lost
        if lost and len(self._rows) > len(write.rows):
            self.put(self._rows, now)
        elif not result.ahead_ms:
            self._taken(write, now)

    def _taken(self, write: Write, now: int) -> None:
        for number, row in write.rows.items():
            if self.waiting.get(number) == row:
                del self.waiting[number]
        self.since = now if self.waiting else None
