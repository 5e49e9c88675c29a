"""A clock that stands until it is moved."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class HandClock:
    """Both clocks in ms; `pass_ms` moves them together."""

    wall: int = 1_700_000_000_000
    boot: int = 1_000

    def wall_ms(self) -> int:
        return self.wall

    def boot_ms(self) -> int:
        return self.boot

    def pass_ms(self, ms: int) -> None:
        self.wall += ms
        self.boot += ms
