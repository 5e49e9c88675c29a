"""A line that delays and loses packets, in user space: netem is not in every kernel, TUN devices are."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import struct
from contextlib import suppress

TUNSETIFF = 0x400454CA
TUN_WITHOUT_HEADER = 0x1001
READ = 65_535


class Line:
    """Two TUN devices and what happens between them, both ways alike; `delay_s` and `loss` may change at any time."""

    def __init__(self, delay_s: float = 0.0, loss: float = 0.0, seed: int = 1) -> None:
        self.delay_s, self.loss = delay_s, loss
        self._dice = random.Random(seed)
        self._ends: list[int] = []

    def lay(self, *names: str) -> None:
        """Make the devices of these two names. Packets pass once a loop runs and `open` was called."""
        for name in names:
            end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            self._ends.append(end)
            fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), TUN_WITHOUT_HEADER))

    def open(self) -> None:
        """From now on the running loop carries the packets."""
        loop = asyncio.get_running_loop()
        for end, other in (self._ends, self._ends[::-1]):
            loop.add_reader(end, self._carry, loop, end, other)

    def close(self) -> None:
        """The devices go with their last descriptor; what is still under way is lost."""
        ends, self._ends = self._ends, []
        for end in ends:
            os.close(end)

    def _carry(self, loop: asyncio.AbstractEventLoop, end: int, other: int) -> None:
        with suppress(BlockingIOError):
            while True:
                packet = os.read(end, READ)
                if self._dice.random() >= self.loss:
                    loop.call_later(self.delay_s, self._put, other, packet)

    def _put(self, end: int, packet: bytes) -> None:
        if end in self._ends:
            with suppress(OSError):
                os.write(end, packet)
