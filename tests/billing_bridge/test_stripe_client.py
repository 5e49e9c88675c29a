"""Stripe's SDK against the sandbox: whatever happens on the wire becomes one of five outcomes."""

from __future__ import annotations

import re
from operator import attrgetter
from typing import Any

import pytest
import stripe
from prometheus_client import REGISTRY

from gateway.billing_bridge.calls import KEY_LIFE_MS, call_of, capture_step, hold_step, release_step, transfer_step
from gateway.billing_bridge.order import order_of
from gateway.billing_bridge.outcome import Busy, Declined, Done, Outcome, Refused, Unknown
from gateway.billing_bridge.pricing import Terms
from gateway.billing_bridge.record import Payment, Transfer
from gateway.billing_bridge.stripe_client import OPERATIONS, StripeClient
from gateway.dev.sandbox import Sandbox
from tests.billing_bridge.fixtures import KEY, AskStripe
from tests.billing_bridge.settling import session_doc
from tests.conftest import free_port

CREATE = "payment_intents.create"


def hold_params(card: str = "pm_card_visa") -> dict[str, Any]:
    funding = {"attempt": 1, "payment_method": card, "amount": 7500}
    order = order_of(session_doc(client={"id": "c1", "stripe_customer": None}, funding=funding))
    return dict(hold_step(order, Terms(return_url="https://pay.test/{session}"), "Expert").params)


def done(outcome: Outcome) -> dict[str, Any]:
    assert isinstance(outcome, Done), outcome
    return outcome.object


async def test_a_hold_comes_back_as_plain_values(stripe_client: StripeClient) -> None:
    intent = done(await stripe_client.send(CREATE, hold_params(), "k"))
    assert type(intent) is dict
    assert type(intent["latest_charge"]["payment_method_details"]["card"]) is dict
    assert (intent["status"], intent["amount_capturable"]) == ("requires_capture", 7500)
    assert intent["metadata"] == {"session": "ses_1", "step": "hold", "attempt": "1"}


async def test_a_key_sent_twice_makes_one_hold(stripe_client: StripeClient, ask: AskStripe) -> None:
    first, second = [done(await stripe_client.send(CREATE, hold_params(), "k")) for _ in range(2)]
    assert first["id"] == second["id"]
    assert len((await ask.state())["payment_intents"]) == 1


async def test_a_key_with_other_parameters_is_refused(stripe_client: StripeClient) -> None:
    await stripe_client.send(CREATE, hold_params(), "k")
    outcome = await stripe_client.send(CREATE, hold_params() | {"amount": 7501}, "k")
    assert isinstance(outcome, Refused)
    assert outcome.code == "idempotency_error"


async def test_r4_a_declined_card_says_why_and_names_the_intent_left_behind(stripe_client: StripeClient) -> None:
    outcome = await stripe_client.send(CREATE, hold_params("pm_card_chargeDeclinedInsufficientFunds"), "k")
    assert isinstance(outcome, Declined)
    assert (outcome.code, outcome.decline_code) == ("card_declined", "insufficient_funds")
    assert outcome.intent is not None
    assert outcome.intent.startswith("pi_")


async def test_a_parameter_that_stripe_does_not_know_is_refused(stripe_client: StripeClient) -> None:
    outcome = await stripe_client.send(CREATE, hold_params() | {"invented": "1"}, "k")
    assert isinstance(outcome, Refused)


async def test_a_missing_object_is_refused(stripe_client: StripeClient) -> None:
    outcome = await stripe_client.send("payment_intents.retrieve", {"payment_intent": "pi_none"})
    assert isinstance(outcome, Refused)
    assert outcome.code == "resource_missing"


async def test_a_wrong_key_is_refused(sandbox: Sandbox) -> None:
    async with StripeClient("rk_wrong", sandbox.url) as client:
        outcome = await client.send(CREATE, hold_params(), "k")
    assert isinstance(outcome, Refused)
    assert outcome.code == "authentication"


@pytest.mark.parametrize(
    ("kind", "more", "expected"),
    [
        ("429", {}, Busy("rate_limit")),
        ("429", {"code": "lock_timeout"}, Busy("lock_timeout")),
        ("409", {}, Busy("in_flight", in_flight=True)),
        ("500", {}, Unknown("http_500")),
        ("500_after_commit", {}, Unknown("http_500")),
    ],
)
async def test_an_answer_that_is_no_answer(
    stripe_client: StripeClient, ask: AskStripe, kind: str, more: dict[str, Any], expected: Outcome
) -> None:
    await ask.fault("POST /v1/payment_intents", kind, **more)
    outcome = await stripe_client.send(CREATE, hold_params(), "k")
    assert type(outcome) is type(expected)
    if isinstance(outcome, Busy) and isinstance(expected, Busy):
        assert outcome.in_flight == expected.in_flight
    assert not isinstance(outcome, Unknown) or outcome == expected


async def test_a_500_that_stripe_keeps_has_spent_its_key(stripe_client: StripeClient, ask: AskStripe) -> None:
    await ask.fault("POST /v1/payment_intents", "500")
    assert await stripe_client.send(CREATE, hold_params(), "k") == Unknown("http_500", spent=False)
    assert await stripe_client.send(CREATE, hold_params(), "k") == Unknown("http_500", spent=True)


@pytest.mark.parametrize("kind", ["timeout", "timeout_after_commit"])
async def test_silence_is_unknown_within_its_time(sandbox: Sandbox, ask: AskStripe, kind: str) -> None:
    await ask.fault("POST /v1/payment_intents", kind, ms=1_000)
    async with StripeClient(KEY, sandbox.url, timeout_s=0.2) as client:
        assert await client.send(CREATE, hold_params(), "k") == Unknown("TimeoutError")


@pytest.mark.parametrize("kind", ["connection_reset", "connection_reset_after_commit"])
async def test_a_broken_connection_is_unknown(stripe_client: StripeClient, ask: AskStripe, kind: str) -> None:
    await ask.fault("POST /v1/payment_intents", kind)
    outcome = await stripe_client.send(CREATE, hold_params(), "k")
    assert isinstance(outcome, Unknown)
    intent = done(await stripe_client.send(CREATE, hold_params(), "k"))
    assert [i["id"] for i in (await ask.state())["payment_intents"]] == [intent["id"]]


async def test_a_stripe_that_cannot_be_reached_has_surely_done_nothing() -> None:
    async with StripeClient(KEY, f"http://127.0.0.1:{free_port()}") as client:
        assert await client.send(CREATE, hold_params(), "k") == Busy("unreachable")


async def test_every_step_and_question_is_one_that_stripe_takes(stripe_client: StripeClient) -> None:
    order = order_of(
        session_doc(
            client={"id": "c1", "stripe_customer": None}, expert={"id": "e", "stripe_account": "acct_demo"},
            funding={"attempt": 1, "payment_method": "pm_card_visa", "amount": 7500},
        )
    )  # fmt: skip

    async def sent(step: Any, now: int = 1) -> dict[str, Any]:
        call = call_of(step, now)
        return done(await stripe_client.send(call.operation, call.params, call.key))

    hold = hold_step(order, Terms(), "Expert").to("sent")
    intent = await sent(hold)
    payment = Payment(
        "held", "usd", amount_held=7500, payment_intent=intent["id"], charge=intent["latest_charge"]["id"]
    )
    capture = capture_step(order, payment, 4500).to("sent")
    captured = await sent(capture)
    assert captured["latest_charge"]["balance_transaction"]["amount"] == 4500
    assert (await sent(capture.to("unknown")))["status"] == "succeeded"
    transfer = transfer_step(order, payment, Transfer("expert", "acct_demo", 4050, "usd", 4050)).to("sent")
    assert (await sent(transfer))["amount"] == 4050
    assert [t["amount"] for t in (await sent(transfer.to("unknown")))["data"]] == [4050]
    old = hold.to("unknown", at=intent["created"] * 1000)
    listed = await sent(old, now=intent["created"] * 1000 + KEY_LIFE_MS)
    assert [i["id"] for i in listed["data"]] == [intent["id"]]
    other = await stripe_client.send(CREATE, hold_params() | {"metadata": {"session": "ses_2"}}, "other")
    release = release_step(order, payment, done(other)["id"], "waived").to("sent")
    assert (await sent(release))["status"] == "canceled"
    assert (await sent(release.to("unknown")))["status"] == "canceled"


async def test_requests_are_counted_by_endpoint_and_outcome(stripe_client: StripeClient, ask: AskStripe) -> None:
    def count(outcome: str) -> float:
        labels = {"endpoint": CREATE, "outcome": outcome}
        return REGISTRY.get_sample_value("gateway_stripe_requests_total", labels) or 0.0

    before = count("done"), count("busy")
    await stripe_client.send(CREATE, hold_params(), "k1")
    await ask.fault("POST /v1/payment_intents", "429")
    await stripe_client.send(CREATE, hold_params(), "k2")
    assert (count("done"), count("busy")) == (before[0] + 1, before[1] + 1)


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
async def test_an_operation_goes_where_the_sdks_own_method_of_that_name_sends_it(
    operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, str]] = []

    async def request_async(self: object, method: str, url: str, *args: object, **more: object) -> None:
        sent.append((method, url))

    sdk = stripe.StripeClient("sk_test_x")
    monkeypatch.setattr(type(sdk._requestor), "request_async", request_async)
    method, path = OPERATIONS[operation]
    await attrgetter(f"{operation}_async")(sdk.v1)(*["x/1"] * path.count("{"), params={}, options={})
    assert sent == [(method, re.sub(r"\{\w+\}", "x%2F1", path))]
