"""The pay page's origin: what it serves, and what may run on it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from gateway.api.auth import KeyRing
from gateway.api.context import ApiContext, PayPage
from gateway.api.pay import pay_app, policy
from gateway.web import FILES, PAY_FILES

SHOWN: dict[str, Any] = {
    "state": "due", "asks": "bill", "amount": 7500, "currency": "usd", "attempt": 1, "card": None, "decline_code": None,
    "action_url": None, "expert": "Expert", "media": "video", "started_at": None, "locale": "en", "livemode": False,
    "receipt": "/r/secret", "platform": "main", "unit_amount": 300, "free_seconds": 0, "limit_seconds": 1800,
    "billable_seconds": 1500, "hold_until": None, "meetings": [], "timezone": None, "cards": [],
}  # fmt: skip


class Desk:
    async def open(self, secret: str) -> dict[str, Any]:
        return SHOWN

    async def pay(self, secret: str, payment_method: str, attempt: int) -> dict[str, Any]:
        return SHOWN


def context(**changes: Any) -> ApiContext:
    page = PayPage(Desk(), "https://calls.example", "https://js.stripe.com/clover/stripe.js", {"main": "pk_test_1"})
    unused: Any = None
    return ApiContext(unused, KeyRing([]), unused, "https://calls.example", pay=replace(page, **changes))


def test_only_stripes_script_runs_beside_ours() -> None:
    told = dict(part.strip().split(" ", 1) for part in policy("https://js.stripe.com/clover/stripe.js").split(";"))
    assert told["script-src"] == "'self' https://*.js.stripe.com https://js.stripe.com"
    assert told["connect-src"] == "'self' https://api.stripe.com"
    assert (told["default-src"], told["form-action"], told["frame-ancestors"]) == ("'none'", "'none'", "'none'")
    assert "unsafe" not in str(told)


def test_a_sandbox_takes_stripes_place_in_the_policy() -> None:
    told = policy("http://127.0.0.1:8082/v3/stripe.js")
    assert "script-src 'self' http://127.0.0.1:8082;" in told
    assert "stripe.com" not in told


@pytest.mark.parametrize("path", PAY_FILES)
async def test_the_page_is_on_its_own_origin_and_the_call_is_not(path: str) -> None:
    async with TestClient(TestServer(pay_app(context()))) as client:
        answer = await client.get(path)
        assert answer.status == 200
        assert "js.stripe.com" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert (await client.get("/call")).status == 404
        assert (await client.post("/v1/enter", json={"secret": "x"})).status == 404
    assert path not in FILES


async def test_the_page_gets_its_form_and_a_whole_link_to_the_receipt() -> None:
    async with TestClient(TestServer(pay_app(context()))) as client:
        shown = await (await client.post("/pay/open", json={"token": "t"})).json()
        assert shown["receipt"] == "https://calls.example/r/secret"
        assert shown["form"] == {"script": "https://js.stripe.com/clover/stripe.js", "key": "pk_test_1"}
    async with TestClient(TestServer(pay_app(context(keys={"main": ""})))) as client:
        assert (await (await client.post("/pay/open", json={"token": "t"})).json())["form"] is None
