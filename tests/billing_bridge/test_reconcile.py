"""Our records against Stripe's: alike after a whole life, and every kind of difference named; strays seen to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import stripe
import structlog

from gateway.billing_bridge.audit import YOUNG_S, Sweep, reconciled
from gateway.billing_bridge.outcome import Done
from gateway.billing_bridge.record import Payment
from gateway.billing_bridge.stripe_events import StripeEvents
from gateway.journal import NOW
from gateway.payees.routes import MAIN
from tests.billing_bridge.fixtures import AskStripe, Till
from tests.billing_bridge.settling import (
    Settling,
    differences,
    finalize,
    live,
    news,
    order_refund,
    other_card,
    session_doc,
)
from tests.billing_bridge.test_worker import captured


def lived() -> Settling:
    settling = Settling(session_doc())
    settling.run()
    live(settling.session)
    finalize(settling.session, 4500)
    settling.run()
    order_refund(settling.session, 1500)
    assert settling.run().settled
    return settling


def test_a_whole_life_is_alike_on_both_sides() -> None:
    assert differences(lived()) == []


@pytest.mark.parametrize(
    ("kind", "place", "change", "what"),
    [
        ("intents", "pi_1", {"amount_received": 4400}, ["captured"]),
        ("intents", "pi_1", {"status": "requires_capture"}, ["status"]),
        ("intents", "pi_1", {"currency": "eur"}, ["currency"]),
        ("transfers", 0, {"amount": 4049}, ["transfer amount"]),
        ("transfers", 0, {"amount_reversed": 0}, ["transfer reversed"]),
        ("transfers", 0, {"amount_reversed": 4050}, ["transfer reversed"]),
        ("transfers", 0, {"destination": "acct_other"}, ["transfer destination"]),
        ("transfers", 1, {"currency": "eur"}, ["transfer currency"]),
        ("refunds", 0, {"amount": 1}, ["refund amount"]),
        ("refunds", 0, {"status": "failed"}, ["refund failed"]),
        ("refunds", 0, {"id": "re_other"}, ["missing refund", "unknown refund"]),
        ("transfers", 0, {"id": "tr_other"}, ["missing transfer", "unknown transfer"]),
    ],
)
def test_every_change_at_stripe_is_named(kind: str, place: Any, change: dict[str, Any], what: list[str]) -> None:
    settling = lived()
    getattr(settling.account, kind)[place].update(change)
    assert differences(settling) == what


def test_what_others_made_on_the_same_account_is_none_of_ours() -> None:
    settling = lived()
    settling.account.intents["pi_x"] = {"id": "pi_x", "status": "succeeded", "amount": 1, "metadata": {}}
    assert differences(settling) == []
    settling.account.intents["pi_x"]["metadata"] = {"session": "ses_other"}
    assert differences(settling) == ["unknown payment_intent"]


def test_a_refund_made_at_stripe_itself_is_named() -> None:
    settling = lived()
    made = {"id": "re_hand", "status": "succeeded", "amount": 100, "payment_intent": "pi_1", "metadata": {}}
    settling.account.refunds.append(made)
    assert differences(settling) == ["unknown refund"]
    made["payment_intent"] = "pi_x"
    assert differences(settling) == [], "of somebody else's charge"


def test_a_transfer_made_at_stripe_itself_is_named() -> None:
    settling = lived()
    made = {"id": "tr_hand", "amount": 100, "source_transaction": "ch_1", "metadata": {}, "transfer_group": None}
    settling.account.transfers.append(made)
    assert differences(settling) == ["unknown transfer"]
    settling.account.transfers[-1] |= {"source_transaction": None, "transfer_group": "ses_1"}
    assert differences(settling) == ["unknown transfer"]
    settling.account.transfers[-1] |= {"transfer_group": "ses_other_gateway"}
    assert differences(settling) == []


def test_a_share_that_was_transferred_twice_is_named() -> None:
    settling = lived()
    settling.account.transfers.append({**settling.account.transfers[0], "id": "tr_twice"})
    assert differences(settling) == ["unknown transfer"]


def test_what_stripe_credited_is_what_the_shares_were_made_of() -> None:
    settling = lived()
    balance = settling.account.intents["pi_1"]["latest_charge"]["balance_transaction"]
    balance["amount"] -= 1
    assert differences(settling) == ["settlement"]
    settling.account.intents["pi_1"]["latest_charge"] = "ch_1"
    assert differences(settling) == [], "not listed with its charge"


def test_a_hold_that_was_changed_is_named() -> None:
    settling = Settling(session_doc())
    settling.run()
    assert differences(settling) == []
    settling.account.intents["pi_1"]["amount_capturable"] = 7400
    assert differences(settling) == ["held"]


@pytest.mark.parametrize(
    ("status", "what"),
    [
        ("requires_capture", ["an older card's hold lives"]),
        ("requires_action", ["an older card's hold lives"]),
        ("succeeded", ["an older card was charged"]),
    ],
)
def test_law5_money_on_an_older_card_is_named_until_it_went_back(status: str, what: list[str]) -> None:
    settling = Settling(session_doc(funding={"attempt": 1, "payment_method": "pm_declined", "amount": 7500}))
    settling.run()
    other_card(settling.session, "pm_card_visa")
    settling.run()
    assert differences(settling) == []
    settling.account.intents["pi_1"] |= {"status": status, "amount_received": 7500}
    assert differences(settling) == what
    back = {"id": "re_hand", "status": "succeeded", "amount": 7500, "payment_intent": "pi_1", "metadata": {}}
    settling.account.intents["pi_1"]["status"] = "succeeded"
    settling.account.refunds.append(back)
    assert differences(settling) == []


# Disputes


def disputed(ours: str, changes: Mapping[str, Any] | None = None) -> Settling:
    """A case that the record has as it is, and what then became of it at Stripe."""
    settling = lived()
    settling.account.dispute("needs_response", 2_000)
    news(settling.session, "disputes")
    settling.run()
    if ours == "lost":
        settling.account.dispute("lost")
        news(settling.session, "disputes")
        settling.run()
    assert differences(settling) == []
    settling.account.disputes[0].update(changes or {})
    return settling


@pytest.mark.parametrize(
    ("ours", "changes", "what"),
    [
        ("open", {"status": "won"}, ["dispute status"]),
        ("open", {"status": "under_review"}, []),
        ("open", {"amount": 1_999}, ["dispute amount"]),
        ("open", {"status": "lost"}, ["dispute not taken back"]),
        ("open", {"id": "du_2"}, ["missing dispute", "unknown dispute"]),
        ("lost", {"status": "won"}, ["dispute status"]),
        ("lost", {"amount": 1_999}, ["dispute amount"]),
        ("lost", {"amount": 3_001}, ["dispute amount"]),
        ("lost", {"id": "du_2"}, ["missing dispute", "dispute not taken back"]),
    ],
)
def test_a_case_that_is_not_as_the_record_has_it_is_named(ours: str, changes: dict[str, Any], what: list[str]) -> None:
    assert differences(disputed(ours, changes)) == what


def test_a_case_that_no_record_has_is_named_and_a_strangers_is_not() -> None:
    settling = lived()
    settling.account.dispute("needs_response")
    assert differences(settling) == ["unknown dispute"]
    settling.account.disputes[0]["payment_intent"] = "pi_x"
    assert differences(settling) == []


def test_a_lost_case_takes_no_more_than_the_client_had_not_got_back() -> None:
    settling = lived()
    settling.account.dispute("lost", 4_500)
    news(settling.session, "disputes")
    assert settling.run().refunds[-1].amount == 3_000
    assert differences(settling) == []


@pytest.mark.parametrize(("amount", "what"), [(0, "share"), (1_799, "share"), (1_801, "share"), (1_800, None)])
def test_law6_a_lost_case_whose_reversal_is_missing_or_of_another_amount_is_named(
    amount: int, what: str | None
) -> None:
    settling = disputed("lost")
    payment, account = settling.payment, settling.account
    [step] = [s for s in payment.steps if s.step == "reversal_expert" and s.attempt == 2]
    other = payment.with_step(replace(step, params={**step.params, "amount": amount}))
    expert = other.transfer_to("expert")
    other = other.with_transfer(replace(expert, amount_reversed=expert.amount_reversed - 1_800 + amount))
    account.transfers[0]["amount_reversed"] += amount - 1_800
    assert differences(settling, payment=other) == ([what] if what else [])


async def test_of_two_cases_the_sweep_asks_for_what_is_new_only(till: Till, ask: AskStripe) -> None:
    payment = await captured(till)
    first = await ask.post("disputes", charge=payment.charge, amount=1_000)
    await ask.post(f"disputes/{first['id']}", status="won")
    second = await ask.post("disputes", charge=payment.charge, amount=2_000)
    till.clock.ahead_ms += (YOUNG_S + 60) * 1000
    sweep = Sweep(till.journal, till.stripe, till.clock)
    assert await sweep.once() == [first["id"], second["id"]]
    payment = await till.settle()
    assert payment.dispute is not None
    assert (payment.status, payment.dispute.id) == ("disputed", second["id"])
    assert await sweep.once() == []
    told = await till.told()
    assert told.count("payment.disputed") == 2, "the older one is not told again"


async def test_a_case_against_an_old_session_is_compared(till: Till, ask: AskStripe) -> None:
    payment = await captured(till, created=1_000)
    assert await reconciled(till.journal, {MAIN: till.stripe}, 2) == (0, [])
    await ask.post("disputes", charge=payment.charge)
    _, found = await reconciled(till.journal, {MAIN: till.stripe}, 2)
    assert [each.what for each in found] == ["unknown dispute"]


async def hears_of(till: Till, made: Done) -> None:
    events = StripeEvents(till.journal, ["whsec_1"], till.clock)
    payload = json.dumps({"id": "evt_1", "type": "refund.created", "livemode": False, "data": {"object": made.object}})
    at_s = till.clock.wall_ms() // 1000
    await events.receive(payload.encode(), stripe.WebhookSignature.generate_signature_header(payload, "whsec_1", at_s))


@pytest.mark.parametrize("heard", [True, False])
async def test_a_refund_made_at_stripe_itself_is_adopted_by_its_event_or_by_the_sweep(
    till: Till, ask: AskStripe, heard: bool
) -> None:
    payment = await captured(till)
    made = await till.stripe.send(
        "refunds.create", {"payment_intent": payment.payment_intent, "amount": 1500}, "by hand"
    )
    assert isinstance(made, Done)
    till.clock.ahead_ms += (YOUNG_S + 60) * 1000
    if heard:
        await hears_of(till, made)
    sweep = Sweep(till.journal, till.stripe, till.clock)
    assert await sweep.once() == [made.object["id"]], "until it is known"
    payment = await till.settle()
    assert (payment.status, payment.amount_refunded, payment.settled) == ("partially_refunded", 1500, True)
    assert sorted(t["amount_reversed"] for t in (await ask.state())["transfers"]) == [30, 1350]
    assert await sweep.once() == []
    assert await reconciled(till.journal, {MAIN: till.stripe}, 0) == (1, [])


@pytest.mark.parametrize("heard", [True, False])
async def test_a_refund_made_at_stripe_itself_of_a_bookings_charge_reaches_its_meetings(
    till: Till, heard: bool
) -> None:
    meetings = ["ses_1", "ses_2"]
    for number, meeting in enumerate(meetings, 1):
        await till.open(meeting, kind="booked", funding=None, meeting={"booking": "bkg_1", "number": number})
    funding = {"attempt": 1, "payment_method": "pm_card_visa", "amount": 9_000, "recharge": True}
    await till.open("bkg_1", kind="booking", status="booked", meetings=meetings, funding=funding)
    charged = await till.settle("bkg_1")
    refund = {"payment_intent": charged.payment_intent, "amount": 3_001}
    made = await till.stripe.send("refunds.create", refund, "by hand")
    assert isinstance(made, Done)
    till.clock.ahead_ms += (YOUNG_S + 60) * 1000
    if heard:
        await hears_of(till, made)
    sweep = Sweep(till.journal, till.stripe, till.clock)
    assert heard or await sweep.once() == [made.object["id"]] * 2
    assert [(await till.settle(meeting)).amount_refunded for meeting in meetings] == [1_500, 1_501]
    assert await sweep.once() == []
    assert await reconciled(till.journal, {MAIN: till.stripe}, 0) == (3, [])


async def test_a_refund_of_ours_that_an_older_record_lacks_is_adopted_by_the_sweep_once(
    till: Till, ask: AskStripe
) -> None:
    await captured(till)
    old = (await till.journal.read("ses_1", "payment"))["payment"]
    await till.refund(1500)
    await till.settle()
    docs = await till.journal.read("ses_1", "payment", "refunds")
    assert old is not None
    assert docs["payment"] is not None
    assert docs["refunds"] is not None
    lost = {"payment": (docs["payment"].version, old.body), "refunds": (docs["refunds"].version, {"orders": []})}
    await till.journal.commit("ses_1", lost, due={"money": NOW})
    till.clock.ahead_ms += (YOUNG_S + 60) * 1000
    sweep = Sweep(till.journal, till.stripe, till.clock)
    assert len(await sweep.once()) == 1
    assert (await till.settle()).amount_refunded == 1500
    assert await sweep.once() == [], "and known from then on"
    await till.refund(None)
    assert (await till.settle()).status == "refunded"
    state = await ask.state()
    assert sum(refund["amount"] for refund in state["refunds"]) == 4500
    assert all(transfer["amount"] == transfer["amount_reversed"] for transfer in state["transfers"])
    assert await reconciled(till.journal, {MAIN: till.stripe}, 0) == (1, [])


async def test_what_the_sweep_cannot_adopt_it_does_not_call_adopted(till: Till) -> None:
    payment = await captured(till)
    metadata = {"session": "ses_1", "step": "refund", "attempt": "1"}
    params = {"payment_intent": payment.payment_intent, "amount": 100, "metadata": metadata}
    assert isinstance(await till.stripe.send("refunds.create", params, "k"), Done)
    till.clock.ahead_ms += (YOUNG_S + 60) * 1000
    with structlog.testing.capture_logs() as logs:
        assert len(await Sweep(till.journal, till.stripe, till.clock).once()) == 1
    assert [log["action"] for log in logs if log["event"] == "sweep.stray"] == ["orphan"]


async def test_a_case_whose_events_were_lost_is_found_when_opened_and_when_decided(till: Till, ask: AskStripe) -> None:
    payment = await captured(till)
    case = await ask.post("disputes", charge=payment.charge)
    sweep = Sweep(till.journal, till.stripe, till.clock)
    assert await sweep.once() == [], "a young one's event is on its way"
    till.clock.ahead_ms += (YOUNG_S + 60) * 1000
    assert await sweep.once() == [case["id"]]
    assert (await till.settle()).status == "disputed"
    assert await sweep.once() == []
    await ask.post(f"disputes/{case['id']}", status="lost")
    assert await sweep.once() == [case["id"]]
    payment = await till.settle()
    assert (payment.status, payment.settled) == ("refunded", True)
    assert await sweep.once() == []


async def test_records_and_sandbox_are_compared_as_the_command_does(till: Till, ask: AskStripe) -> None:
    await captured(till)
    await till.refund(1500)
    payment = await till.settle()
    assert await reconciled(till.journal, {MAIN: till.stripe}, 0) == (1, [])
    transfer = payment.transfers[0].stripe_id
    await till.stripe.send("transfers.reversals.create", {"transfer": transfer, "amount": 10}, "by hand")
    count, found = await reconciled(till.journal, {MAIN: till.stripe}, 0)
    assert (count, [(each.object, each.what, each.ours, each.theirs) for each in found]) == (
        1, [(transfer, "transfer reversed", 1350, 1360)],
    )  # fmt: skip


async def test_a_refund_of_an_old_session_is_no_stray(till: Till) -> None:
    await captured(till, created=1_000)
    await till.refund(1500)
    await till.settle()
    since_s = 2
    count, found = await reconciled(till.journal, {MAIN: till.stripe}, since_s)
    assert (count, found) == (0, [])


# The sweep


async def a_hold(till: Till, session: str, attempt: int) -> str:
    made = await till.stripe.send(
        "payment_intents.create",
        {
            "amount": 7500, "currency": "usd", "capture_method": "manual", "confirm": True,
            "payment_method": "pm_card_visa", "allowed_payment_method_types": ["card"],
            "metadata": {"session": session, "step": "hold", "attempt": str(attempt)},
        },
        f"{session}:stray:{attempt}",
    )  # fmt: skip
    assert isinstance(made, Done)
    return str(made.object["id"])


async def status_of(ask: AskStripe, intent: str) -> str:
    return str(next(i["status"] for i in (await ask.state())["payment_intents"] if i["id"] == intent))


async def test_a_hold_that_no_step_asked_for_is_canceled_but_never_a_young_one(till: Till, ask: AskStripe) -> None:
    await till.open()
    payment = await till.settle()
    stray = await a_hold(till, "ses_1", 7)
    sweep = Sweep(till.journal, till.stripe, till.clock)
    assert await sweep.once() == []
    till.clock.ahead_ms += (YOUNG_S + 60) * 1000
    assert await sweep.once() == [stray]
    assert await status_of(ask, stray) == "canceled"
    assert await status_of(ask, str(payment.payment_intent)) == "requires_capture"
    assert await sweep.once() == []


@pytest.mark.parametrize("sole", [False, True])
async def test_a_hold_without_any_record_is_left_to_another_gateway_unless_there_is_none(
    till: Till, ask: AskStripe, sole: bool
) -> None:
    stray = await a_hold(till, "ses_elsewhere", 1)
    till.clock.ahead_ms += (YOUNG_S + 60) * 1000
    assert await Sweep(till.journal, till.stripe, till.clock, sole=sole).once() == [stray]
    assert await status_of(ask, stray) == ("canceled" if sole else "requires_capture")


async def test_a_hold_whose_step_stands_open_is_adopted(till: Till, ask: AskStripe) -> None:
    session = await till.open()
    await till.settle()
    doc = (await till.journal.read("ses_1", "payment"))["payment"]
    assert doc is not None
    payment = Payment.from_dict(doc.body)
    hold = payment.find("hold", 1)
    assert hold is not None
    lost = replace(
        payment.with_step(replace(hold, state="sent", result=None)), status="pending", payment_intent=None, charge=None
    )  # fmt: skip
    await till.journal.commit("ses_1", {"payment": (doc.version, lost.to_dict())}, due={"money": None})
    till.clock.ahead_ms += (YOUNG_S + 60) * 1000
    assert await Sweep(till.journal, till.stripe, till.clock).once() == [payment.payment_intent]
    assert await till.queued("money") is not None
    adopted = await till.settle()
    assert (adopted.status, adopted.payment_intent) == ("held", payment.payment_intent)
    assert session["id"] == "ses_1"
