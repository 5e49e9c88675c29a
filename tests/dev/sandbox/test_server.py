"""The sandbox over HTTP, through the real SDK: faults on the wire, webhooks that arrive, a process killed."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import stripe
from aiohttp import web

from gateway.dev.sandbox import PlatformConfig, Sandbox, SandboxConfig

HOLD: Any = {
    "amount": 9_000, "currency": "usd", "confirm": True, "capture_method": "manual", "payment_method": "pm_card_visa",
    "allowed_payment_method_types": ["card"],
}  # fmt: skip


class Desk:
    """A sandbox, the SDK's client for it, and plain HTTP beside it."""

    def __init__(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        self.sandbox = sandbox
        self.http = http
        self.sdk_http = stripe.AIOHTTPClient(timeout=2)
        self.stripe = self.client(0)

    def client(self, retries: int, key: str = "sk_test_x") -> stripe.StripeClient:
        return stripe.StripeClient(
            key,
            base_addresses={"api": self.sandbox.url},
            http_client=self.sdk_http,
            max_network_retries=retries,
        )

    async def private(self, path: str, **body: Any) -> Any:
        async with self.http.post(f"{self.sandbox.url}/sandbox/{path}", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def state(self) -> Any:
        async with self.http.get(f"{self.sandbox.url}/sandbox/state") as answer:
            return await answer.json()


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    sandbox = Sandbox(SandboxConfig())
    await sandbox.start()
    async with aiohttp.ClientSession() as http:
        made = Desk(sandbox, http)
        yield made
        await made.sdk_http.close_async()
    await sandbox.stop()


async def test_the_sdk_walks_from_hold_to_transfer(desk: Desk) -> None:
    held = await desk.stripe.v1.payment_intents.create_async(HOLD)
    taken = await desk.stripe.v1.payment_intents.capture_async(held.id, {"amount_to_capture": 5_000})
    assert (held.status, taken.status, taken.amount_received) == ("requires_capture", "succeeded", 5_000)
    transfer = await desk.stripe.v1.transfers.create_async(
        {"amount": 4_500, "currency": "usd", "destination": "acct_demo", "source_transaction": str(taken.latest_charge)}
    )
    assert transfer.amount == 4_500
    assert (await desk.state())["totals"]["usd"]["captured"] == 5_000


async def test_lists_page_by_themselves_in_the_sdk(desk: Desk) -> None:
    made = [(await desk.stripe.v1.customers.create_async()).id for _ in range(5)]
    listed = await desk.stripe.v1.customers.list_async({"limit": 2})
    assert [customer.id async for customer in listed.auto_paging_iter()] == [*reversed(made), "cus_demo"]


@pytest.mark.parametrize(
    ("kind", "error", "made"),
    [
        ("timeout", stripe.APIConnectionError, 0),
        ("timeout_after_commit", stripe.APIConnectionError, 1),
        ("connection_reset", stripe.APIConnectionError, 0),
        ("connection_reset_after_commit", stripe.APIConnectionError, 1),
        ("409", stripe.APIError, 0),
        ("429", stripe.RateLimitError, 0),
        ("500", stripe.APIError, 0),
        ("500_after_commit", stripe.APIError, 1),
    ],
)
async def test_faults_on_the_wire(desk: Desk, kind: str, error: type[Exception], made: int) -> None:
    await desk.private("faults", match="POST /v1/payment_intents", kind=kind, ms=50)
    with pytest.raises(error):
        await desk.stripe.v1.payment_intents.create_async(HOLD, {"idempotency_key": "k"})
    assert len((await desk.state())["payment_intents"]) == made


@pytest.mark.parametrize("kind", ["timeout_after_commit", "connection_reset_after_commit", "connection_reset"])
async def test_a_retry_under_the_same_key_finds_the_lost_answer(desk: Desk, kind: str) -> None:
    await desk.private("faults", match="POST /v1/payment_intents", kind=kind, ms=50)
    held = await desk.client(1).v1.payment_intents.create_async(HOLD, {"idempotency_key": "k"})
    assert held.status == "requires_capture"
    assert [each["id"] for each in (await desk.state())["payment_intents"]] == [held.id]


async def test_a_key_is_under_way_while_its_request_is_slow(desk: Desk) -> None:
    await desk.private("faults", match="POST /v1/payment_intents", kind="slow", ms=300)
    first = asyncio.create_task(desk.stripe.v1.payment_intents.create_async(HOLD, {"idempotency_key": "k"}))
    await until(lambda: bool(desk.sandbox.api.keys.under_way))
    with pytest.raises(stripe.APIError) as caught:
        await desk.stripe.v1.payment_intents.create_async(HOLD, {"idempotency_key": "k"})
    assert caught.value.http_status == 409
    assert (await first).status == "requires_capture"


async def test_errors_reach_the_sdk_with_their_details(desk: Desk) -> None:
    with pytest.raises(stripe.CardError) as caught:
        await desk.stripe.v1.payment_intents.create_async(
            {**HOLD, "payment_method": "pm_card_chargeDeclinedInsufficientFunds"}
        )
    assert caught.value.code == "card_declined"
    assert caught.value.request_id is not None
    assert caught.value.request_id.startswith("req_")
    assert caught.value.error is not None
    assert caught.value.error.decline_code == "insufficient_funds"
    strangers = stripe.StripeClient("sk_live_x", base_addresses={"api": desk.sandbox.url}, http_client=desk.sdk_http)
    with pytest.raises(stripe.AuthenticationError):
        await strangers.v1.balance.retrieve_async()


async def test_basic_authentication_works_as_with_curl(desk: Desk) -> None:
    headers = {"Authorization": aiohttp.encode_basic_auth("sk_test_x", "")}
    async with desk.http.get(f"{desk.sandbox.url}/v1/balance", headers=headers) as answer:
        assert answer.status == 200


async def test_the_3ds_page_approves_or_fails_and_sends_back(desk: Desk) -> None:
    for verdict, status in (("approve", "requires_capture"), ("fail", "requires_payment_method")):
        params = {**HOLD, "payment_method": "pm_card_threeDSecure2Required", "return_url": "https://example.com/back"}
        asked = await desk.stripe.v1.payment_intents.create_async(params)
        url = asked.next_action.redirect_to_url.url  # type: ignore[union-attr]
        async with desk.http.get(url) as page:
            assert "3ds-approve" in await page.text()
        async with desk.http.post(url, data={"verdict": verdict}, allow_redirects=False) as answer:
            assert answer.status == 303
            assert answer.headers["Location"].startswith(f"https://example.com/back?payment_intent={asked.id}")
        assert (await desk.stripe.v1.payment_intents.retrieve_async(asked.id)).status == status


async def test_the_3ds_page_needs_its_secret(desk: Desk) -> None:
    asked = await desk.stripe.v1.payment_intents.create_async(
        {**HOLD, "payment_method": "pm_card_threeDSecure2Required"}
    )
    async with desk.http.post(f"{desk.sandbox.url}/3ds/{asked.id}?secret=x", data={"verdict": "approve"}) as answer:
        assert answer.status == 404


class Receiver:
    """A webhook endpoint that refuses the first `refuse` deliveries."""

    def __init__(self, refuse: int = 0) -> None:
        self.refuse = refuse
        self.seen: list[Any] = []
        self.bodies: list[tuple[bytes, str]] = []

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.refuse > 0:
            self.refuse -= 1
            return web.Response(status=500)
        self.bodies.append((body, request.headers["Stripe-Signature"]))
        self.seen.append(json.loads(body))
        return web.Response()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Receiver], Any]]:
    runners: list[web.AppRunner] = []

    async def start(receiver: Receiver) -> str:
        app = web.Application()
        app.router.add_post("/hook", receiver.take)
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/hook"

    yield start
    for runner in runners:
        await runner.cleanup()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_events_arrive_signed_and_again_when_refused(desk: Desk, serve: Callable[[Receiver], Any]) -> None:
    receiver = Receiver(refuse=1)
    desk.sandbox.set_webhook(await serve(receiver), "whsec_t")
    held = await desk.stripe.v1.payment_intents.create_async(HOLD)
    await until(lambda: len(receiver.seen) == 3)
    types = {event["type"] for event in receiver.seen}
    assert types == {"payment_intent.created", "charge.succeeded", "payment_intent.amount_capturable_updated"}
    for body, signature in receiver.bodies:
        event = stripe.Webhook.construct_event(body, signature, "whsec_t")
        assert event.data.object.id in (held.id, held.latest_charge)
    await until(lambda: desk.sandbox.store.undelivered() == 0)


async def test_a_webhook_can_be_taken_away(desk: Desk, serve: Callable[[Receiver], Any]) -> None:
    receiver = Receiver()
    desk.sandbox.set_webhook(await serve(receiver), "whsec_t")
    desk.sandbox.set_webhook(None, "whsec_t")
    await desk.stripe.v1.customers.create_async()
    assert desk.sandbox.store.undelivered() == 0
    assert receiver.seen == []


RUN = """
    import asyncio, sys
    from pathlib import Path
    from gateway.dev.sandbox import Sandbox, SandboxConfig
    async def main():
        sandbox = Sandbox(SandboxConfig(data_dir=Path(sys.argv[1]), webhook_url="http://127.0.0.1:9/none"))
        await sandbox.start()
        print(sandbox.url, flush=True)
        await asyncio.Event().wait()
    asyncio.run(main())
"""


def spawn(data: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(RUN), str(data)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("http://"):
            return process, line.strip()
    raise AssertionError("the sandbox did not start")


async def test_what_was_answered_survives_kill_9(tmp_path: Path) -> None:
    process, url = spawn(tmp_path)
    http = stripe.AIOHTTPClient()
    try:
        client = stripe.StripeClient("sk_test_x", base_addresses={"api": url}, http_client=http)
        held = await client.v1.payment_intents.create_async(HOLD, {"idempotency_key": "k"})
        taken = await client.v1.payment_intents.capture_async(held.id, {"amount_to_capture": 5_000})
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    sandbox = Sandbox(SandboxConfig(data_dir=tmp_path))
    await sandbox.start()
    client = stripe.StripeClient("sk_test_x", base_addresses={"api": sandbox.url}, http_client=http)
    kept = await client.v1.payment_intents.retrieve_async(held.id)
    again = await client.v1.payment_intents.create_async(HOLD, {"idempotency_key": "k"})
    assert (kept.status, kept.amount_received, again.id) == ("succeeded", 5_000, held.id)
    assert taken.latest_charge == kept.latest_charge
    assert sandbox.store.count("payment_intent") == 1
    assert sandbox.store.count("event") == 5
    await http.close_async()
    await sandbox.stop()


async def test_latency_is_added_to_every_call() -> None:
    sandbox = Sandbox(SandboxConfig(latency_ms=60))
    await sandbox.start()
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer sk_test_x"}) as http:
        before = loop.time()
        async with http.get(f"{sandbox.url}/v1/balance") as answer:
            assert answer.status == 200
        assert loop.time() - before >= 0.06
    await sandbox.stop()


async def test_a_taken_port_is_an_error_at_start(desk: Desk) -> None:
    port = int(desk.sandbox.url.rsplit(":", 1)[1])
    with pytest.raises(OSError):
        await Sandbox(SandboxConfig(port=port)).start()


AUSTRALIA = PlatformConfig("au", "sk_test_australia", "AU", ("aud",), "whsec_au")


async def test_another_key_opens_another_platform_account_with_a_balance_of_its_own(desk: Desk) -> None:
    desk.sandbox.add_platform(AUSTRALIA)
    there = desk.client(0, AUSTRALIA.api_key)
    params = {**HOLD, "capture_method": "automatic", "expand": ["latest_charge.balance_transaction"]}
    taken: Any = await there.v1.payment_intents.create_async(params)
    balance = taken.latest_charge.balance_transaction
    assert balance.currency == "aud"
    transfer = {"amount": 500, "currency": "aud", "source_transaction": taken.latest_charge.id}
    assert (await there.v1.transfers.create_async({**transfer, "destination": "acct_demo_au"})).amount == 500
    assert (await desk.state())["totals"] == {}, "the main account has nothing of it"
    for client, ident in (
        (desk.stripe, taken.id),
        (there, (await desk.stripe.v1.payment_intents.create_async(HOLD)).id),
    ):
        with pytest.raises(stripe.InvalidRequestError, match="No such payment_intent"):
            await client.v1.payment_intents.retrieve_async(ident)
    with pytest.raises(stripe.PermissionError):
        await there.v1.accounts.retrieve_async("acct_demo")


async def test_no_platform_pays_accounts_out_of_its_region(desk: Desk) -> None:
    desk.sandbox.add_platform(AUSTRALIA)
    headers = {"Authorization": f"Bearer {AUSTRALIA.api_key}"}
    url = f"{desk.sandbox.url}/sandbox/accounts/acct_us_of_au"
    async with desk.http.post(url, json={"country": "US"}, headers=headers) as answer:
        assert answer.status == 200
    there = desk.client(0, AUSTRALIA.api_key)
    with pytest.raises(stripe.InvalidRequestError, match="restricted outside of your platform"):
        await there.v1.transfers.create_async({"amount": 1, "currency": "aud", "destination": "acct_us_of_au"})


async def test_a_platforms_events_are_signed_with_its_own_secret(desk: Desk, serve: Any) -> None:
    receiver = Receiver()
    desk.sandbox.config = replace(desk.sandbox.config, webhook_url=await serve(receiver))
    desk.sandbox.add_platform(AUSTRALIA)
    there = desk.client(0, AUSTRALIA.api_key)
    await there.v1.payment_intents.create_async(HOLD)
    await until(lambda: bool(receiver.bodies))
    body, signature = receiver.bodies[0]
    assert stripe.Webhook.construct_event(body, signature, "whsec_au").type == "payment_intent.created"
