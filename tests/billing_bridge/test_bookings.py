"""The money of bookings: one charge, brought to its meetings, each of which settles its own part (R14)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.billing_bridge.calls import Call
from gateway.billing_bridge.outcome import Done, Outcome, Unknown
from gateway.billing_bridge.parts import paid
from gateway.billing_bridge.reconcile import compare
from gateway.billing_bridge.record import Part, Payment
from gateway.money import split
from tests.billing_bridge.account import Account
from tests.billing_bridge.settling import (
    NOW,
    Settling,
    at_stripe,
    differences,
    finalize,
    live,
    news,
    order_refund,
    session_doc,
)

FAULTS = (None, "busy", "lost_before", "lost_after", "in_flight", "error", "crash_before", "crash_after")
FEE = 4_500


class World(Account):
    """The account, and the meetings' records as the step that shares out would write them."""

    def __init__(self, count: int = 3, *, bps: int = 1000, share: int = 2000, rate_milli: int = 1000) -> None:
        super().__init__(settlement="usd" if rate_milli == 1000 else "eur", rate_milli=rate_milli)
        meetings = [f"ses_{number}" for number in range(1, count + 1)]
        funding = {"attempt": 1, "payment_method": "pm_card_visa", "amount": count * FEE, "recharge": True}
        ambassador = {"stripe_account": "acct_ambassador", "share_bps": share}
        self.booking = Settling(
            session_doc(id="bkg_1", kind="booking", status="booked", meetings=meetings, funding=funding), self
        )
        self.meetings = [
            Settling(
                session_doc(
                    id=ident, kind="booked", funding=None, commission_bps=bps, ambassador=ambassador, status="created",
                    meeting={"booking": "bkg_1", "number": number},
                ),
                self,
            )
            for number, ident in enumerate(meetings, 1)
        ]  # fmt: skip

    def send(self, call: Call, fault: str | None = None) -> Outcome:
        if call.operation != "meetings.pay":
            return super().send(call, fault)
        for number, meeting in enumerate(self.meetings, 1):
            part = Part(number, len(self.meetings))
            meeting.disk = json.dumps(paid(meeting.payment, call.params, part).to_dict())
            if fault is not None and fault.startswith("lost"):
                return Unknown("TimeoutError")
        return Done({"object": "parts"})

    def end(self, number: int, stays: int) -> None:
        """A meeting is over, and `stays` is left of its fee."""
        session = self.meetings[number].session
        finalize(session, stays, waived=FEE - stays)


def run(world: World, faults: list[str | None] | None = None) -> None:
    world.booking.run(faults or ())
    for meeting in world.meetings:
        meeting.run(faults or ())


def test_r14_a_booking_is_charged_once_and_its_meetings_have_their_parts() -> None:
    world = World()
    run(world)
    assert [intent["amount_received"] for intent in world.intents.values()] == [3 * FEE]
    assert [m.payment.amount_captured for m in world.meetings] == [FEE] * 3
    assert world.booking.told == ["payment.captured", "booking.paid"]
    assert world.booking.payment.settled
    assert world.transfers == [], "each meeting's shares wait for its end"
    assert not any(m.payment.settled for m in world.meetings)


def test_r14_shares_are_transferred_when_each_meeting_is_finalized() -> None:
    world = World()
    run(world)
    world.end(0, FEE)
    run(world)
    assert (world.net("acct_expert"), world.net("acct_ambassador")) == (4_050, 90)
    assert {t["transfer_group"] for t in world.transfers} == {"bkg_1"}
    assert [m.payment.settled for m in world.meetings] == [True, False, False]
    assert world.meetings[0].told[-1] == "session.settled"


def test_r14_what_does_not_stay_is_given_back_before_the_shares_are_made() -> None:
    world = World()
    run(world)
    world.end(0, 2_250)
    run(world)
    payment = world.meetings[0].payment
    assert (payment.status, payment.amount_refunded, payment.amount_total) == ("partially_refunded", 2_250, 2_250)
    assert [refund["amount"] for refund in world.refunds] == [2_250]
    assert (world.net("acct_expert"), world.net("acct_ambassador"), world.reversals) == (2_025, 45, [])


def test_r14_what_the_terms_give_back_is_nobodys_share_even_if_the_bank_returns_it() -> None:
    world = World()
    run(world)
    world.end(0, 2_250)
    world.end(1, 0)
    run(world)
    world.return_refund()
    world.refunds[0]["status"] = "failed"
    for meeting in world.meetings[:2]:
        news(meeting.session, "refunds")
    run(world)
    assert [refund["status"] for refund in world.refunds] == ["failed", "failed"]
    assert (world.net("acct_expert"), world.net("acct_ambassador")) == (2_025, 45)
    assert [m.payment.settled for m in world.meetings] == [True, True, False]


def test_r14_a_refund_that_was_ordered_before_counts_toward_what_goes_back() -> None:
    world = World()
    run(world)
    order_refund(world.meetings[0].session, 1_000)
    run(world)
    world.end(0, 2_250)
    run(world)
    assert world.meetings[0].payment.amount_refunded == 2_250
    order_refund(world.meetings[0].session, 2_250)
    run(world)
    assert (world.meetings[0].payment.status, world.net("acct_expert")) == ("refunded", 0)


def test_r15_a_waived_meeting_is_given_back_at_once() -> None:
    world = World()
    run(world)
    world.meetings[1].session["waived"] = True
    run(world)
    assert world.meetings[1].payment.status == "refunded"


def test_law5_a_meeting_that_was_over_before_the_booking_was_paid_gets_its_money_back() -> None:
    world = World()
    finalize(world.meetings[2].session, 0, started=False)
    world.meetings[2].run()
    assert (world.meetings[2].payment.status, world.meetings[2].payment.settled) == ("none", True)
    run(world)
    assert (world.meetings[2].payment.status, world.meetings[2].payment.amount_refunded) == ("refunded", FEE)


def test_r14_a_declined_booking_stays_failed_and_another_card_pays_it() -> None:
    world = World()
    session = world.booking.session
    session["funding"] |= {"payment_method": "pm_declined"}
    run(world)
    assert (world.booking.payment.status, world.booking.payment.settled) == ("failed", False)
    assert world.booking.told == ["payment.failed"]
    session["funding"] = {**session["funding"], "attempt": 2, "payment_method": "pm_card_visa"}
    run(world)
    assert (world.booking.payment.status, world.captures) == ("captured", 1)


def test_law5_a_canceled_booking_is_not_charged_any_more() -> None:
    world = World()
    world.booking.session["funding"] |= {"payment_method": "pm_action"}
    run(world)
    assert world.booking.payment.status == "action_required"
    world.booking.session["canceled"] = True
    run(world)
    assert (world.booking.payment.status, world.booking.payment.settled, world.captures) == ("released", True, 0)


def test_law5_a_booking_canceled_before_its_card_was_charged_is_settled() -> None:
    world = World()
    world.booking.die("crash_after")  # the card was looked at
    world.booking.session["canceled"] = True
    run(world)
    assert (world.booking.payment.status, world.booking.payment.settled, world.intents) == ("none", True, {})


def test_law6_a_lost_dispute_of_the_charge_is_each_meetings_part_of_it() -> None:
    world = World(count=3)
    run(world)
    for number in range(3):
        world.end(number, FEE)
    run(world)
    world.dispute("lost", 10_000)
    for meeting in world.meetings:
        meeting.session["news"] = {"disputes": 1}
    run(world)
    assert sum(m.payment.amount_refunded for m in world.meetings) == 10_000
    assert differences(world.booking, *world.meetings) == []
    assert world.net("acct_expert") + world.net("acct_ambassador") <= 3 * FEE - 10_000


def refunded_at_stripe(world: World, amount: int, ident: str = "re_hand") -> None:
    intent = next(iter(world.intents))
    made = {"id": ident, "status": "succeeded", "amount": amount, "payment_intent": intent, "metadata": {}}
    world.refunds.append(made)
    for meeting in world.meetings:
        news(meeting.session, "refunds")


def test_law6_a_refund_made_at_stripe_itself_is_each_meetings_part_of_it() -> None:
    world = World()
    run(world)
    world.end(0, FEE)
    run(world)
    refunded_at_stripe(world, 10_000)
    assert differences(world.booking, *world.meetings) == ["unknown refund"]
    world.meetings[0].run()
    assert differences(world.booking, *world.meetings) == ["unknown refund"] * 2, "of each meeting that has not heard"
    run(world)
    assert [m.payment.amount_refunded for m in world.meetings] == [3_333, 3_333, 3_334]
    assert differences(world.booking, *world.meetings) == []
    world.end(1, FEE)
    world.end(2, 0)
    run(world)
    assert [m.payment.amount_refunded for m in world.meetings] == [3_333, 3_333, FEE]
    assert sum(refund["amount"] for refund in world.refunds) == 10_000 + FEE - 3_334
    assert world.net("acct_expert") == 2 * split(FEE - 3_333, 1000, 2000).expert
    assert differences(world.booking, *world.meetings) == []


def test_law5_no_meeting_bears_more_of_a_refund_at_stripe_than_it_has_left() -> None:
    world = World()
    run(world)
    world.end(0, 0)
    run(world)
    refunded_at_stripe(world, 2 * FEE - 100)
    refunded_at_stripe(world, 100, "re_rest")
    run(world)
    assert [m.payment.amount_refunded for m in world.meetings] == [FEE, 3_000, 3_001]
    assert world.meetings[0].told.count("payment.refunded") == 1, "of nothing nobody is told"
    assert differences(world.booking, *world.meetings) == ["refund not borne"] * 2


def test_a_refund_made_at_stripe_itself_that_the_bank_returns_is_nobodys() -> None:
    world = World()
    run(world)
    world.end(0, FEE)
    refunded_at_stripe(world, 3 * FEE)
    run(world)
    assert [m.payment.status for m in world.meetings] == ["refunded"] * 3
    world.return_refund()
    for meeting in world.meetings:
        news(meeting.session, "refunds")
    run(world)
    assert [m.payment.status for m in world.meetings] == ["captured"] * 3
    assert world.net("acct_expert") == 4_050
    assert differences(world.booking, *world.meetings) == []


def test_the_ledger_and_stripe_agree_on_bookings() -> None:
    world = World()
    run(world)
    world.end(0, 2_250)
    live(world.meetings[1].session)
    run(world)
    assert differences(world.booking, *world.meetings) == []


@given(amount=st.integers(0, 10**7), count=st.integers(1, 40))
def test_law6_the_parts_of_any_amount_sum_to_it(amount: int, count: int) -> None:
    parts = [Part(number, count).of(amount) for number in range(1, count + 1)]
    assert (sum(parts), max(parts) - min(parts) <= 1) == (amount, True)


@settings(max_examples=60, deadline=None)
@given(
    ends=st.lists(st.none() | st.integers(0, FEE), min_size=1, max_size=4), bps=st.integers(0, 10_000),
    share=st.integers(0, 10_000), rate=st.sampled_from([1000, 1377, 911]),
    faults=st.lists(st.sampled_from(FAULTS), max_size=12),
)  # fmt: skip
def test_laws_5_and_6_hold_for_bookings_under_faults(
    ends: list[int | None], bps: int, share: int, rate: int, faults: list[str | None]
) -> None:
    world = World(len(ends), bps=bps, share=share, rate_milli=rate)
    run(world, faults)
    for number, stays in enumerate(ends):
        if stays is not None:
            world.end(number, stays)
    run(world, faults)
    run(world)
    assert world.captures == 1, "law 5: charged once"
    assert differences(world.booking, *world.meetings) == []
    back = sum(refund["amount"] for refund in world.refunds)
    assert back == sum(FEE - stays for stays in ends if stays is not None)
    balance = next(iter(world.intents.values()))["latest_charge"]["balance_transaction"]["amount"]
    assert world.net("acct_expert") + world.net("acct_ambassador") <= balance
    for meeting, stays in zip(world.meetings, ends, strict=True):
        payment: Payment = meeting.payment
        assert payment.settled is (stays is not None)
        if stays is not None:
            shares = split(stays, bps, share)
            told = {transfer.to: transfer.amount_share for transfer in payment.transfers}
            assert told.get("expert", 0) in (shares.expert, 0) or payment.status == "refunded"
            assert payment.amount_captured - payment.amount_refunded == stays


@pytest.mark.parametrize("fault", ["crash_before", "crash_after", "lost_before", "lost_after"])
def test_law5_sharing_out_again_changes_nothing(fault: str) -> None:
    world = World()
    world.booking.run([None, fault, fault])
    run(world)
    assert [m.payment.amount_captured for m in world.meetings] == [FEE] * 3
    assert world.booking.told.count("booking.paid") == 1


def test_r14_what_the_terms_give_back_is_asked_for_until_stripe_takes_it() -> None:
    world = World(1)
    run(world)
    meeting = world.meetings[0]
    world.refusing["refunds.create"] = "balance_insufficient"
    order_refund(meeting.session, 1_000)
    meeting.look()
    world.end(0, FEE // 2)
    meeting.look()
    assert [refund.amount for refund in meeting.payment.refunds] == [1_000, FEE // 2 - 1_000]
    world.refusing["refunds.create"] = "processing_error"
    meeting.now += 60_000
    meeting.look()
    assert [(refund.amount, refund.status) for refund in meeting.payment.refunds] == [
        (1_000, "failed"), (FEE // 2, "ordered"),
    ]  # fmt: skip
    assert (meeting.payment.settled, world.refunds) == (False, [])
    late = compare([(meeting.session, meeting.payment.to_dict())], at_stripe(world), NOW + 2 * 86_400_000)
    assert [(each.what, each.ours) for each in late if each.what == "not settled"] == [
        ("not settled", "captured, refund failed processing_error")
    ]
    world.refusing.clear()
    run(world)
    assert [(refund.amount, refund.status) for refund in meeting.payment.refunds] == [
        (1_000, "failed"), (FEE // 2, "succeeded"),
    ]  # fmt: skip
    assert (meeting.payment.settled, meeting.payment.amount_refunded) == (True, FEE // 2)


def test_r14_what_the_terms_give_back_waits_for_a_dispute_that_we_have_not_heard_of() -> None:
    for status, back in (("won", FEE // 2), ("lost", FEE)):
        world = World(1)
        run(world)
        meeting = world.meetings[0]
        world.end(0, FEE // 2)
        world.dispute("needs_response")
        for _ in range(3):
            meeting.look()
            meeting.now += 1_000
        assert (meeting.payment.settled, world.refunds) == (False, [])
        world.disputes[0]["status"] = status
        news(meeting.session, "disputes")
        run(world)
        assert (meeting.payment.settled, meeting.payment.amount_refunded) == (True, back)
        assert world.net("acct_expert") == (2_025 if status == "won" else 0)
        assert differences(world.booking, *world.meetings) == []
