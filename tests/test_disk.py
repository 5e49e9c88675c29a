"""Nobody is told what a power loss could still take back (law 8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.asyncio as aioredis

from gateway.disk import MARK, Disk
from gateway.errors import StoreUnavailable


@pytest.fixture
async def unsynced(redis: aioredis.Redis) -> AsyncIterator[aioredis.Redis]:
    """Its append-only file is left to the operating system meanwhile."""
    await redis.config_set("appendfsync", "no")
    yield redis
    await redis.config_set("appendfsync", "always")


async def test_law8_what_is_on_disk_is_confirmed_to_all_who_ask_by_one_write(redis: aioredis.Redis) -> None:
    disk = Disk(redis)
    before = (await redis.info("commandstats")).get("cmdstat_waitaof", {"calls": 0})["calls"]
    await asyncio.gather(*(disk.confirmed() for _ in range(50)))
    assert (await redis.info("commandstats"))["cmdstat_waitaof"]["calls"] == before + 1
    assert await redis.exists(MARK)


async def test_law8_what_is_not_on_disk_in_time_is_not_confirmed(unsynced: aioredis.Redis) -> None:
    disk = Disk(unsynced, waitaof_ms=50)
    with pytest.raises(StoreUnavailable):
        await disk.confirmed()
    await unsynced.config_set("appendfsync", "always")
    await disk.confirmed()


async def test_law8_one_that_is_cancelled_leaves_the_others_their_answer(redis: aioredis.Redis) -> None:
    disk = Disk(redis)
    first, second = asyncio.create_task(disk.confirmed()), asyncio.create_task(disk.confirmed())
    await asyncio.sleep(0)
    first.cancel()
    await second
    with pytest.raises(asyncio.CancelledError):
        await first
