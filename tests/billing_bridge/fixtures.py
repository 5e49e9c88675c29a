"""The bridge with everything real around it: Stripe's SDK, the sandbox over HTTP, a Valkey."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
import pytest

from gateway.billing_bridge.payment import opened
from gateway.billing_bridge.record import Payment
from gateway.billing_bridge.stripe_client import StripeClient
from gateway.billing_bridge.worker import Bridge, BridgeSettings
from gateway.clock import SystemClock
from gateway.dev.sandbox import Sandbox, SandboxConfig
from gateway.journal import NOW, Journal
from gateway.sessions.refunds import NewRefund, ordered
from tests.billing_bridge.settling import Session, finalize, live, session_doc

KEY = "sk_test_bridge"


@pytest.fixture
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    """As `SandboxConfig` has it, but for what a test says by indirect parameters."""
    made = Sandbox(SandboxConfig(**getattr(request, "param", {})))
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def stripe_client(sandbox: Sandbox) -> AsyncIterator[StripeClient]:
    async with StripeClient(KEY, sandbox.url, timeout_s=1.0) as client:
        yield client


@dataclass
class AskStripe:
    """The sandbox's private routes, and what a marketplace does at Stripe by itself, on the account of a key."""

    url: str
    http: aiohttp.ClientSession
    key: str = KEY

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    async def post(self, path: str, **body: Any) -> Any:
        async with self.http.post(f"{self.url}/sandbox/{path}", json=body, headers=self.headers) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def fault(self, match: str, kind: str, **more: Any) -> None:
        await self.post("faults", match=match, kind=kind, **more)

    async def customer(self) -> str:
        async with self.http.post(f"{self.url}/v1/customers", headers=self.headers) as answer:
            return str((await answer.json())["id"])

    async def state(self) -> Any:
        async with self.http.get(f"{self.url}/sandbox/state", headers=self.headers) as answer:
            return await answer.json()


@pytest.fixture
async def ask(sandbox: Sandbox) -> AsyncIterator[AskStripe]:
    async with aiohttp.ClientSession() as http:
        yield AskStripe(sandbox.url, http)


@dataclass
class Skipping:
    """A clock that a test moves on instead of sleeping."""

    ahead_ms: int = 0

    def wall_ms(self) -> int:
        return SystemClock().wall_ms() + self.ahead_ms

    def boot_ms(self) -> int:
        return SystemClock().boot_ms() + self.ahead_ms


@dataclass
class Till:
    """Sessions in the journal, and bridges that settle them."""

    journal: Journal
    stripe: StripeClient
    ask: AskStripe
    settings: BridgeSettings = field(
        default_factory=lambda: BridgeSettings(return_url="https://pay.test/{session}", poll_ms=50)
    )
    clock: Skipping = field(default_factory=Skipping)

    @property
    def bridge(self) -> Bridge:
        """A new one each time, as after a restart: it knows only what is on disk."""
        return Bridge(self.journal, self.stripe, self.settings, self.clock)

    async def open(self, ident: str = "ses_1", card: str = "pm_card_visa", **changes: Any) -> Session:
        """A session as its creation leaves it."""
        session = session_doc(id=ident, **changes)
        session["client"] = {"id": "c1", "stripe_customer": await self.ask.customer()}
        session["expert"] = {"id": "e1", "stripe_account": "acct_demo"}
        session["ambassador"] = {"stripe_account": "acct_demo_ambassador", "share_bps": 2000}
        session["funding"] = {"attempt": 1, "payment_method": card, "amount": 7500, "requested_at": 0}
        session |= changes
        people = {"schema": 1, "expert": {"name": "Expert"}}
        docs = {"session": (0, session), "payment": (0, opened(session)), "people": (0, people)}
        await self.journal.commit(ident, docs, due={"money": NOW}, durable=True)
        return session

    async def put(self, session: Session) -> None:
        doc = (await self.journal.read(session["id"], "session"))["session"]
        assert doc is not None
        await self.journal.commit(session["id"], {"session": (doc.version, session)}, due={"money": NOW})

    async def finish(self, session: Session, total: int, **more: Any) -> None:
        if more.get("started", True):
            live(session)
        finalize(session, total, **more)
        await self.put(session)

    async def refund(
        self, amount: int | None, ident: str = "ses_1", charge_to: Literal["shares", "platform"] = "shares"
    ) -> None:
        docs = await self.journal.read(ident, "payment", "refunds")
        payment, orders = docs["payment"], docs["refunds"]
        assert payment is not None
        new = NewRefund(f"ref_{0 if orders is None else orders.version}", amount, "r", charge_to)
        body = ordered(payment.body, orders.body if orders else None, new, self.clock.wall_ms())
        await self.journal.commit(ident, {"refunds": (orders.version if orders else 0, body)}, due={"money": NOW})

    async def payment(self, ident: str = "ses_1") -> Payment:
        doc = (await self.journal.read(ident, "payment"))["payment"]
        assert doc is not None
        return Payment.from_dict(doc.body)

    async def told(self, ident: str = "ses_1") -> list[str]:
        return [event["type"] for event in await self.journal.events(ident)]

    async def settle(self, ident: str = "ses_1") -> Payment:
        """Look until nothing is due soon, each time with a bridge that was just started."""
        async with asyncio.timeout(20):
            while True:
                again_at = await self.bridge.settle_once(ident)
                wait_ms = 0 if again_at is None else again_at - self.clock.wall_ms()
                if again_at is None or wait_ms > 86_400_000:
                    return await self.payment(ident)
                self.clock.ahead_ms += max(0, wait_ms)
                await asyncio.sleep(0.02)

    async def queued(self, queue: str, ident: str = "ses_1") -> float | None:
        score = await self.journal.redis.zscore(self.journal.keys.beside(ident, f"due:{queue}"), ident)
        return None if score is None else float(score)


@pytest.fixture
async def till(journal: Journal, stripe_client: StripeClient, ask: AskStripe) -> Till:
    return Till(journal, stripe_client, ask)


@contextlib.asynccontextmanager
async def running(bridge: Bridge) -> AsyncIterator[None]:
    task = asyncio.create_task(bridge.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
