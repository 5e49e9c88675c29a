"""The loop of a worker: claim sessions from a queue as their time comes, work on several at once, sleep in between.

What the journal says about the queue wakes it; polling finds what a lost message would have told. What a crashed worker
had claimed comes again by itself when its lease is over, so nothing here needs to be undone; one that is stopped gives
back what it has not done.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog
from redis.exceptions import RedisError

from gateway.errors import GatewayError, StoreUnavailable
from gateway.journal import NOW, Claim, Journal

POLL_S = 1.0  # longer would delay retries that come due without any change
GATHER_S = 0.05  # changes come in bursts; one look for all of them
AWAY_S = 1.0  # between looks while Redis is away
GRACE_S = 1.0  # for what is under way when a process stops: a mail is sent and its result kept

log = structlog.get_logger(__name__)


async def work(
    journal: Journal, queue: str, handle: Callable[[Claim], Awaitable[None]], *, lease_ms: int, at_once: int
) -> None:
    """Run until cancelled. `handle` must call `journal.done(claim)`; if it raises, the claim comes again after
    `lease_ms`, which must be longer than `handle` may take. When cancelled, what is under way has GRACE_S to end; what
    is then cut off is given back, so that nobody has to wait for its lease."""
    calls, running = Calls(journal, queue), dict[asyncio.Task[None], Claim]()
    listener = asyncio.create_task(calls.listen())
    claiming: asyncio.Task[list[Claim]] | None = None
    try:
        while True:
            called = await calls.next(POLL_S)
            more = True
            while more:
                # The limit holds for each partition; all together may go a little beyond the room there is.
                limit = max(1, (at_once - len(running)) // journal.keys.partitions)
                claiming = asyncio.create_task(_claim(journal, queue, lease_ms, limit, called))
                claims = await asyncio.shield(claiming)
                claiming = None
                for claim in claims:
                    task = asyncio.create_task(_handle(handle, claim))
                    running[task] = claim
                    task.add_done_callback(running.pop)
                if len(running) >= at_once:
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                more = len(claims) >= limit
    finally:
        listener.cancel()
        late, *_ = await asyncio.gather(*([claiming] if claiming else []), listener, return_exceptions=True)
        cut = await _cut_off(running)
        await _give_back(journal, [*cut, *(late if isinstance(late, list) else [])])


async def _cut_off(running: Mapping[asyncio.Task[None], Claim]) -> list[Claim]:
    """The claims of those that do not end by themselves in time."""
    if running:
        await asyncio.wait(list(running), timeout=GRACE_S)
    cut = dict(running)
    for task in cut:
        task.cancel()
    await asyncio.gather(*cut, return_exceptions=True)
    return list(cut.values())


async def _give_back(journal: Journal, claims: Sequence[Claim]) -> None:
    answers = await asyncio.gather(*(journal.done(claim, NOW) for claim in claims), return_exceptions=True)
    if failed := sum(isinstance(answer, BaseException) for answer in answers):
        log.warning("queue.not_given_back", claims=failed)  # they come again after their lease


class Calls:
    """Which sessions were put into a queue since the last look; all queues are looked at now and then."""

    def __init__(self, journal: Journal, queue: str) -> None:
        self._journal, self._queue = journal, queue
        self._called: set[str] = set()
        self._wake = asyncio.Event()
        self._looked_at = -math.inf

    async def next(self, poll_s: float) -> set[str] | None:
        """Wait for calls, a moment longer for those that come with them, at most `poll_s`. None: look at all."""
        loop = asyncio.get_running_loop()
        left = self._looked_at + poll_s - loop.time()
        if left > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wake.wait()
                    await asyncio.sleep(GATHER_S)
        self._wake.clear()
        called, self._called = self._called, set()
        if loop.time() < self._looked_at + poll_s:
            return called
        self._looked_at = loop.time()
        return None

    async def listen(self) -> None:
        """Until cancelled; while the subscription is down, polling goes on alone."""
        while True:
            with contextlib.suppress(StoreUnavailable, RedisError):
                async for session in self._journal.calls(self._queue):
                    self._called.add(session)
                    self._wake.set()
            await asyncio.sleep(AWAY_S)


async def _claim(journal: Journal, queue: str, lease_ms: int, limit: int, called: set[str] | None) -> list[Claim]:
    try:
        return await journal.due(queue, lease_ms=lease_ms, limit=limit, of=called)
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
