"""The demo marketplace behaves as an integrator's backend should: idempotent, verifying, durable."""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from standardwebhooks.webhooks import Webhook

from gateway.dev.marketplace import Marketplace, MarketplaceConfig

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Outside:
    """The gateway's REST, Stripe's customers and the mailbox's list, as far as a marketplace calls them."""

    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    refuse: tuple[int, str] | None = None
    mails: list[dict[str, Any]] = field(default_factory=list)
    stripe: dict[str, Any] = field(default_factory=dict)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/customers", self.customer)
        app.router.add_post("/v1/sessions", self.create)
        app.router.add_get("/v1/sessions/{id}", self.read)
        app.router.add_get("/mail.json", self.mail)
        app.router.add_get("/sandbox/state", self.state)
        return app

    async def customer(self, request: web.Request) -> web.Response:
        self.requests.append((request.path, dict(request.headers), dict(await request.post())))
        return web.json_response({"id": "cus_1", "object": "customer"})

    async def create(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append((request.path, dict(request.headers), body))
        if self.refuse:
            return web.Response(status=self.refuse[0], text=self.refuse[1])
        links = {role: {"token": "t", "url": f"https://example.com/call#{role}"} for role in ("client", "expert")}
        return web.json_response({"id": "ses_1", "created": 1, "participants": links}, status=201)

    async def read(self, request: web.Request) -> web.Response:
        return web.json_response({"id": "ses_1", "status": "created", "participants": {"client": {"url": "secret"}}})

    async def mail(self, request: web.Request) -> web.Response:
        return web.json_response({"data": self.mails})

    async def state(self, request: web.Request) -> web.Response:
        return web.json_response(self.stripe)

    def sent(self, path: str) -> list[tuple[dict[str, str], Any]]:
        return [(headers, body) for where, headers, body in self.requests if where == path]


@pytest.fixture
async def outside() -> AsyncIterator[tuple[Outside, str]]:
    outside = Outside()
    async with TestServer(outside.app()) as server:
        yield outside, str(server.make_url("")).rstrip("/")


@pytest.fixture
def config(outside: tuple[Outside, str], tmp_path: Path) -> MarketplaceConfig:
    url = outside[1]
    return MarketplaceConfig(url, "pg_test_key", SECRET, url, "sk_test_key", url + "/mail", tmp_path)


@pytest.fixture
async def browser(config: MarketplaceConfig) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    async with serving(config) as client:
        yield client


class serving:
    def __init__(self, config: MarketplaceConfig) -> None:
        self.marketplace = Marketplace(config)

    async def __aenter__(self) -> TestClient[web.Request, web.Application]:
        await self.marketplace.start()
        app = web.Application()
        app.add_routes(self.marketplace.routes())
        self.client = TestClient(TestServer(app))
        await self.client.start_server()
        return self.client

    async def __aexit__(self, *_: object) -> None:
        await self.marketplace.stop()
        await self.client.close()


def event(sequence: int = 1, kind: str = "session.created") -> dict[str, Any]:
    told = {"id": f"evt_{sequence}", "type": kind, "api_version": "1", "created": 1}
    return told | {"session": "ses_1", "sequence": sequence, "data": {}}


async def deliver(browser: TestClient[web.Request, web.Application], body: dict[str, Any], secret: str = SECRET) -> int:
    text, at = json.dumps(body), datetime.fromtimestamp(int(time.time()), UTC)
    headers = {
        "webhook-id": body["id"],
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(body["id"], at, text),
    }
    return (await browser.post("/demo/webhooks", data=text, headers=headers)).status


async def test_one_click_gives_both_links(browser, outside) -> None:
    answer = await browser.post("/demo/sessions", json={"unit_amount": 450, "currency": "eur", "card": "declined"})
    assert answer.status == 201
    assert (await answer.json())["links"] == {
        "client": "https://example.com/call#client",
        "expert": "https://example.com/call#expert",
    }
    ((headers, order),) = outside[0].sent("/v1/sessions")
    assert headers["Authorization"] == "Bearer pg_test_key"
    assert headers["Idempotency-Key"]
    assert order["rate"] == {"unit_amount": 450, "currency": "eur"}
    assert order["client"]["payment_method"] == "pm_card_chargeDeclined"
    assert order["client"]["stripe_customer"] == "cus_1"


async def test_two_clicks_are_two_orders_with_keys_of_their_own(browser, outside) -> None:
    for _ in range(2):
        await browser.post("/demo/sessions", json={})
    for path in ("/v1/customers", "/v1/sessions"):
        keys = [headers["Idempotency-Key"] for headers, _ in outside[0].sent(path)]
        assert len(set(keys)) == 2
    clients = [order["client"]["id"] for _, order in outside[0].sent("/v1/sessions")]
    assert len(set(clients)) == 2


async def test_a_refusal_is_shown_in_the_gateways_own_words(browser, outside) -> None:
    outside[0].refuse = (409, json.dumps({"code": "expert_busy", "detail": "The expert is in a call."}))
    answer = await browser.post("/demo/sessions", json={})
    assert answer.status == 409
    assert (await answer.json())["detail"] == "The expert is in a call."


async def test_an_answer_that_is_no_json_is_a_refusal_too(browser, outside) -> None:
    outside[0].refuse = (502, "Bad gateway")
    answer = await browser.post("/demo/sessions", json={})
    assert (answer.status, await answer.json()) == (502, {"detail": "Bad gateway"})


@pytest.mark.parametrize("wish", [{"unit_amount": 0}, {"currency": "xxx"}, {"card": "4242"}, {"more": 1}])
async def test_a_form_that_was_tampered_with_orders_nothing(browser, outside, wish) -> None:
    assert (await browser.post("/demo/sessions", json=wish)).status == 400
    assert outside[0].requests == []


async def test_another_sites_form_orders_nothing(browser, outside) -> None:
    answer = await browser.post("/demo/sessions", data="{}", headers={"Content-Type": "text/plain"})
    assert answer.status == 415
    assert outside[0].requests == []


async def test_events_are_taken_once_and_kept_in_order(browser) -> None:
    await browser.post("/demo/sessions", json={})
    for sequence in (2, 1, 2):
        assert await deliver(browser, event(sequence)) == 204
    state = await (await browser.get("/demo/state", params={"session": "ses_1"})).json()
    assert [told["sequence"] for told in state["events"]] == [1, 2]


async def test_an_event_with_a_foreign_signature_is_refused(browser) -> None:
    await browser.post("/demo/sessions", json={})
    assert await deliver(browser, event(), secret="whsec_" + "A" * 32) == 401
    assert (await browser.post("/demo/webhooks", data=json.dumps(event()))).status == 401
    state = await (await browser.get("/demo/state", params={"session": "ses_1"})).json()
    assert state["events"] == []


async def test_what_was_acknowledged_survives_a_kill_in_the_middle_of_the_next_line(config) -> None:
    async with serving(config) as browser:
        await browser.post("/demo/sessions", json={})
        await deliver(browser, event(1))
    with (config.data_dir / "marketplace.jsonl").open("ab") as file:
        file.write(b'{"event": {"id": "ev')
    for sequence in (2, 3):
        async with serving(config) as browser:
            await deliver(browser, event(sequence))
    async with serving(config) as browser:
        state = await (await browser.get("/demo/state", params={"session": "ses_1"})).json()
    assert [told["sequence"] for told in state["events"]] == [1, 2, 3]
    assert state["links"]["client"] == "https://example.com/call#client"


async def test_the_page_gets_the_sessions_own_mails_and_movements_only(browser, outside) -> None:
    await browser.post("/demo/sessions", json={})
    ((_, order),) = outside[0].sent("/v1/sessions")
    outside[0].mails = [
        {"id": "2", "to": order["client"]["email"], "subject": "Receipt", "received_ms": 2},
        {"id": "1", "to": "client+demo-other@example.com", "subject": "Receipt", "received_ms": 1},
    ]
    outside[0].stripe = {
        "payment_intents": [{"id": "pi_1", "metadata": {"session": "ses_1"}}, {"id": "pi_2", "metadata": {}}],
        "transfers": {
            "tr_1": {"id": "tr_1", "transfer_group": "ses_1"},
            "tr_2": {"id": "tr_2", "transfer_group": None},
        },
    }
    state = await (await browser.get("/demo/state", params={"session": "ses_1"})).json()
    assert [(mail["id"], mail["role"]) for mail in state["mails"]] == [("2", "client")]
    assert [intent["id"] for intent in state["stripe"]["payment_intents"]] == ["pi_1"]
    assert [transfer["id"] for transfer in state["stripe"]["transfers"]] == ["tr_1"]
    assert "participants" not in state["session"]


async def test_the_page_goes_on_while_the_mailbox_is_away(config, outside) -> None:
    async with serving(replace(config, mail_url="http://127.0.0.1:1/mail")) as browser:
        await browser.post("/demo/sessions", json={})
        state = await (await browser.get("/demo/state", params={"session": "ses_1"})).json()
    assert state["mails"] is None
    assert state["session"]["status"] == "created"


async def test_an_event_reaches_the_open_page_at_once(browser) -> None:
    await browser.post("/demo/sessions", json={})
    async with browser.get("/demo/stream", params={"session": "ses_1"}) as stream:
        assert json.loads((await state_of(stream))["data"])["events"] == []
        await deliver(browser, event(1, "session.ready"))
        told = json.loads((await state_of(stream))["data"])["events"]
    assert [line["type"] for line in told] == ["session.ready"]


async def state_of(stream) -> dict[str, str]:
    while True:
        block = (await stream.content.readuntil(b"\n\n")).decode()
        fields = dict(line.split(": ", 1) for line in block.strip().splitlines())
        if fields.get("event") == "state":
            return fields


@pytest.mark.parametrize("path", ["/demo/state", "/demo/stream", "/demo/state?session=ses_2"])
async def test_a_session_that_is_not_ours_is_not_found(browser, path) -> None:
    assert (await browser.get(path)).status == 404


async def test_the_page_runs_nothing_but_its_own_files(browser) -> None:
    answer = await browser.get("/")
    page = await answer.text()
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert "<style" not in page
    assert "style=" not in page
    for name in ("dev.css", "demo.js", "mark.svg"):
        assert f"/demo/assets/{name}" in page
        assert (await browser.get(f"/demo/assets/{name}")).status == 200


@pytest.mark.parametrize("name", ["demo.html", "__init__.py", "..%2fmarketplace.py", "nothing.css"])
async def test_assets_are_pictures_styles_and_scripts_only(browser, name) -> None:
    assert (await browser.get(f"/demo/assets/{name}")).status == 404
