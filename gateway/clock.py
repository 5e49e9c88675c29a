"""The two clocks that shells read and cores are given.

*boot*: CLOCK_BOOTTIME in milliseconds, never steps, counts on through suspend: durations, deadlines, timers.
*wall*: Unix time in milliseconds, for records; on a node it is the estimate of Redis time (`nodes.RedisClock`).
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def wall_ms(self) -> int: ...

    def boot_ms(self) -> int: ...


class SystemClock:
    """The host's own clocks."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def boot_ms(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
