"""Refunds, disputes and debts: any series closes, nobody gets back more than was taken, whatever fails on the way."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.billing_bridge.order import order_of
from gateway.billing_bridge.record import Payment
from gateway.errors import Conflict
from gateway.money import settled_shares, split
from gateway.sessions.refunds import NewRefund, ordered, refundable
from tests.billing_bridge.account import FAULTS, Account
from tests.billing_bridge.settling import (
    NOW,
    Settling,
    differences,
    finalize,
    live,
    news,
    order_refund,
    recharge,
    session_doc,
)

EXPERT, AMBASSADOR = "acct_expert", "acct_ambassador"


def paid(total: int = 4500, account: Account | None = None) -> Settling:
    settling = Settling(session_doc(), account)
    settling.run()
    live(settling.session)
    finalize(settling.session, total)
    assert settling.run().status == "captured"
    return settling


def shares_close(settling: Settling) -> None:
    """Law 6 in both currencies: what the payees have, owe and the platform keeps is what is left of the charge."""
    payment, account = settling.payment, settling.account
    assert payment.settlement is not None
    borne = sum(r.amount for r in payment.refunds if r.counts and r.charge_to == "shares")
    shares = order_of(settling.session).shares_of(payment.amount_captured - borne)
    assert shares.total == shares.expert + shares.platform + shares.ambassador
    balance, whole = payment.settlement.amount, payment.amount_captured
    for transfer in payment.transfers:
        due = balance * getattr(shares, transfer.to) // whole
        assert transfer.kept == due, "a payee has its share of what is left, or owes the rest"
        assert transfer.account is not None
        if transfer.stripe_id or transfer.amount_restored:
            assert account.net(transfer.account) == due - transfer.amount_offset + transfer.amount_owed
        assert account.debts.get(transfer.account, 0) == transfer.amount_owed


def test_a_part_is_refunded_and_each_share_falls_to_that_of_the_remaining_total() -> None:
    settling = paid()
    order_refund(settling.session, 1500)
    payment = settling.run()
    assert (payment.status, payment.amount_refunded, payment.amount_captured) == ("partially_refunded", 1500, 4500)
    assert [(t.to, t.amount, t.amount_reversed, t.status) for t in payment.transfers] == [
        ("expert", 4050, 1350, "paid"), ("ambassador", 90, 30, "paid"),
    ]  # fmt: skip
    assert settling.told[5:] == ["payment.refunded", "transfer.reversed", "transfer.reversed", "session.settled"]
    assert payment.settled
    shares_close(settling)


def by_hand(settling: Settling, amount: int, ident: str = "re_hand", **changes: object) -> None:
    """Somebody refunds in Stripe's dashboard."""
    made = {"id": ident, "object": "refund", "status": "succeeded", "amount": amount, "payment_intent": "pi_1"}
    settling.account.refunds.append(made | {"metadata": {}, "reason": "requested_by_customer"} | changes)
    news(settling.session, "refunds")


def test_law6_a_refund_made_at_stripe_itself_is_adopted_and_the_shares_follow() -> None:
    settling = paid()
    by_hand(settling, 1500)
    payment = settling.run()
    assert (payment.status, payment.amount_refunded, payment.settled) == ("partially_refunded", 1500, True)
    assert settling.told[5:] == ["payment.refunded", "transfer.reversed", "transfer.reversed", "session.settled"]
    news(settling.session, "refunds")
    assert settling.run().refunds == payment.refunds, "once"
    order_refund(settling.session, 3000)
    assert settling.run().status == "refunded"
    assert settling.account.refunded() == 4500
    shares_close(settling)


def test_a_refund_of_ours_is_never_taken_for_a_foreign_one() -> None:
    settling = paid()
    order_refund(settling.session, 1500)
    settling.look("lost_after")  # made at Stripe, and we do not know yet
    news(settling.session, "refunds")
    payment = settling.run()
    assert [(refund.number, refund.amount) for refund in payment.refunds] == [(1, 1500)]
    by_hand(settling, 100, metadata={"session": "ses_other", "step": "refund"})
    assert settling.run().amount_refunded == 1500
    shares_close(settling)


def test_a_refund_made_at_stripe_that_the_bank_returns_gives_the_shares_again() -> None:
    settling = paid()
    by_hand(settling, 1500, status="pending")
    assert settling.run().amount_refunded == 1500
    settling.account.refunds[0]["status"] = "failed"
    news(settling.session, "refunds")
    payment = settling.run()
    assert (payment.status, payment.amount_refunded, payment.settled) == ("captured", 0, True)
    shares_close(settling)


def test_a_full_refund_takes_every_share_back() -> None:
    settling = paid()
    order_refund(settling.session, 4500)
    payment = settling.run()
    assert (payment.status, [t.status for t in payment.transfers]) == ("refunded", ["reversed", "reversed"])
    assert (settling.account.net(EXPERT), settling.account.net(AMBASSADOR)) == (0, 0)


def test_a_refund_that_the_platform_bears_leaves_the_shares_alone() -> None:
    settling = paid()
    order_refund(settling.session, 1500, "platform")
    payment = settling.run()
    assert (payment.amount_refunded, settling.account.reversals) == (1500, [])
    order_refund(settling.session, 3000)
    payment = settling.run()
    assert payment.status == "refunded"
    assert settling.account.net(EXPERT) == split(1500, 1000, 2000).expert
    shares_close(settling)


def test_more_than_was_captured_is_never_sent_to_stripe() -> None:
    settling = paid()
    order_refund(settling.session, 4000)
    order_refund(settling.session, 1000)
    payment = settling.run()
    assert [(r.status, r.failure) for r in payment.refunds] == [("succeeded", None), ("failed", "amount_too_large")]
    assert settling.account.refunded() == 4000


def test_a_refund_ordered_before_the_transfers_makes_them_smaller() -> None:
    settling = Settling(session_doc(), Account(balance_late=True))
    settling.run()
    live(settling.session)
    finalize(settling.session, 4500)
    order_refund(settling.session, 1500)
    settling.run()
    assert [t["amount"] for t in settling.account.transfers] == [2700, 60]
    assert settling.account.reversals == []
    shares_close(settling)


def test_a_reversal_that_the_balance_does_not_allow_is_owed_and_taken_from_the_next_transfers() -> None:
    account = Account()
    settling = paid(4500, account)
    account.empty = frozenset({EXPERT})
    order_refund(settling.session, 1500)
    payment = settling.run()
    assert [(t.status, t.amount_owed, t.amount_reversed) for t in payment.transfers] == [
        ("owed", 1350, 0), ("paid", 0, 30),
    ]  # fmt: skip
    assert payment.settled
    assert account.debts == {EXPERT: 1350}
    shares_close(settling)

    following = Settling(session_doc(id="ses_2"), Account(debts=account.debts))
    following.run()
    live(following.session)
    finalize(following.session, 1000)
    payment = following.run()
    assert [(t.amount, t.amount_offset, t.status) for t in payment.transfers] == [(900, 900, "paid"), (20, 0, "paid")]
    assert [t["destination"] for t in following.account.transfers] == [AMBASSADOR]
    assert account.debts == {EXPERT: 450}


def test_an_offset_is_taken_once_however_often_its_answer_is_lost() -> None:
    settling = Settling(session_doc(), Account(debts={EXPERT: 1000}))
    settling.run()
    live(settling.session)
    finalize(settling.session, 4500)
    payment = settling.run([None, "lost_after", "crash_after", "lost_after"])
    assert settling.account.debts == {EXPERT: 0}
    assert payment.transfers[0].amount_offset == 1000
    assert settling.account.net(EXPERT) == 3050


def test_r17_what_an_offset_has_left_goes_when_the_account_may_receive() -> None:
    settling = paid(4500, Account(restricted=frozenset({EXPERT}), debts={EXPERT: 1000}))
    assert (settling.payment.transfers[0].status, settling.payment.transfers[0].amount_offset) == ("withheld", 1000)
    settling.account.restricted = frozenset()
    news(settling.session, "accounts")
    assert settling.run().transfers[0].status == "paid"
    assert (settling.account.net(EXPERT), settling.account.debts) == (3050, {EXPERT: 0})


def test_law6_what_an_offset_took_of_a_transfer_never_made_is_owed_again_after_a_refund() -> None:
    settling = paid(4500, Account(restricted=frozenset({EXPERT}), debts={EXPERT: 1000}))
    assert settling.account.debts == {EXPERT: 0}
    order_refund(settling.session, 4000)
    payment = settling.run()
    assert (payment.transfers[0].kept, settling.account.debts) == (450, {EXPERT: 550})
    order_refund(settling.session, 500)
    payment = settling.run()
    assert (payment.transfers[0].kept, settling.account.debts) == (0, {EXPERT: 1000})
    assert payment.settled
    shares_close(settling)


def test_what_an_offset_has_left_follows_a_refund() -> None:
    settling = paid(4500, Account(restricted=frozenset({EXPERT}), debts={EXPERT: 1000}))
    order_refund(settling.session, 1500)
    assert settling.run().transfers[0].status == "withheld"
    settling.account.restricted = frozenset()
    news(settling.session, "accounts")
    assert settling.run().transfers[0].status == "paid"
    assert settling.account.net(EXPERT) == 1700
    assert [r["metadata"]["step"] for r in settling.account.reversals] == ["reversal_ambassador"]
    shares_close(settling)


def test_what_an_offset_has_left_waits_for_a_dispute() -> None:
    settling = paid(4500, Account(restricted=frozenset({EXPERT}), debts={EXPERT: 1000}))
    settling.account.dispute("needs_response")
    settling.account.restricted = frozenset()
    news(settling.session, "disputes")
    news(settling.session, "accounts")
    assert (settling.run().transfers[0].reason, settling.account.net(EXPERT)) == ("disputed", 0)
    settling.account.dispute("won")
    news(settling.session, "disputes")
    assert (settling.run().transfers[0].status, settling.account.net(EXPERT)) == ("paid", 3050)


def test_an_open_dispute_withholds_what_is_not_transferred_and_a_won_one_lets_it_go() -> None:
    settling = Settling(session_doc(), Account(balance_late=True))
    settling.run()
    live(settling.session)
    finalize(settling.session, 4500)
    settling.look(None, "lost_before")
    settling.account.dispute("needs_response")
    news(settling.session, "disputes")
    assert [t.status for t in settling.run().transfers] == ["withheld", "withheld"]
    assert settling.account.transfers == []
    settling.account.dispute("won")
    news(settling.session, "disputes")
    payment = settling.run()
    assert (payment.status, [t.status for t in payment.transfers]) == ("captured", ["paid", "paid"])
    assert settling.told.count("payment.disputed") == 2


def test_withheld_transfers_wait_for_a_dispute_and_not_only_for_their_account() -> None:
    settling = paid(4500, Account(restricted=frozenset({EXPERT})))
    settling.account.dispute("needs_response")
    news(settling.session, "disputes")
    payment = settling.run()
    assert (payment.status, payment.transfers[0].reason) == ("disputed", "disputed")
    settling.account.restricted = frozenset()
    news(settling.session, "accounts")
    assert settling.run().transfers[0].status == "withheld", "nothing is transferred while the charge is disputed"
    settling.account.dispute("won")
    news(settling.session, "disputes")
    assert settling.run().transfers[0].status == "paid"


def test_a_lost_dispute_is_reversed_as_a_refund() -> None:
    settling = paid()
    settling.account.dispute("needs_response")
    news(settling.session, "disputes")
    assert settling.run().status == "disputed"
    assert settling.account.reversals == [], "an open dispute takes nothing back yet"
    settling.account.dispute("lost")
    news(settling.session, "disputes")
    payment = settling.run()
    assert (payment.status, payment.amount_refunded, payment.refunds[0].reason) == ("refunded", 4500, "dispute")
    assert settling.account.net(EXPERT) == 0
    assert settling.account.refunds == []
    shares_close(settling)


@pytest.mark.parametrize("by_hand_amount", [1500, 4500])
def test_law6_a_refund_that_we_hear_of_after_the_dispute_was_lost_leaves_it_the_less(by_hand_amount: int) -> None:
    settling = paid()
    settling.account.dispute("lost")
    news(settling.session, "disputes")
    assert settling.run().amount_refunded == 4500
    by_hand(settling, by_hand_amount)
    payment = settling.run()
    assert (payment.status, payment.amount_refunded, payment.settled) == ("refunded", 4500, True)
    assert [refund.amount for refund in payment.refunds] == [4500 - by_hand_amount, by_hand_amount]
    shares_close(settling)


def test_the_same_news_twice_and_out_of_order_change_nothing() -> None:
    settling = paid()
    settling.account.dispute("lost")
    news(settling.session, "disputes")
    news(settling.session, "disputes")
    payment = settling.run()
    news(settling.session, "disputes")
    assert settling.run().refunds == payment.refunds
    assert settling.told.count("payment.disputed") == 1


def test_a_refund_waits_while_the_charge_is_disputed() -> None:
    settling = paid()
    settling.account.dispute("needs_response")
    news(settling.session, "disputes")
    settling.run()
    order_refund(settling.session, 1000)
    assert settling.run().refunds[0].status == "ordered"
    settling.account.dispute("won")
    news(settling.session, "disputes")
    payment = settling.run()
    assert (payment.refunds[0].status, payment.status) == ("succeeded", "partially_refunded")


def test_a_refund_that_the_bank_sends_back_counts_no_more_and_may_be_ordered_anew() -> None:
    settling = paid()
    order_refund(settling.session, 4500)
    settling.run()
    settling.account.refunds[0]["status"] = "failed"
    news(settling.session, "refunds")
    payment = settling.run()
    assert (payment.status, payment.amount_refunded, payment.refunds[0].status) == ("captured", 0, "failed")
    assert refundable(payment.to_dict(), {"orders": settling.session["refunds"]}) == 4500
    shares_close(settling)


def test_law6_what_was_reversed_for_a_refund_that_came_back_is_given_once_more_and_can_be_reversed_again() -> None:
    settling = paid()
    order_refund(settling.session, 4500)
    settling.run()
    settling.account.return_refund()
    news(settling.session, "refunds")
    payment = settling.run()
    assert [(t.status, t.amount_reversed, t.amount_restored) for t in payment.transfers] == [
        ("paid", 4050, 4050), ("paid", 90, 90),
    ]  # fmt: skip
    assert payment.settled
    assert settling.told[-3:] == ["transfer.created", "transfer.created", "session.settled"]
    order_refund(settling.session, 1500)
    payment = settling.run()
    assert [(t.amount_reversed, t.kept) for t in payment.transfers] == [(5400, 2700), (120, 60)]
    assert settling.account.transfers[0]["amount_reversed"] == 4050, "what was empty is left alone"
    shares_close(settling)


@pytest.mark.parametrize("collected", [0, 1000])
def test_law6_what_was_owed_for_a_refund_that_came_back_is_owed_no_more_or_given_back(collected: int) -> None:
    settling = paid()
    settling.account.empty = frozenset({EXPERT})
    order_refund(settling.session, 1500)
    settling.run()
    settling.account.return_refund()
    settling.account.debts[EXPERT] -= collected  # out of another session's transfer
    news(settling.session, "refunds")
    payment = settling.run()
    transfer = payment.transfers[0]
    assert (transfer.amount_owed, transfer.amount_restored, transfer.kept) == (collected, collected, 4050)
    assert settling.account.debts == {EXPERT: 0}
    assert payment.settled


def test_r17_what_is_given_once_more_waits_for_the_account() -> None:
    settling = paid()
    order_refund(settling.session, 1500)
    settling.run()
    settling.account.return_refund()
    settling.account.restricted = frozenset({EXPERT})
    news(settling.session, "refunds")
    payment = settling.run()
    assert (payment.transfers[0].status, payment.settled) == ("withheld", True)
    settling.account.restricted = frozenset()
    news(settling.session, "accounts")
    payment = settling.run()
    assert (payment.transfers[0].status, payment.transfers[0].amount_restored) == ("paid", 1350)
    shares_close(settling)


def test_r17_a_transfer_withheld_for_its_account_goes_when_the_account_may_receive() -> None:
    settling = paid(4500, Account(restricted=frozenset({EXPERT})))
    assert [t.status for t in settling.payment.transfers] == ["withheld", "paid"]
    news(settling.session, "accounts")
    assert settling.run().transfers[0].status == "withheld", "the account still cannot"
    settling.account.restricted = frozenset()
    news(settling.session, "accounts")
    payment = settling.run()
    assert (payment.transfers[0].status, payment.settled) == ("paid", True)
    assert settling.account.net(EXPERT) == 4050


def test_r17_a_refusal_that_stripe_kept_does_not_withhold_from_an_account_that_may_receive_by_now() -> None:
    settling = Settling(session_doc(), Account(restricted=frozenset({EXPERT})))
    settling.run()
    live(settling.session)
    finalize(settling.session, 4500)
    settling.look(None, "lost_after")  # the capture, then the transfer
    assert settling.payment.find("transfer_expert", 1) is not None
    settling.account.restricted = frozenset()
    news(settling.session, "accounts")
    assert settling.run().transfers[0].status == "paid"


def test_law6_a_refund_that_came_back_is_seen_before_the_dispute_that_was_lost() -> None:
    settling = paid()
    order_refund(settling.session, 4500)
    assert settling.run().status == "refunded"
    settling.account.refunds[0]["status"] = "failed"
    settling.account.dispute("lost")
    news(settling.session, "refunds")
    news(settling.session, "disputes")
    payment = settling.run()
    assert (payment.status, payment.amount_refunded) == ("refunded", 4500)
    assert settling.account.net(EXPERT) == 0


def test_a_withheld_share_is_as_small_as_the_refunds_have_made_it() -> None:
    settling = paid(4500, Account(restricted=frozenset({EXPERT})))
    order_refund(settling.session, 1500)
    settling.run()
    settling.account.restricted = frozenset()
    news(settling.session, "accounts")
    settling.run()
    assert settling.account.net(EXPERT) == 2700
    shares_close(settling)


# A bill that is due


def due() -> Settling:
    settling = Settling(session_doc())
    settling.run()
    live(settling.session)
    settling.account.intents["pi_1"]["status"] = "canceled"
    finalize(settling.session, 4500)
    assert settling.run().status == "due"
    assert settling.told[-1] == "payment.due"
    return settling


def test_a_due_bill_is_charged_to_another_card_at_once_and_only_when_one_is_named() -> None:
    settling = due()
    assert settling.run().status == "due"
    assert len(settling.account.intents) == 1, "never a silent retry"
    recharge(settling.session, "pm_other")
    payment = settling.run()
    assert (payment.status, payment.amount_captured, payment.settled) == ("captured", 4500, True)
    hold = payment.find("hold", 2)
    assert hold is not None
    assert (hold.params["capture_method"], hold.params["amount"]) == ("automatic", 4500)
    assert settling.account.net(EXPERT) == 4050


def test_a_declined_card_leaves_the_bill_due_and_the_next_one_may_pay() -> None:
    settling = due()
    recharge(settling.session, "pm_declined")
    payment = settling.run()
    assert (payment.status, payment.decline_code) == ("due", "insufficient_funds")
    assert settling.account.unfinished() == []
    recharge(settling.session, "pm_other")
    assert settling.run().status == "captured"


def test_authentication_abandoned_leaves_the_bill_due() -> None:
    settling = due()
    recharge(settling.session, "pm_action")
    settling.look()
    assert settling.payment.status == "action_required"
    settling.now += 3_600_001
    settling.look()
    payment = settling.run()
    assert (payment.status, payment.decline_code) == ("due", "authentication_abandoned")
    assert settling.account.unfinished() == []


def test_law5_a_due_bill_waived_before_the_card_named_for_it_was_charged_is_settled() -> None:
    settling = due()
    recharge(settling.session, "pm_other")
    settling.die("crash_before")
    settling.session["waived_after"] = True
    payment = settling.run()
    assert (payment.status, payment.amount_waived, payment.settled) == ("none", 4500, True)
    assert len(settling.account.intents) == 1, "the card was never charged"


def test_law5_a_card_confirmed_at_the_last_moment_is_the_one_that_paid() -> None:
    settling = due()
    recharge(settling.session, "pm_action")
    settling.look()
    settling.account.take(settling.account.authorize(settling.account.intents["pi_2"]))
    recharge(settling.session, "pm_other")
    payment = settling.run()
    assert (payment.status, payment.payment_intent, settling.account.captures) == ("captured", "pi_2", 1)
    assert len(settling.account.intents) == 2, "the other card was never asked"


@pytest.mark.parametrize("fault", ["lost_before", "lost_after", "crash_before", "crash_after", "in_flight"])
def test_law5_two_cards_named_in_a_hurry_are_charged_once(fault: str) -> None:
    settling = due()
    recharge(settling.session, "pm_other")
    settling.die(fault)
    recharge(settling.session, "pm_another")
    payment = settling.run()
    assert (payment.status, settling.account.captures) == ("captured", 1)


# Everything at once

faults = st.lists(st.sampled_from([None, None, *FAULTS, "crash_before", "crash_after"]), max_size=20)
quiet = st.lists(
    st.sampled_from([None, "lost_before", "lost_after", "busy", "in_flight", "error", "crash_before", "crash_after"]),
    max_size=20,
)
acts = st.lists(
    st.one_of(
        st.tuples(st.just("refund"), st.integers(1, 4500), st.sampled_from(["shares", "shares", "platform"])),
        st.tuples(st.just("empty"), st.booleans(), st.just("")),
        st.tuples(st.just("account"), st.booleans(), st.just("")),
        st.tuples(st.just("return"), st.just(0), st.just("")),
        st.tuples(st.just("dispute"), st.sampled_from(["needs_response", "won"]), st.just("")),
    ),
    max_size=6,
)


def play(settling: Settling, story: list[tuple[str, object, str]], fault_lists: list[list[str | None]]) -> Payment:
    """Refunds, disputes and accounts that change, in any order, with faults in each part; at the end every dispute is
    decided and all is looked at once more."""
    per_part, account = iter(fault_lists), settling.account
    for what, value, charge_to in story:
        if what == "refund":
            order_refund(settling.session, int(str(value)), charge_to)
        elif what == "empty":
            account.empty = frozenset({EXPERT}) if value else frozenset()
        elif what == "return":
            account.return_refund()
            news(settling.session, "refunds")
        elif what == "account":
            account.restricted = frozenset({EXPERT}) if value else frozenset()
            news(settling.session, "accounts")
        else:
            account.dispute(str(value))
            news(settling.session, "disputes")
        settling.run(next(per_part))
    if account.disputes:
        account.dispute("won")
        news(settling.session, "disputes")
    account.restricted = frozenset()
    news(settling.session, "accounts")
    return settling.run(next(per_part))


@settings(max_examples=300, deadline=None)
@given(
    total=st.integers(50, 4500), story=acts, fault_lists=st.lists(faults, min_size=7, max_size=7),
    rate=st.sampled_from([1000, 1085, 1270, 730]), restricted=st.booleans(),
)  # fmt: skip
def test_law6_any_series_of_refunds_closes_under_any_faults(
    total: int, story: list[tuple[str, object, str]], fault_lists: list[list[str | None]], rate: int, restricted: bool
) -> None:
    account = Account(rate_milli=rate, minimum=1, restricted=frozenset({EXPERT} if restricted else ()))
    settling = paid(total, account)
    payment = play(settling, story, fault_lists)
    assert payment.settled
    assert payment.amount_refunded == account.refunded() <= payment.amount_captured
    assert not any(refund.status == "ordered" for refund in payment.refunds)
    shares_close(settling)
    assert differences(settling) == []
    for name in ("refund", "reversal_expert", "reversal_ambassador", "restore_expert", "transfer_expert"):
        keys = [step.key for step in payment.steps if step.step == name]
        assert len(keys) == len(set(keys))


@settings(max_examples=150, deadline=None)
@given(story=acts, fault_lists=st.lists(quiet, min_size=7, max_size=7))
def test_law5_a_crash_after_any_step_of_a_refund_changes_nothing_of_the_end(
    story: list[tuple[str, object, str]], fault_lists: list[list[str | None]]
) -> None:
    plain = play(paid(), story, [[] for _ in range(7)])
    payment = play(paid(), story, fault_lists)
    assert [(r.number, r.amount, r.status) for r in payment.refunds] == [
        (r.number, r.amount, r.status) for r in plain.refunds
    ]
    assert [(t.kept, t.status) for t in payment.transfers] == [(t.kept, t.status) for t in plain.transfers]
    assert (payment.status, payment.amount_refunded) == (plain.status, plain.amount_refunded)


@settings(max_examples=300, deadline=None)
@given(
    total=st.integers(1, 10_000_000), commission=st.integers(0, 10_000), ambassador=st.integers(0, 10_000),
    rate_milli=st.integers(500, 2000), cuts=st.lists(st.integers(0, 10_000), max_size=8),
)  # fmt: skip
def test_law6_reversals_of_a_series_sum_to_what_one_refund_would_take(
    total: int, commission: int, ambassador: int, rate_milli: int, cuts: list[int]
) -> None:
    balance, left = total * rate_milli // 1000, total
    had = settled_shares(balance, split(total, commission, ambassador))
    expert, ambassador_part = had.expert, had.ambassador
    for cut in cuts:
        left -= left * cut // 10_000
        shares = split(left, commission, ambassador)
        now = (balance * shares.expert // total, balance * shares.ambassador // total)
        assert now <= (expert, had.expert + had.ambassador)
        assert 0 <= now[0] <= expert
        assert 0 <= now[1] <= ambassador_part
        expert, ambassador_part = now
    final = split(left, commission, ambassador)
    assert (expert, ambassador_part) == (balance * final.expert // total, balance * final.ambassador // total)


# The order


def test_an_order_is_bounded_by_what_is_left_and_made_once() -> None:
    payment = Payment("captured", "usd", amount_captured=4500).to_dict()
    orders = ordered(payment, None, NewRefund("ref_a", 4000, "r", "shares"), NOW)
    assert ordered(payment, orders, NewRefund("ref_a", 4000, "r", "shares"), NOW) is orders
    with pytest.raises(Conflict) as refused:
        ordered(payment, orders, NewRefund("ref_b", 501, "r", "shares"), NOW)
    assert (refused.value.code, refused.value.extra) == ("refund_too_large", {"left": 500})
    rest = ordered(payment, orders, NewRefund("ref_b", None, "r", "shares"), NOW)
    assert [order["amount"] for order in rest["orders"]] == [4000, 500]
    with pytest.raises(Conflict):
        ordered(payment, rest, NewRefund("ref_c", None, "r", "shares"), NOW)


@pytest.mark.parametrize("status", ["held", "released", "due", "disputed", "refunded", "none"])
def test_only_what_was_captured_and_is_not_disputed_can_be_refunded(status: str) -> None:
    payment = Payment("captured", "usd", amount_captured=4500).to_dict() | {"status": status}
    with pytest.raises(Conflict) as refused:
        ordered(payment, None, NewRefund("ref_a", 1, "r", "shares"), NOW)
    assert refused.value.code == "payment_state"


# R19: ambassadors


@pytest.mark.parametrize(
    ("total", "commission", "share", "parts"),
    [
        (4500, 1000, 2000, (4050, 90)),
        (4500, 1000, 10_000, (4050, 450)),  # the platform gives its whole commission away
        (4500, 1000, 0, (4050,)),
        (4500, 0, 2000, (4500,)),
        (59, 1000, 1000, (53,)),  # a tenth of six is nothing
        (4500, 10_000, 10_000, (4500,)),  # and the expert has nothing of it
    ],
)
def test_r19_parts_of_nothing_make_no_transfer(total: int, commission: int, share: int, parts: tuple[int, ...]) -> None:
    session = session_doc(commission_bps=commission, ambassador={"stripe_account": AMBASSADOR, "share_bps": share})
    settling = Settling(session)
    settling.run()
    live(settling.session)
    finalize(settling.session, total)
    payment = settling.run()
    assert tuple(transfer["amount"] for transfer in settling.account.transfers) == parts
    assert payment.settled
    shares_close(settling)


@pytest.mark.parametrize("restricted", [EXPERT, AMBASSADOR])
def test_r19_neither_waits_for_the_others_account(restricted: str) -> None:
    settling = paid(4500, Account(restricted=frozenset({restricted})))
    status = {transfer.account: transfer.status for transfer in settling.payment.transfers}
    assert status == {EXPERT: "paid", AMBASSADOR: "paid"} | {restricted: "withheld"}
    order_refund(settling.session, 1500)
    settling.run()
    settling.account.restricted = frozenset()
    news(settling.session, "accounts")
    assert settling.run().settled
    assert (settling.account.net(EXPERT), settling.account.net(AMBASSADOR)) == (2700, 60), "of what is left"
    shares_close(settling)


def test_r19_an_expert_who_is_their_own_ambassador_gets_both_shares_and_gives_both_back() -> None:
    session = session_doc(ambassador={"stripe_account": EXPERT, "share_bps": 2000})
    settling = Settling(session, Account(debts={EXPERT: 4100}))
    settling.run()
    live(settling.session)
    finalize(settling.session, 4500)
    payment = settling.run()
    assert [(t.amount, t.amount_offset) for t in payment.transfers] == [(4050, 4050), (90, 50)]
    assert settling.account.net(EXPERT) == 40
    order_refund(settling.session, 4500)
    payment = settling.run()
    assert sum(t.amount_owed for t in payment.transfers) == settling.account.debts[EXPERT] == 4100
    assert (settling.account.net(EXPERT), payment.settled) == (0, True)
