"""One platform account of the sandbox: its objects and balance, its timers, and the courier of its events."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from gateway.dev.sandbox import accounts, endpoints, people
from gateway.dev.sandbox.api import Api
from gateway.dev.sandbox.courier import Courier
from gateway.dev.sandbox.store import Doc, Store
from gateway.dev.sandbox.turn import Terms, Turn

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def stripe_id(prefix: str) -> str:
    """`prefix_` and 24 random characters, as Stripe's ids look."""
    number = int.from_bytes(os.urandom(18), "big")
    letters = []
    for _ in range(24):
        number, place = divmod(number, 62)
        letters.append(_ALPHABET[place])
    return f"{prefix}_{''.join(letters)}"


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Platform:
    """Nothing is shared between two of them but the address; as at Stripe, the key says whose turn it is."""

    def __init__(self, terms: Terms, file: Path | None) -> None:
        self.store = Store(file)
        self.api = Api(self.store, terms, stripe_id)
        self.courier = Courier(self.store, wall_ms)
        self.store.prune(wall_ms() // 1_000)
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Deliver what is still queued, and let time do its part."""
        self._tasks = [asyncio.create_task(self.courier.run()), asyncio.create_task(self._run_timer())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def seed(self, demo: accounts.Demo) -> None:
        """A customer and connected accounts that are there from the start; those that exist stay as they are."""
        self._change(people.seed)
        self._change(lambda turn: accounts.seed(turn, demo))

    def set_webhook(self, url: str | None, secret: str, events: tuple[str, ...]) -> None:
        """Deliver events there from now on (None: nowhere), besides the endpoints made over the API."""
        self._change(lambda turn: endpoints.configure(turn, url, secret, events))
        self.courier.wake.set()

    def changed(self) -> None:
        self.courier.wake.set()
        self._wake.set()

    def _change(self, job: Callable[[Turn], None]) -> None:
        def work(turn: Turn) -> Doc:
            job(turn)
            return {}

        self.api.work(wall_ms(), work)

    async def _run_timer(self) -> None:
        while True:
            self._wake.clear()
            self.api.handle_due(wall_ms())
            self.courier.wake.set()
            at = self.api.next_due_ms()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if at is None else max(1, at - wall_ms()) / 1_000):
                    await self._wake.wait()
