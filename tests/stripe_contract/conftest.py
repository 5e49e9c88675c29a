"""One platform for every case: the sandbox, or Stripe's test mode when STRIPE_API_KEY names a secret test key.

In test mode, STRIPE_TEST_DESTINATION is a connected account that may receive transfers, and STRIPE_TEST_RESTRICTED one
that may not; without them the cases that need one are skipped. Nothing else differs.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import stripe

from gateway.dev.sandbox import Sandbox, SandboxConfig

KEY = os.environ.get("STRIPE_API_KEY", "")


@dataclass
class Platform:
    """The SDK's client, and two connected accounts. `mark` is new in every test, for metadata and groups."""

    client: stripe.StripeClient
    destination: str | None
    restricted: str | None
    mark: str

    @property
    def v1(self) -> Any:
        """The services, untyped: some cases pass what the types forbid."""
        return self.client.v1

    def may_receive(self) -> str:
        if self.destination is None:
            pytest.skip("STRIPE_TEST_DESTINATION names no connected account")
        return self.destination

    def may_not_receive(self) -> str:
        if self.restricted is None:
            pytest.skip("STRIPE_TEST_RESTRICTED names no connected account")
        return self.restricted

    async def customer(self) -> str:
        made = await self.v1.customers.create_async({"metadata": {"mark": self.mark}})
        return str(made.id)

    async def hold(self, amount: int = 25_500, **more: Any) -> Any:
        return await self.v1.payment_intents.create_async(self.holding(amount, **more))

    def holding(self, amount: int = 25_500, **more: Any) -> dict[str, Any]:
        """Parameters of a confirmed hold on a card."""
        return {
            "amount": amount, "currency": "usd", "confirm": True, "capture_method": "manual",
            "payment_method": "pm_card_visa", "allowed_payment_method_types": ["card"],
            "metadata": {"mark": self.mark}, **more,
        }  # fmt: skip

    async def paid(self, amount: int = 9_000, **more: Any) -> Any:
        """A captured payment with its charge and balance transaction expanded."""
        held = await self.hold(amount, **more)
        return await self.v1.payment_intents.capture_async(held.id, {"expand": ["latest_charge.balance_transaction"]})

    async def refused(self, call: Awaitable[Any]) -> stripe.StripeError:
        with pytest.raises(stripe.StripeError) as caught:
            await call
        return caught.value

    async def event(self, kind: str, ident: str) -> Any:
        """The event of that type about that object; in test mode it may take a moment."""

        async def find() -> Any:
            listed = await self.v1.events.list_async({"type": kind, "limit": 20})
            return next((each for each in listed.data if each.data.object["id"] == ident), None)

        return await eventually(find)


async def eventually(find: Callable[[], Awaitable[Any]], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while True:
        found = await find()
        if found is not None or time.monotonic() > end:
            return found
        await asyncio.sleep(0.2)


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    http = stripe.AIOHTTPClient()
    mark = f"contract_{uuid.uuid4().hex[:16]}"
    if KEY:
        assert KEY.startswith("sk_test_"), "the contract runs in test mode only"
        client = stripe.StripeClient(KEY, http_client=http, max_network_retries=2)
        env = os.environ
        yield Platform(client, env.get("STRIPE_TEST_DESTINATION"), env.get("STRIPE_TEST_RESTRICTED"), mark)
        await http.close_async()
        return
    sandbox = Sandbox(SandboxConfig())
    await sandbox.start()
    client = stripe.StripeClient("sk_test_contract", base_addresses={"api": sandbox.url}, http_client=http)
    yield Platform(client, "acct_demo", "acct_demo_restricted", mark)
    await http.close_async()
    await sandbox.stop()
