"""An honest marketplace's client of a running stack: its REST API, its Stripe sandbox, its mailbox."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass
class Market:
    """Where everything is; URLs without a trailing slash, `mail` is the inbox page."""

    url: str
    key: str
    stripe: str
    mail: str
    http: aiohttp.ClientSession

    async def call(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {key or self.key}", "Idempotency-Key": secrets.token_hex(8)}
        async with self.http.request(method, self.url + path, json=body, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def get(self, path: str) -> Any:
        status, body = await self.call("GET", path)
        assert status == 200, body
        return body

    async def post(self, path: str, body: Any = None) -> Any:
        status, answer = await self.call("POST", path, {} if body is None else body)
        assert status in (200, 201), answer
        return answer

    async def customer(self, key: str = "sk_test_marketplace") -> str:
        """As a marketplace makes one: at Stripe, with its own key."""
        headers = {"Authorization": f"Bearer {key}"}
        async with self.http.post(self.stripe + "/v1/customers", data={"name": "C"}, headers=headers) as answer:
            return str((await answer.json())["id"])

    async def terms(self, card: str | None = "pm_card_visa", **changes: Any) -> dict[str, Any]:
        """The body of an order at 15.00 USD a minute, so that a few seconds are worth charging."""
        client = {"id": "c1", "name": "Client", "email": "client@example.com", "locale": "en"}
        if card is not None:
            client |= {"stripe_customer": await self.customer(), "payment_method": card}
        return {
            "reference": f"order-{secrets.token_hex(4)}",
            "client": client,
            "expert": {
                "id": "e1", "name": "Expert", "email": "expert@example.com", "locale": "en",
                "stripe_account": "acct_demo", "country": "US", "rating": 4.6,
            },
            "rate": {"unit_amount": 1500, "currency": "usd"},
        } | changes  # fmt: skip

    async def order(self, card: str | None = "pm_card_visa", **changes: Any) -> dict[str, Any]:
        status, session = await self.call("POST", "/v1/sessions", await self.terms(card, **changes))
        assert status == 201, session
        return dict(session)

    async def until(self, session: str, seconds: float = 20, **wanted: Any) -> dict[str, Any]:
        """The session once its fields are as wanted."""
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = await self.get(f"/v1/sessions/{session}")
                    if all(found[name] == value for name, value in wanted.items()):
                        return found
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not {wanted} but { ({name: found.get(name) for name in wanted}) }") from None

    async def settled(self, session: str, seconds: float = 20) -> dict[str, Any]:
        """The session once no money step is open and both mails are out."""
        async with asyncio.timeout(seconds):
            while True:
                found = await self.get(f"/v1/sessions/{session}")
                if found["settled"] and all(
                    receipt["mail"]["status"] == "sent"
                    for receipt in (await self.receipts(session)) or [{"mail": {"status": ""}}]
                ):
                    return dict(found)
                await asyncio.sleep(0.1)

    async def receipts(self, session: str) -> list[dict[str, Any]]:
        return list((await self.get(f"/v1/sessions/{session}/receipts"))["data"])

    async def mails(self) -> list[dict[str, Any]]:
        async with self.http.get(self.mail + ".json") as answer:
            body = await answer.json()
            return list(body["data"] if isinstance(body, dict) else body)

    async def sandbox(self, key: str = "") -> dict[str, Any]:
        """What Stripe has; with the key of a further platform account, what that has."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with self.http.get(self.stripe + "/sandbox/state", headers=headers) as answer:
            return dict(await answer.json())

    async def events(self, session: str) -> list[dict[str, Any]]:
        return list((await self.get(f"/v1/sessions/{session}/events"))["data"])
