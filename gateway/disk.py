"""Whether what Redis has done is on its disk: many ask, and one small write with one wait answers them all.

Who tells others of a record waits for this first. What they were told outlives a power loss then, and its number is not
given to something else (law 8).
"""

from __future__ import annotations

import asyncio
from typing import Final

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from gateway.errors import StoreUnavailable

# WAITAOF speaks of the connection's own writes, so it needs one.
MARK: Final = "gateway:on-disk"
# A connection that waits for its fsync does nothing else meanwhile: shorter, and a busy process needs many of them.
GATHER_S: Final = 0.02


class Disk:
    """Shell over Redis. `waitaof_ms` bounds how long an fsync is waited for."""

    def __init__(self, redis: aioredis.Redis, *, waitaof_ms: int = 2000) -> None:
        self._redis, self._waitaof_ms = redis, waitaof_ms
        self._next: asyncio.Task[bool] | None = None

    async def confirmed(self) -> None:
        """All that Redis had done when this was called is on disk. Raises StoreUnavailable when nobody can say so."""
        if self._next is None:
            self._next = asyncio.create_task(self._confirm())
        if not await asyncio.shield(self._next):
            raise StoreUnavailable("The session store did not confirm the write on disk.")

    async def _confirm(self) -> bool:
        await asyncio.sleep(GATHER_S)
        self._next = None  # who comes from now on has written something that this write does not vouch for
        pipe = self._redis.pipeline(transaction=False)
        pipe.execute_command("SET", MARK, 1)
        pipe.execute_command("WAITAOF", 1, 0, self._waitaof_ms)
        try:
            _, (local, _replicas) = await pipe.execute()
        except (RedisError, OSError):
            return False
        return bool(local >= 1)
