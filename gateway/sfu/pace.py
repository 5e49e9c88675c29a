"""How long a worker waits after a batch, so that the next one is worth its wake-up.

Waking costs more than a packet: at 20,000 packets a second that come one by one, gathering for a millisecond or two
halves the cost of each. Where a wait would gather but a few, and after full batches, there is none.
"""

from __future__ import annotations

from typing import Final

WINDOW_NS: Final = 5_000_000
"""Over which the rate is taken. Longer, and the first packets of a burst after a lull pay for the last one's rate."""
TARGET: Final = 32
"""Datagrams worth a wake-up. More would cost delay and bring little: the batch's own cost is spread by then."""
LIMIT_NS: Final = 1_600_000
"""Longest wait; at 70 % of saturation TARGET datagrams take an eighth of it."""
LEAST: Final = 8
"""Fewer expected in LIMIT_NS are not waited for: a quiet worker answers at once."""
PLENTY: Final = 64
"""A full batch, after which the next one is there already. After smaller ones, however large, reading at once finds
nothing, and waiting for the next packet wakes up for it alone."""
HASTE_NS: Final = 200_000
"""Where TARGET datagrams come in so short a time the worker is near its limit: after that many it does not rest."""


class Pace:
    """Core. Tell it of each batch; `now` in nanoseconds of any monotonic clock."""

    __slots__ = ("_datagrams", "_since", "_wait_ns")

    def __init__(self) -> None:
        self._datagrams = self._since = self._wait_ns = 0

    def wait_ns(self, datagrams: int, now: int) -> int:
        """How long to wait after a batch of so many datagrams, in nanoseconds."""
        self._datagrams += datagrams
        elapsed = now - self._since
        if elapsed >= WINDOW_NS:
            expected = self._datagrams * LIMIT_NS // elapsed
            self._wait_ns = 0 if expected < LEAST else min(LIMIT_NS, TARGET * elapsed // self._datagrams)
            self._since, self._datagrams = now, 0
        hurried = datagrams >= TARGET and self._wait_ns < HASTE_NS
        return 0 if datagrams >= PLENTY or hurried else self._wait_ns
