"""The bridge end to end: its loop, a real Valkey, Stripe's SDK and the sandbox; killed and restarted where it hurts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.billing_bridge.debts import Debts
from gateway.billing_bridge.index import Index
from gateway.billing_bridge.outcome import Outcome
from gateway.billing_bridge.record import Payment
from gateway.billing_bridge.stripe_client import StripeClient
from gateway.billing_bridge.stripe_events import StripeEvents
from gateway.billing_bridge.worker import Bridge
from gateway.clock import SystemClock
from gateway.errors import StoreUnavailable
from tests.billing_bridge.fixtures import KEY, AskStripe, Till, running
from tests.billing_bridge.settling import live, other_card, recharge
from tests.billing_bridge.test_stripe_events import SECRET, At, event, signed


async def until(condition: Callable[[], Any], timeout_s: float = 10) -> Any:
    async with asyncio.timeout(timeout_s):
        while not (value := await condition()):
            await asyncio.sleep(0.01)
        return value


def status_is(till: Till, status: str, ident: str = "ses_1") -> Callable[[], Any]:
    async def reached() -> Payment | None:
        payment = await till.payment(ident)
        return payment if payment.status == status else None

    return reached


def is_settled(till: Till, ident: str = "ses_1") -> Callable[[], Any]:
    async def reached() -> bool:
        return (await till.payment(ident)).settled

    return reached


async def test_a_paid_call_from_hold_to_settlement(till: Till, ask: AskStripe) -> None:
    session = await till.open()
    async with running(till.bridge):
        payment = await until(status_is(till, "held"))
        assert payment.amount_held == 7500
        assert payment.card == {"brand": "visa", "last4": "4242", "country": "US"}
        assert payment.hold_until > SystemClock().wall_ms()
        await till.finish(session, 4500)
        await until(is_settled(till))
    payment = await till.payment()
    assert (payment.status, payment.amount_captured, payment.amount_total) == ("captured", 4500, 4500)
    state = await ask.state()
    assert [i["amount_received"] for i in state["payment_intents"]] == [4500]
    assert sorted((t["destination"], t["amount"]) for t in state["transfers"]) == [
        ("acct_demo", 4050), ("acct_demo_ambassador", 90),
    ]  # fmt: skip
    assert await till.told() == [
        "payment.held", "payment.captured", "transfer.created", "transfer.created", "session.settled",
    ]  # fmt: skip
    assert await till.queued("mail") is not None
    assert await till.queued("money") is None, "a settled session is left alone"


async def test_events_say_nothing_that_only_the_client_may_know(till: Till) -> None:
    await till.open(card="pm_card_authenticationRequired")
    await till.bridge.settle_once("ses_1")
    payment = await till.payment()
    assert payment.client_secret is not None
    for told in await till.journal.events("ses_1"):
        assert payment.client_secret not in str(told["data"])
        assert "steps" not in told["data"]


async def test_r4_a_declined_card_then_a_good_one(till: Till, ask: AskStripe) -> None:
    session = await till.open(card="pm_card_chargeDeclined")
    payment = await till.settle()
    assert (payment.status, payment.decline_code) == ("failed", "generic_decline")
    other_card(session, "pm_card_mastercard")
    await till.put(session)
    payment = await till.settle()
    assert (payment.status, payment.attempt, payment.card and payment.card["brand"]) == ("held", 2, "mastercard")
    assert sorted(i["status"] for i in (await ask.state())["payment_intents"]) == ["canceled", "requires_capture"]


async def test_r4_authentication_is_carried_through_and_stripes_event_wakes_the_bridge(
    till: Till, ask: AskStripe
) -> None:
    await till.open(card="pm_card_authenticationRequired")
    again_at = await till.bridge.settle_once("ses_1")
    assert again_at is not None
    payment = await till.payment()
    assert payment.status == "action_required"
    assert payment.action_url is not None
    assert payment.action_url.startswith(ask.url)
    await ask.post(f"payment_intents/{payment.payment_intent}/authenticate", approved=True)
    kind = "payment_intent.amount_capturable_updated"
    payload = event(kind=kind, id=payment.payment_intent, status="requires_capture")
    await StripeEvents(till.journal, [SECRET], At()).receive(payload, signed(payload))
    await till.bridge.settle_once("ses_1")
    assert (await till.payment()).status == "held"


async def test_failed_authentication_is_told(till: Till, ask: AskStripe) -> None:
    await till.open(card="pm_card_authenticationRequired")
    await till.bridge.settle_once("ses_1")
    payment = await till.payment()
    await ask.post(f"payment_intents/{payment.payment_intent}/authenticate", approved=False)
    async with running(till.bridge):
        payment = await until(status_is(till, "failed"))
    assert payment.decline_code == "payment_intent_authentication_failure"


async def test_an_unanswered_session_releases_its_hold(till: Till, ask: AskStripe) -> None:
    session = await till.open()
    await till.settle()
    await till.finish(session, 0, started=False)
    payment = await till.settle()
    assert (payment.status, payment.settled) == ("released", True)
    assert [i["status"] for i in (await ask.state())["payment_intents"]] == ["canceled"]
    assert await till.queued("mail") is not None


async def test_r15_a_waiver_in_the_call_releases_at_once(till: Till) -> None:
    session = await till.open()
    await till.settle()
    live(session)
    session["waived"] = True
    await till.put(session)
    assert (await till.settle()).status == "released"
    await till.finish(session, 0, waived=4500)
    payment = await till.settle()
    assert (payment.amount_waived, payment.amount_total, payment.settled) == (4500, 0, True)


async def test_a_hold_that_expired_leaves_the_bill_due(till: Till, ask: AskStripe) -> None:
    session = await till.open()
    payment = await till.settle()
    await ask.post(f"payment_intents/{payment.payment_intent}/expire")
    await till.finish(session, 4500)
    payment = await till.settle()
    assert (payment.status, payment.amount_total, payment.settled) == ("due", 4500, False)
    assert await till.queued("mail") is not None


async def test_r17_a_restricted_expert_is_withheld(till: Till) -> None:
    session = await till.open(expert={"id": "e1", "stripe_account": "acct_demo_restricted"})
    await till.settle()
    await till.finish(session, 4500)
    payment = await till.settle()
    assert [(t.to, t.status) for t in payment.transfers] == [("expert", "withheld"), ("ambassador", "paid")]
    assert payment.settled
    assert "transfer.withheld" in await till.told()


@pytest.mark.parametrize("currency", ["cad", "chf", "eur", "gbp", "usd"])
async def test_r1_all_five_currencies_on_a_platform_that_settles_in_dollars(till: Till, currency: str) -> None:
    session = await till.open(currency=currency)
    await till.settle()
    await till.finish(session, 4500)
    payment = await till.settle()
    assert payment.settlement is not None
    balance = payment.settlement.amount
    assert [(t.amount, t.currency, t.status) for t in payment.transfers] == [
        (balance * 4050 // 4500, "usd", "paid"), (balance * 90 // 4500, "usd", "paid"),
    ]  # fmt: skip
    assert (payment.settlement.exchange_rate is None) == (currency == "usd")


# After the capture


async def captured(till: Till, ident: str = "ses_1", **changes: Any) -> Payment:
    session = await till.open(ident, **changes)
    await till.settle(ident)
    await till.finish(session, 4500)
    return await till.settle(ident)


async def test_r17_a_withheld_transfer_goes_when_stripe_tells_that_the_account_may_receive(
    till: Till, ask: AskStripe
) -> None:
    await captured(till, expert={"id": "e1", "stripe_account": "acct_demo_restricted"})
    await ask.post("accounts/acct_demo_restricted", restricted=False)
    for able in (False, True):
        state = "active" if able else "inactive"
        payload = event(f"evt_{able}", "account.updated", id="acct_demo_restricted", capabilities={"transfers": state})
        await StripeEvents(till.journal, [SECRET], At()).receive(payload, signed(payload))
        assert ((await till.journal.read("ses_1", "stripe"))["stripe"] is not None) is able
    payment = await till.settle()
    assert [(t.to, t.status, t.reason) for t in payment.transfers] == [
        ("expert", "paid", None), ("ambassador", "paid", None),
    ]  # fmt: skip
    assert await Index(till.journal.redis).withheld("acct_demo_restricted") == []


async def test_a_refund_gives_back_and_takes_the_shares_back(till: Till, ask: AskStripe) -> None:
    await captured(till)
    await till.refund(1500)
    payment = await till.settle()
    assert (payment.status, payment.amount_refunded) == ("partially_refunded", 1500)
    await till.refund(3000)
    payment = await till.settle()
    assert (payment.status, payment.settled) == ("refunded", True)
    state = await ask.state()
    assert [r["amount"] for r in state["refunds"]] == [3000, 1500]
    assert [(t["amount"], t["amount_reversed"]) for t in state["transfers"]] == [(90, 90), (4050, 4050)]
    told = await till.told()
    assert (told.count("payment.refunded"), told.count("transfer.reversed")) == (2, 4)


async def test_a_paid_out_expert_owes_the_reversal_and_the_next_transfer_is_smaller(till: Till, ask: AskStripe) -> None:
    await captured(till, card="pm_card_bypassPending")
    await ask.post("accounts/acct_demo/payouts")
    await till.refund(1500)
    payment = await till.settle()
    assert [(t.status, t.amount_owed) for t in payment.transfers] == [("owed", 1350), ("paid", 0)]
    payment = await captured(till, ident="ses_2")
    assert (payment.transfers[0].amount, payment.transfers[0].amount_offset) == (4050, 1350)
    transfers = [t for t in (await ask.state())["transfers"] if t["destination"] == "acct_demo"]
    assert [t["amount"] for t in transfers] == [2700, 4050]
    assert await Debts(till.journal.redis).owed(["acct_demo"], "usd") == {"acct_demo": 0}


@pytest.mark.parametrize("sandbox", [{"settlement_currencies": ("usd", "eur")}], indirect=True)
async def test_what_is_owed_in_one_settlement_currency_is_taken_from_transfers_in_that_one(
    till: Till, ask: AskStripe
) -> None:
    await captured(till, card="pm_card_bypassPending", currency="eur")
    await ask.post("accounts/acct_demo/payouts")
    await till.refund(1500)
    payment = await till.settle()
    assert (payment.transfers[0].currency, payment.transfers[0].amount_owed) == ("eur", 1350)
    assert (await captured(till, ident="ses_2", currency="usd")).transfers[0].amount_offset == 0
    assert (await captured(till, ident="ses_3", currency="eur")).transfers[0].amount_offset == 1350
    assert await Debts(till.journal.redis).owed(["acct_demo"], "eur") == {"acct_demo": 0}


@pytest.mark.parametrize("verdict", ["won", "lost"])
async def test_a_dispute_finds_its_session_by_the_charge(till: Till, ask: AskStripe, verdict: str) -> None:
    payment = await captured(till)
    dispute = await ask.post("disputes", payment_intent=payment.payment_intent)
    for status in ("needs_response", verdict):
        if status == verdict:
            await ask.post(f"disputes/{dispute['id']}", status=verdict)
        payload = event(
            f"evt_{status}", "charge.dispute.updated", id=dispute["id"], charge=payment.charge, status=status,
            metadata={}, transfer_group=None, object="dispute",
        )  # fmt: skip
        await StripeEvents(till.journal, [SECRET], At()).receive(payload, signed(payload))
        payment = await till.settle()
        if status == "needs_response":
            assert payment.status == "disputed"
    assert payment.status == ("captured" if verdict == "won" else "refunded")
    reversed_ = [t["amount_reversed"] for t in (await ask.state())["transfers"]]
    assert reversed_ == ([0, 0] if verdict == "won" else [90, 4050])


async def test_a_due_bill_is_charged_to_the_card_that_the_client_names(till: Till, ask: AskStripe) -> None:
    session = await till.open()
    payment = await till.settle()
    await ask.post(f"payment_intents/{payment.payment_intent}/expire")
    await till.finish(session, 4500)
    assert (await till.settle()).status == "due"
    for card, status in (("pm_card_chargeDeclined", "due"), ("pm_card_mastercard", "captured")):
        recharge(session, card)
        await till.put(session)
        payment = await till.settle()
        assert payment.status == status
    assert (payment.amount_captured, payment.settled) == (4500, True)
    assert "payment.due" in await till.told()


# Faults between us and Stripe

FAULTS = ["timeout_after_commit", "timeout", "connection_reset_after_commit", "429", "409", "500", "500_after_commit"]
POSTS = ["POST /v1/payment_intents", "POST /v1/payment_intents/*/capture", "POST /v1/transfers"]


@pytest.mark.parametrize("match", POSTS)
@pytest.mark.parametrize("kind", FAULTS)
async def test_law5_a_fault_in_any_call_charges_once(till: Till, ask: AskStripe, kind: str, match: str) -> None:
    await ask.fault(match, kind, ms=300) if "timeout" in kind else await ask.fault(match, kind)
    client = StripeClient(KEY, ask.url, timeout_s=0.2)
    till.stripe = client
    try:
        session = await till.open()
        payment = await till.settle()
        if payment.status == "failed":  # a 500 that Stripe keeps: nothing was held, and the client tries again
            assert (kind, match) == ("500", POSTS[0])
            other_card(session, "pm_card_visa")
            await till.put(session)
            payment = await till.settle()
        assert payment.status == "held"
        await till.finish(session, 4500)
        payment = await till.settle()
    finally:
        await client.close()
    assert (payment.status, payment.settled, payment.amount_captured) == ("captured", True, 4500)
    state = await ask.state()
    assert [i["amount_received"] for i in state["payment_intents"] if i["status"] != "canceled"] == [4500]
    assert sorted(t["amount"] for t in state["transfers"]) == [90, 4050]
    told = await till.told()
    assert len(told) == len(set(told)) + 1, "each event once, but one for each of two transfers"


@pytest.mark.parametrize("match", ["POST /v1/refunds", "POST /v1/transfers/*/reversals"])
@pytest.mark.parametrize("kind", FAULTS)
async def test_law5_a_fault_in_a_refund_gives_back_once(till: Till, ask: AskStripe, kind: str, match: str) -> None:
    await captured(till)
    await ask.fault(match, kind, ms=300) if "timeout" in kind else await ask.fault(match, kind)
    till.stripe = StripeClient(KEY, ask.url, timeout_s=0.2)
    try:
        await till.refund(1500)
        payment = await till.settle()
    finally:
        await till.stripe.close()
    assert (payment.status, payment.amount_refunded, payment.settled) == ("partially_refunded", 1500, True)
    state = await ask.state()
    assert [r["amount"] for r in state["refunds"]] == [1500]
    assert sorted(t["amount_reversed"] for t in state["transfers"]) == [30, 1350]


class Dying:
    """A Stripe client whose process dies before or after the n-th call. `BaseException`: nothing may catch it."""

    class Death(BaseException):
        pass

    def __init__(self, real: StripeClient, calls: int, *, after: bool) -> None:
        self.real, self.calls, self.after = real, calls, after

    async def send(self, operation: str, params: Any, key: str | None = None) -> Outcome:
        self.calls -= 1
        if self.calls == 0 and not self.after:
            raise self.Death
        outcome = await self.real.send(operation, params, key)
        if self.calls == 0:
            raise self.Death
        return outcome


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", [2, 3, 4, 5])  # the first only looks at the card
async def test_law5_a_bridge_that_dies_at_any_call_is_followed_by_one_that_ends_it(
    till: Till, ask: AskStripe, call: int, after: bool
) -> None:
    session = await till.open()
    dying: Any = Dying(till.stripe, call, after=after)
    bridge = Bridge(till.journal, dying, till.settings, till.clock)
    try:
        await bridge.settle_once("ses_1")
        await till.finish(session, 4500)
        await bridge.settle_once("ses_1")
    except Dying.Death:
        await till.finish(session, 4500)
    payment = await till.settle()
    assert (payment.status, payment.settled) == ("captured", True)
    state = await ask.state()
    assert [i["amount_received"] for i in state["payment_intents"]] == [4500]
    assert sorted(t["amount"] for t in state["transfers"]) == [90, 4050]


async def test_several_bridges_share_the_work_and_do_none_of_it_twice(till: Till, ask: AskStripe) -> None:
    idents = [f"ses_{n}" for n in range(12)]
    sessions = [await till.open(ident) for ident in idents]
    async with running(till.bridge), running(till.bridge), running(till.bridge):
        for ident in idents:
            await until(status_is(till, "held", ident))
        for session in sessions:
            await till.finish(session, 4500)
        for ident in idents:
            await until(is_settled(till, ident))
    state = await ask.state()
    assert [i["amount_received"] for i in state["payment_intents"]] == [4500] * 12
    assert len(state["transfers"]) == 24
    for ident in idents:
        assert (await till.told(ident)).count("payment.captured") == 1


async def test_two_bridges_on_one_session_at_once_place_one_hold(till: Till, ask: AskStripe) -> None:
    await till.open()
    await asyncio.gather(*(till.bridge.settle_once("ses_1") for _ in range(4)), return_exceptions=True)
    payment = await till.settle()
    assert payment.status == "held"
    assert len((await ask.state())["payment_intents"]) == 1
    assert (await till.told()).count("payment.held") == 1


# Redis


async def test_nothing_is_sent_to_stripe_before_it_is_on_disk(
    till: Till, ask: AskStripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    await till.open()
    real = till.journal.commit

    async def unconfirmed(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("durable"):
            raise StoreUnavailable("not confirmed")
        return await real(*args, **kwargs)

    monkeypatch.setattr(till.journal, "commit", unconfirmed)
    with pytest.raises(StoreUnavailable):
        await till.bridge.settle_once("ses_1")
    assert (await ask.state())["payment_intents"] == []


async def test_the_loop_outlives_a_store_that_is_away(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    real, failures = till.journal.due, 3

    async def due(*args: Any, **kwargs: Any) -> Any:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise StoreUnavailable("away") if failures else RedisConnectionError("away")
        return await real(*args, **kwargs)

    monkeypatch.setattr(till.journal, "due", due)
    await till.open()
    async with running(till.bridge):
        await until(status_is(till, "held"))
    assert failures < 0


async def test_a_stopping_bridge_writes_what_came_of_its_last_call(till: Till, ask: AskStripe) -> None:
    await ask.fault("POST /v1/payment_intents", "slow", ms=300)
    await till.open()
    async with running(till.bridge):
        await until(lambda: _hold_sent(till))
    assert (await till.payment()).status == "held"


async def test_a_bridge_stopped_between_steps_leaves_the_rest_to_the_next(till: Till, ask: AskStripe) -> None:
    session = await till.open()
    await till.settle()
    await ask.fault("POST /v1/payment_intents/*/capture", "slow", ms=300)
    await till.finish(session, 4500)
    async with running(till.bridge):
        await until(status_is(till, "capturing"))
    assert (await till.payment()).status == "captured"
    assert (await ask.state())["transfers"] == []
    async with running(till.bridge):
        await until(is_settled(till))


async def _hold_sent(till: Till) -> bool:
    hold = (await till.payment()).find("hold", 1)
    return hold is not None and hold.state == "sent"
