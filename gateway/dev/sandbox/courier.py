"""Carries queued events to their endpoints: signed POSTs, some at a time, again until they are accepted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

import aiohttp
import structlog

from gateway.dev.sandbox import events
from gateway.dev.sandbox.store import Delivery, Store

log = structlog.get_logger(__name__)

AT_ONCE = 16
ANSWER_SECONDS = 20  # Stripe waits about as long before it calls an attempt failed


class Courier:
    def __init__(self, store: Store, wall_ms: Callable[[], int]) -> None:
        self.store = store
        self.wall_ms = wall_ms
        self.wake = asyncio.Event()
        self.under_way: dict[int, asyncio.Task[None]] = {}
        self.looked_ms = 0

    async def run(self) -> None:
        """Until cancelled; then attempts under way are cut off, and made again by whoever opens the same data."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            try:
                while True:
                    self.wake.clear()
                    self._start_due(session)
                    await self._wait()
            finally:
                for task in self.under_way.values():
                    task.cancel()
                await asyncio.gather(*self.under_way.values(), return_exceptions=True)

    def _start_due(self, session: aiohttp.ClientSession) -> None:
        self.looked_ms = self.wall_ms()
        free = AT_ONCE - len(self.under_way)
        if free <= 0:
            return
        for delivery in self.store.deliveries(self.looked_ms, AT_ONCE + free):
            if delivery.seq in self.under_way or len(self.under_way) >= AT_ONCE:
                continue
            task = asyncio.create_task(self._attempt(session, delivery))
            self.under_way[delivery.seq] = task
            task.add_done_callback(partial(self._finished, delivery.seq))

    def _finished(self, seq: int, _task: asyncio.Task[None]) -> None:
        self.under_way.pop(seq, None)
        self.wake.set()

    async def _wait(self) -> None:
        """Until the next one falls due; those due before are under way, or wait for the end of one, which wakes us."""
        at = self.store.next_delivery_ms(self.looked_ms)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if at is None else max(0, at - self.wall_ms()) / 1_000):
                await self.wake.wait()

    async def _attempt(self, session: aiohttp.ClientSession, delivery: Delivery) -> None:
        prepared = events.payload(self.store, delivery)
        if prepared is None:
            self.store.delivered(delivery.seq)
            return
        endpoint, body = prepared
        signature = events.signature(endpoint["_"]["secret"], body, self.wall_ms() // 1_000)
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature,
            "User-Agent": "Stripe/1.0",
        }
        accepted = await _post(session, endpoint["url"], body, headers)
        log.debug("sandbox_event", event_id=delivery.event, attempt=delivery.attempt, accepted=accepted)
        events.settle(self.store, delivery, accepted=accepted, now_ms=self.wall_ms())


async def _post(session: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]) -> bool:
    """Only a 2xx counts; a redirect does not (docs.stripe.com/webhooks)."""
    try:
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
            return 200 <= answer.status < 300
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
