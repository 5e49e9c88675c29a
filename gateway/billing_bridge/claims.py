"""The loop of a worker: claim sessions from a queue as their time comes, work on several at once, sleep in between.

A change published by the journal wakes it; polling finds what a lost message would have told. What a crashed worker
had claimed comes again by itself when its lease is over, so nothing here needs to be undone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog
from redis.exceptions import RedisError

from gateway.errors import GatewayError, StoreUnavailable
from gateway.journal import Claim, Journal

POLL_S = 1.0  # longer would delay retries that come due without any change
GATHER_S = 0.02  # changes come in bursts; one look for all of them
AWAY_S = 1.0  # between looks while Redis is away

log = structlog.get_logger(__name__)


async def work(
    journal: Journal, queue: str, handle: Callable[[Claim], Awaitable[None]], *, lease_ms: int, at_once: int
) -> None:
    """Run until cancelled. `handle` must call `journal.done(claim)`; if it raises, the claim comes again after
    `lease_ms`, which must be longer than `handle` may take."""
    wake, running = asyncio.Event(), set[asyncio.Task[None]]()
    listener = asyncio.create_task(_listen(journal, wake))
    try:
        while True:
            wake.clear()
            claims = await _claim(journal, queue, lease_ms, at_once - len(running))
            for claim in claims:
                task = asyncio.create_task(_handle(handle, claim))
                running.add(task)
                task.add_done_callback(running.discard)
            if len(running) >= at_once:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            elif not claims:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(wake.wait(), POLL_S)
                await asyncio.sleep(GATHER_S)
    finally:
        for task in (listener, *running):
            task.cancel()
        await asyncio.gather(listener, *running, return_exceptions=True)


async def _claim(journal: Journal, queue: str, lease_ms: int, room: int) -> list[Claim]:
    try:
        # The limit holds for each partition; all together may go a little beyond the room there is.
        return await journal.due(queue, lease_ms=lease_ms, limit=max(1, room // journal.keys.partitions))
    except StoreUnavailable:
        log.warning("queue.store_away", queue=queue)
        await asyncio.sleep(AWAY_S)
        return []


async def _handle(handle: Callable[[Claim], Awaitable[None]], claim: Claim) -> None:
    try:
        await handle(claim)
    except (GatewayError, RedisError) as error:
        code = error.code if isinstance(error, GatewayError) else "store_unavailable"
        log.warning("queue.put_off", queue=claim.queue, session=claim.session, code=code)
    except Exception:
        log.exception("queue.failed", queue=claim.queue, session=claim.session)


async def _listen(journal: Journal, wake: asyncio.Event) -> None:
    while True:
        with contextlib.suppress(StoreUnavailable, RedisError):
            async for _session in journal.changes():
                wake.set()
        await asyncio.sleep(AWAY_S)
