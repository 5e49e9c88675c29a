"""A cancelled loop ends whatever turn its Redis is at."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio as aioredis

from gateway.waiting import wait_for

# More turns of the loop than a command takes.
TURNS = 25


async def test_a_loop_over_redis_ends_whenever_it_is_cancelled(valkey_url: str) -> None:
    redis = aioredis.Redis.from_url(valkey_url, socket_timeout=5)

    async def forever() -> None:
        while True:
            await redis.ping()

    lost = []
    for turns in range(TURNS):
        running = asyncio.create_task(forever())
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait({running}, timeout=1)
        if not running.done():
            lost.append(turns)
        while not running.done():
            running.cancel()
            await asyncio.wait({running}, timeout=0.01)
    await redis.aclose()
    assert lost == []


async def test_what_libraries_wait_with_loses_no_cancellation_and_keeps_its_limit() -> None:
    done = asyncio.Event()

    async def one_after_the_other() -> None:
        await asyncio.wait_for(done.wait(), 5)
        await asyncio.Event().wait()

    task = asyncio.create_task(one_after_the_other())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    done.set()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=1)
    assert task.cancelled()
    assert await wait_for(asyncio.sleep(0, "result"), 5) == "result"
    assert await wait_for(asyncio.sleep(0, "result"), None) == "result"
    with pytest.raises(TimeoutError):
        await wait_for(asyncio.Event().wait(), 0.001)
