"""A clock that stands until it is moved, and a look at a queue as a worker has it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.journal import Claim, Journal


class StandingClock:
    """Both clocks show the same milliseconds."""

    def __init__(self, now: int) -> None:
        self.now = now

    def wall_ms(self) -> int:
        return self.now

    def boot_ms(self) -> int:
        return self.now


async def look(journal: Journal, queue: str, handle: Callable[[Claim], Awaitable[None]], now: int) -> int:
    """Claim all that is due at `now` and work on it; returns how many sessions were due."""
    claims = await journal.due(queue, lease_ms=60_000, now=now)
    await asyncio.gather(*(handle(claim) for claim in claims))
    return len(claims)
