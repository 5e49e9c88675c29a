"""Waiting for a session to change: one subscription for the whole process wakes all who wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from redis.exceptions import RedisError

from gateway.errors import StoreUnavailable
from gateway.journal import Journal

T = TypeVar("T")


class Changes:
    """See the module."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: dict[str, set[asyncio.Event]] = {}

    async def run(self) -> None:
        """Listen until cancelled; while Redis is away waiters live by their own time-outs."""
        while True:
            with suppress(StoreUnavailable, RedisError):
                async for session in self._journal.changes():
                    for event in self._waiting.get(session, ()):
                        event.set()
            await asyncio.sleep(0.5)

    @asynccontextmanager
    async def of(self, session: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever the session changes; clear it before reading."""
        event = asyncio.Event()
        self._waiting.setdefault(session, set()).add(event)
        try:
            yield event
        finally:
            self._waiting[session].discard(event)
            if not self._waiting[session]:
                del self._waiting[session]

    async def until(
        self, session: str, look: Callable[[], Awaitable[T]], said: Callable[[T], bool], wait_s: float,
        *, again_s: float = 0.5,
    ) -> T:  # fmt: skip
        """What `look` finds once it is what was waited for, or when `wait_s` seconds have passed. It looks at each
        change, and each `again_s`, since wake-ups may be lost."""
        async with self.of(session) as changed:
            until = asyncio.get_running_loop().time() + wait_s
            while True:
                changed.clear()
                found = await look()
                left = until - asyncio.get_running_loop().time()
                if said(found) or left <= 0:
                    return found
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(left, again_s)):
                        await changed.wait()
