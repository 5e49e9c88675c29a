"""The payment of a session: each rule of the order of money, then all of it under faults at every step."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.billing_bridge.calls import Call
from gateway.billing_bridge.order import order_of
from gateway.billing_bridge.payment import begun, next_step, opened
from gateway.billing_bridge.pricing import Terms
from gateway.billing_bridge.record import STEP_TRANSITIONS, TRANSITIONS, Payment, Step
from gateway.billing_bridge.results import REFUSED_LAST_MS
from gateway.money import CURRENCIES
from tests.billing_bridge.account import FAULTS, Account
from tests.billing_bridge.settling import NOW, Session, Settling, finalize, live, news, other_card, session_doc

DAY = 86_400_000
CARD = {"brand": "visa", "last4": "4242", "country": "US"}


def held(**changes: Any) -> Settling:
    settling = Settling(session_doc(**changes))
    assert settling.run().status == "held"
    return settling


def looked_at(**changes: Any) -> Settling:
    """Its card is known, so that the hold comes next."""
    settling = Settling(session_doc(**changes))
    settling.disk = json.dumps(replace(settling.payment, card=CARD).to_dict())
    return settling


def no_funding(**changes: Any) -> Session:
    return session_doc(funding=None, **changes)


# The first record


@pytest.mark.parametrize(
    ("session", "status"),
    [
        (session_doc(), "pending"),
        (no_funding(), "none"),
        (session_doc(hold="join"), "awaiting_join"),
        (
            session_doc(funding={"attempt": 1, "payment_method": None, "amount": 7500, "requested_at": NOW}),
            "failed",
        ),
        (session_doc(kind="free", funding=None), "none"),
    ],
)
def test_a_session_opens_with_the_payment_that_its_order_asks_for(session: Session, status: str) -> None:
    assert opened(session, NOW)["status"] == status


def test_the_record_survives_its_own_json() -> None:
    settling = held()
    live(settling.session)
    finalize(settling.session, 4500)
    payment = settling.run()
    assert Payment.from_dict(payment.to_dict()) == payment


# Hold (R4)


def test_r4_the_most_it_may_cost_is_held_before_the_call() -> None:
    settling = held()
    payment = settling.payment
    assert (payment.amount_held, payment.payment_intent, payment.charge) == (7500, "pi_1", "ch_1")
    assert payment.card == {"brand": "visa", "last4": "4242", "country": "US"}
    assert payment.hold_until == NOW + 7 * DAY
    assert settling.told == ["payment.held"]
    assert payment.client_secret is None


def test_the_holds_parameters_are_exact_and_kept() -> None:
    settling = Settling(session_doc(), terms=Terms(return_url="https://pay.test/back/{session}"))
    step = settling.run().find("hold", 1)
    assert step is not None
    assert step.key == "ses_1:hold:1"
    assert step.params == {
        "amount": 7500, "currency": "usd", "capture_method": "manual", "confirm": True, "customer": "cus_1",
        "payment_method": "pm_card_visa", "allowed_payment_method_types": ["card"], "transfer_group": "ses_1",
        "setup_future_usage": "off_session", "return_url": "https://pay.test/back/ses_1",
        "metadata": {"session": "ses_1", "step": "hold", "attempt": "1"}, "expand": ["latest_charge"],
        "statement_descriptor_suffix": "EXPERT",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("brand", "country", "taken"),
    [("visa", "DE", True), ("mastercard", None, True), ("amex", "GB", True), ("jcb", "US", True),
     ("discover", "US", True), ("diners", "US", True), ("jcb", "JP", False), ("diners", "CH", False),
     ("discover", None, False), ("unionpay", "US", False), ("unionpay", "CN", False), (None, "US", False)],
)  # fmt: skip
def test_r4_a_cards_brand_and_country_are_looked_at_before_anything_is_held(
    brand: str | None, country: str | None, taken: bool
) -> None:
    settling = Settling(session_doc())
    settling.account.cards["pm_card_visa"] = {"brand": brand, "country": country}
    payment = settling.run()
    assert settling.calls[0] == "payment_methods.retrieve"
    assert (payment.status, len(settling.account.intents)) == (("held", 1) if taken else ("failed", 0))
    assert payment.decline_code == (None if taken else "card_brand_not_supported")
    assert settling.told == ["payment.held" if taken else "payment.failed"]
    other_card(settling.session, "pm_other")
    payment = settling.run()
    assert (payment.status, payment.attempt, payment.decline_code) == ("held", 2, None)


def test_r4_a_card_that_cannot_be_looked_at_yet_is_looked_at_again() -> None:
    settling = Settling(session_doc())
    payment = settling.run(["busy", "lost_before", "crash_before", "crash_after"])
    assert settling.calls.count("payment_methods.retrieve") == 4, "and no hold in between"
    assert (payment.status, len(settling.account.intents)) == ("held", 1)


def test_r4_a_card_that_stripe_does_not_know_is_never_asked() -> None:
    settling = Settling(session_doc())
    settling.account.refusing = {"payment_methods.retrieve": "resource_missing"}
    payment = settling.run()
    assert (payment.status, payment.decline_code, settling.calls) == (
        "failed", "resource_missing", ["payment_methods.retrieve"],
    )  # fmt: skip


def test_a_step_is_marked_sent_before_its_call_and_nobody_sends_it_twice() -> None:
    order, payment = order_of(session_doc()), looked_at().payment
    step = next_step(order, payment, NOW, Terms())
    assert step is not None
    payment, step = begun(payment, step, NOW)
    assert payment.steps == (step,)
    assert (step.state, step.at, step.tries) == ("sent", NOW, 1)
    assert next_step(order, payment, NOW, Terms()) is None


def test_a_declined_card_waits_for_another_one() -> None:
    settling = Settling(session_doc(funding={"attempt": 1, "payment_method": "pm_declined", "amount": 7500}))
    payment = settling.run()
    assert (payment.status, payment.decline_code) == ("failed", "insufficient_funds")
    assert settling.told == ["payment.failed"]
    assert settling.run() == payment, "no silent retry"
    other_card(settling.session, "pm_card_visa")
    payment = settling.run()
    assert (payment.status, payment.attempt, payment.decline_code) == ("held", 2, None)
    assert settling.told == ["payment.failed", "payment.held"]


def test_at_most_one_hold_lives_and_the_older_is_cancelled_first() -> None:
    settling = held()
    other_card(settling.session, "pm_other")
    payment = settling.run()
    assert (payment.status, payment.payment_intent) == ("held", "pi_2")
    assert [i["status"] for i in settling.account.intents.values()] == ["canceled", "requires_capture"]
    assert settling.account.most_live == 1
    assert "payment.released" not in settling.told


@pytest.mark.parametrize("card", ["pm_card_visa", "pm_declined", "pm_action"])
def test_whoever_orders_another_card_may_say_pending_at_once(card: str) -> None:
    settling = Settling(session_doc(funding={"attempt": 1, "payment_method": card, "amount": 7500}))
    settling.look()
    other_card(settling.session, "pm_other")
    settling.disk = json.dumps(settling.payment.to_dict() | {"status": "pending"})
    payment = settling.run()
    assert (payment.status, payment.attempt, len(settling.account.live())) == ("held", 2, 1)
    assert settling.account.most_live == 1


def test_strong_authentication_is_carried_through() -> None:
    settling = Settling(session_doc(funding={"attempt": 1, "payment_method": "pm_action", "amount": 7500}))
    assert settling.look() is not None
    payment = settling.payment
    assert (payment.status, payment.action_url, payment.client_secret) == (
        "action_required",
        "https://bank.test/",
        "secret",
    )
    assert settling.told == ["payment.action_required"]
    assert "client_secret" not in settling.notices[0].data
    settling.account.authorize(settling.account.intents["pi_1"])
    settling.nudges += 1
    settling.look()
    assert (settling.payment.status, settling.payment.client_secret, settling.payment.action_url) == (
        "held",
        None,
        None,
    )
    assert settling.told == ["payment.action_required", "payment.held"]


def test_strong_authentication_is_seen_even_if_stripes_event_is_lost() -> None:
    settling = Settling(session_doc(funding={"attempt": 1, "payment_method": "pm_action", "amount": 7500}))
    again_at = settling.look()
    settling.account.authorize(settling.account.intents["pi_1"])
    assert again_at is not None
    assert NOW < again_at <= NOW + 5_000
    settling.now = again_at
    settling.look()
    assert settling.payment.status == "held"


def test_abandoned_authentication_is_cancelled_with_the_session() -> None:
    settling = Settling(session_doc(funding={"attempt": 1, "payment_method": "pm_action", "amount": 7500}))
    settling.look()
    finalize(settling.session, 0, started=False)
    payment = settling.run()
    assert (payment.status, payment.settled, payment.client_secret) == ("released", True, None)
    assert settling.account.intents["pi_1"]["status"] == "canceled"


def test_a_hold_for_joining_waits_for_the_clients_consent() -> None:
    settling = Settling(session_doc(hold="join"))
    assert settling.run().status == "awaiting_join"
    assert settling.calls == []
    settling.session["joined"] = {"client": NOW, "expert": None}
    assert (settling.run().status, settling.calls) == ("awaiting_join", [])
    settling.session["consent"] = {"at": NOW, "text_version": "1", "locale": "en", "amount_max": 7500}
    assert settling.run().status == "held"


# The end


def test_what_was_used_is_captured_shared_and_settled() -> None:
    settling = held()
    live(settling.session)
    finalize(settling.session, 4500)
    payment = settling.run()
    assert (payment.status, payment.amount_captured, payment.amount_total, payment.settled) == (
        "captured",
        4500,
        4500,
        True,
    )
    assert [(t.to, t.amount, t.currency, t.status) for t in payment.transfers] == [
        ("expert", 4050, "usd", "paid"), ("ambassador", 90, "usd", "paid"),
    ]  # fmt: skip
    assert settling.told[1:] == ["payment.captured", "transfer.created", "transfer.created", "session.settled"]
    assert all(t["source_transaction"] == "ch_1" and t["transfer_group"] == "ses_1" for t in settling.account.transfers)


def test_nothing_is_captured_before_the_bill_is_frozen() -> None:
    settling = held()
    live(settling.session)
    settling.session["status"] = "ended"
    assert settling.run().status == "held"


def test_law5_an_unanswered_session_gives_its_hold_back_once_its_bill_says_so() -> None:
    settling = held()
    settling.session["status"] = "ended"
    assert settling.run().status == "held", "whether it was live only its owner knows: Redis may have lost the start"
    finalize(settling.session, 0, started=False)
    assert settling.run().status == "released"
    assert settling.told == ["payment.held", "payment.released", "session.settled"]


def test_r15_a_waiver_releases_the_hold_at_once_and_charges_nothing() -> None:
    settling = held()
    live(settling.session)
    settling.session["waived"] = True
    assert settling.run().status == "released"
    assert not settling.payment.settled
    finalize(settling.session, 0, waived=4500)
    payment = settling.run()
    assert (payment.amount_total, payment.amount_waived, payment.settled) == (0, 4500, True)


@pytest.mark.parametrize("total", [0, 1, 49])
def test_a_bill_below_the_smallest_charge_is_let_off(total: int) -> None:
    settling = held()
    live(settling.session)
    finalize(settling.session, total)
    payment = settling.run()
    assert (payment.status, payment.amount_total, payment.amount_waived) == ("released", 0, total)
    assert settling.calls[1:] == ["payment_intents.create", "payment_intents.cancel"]


def test_amount_too_small_is_treated_alike() -> None:
    settling = held()
    settling.account.minimum = 100
    live(settling.session)
    finalize(settling.session, 60)
    payment = settling.run()
    assert (payment.status, payment.amount_total, payment.amount_waived, payment.settled) == ("released", 0, 60, True)
    assert settling.told == ["payment.held", "payment.released", "session.settled"]


def test_a_waiver_after_the_capture_was_sent_is_too_late() -> None:
    settling = held()
    live(settling.session)
    finalize(settling.session, 4500)
    settling.die("crash_before")
    settling.session["waived"] = True
    assert settling.run().status == "captured"


def test_a_waiver_that_the_frozen_bill_does_not_know_counts_until_the_capture_is_sent() -> None:
    settling = held()
    live(settling.session)
    settling.session["waived"] = True
    finalize(settling.session, 4500)
    payment = settling.run()
    assert (payment.status, payment.amount_total, payment.amount_waived) == ("released", 0, 4500)


def test_nothing_is_due_of_a_waived_session_whose_hold_was_lost() -> None:
    settling = held()
    live(settling.session)
    settling.account.intents["pi_1"]["status"] = "canceled"
    settling.nudges += 1
    settling.run()
    settling.session["waived"] = True
    finalize(settling.session, 4500)
    payment = settling.run()
    assert (payment.status, payment.amount_total, payment.amount_waived, payment.settled) == ("failed", 0, 4500, True)


def test_law5_a_lost_hold_leaves_the_bill_due_and_never_charges_again() -> None:
    settling = held()
    live(settling.session)
    settling.account.intents["pi_1"]["status"] = "canceled"
    finalize(settling.session, 4500)
    payment = settling.run()
    assert (payment.status, payment.amount_total, payment.amount_captured, payment.settled) == ("due", 4500, 0, False)
    assert settling.account.captures == 0


def test_a_hold_lost_in_the_call_is_told_and_due_once_billed() -> None:
    settling = held()
    live(settling.session)
    settling.account.intents["pi_1"]["status"] = "canceled"
    settling.nudges += 1
    payment = settling.run()
    assert (payment.status, payment.decline_code) == ("failed", "hold_lost")
    assert settling.told == ["payment.held", "payment.failed"]
    finalize(settling.session, 4500)
    assert settling.run().status == "due"


def test_the_end_of_a_hold_is_watched() -> None:
    settling = held()
    settling.account.intents["pi_1"]["status"] = "canceled"
    settling.now = NOW + 7 * DAY + 5_000
    assert settling.run().status == "failed"


def test_a_session_that_never_found_a_card_settles_as_failed() -> None:
    settling = Settling(session_doc(funding={"attempt": 1, "payment_method": "pm_declined", "amount": 7500}))
    settling.run()
    finalize(settling.session, 0, started=False)
    payment = settling.run()
    assert (payment.status, payment.settled, payment.amount_total) == ("failed", True, 0)
    assert settling.account.live() == []


def test_a_free_session_settles_with_its_end() -> None:
    settling = Settling(no_funding(kind="free"))
    assert not settling.run().settled
    finalize(settling.session, 0)
    payment = settling.run()
    assert (payment.status, payment.settled, settling.told) == ("none", True, ["session.settled"])
    assert settling.calls == []


# Shares


@pytest.mark.parametrize("currency", sorted(CURRENCIES))
@pytest.mark.parametrize("late", [False, True])
def test_r1_every_currency_settles_on_a_platform_that_keeps_dollars(currency: str, late: bool) -> None:
    account = Account(rate_milli=1000 if currency == "usd" else 1087, balance_late=late)
    settling = Settling(session_doc(currency=currency), account)
    settling.run()
    live(settling.session)
    finalize(settling.session, 4500)
    payment = settling.run()
    assert payment.settlement is not None
    assert payment.settled
    balance = payment.settlement.amount
    assert [t.amount for t in payment.transfers] == [balance * 4050 // 4500, balance * 90 // 4500]
    assert {t.currency for t in payment.transfers} == {"usd"}
    assert [t.amount_share for t in payment.transfers] == [4050, 90]


def test_r19_without_an_ambassador_there_is_one_transfer() -> None:
    settling = Settling(session_doc(ambassador=None))
    settling.run()
    live(settling.session)
    finalize(settling.session, 4500)
    assert [(t.to, t.amount) for t in settling.run().transfers] == [("expert", 4050)]


def test_r17_a_restricted_account_is_withheld_and_the_rest_goes_on() -> None:
    settling = Settling(session_doc(), Account(restricted=frozenset({"acct_expert"})))
    settling.run()
    live(settling.session)
    finalize(settling.session, 4500)
    payment = settling.run()
    assert [(t.to, t.status) for t in payment.transfers] == [("expert", "withheld"), ("ambassador", "paid")]
    assert payment.transfers[0].reason == "insufficient_capabilities_for_transfer"
    assert settling.told[2:] == ["transfer.withheld", "transfer.created", "session.settled"]


def test_an_expert_without_an_account_is_withheld() -> None:
    settling = Settling(session_doc(expert={"id": "e1", "stripe_account": None}))
    settling.run()
    live(settling.session)
    finalize(settling.session, 4500)
    assert [t.status for t in settling.run().transfers] == ["withheld", "paid"]


# What cannot be known


@pytest.mark.parametrize("fault", ["lost_before", "lost_after", "crash_before", "crash_after", "in_flight"])
def test_an_unknown_hold_is_asked_with_the_same_key_and_placed_once(fault: str) -> None:
    settling = Settling(session_doc())
    assert settling.run([fault]).status == "held"
    assert len(settling.account.intents) == 1
    assert settling.calls.count("payment_intents.create") <= 2


def test_an_unknown_hold_older_than_its_key_is_looked_up_and_never_posted_again() -> None:
    settling = looked_at()
    settling.die("crash_after")
    settling.now += 24 * 3_600_000
    assert settling.run().status == "held"
    assert settling.calls == ["payment_intents.create", "payment_intents.list"]


def test_an_old_unknown_hold_that_stripe_never_had_fails_for_the_client_to_try_again() -> None:
    settling = looked_at()
    settling.die("crash_before")
    settling.now += 24 * 3_600_000
    assert (settling.run().status, settling.payment.decline_code) == ("failed", "processing_error")


def test_an_unknown_capture_is_asked_before_it_is_sent_again() -> None:
    settling = held()
    live(settling.session)
    finalize(settling.session, 4500)
    settling.run(["lost_before"])
    assert settling.calls[2:5] == ["payment_intents.capture", "payment_intents.retrieve", "payment_intents.capture"]
    assert settling.account.captures == 1


def test_an_unknown_transfer_is_looked_up_in_the_sessions_group() -> None:
    settling = held()
    live(settling.session)
    finalize(settling.session, 4500)
    settling.run([None, "lost_after"])
    assert settling.calls[3:] == ["transfers.create", "transfers.create", "transfers.list"]
    assert [t["amount"] for t in settling.account.transfers] == [4050, 90]


def test_a_busy_stripe_does_not_make_an_unknown_step_known() -> None:
    settling = looked_at()
    settling.run(["lost_after", "busy", "busy"])
    assert len(settling.account.intents) == 1
    assert set(settling.calls) == {"payment_intents.create"}


def test_an_unknown_hold_is_not_forgotten_because_stripe_was_busy_when_asked() -> None:
    settling = looked_at()
    settling.rush(["lost_after", "busy"], looks=2)
    finalize(settling.session, 0, started=False)
    assert settling.run().status == "released"
    assert settling.account.unfinished() == []


def test_a_hold_that_was_never_made_gives_way_to_the_next_card() -> None:
    settling = looked_at()
    settling.look("busy")
    other_card(settling.session, "pm_other")
    payment = settling.run()
    assert (payment.status, payment.attempt, payment.payment_intent) == ("held", 2, "pi_1")
    assert len(settling.account.intents) == 1


def test_a_busy_stripe_is_given_the_time_it_asks_for() -> None:
    settling = looked_at()
    again_at = settling.look("busy")
    step = settling.payment.find("hold", 1)
    assert step is not None
    assert (step.state, step.not_before, again_at) == ("intent", NOW + 1000, NOW + 1000)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("step", "operation", "question"),
    [("capture", "payment_intents.capture", "payment_intents.retrieve"),
     ("transfer_expert", "transfers.create", "transfers.list")],
)  # fmt: skip
def test_law5_beyond_the_life_of_a_key_stripe_is_asked_before_anything_is_sent_again(
    step: str, operation: str, question: str, late: bool
) -> None:
    settling = held()
    live(settling.session)
    finalize(settling.session, 4500)
    settling.look(*([] if step == "capture" else [None]), "lost_before")
    waiting = next(s for s in settling.payment.open_steps if s.step == step)
    settling.disk = json.dumps(settling.payment.with_step(replace(waiting, state="intent", not_before=0)).to_dict())
    if late:  # the request that was lost wandered through the network, and arrived after we had asked
        settling.account.now = settling.now
        settling.account.send(Call(operation, waiting.params, waiting.key))
    settling.now += 25 * 3_600_000
    calls = len(settling.calls)
    payment = settling.run()
    assert settling.calls[calls] == question
    assert settling.calls[calls:].count(operation) == (0 if late else 1)
    assert (payment.settled, settling.account.captures, len(settling.account.transfers)) == (True, 1, 2)


def test_a_spent_key_has_a_successor_only_after_stripe_was_asked() -> None:
    settling = held()
    live(settling.session)
    finalize(settling.session, 4500)
    payment = settling.run(["error_saved"])
    captures = [step for step in payment.steps if step.step == "capture"]
    assert [(s.key, s.state) for s in captures] == [("ses_1:capture:1", "failed"), ("ses_1:capture:2", "done")]
    asked = settling.calls.index("payment_intents.retrieve", 4)
    assert settling.calls[asked + 1] == "payment_intents.capture"
    assert settling.account.captures == 1


@pytest.mark.parametrize(
    ("operation", "code"), [("transfers.create", "balance_insufficient"), ("payment_intents.capture", "account_closed")]
)
def test_a_refusal_that_stripe_keeps_under_the_key_is_cured_with_the_next_key(operation: str, code: str) -> None:
    settling = held()
    live(settling.session)
    finalize(settling.session, 4500)
    settling.account.refusing = {operation: code}
    settling.look()
    first = settling.payment.open_steps
    assert first == (), "nothing that could be sent a second time waits"
    settling.rush([], 3)
    settling.account.refusing = {}
    started = settling.now
    payment = settling.run()
    assert payment.settled
    assert settling.now - started <= REFUSED_LAST_MS < 24 * 3_600_000, "not only when Stripe has forgotten the key"
    assert [(t["destination"], t["amount"]) for t in settling.account.transfers] == [
        ("acct_expert", 4050), ("acct_ambassador", 90),
    ]  # fmt: skip


def test_while_a_refused_transfer_rests_a_dispute_withholds_it() -> None:
    settling = held()
    live(settling.session)
    finalize(settling.session, 4500)
    settling.account.refusing = {"transfers.create": "balance_insufficient"}
    settling.look()
    settling.account.refusing = {}
    settling.account.dispute("needs_response")
    news(settling.session, "disputes")
    payment = settling.run()
    assert [(t.status, t.reason) for t in payment.transfers] == [("withheld", "disputed")] * 2
    assert settling.account.transfers == []


def test_a_key_that_stripe_does_not_know_is_no_reason_for_another_idempotency_key() -> None:
    settling = held()
    live(settling.session)
    finalize(settling.session, 4500)
    settling.account.refusing = {"payment_intents.capture": "authentication"}
    settling.look()
    settling.account = replace(settling.account, refusing={}, keys={})
    payment = settling.run()
    assert [step.key for step in payment.steps if step.step == "capture"] == ["ses_1:capture:1"]


# The tables


def test_every_status_is_reachable_and_the_ends_of_this_depth_stay() -> None:
    reachable, frontier = set(), {"none", "awaiting_join", "pending"}
    while frontier:
        reachable |= frontier
        frontier = set().union(*(TRANSITIONS[s] for s in frontier)) - reachable  # type: ignore[index]
    assert reachable == set(TRANSITIONS)
    assert TRANSITIONS["released"] == frozenset()
    assert TRANSITIONS["none"] == {"captured"}, "a meeting that was over before its booking was paid"


def test_a_step_may_only_go_where_its_table_says() -> None:
    for state, targets in STEP_TRANSITIONS.items():
        for other in STEP_TRANSITIONS:
            step = Step("capture", 1, "k", {}, state=state)
            if other in targets:
                assert step.to(other).state == other
            else:
                with pytest.raises(AssertionError):
                    step.to(other)


# Everything at once

faults = st.lists(st.sampled_from([None, None, *FAULTS, "crash_before", "crash_after"]), max_size=25)
cards = st.lists(st.sampled_from(["pm_card_visa", "pm_declined", "pm_action", "pm_other"]), min_size=1, max_size=3)
endings = st.sampled_from(["billed", "billed", "billed", "small", "nothing", "waived", "never_started", "lost"])


def story(
    settling: Settling, card_list: list[str], ending: str, fault_lists: list[list[str | None]], hurry: int = 0
) -> Payment:
    """A session from its first card to its settlement, with faults in each part; `hurry` is how many looks the
    bridge gets between two cards and before an early end, 0 for as many as it wants."""
    per_part = iter(fault_lists)
    for number, card in enumerate(card_list):
        if number:
            other_card(settling.session, card)
        settling.rush(next(per_part), hurry) if hurry else settling.run(next(per_part))
    if hurry and ending == "never_started":
        finalize(settling.session, 0, started=False)
        return settling.run(next(per_part))
    settling.run(next(per_part))
    if settling.payment.status != "held" or ending == "never_started":
        finalize(settling.session, 0, started=False)
        return settling.run(next(per_part))
    live(settling.session)
    if ending == "lost":
        settling.account.live()[0]["status"] = "canceled"
    if ending == "waived":
        settling.session["waived"] = True
        settling.run(next(per_part))
    totals = {"billed": 4500, "lost": 4500, "small": 20}
    finalize(settling.session, totals.get(ending, 0), waived=4500 if ending == "waived" else 0)
    return settling.run(next(per_part))


def end_of(payment: Payment) -> tuple[Any, ...]:
    transfers = tuple((t.to, t.amount, t.status) for t in payment.transfers)
    return (
        payment.status,
        payment.amount_captured,
        payment.amount_total,
        payment.amount_waived,
        transfers,
        payment.settled,
    )


def with_card(card: str) -> Session:
    return session_doc(funding={"attempt": 1, "payment_method": card, "amount": 7500, "requested_at": NOW})


@settings(max_examples=400, deadline=None)
@given(
    cards=cards,
    ending=endings,
    fault_lists=st.lists(faults, min_size=7, max_size=7),
    late=st.booleans(),
    hurry=st.integers(0, 3),
)
def test_law5_whatever_fails_it_ends_in_one_money_state_and_is_charged_once(
    cards: list[str], ending: str, fault_lists: list[list[str | None]], late: bool, hurry: int
) -> None:
    settling = Settling(with_card(cards[0]), Account(balance_late=late))
    payment = story(settling, cards, ending, fault_lists, hurry)
    account = settling.account
    assert payment.status in ("captured", "released", "failed", "none", "due")
    assert payment.settled is (payment.status != "due")
    assert account.unfinished() == [], "no hold is forgotten"
    assert account.most_live <= 1
    assert account.captures <= 1
    taken = sum(intent["amount_received"] for intent in account.intents.values())
    assert payment.amount_captured == taken <= payment.amount_held
    assert sorted(t["amount"] for t in account.transfers) == sorted(t.amount for t in payment.transfers)
    assert sum(told == "session.settled" for told in set(settling.told)) == int(payment.settled)
    if taken:
        assert payment.settlement is not None
        assert sum(t.amount for t in payment.transfers) < payment.settlement.amount


quiet = st.sampled_from(
    [None, "lost_before", "lost_after", "busy", "in_flight", "error", "crash_before", "crash_after"]
)


@settings(max_examples=300, deadline=None)
@given(ending=endings, fault_lists=st.lists(st.lists(quiet, max_size=12), min_size=7, max_size=7))
def test_law5_a_crash_after_any_step_changes_nothing_of_the_end(
    ending: str, fault_lists: list[list[str | None]]
) -> None:
    plain = story(Settling(with_card("pm_card_visa")), ["pm_card_visa"], ending, [[] for _ in range(7)])
    settling = Settling(with_card("pm_card_visa"))
    assert end_of(story(settling, ["pm_card_visa"], ending, fault_lists)) == end_of(plain)
    assert len(settling.account.intents) == 1


@settings(max_examples=300, deadline=None)
@given(fault_lists=st.lists(faults, min_size=7, max_size=7))
def test_law5_an_unknown_step_never_leads_to_a_new_key(fault_lists: list[list[str | None]]) -> None:
    settling = Settling(with_card("pm_card_visa"))
    payment = story(settling, ["pm_card_visa"], "billed", fault_lists)
    for name in ("hold", "capture", "release", "transfer_expert", "transfer_ambassador"):
        steps = [step for step in payment.steps if step.step == name]
        assert all(step.spent for step in steps[:-1]), "only a key that Stripe has spent has a successor"
    known = {key for key, (_, outcome, _) in settling.account.keys.items()}
    assert known <= {step.key for step in payment.steps}, "every key at Stripe is in the ledger"


@settings(deadline=None)
@given(
    total=st.integers(0, 7500),
    commission=st.integers(0, 10_000),
    ambassador=st.integers(0, 10_000),
    rate=st.integers(500, 2000),
)
def test_law6_transfers_and_the_platforms_rest_are_the_balance(
    total: int, commission: int, ambassador: int, rate: int
) -> None:
    session = session_doc(commission_bps=commission, ambassador={"stripe_account": "acct_a", "share_bps": ambassador})
    settling = Settling(session, Account(rate_milli=rate, minimum=0))
    settling.run()
    live(settling.session)
    finalize(settling.session, total)
    payment = settling.run()
    assert payment.amount_captured == (total if total >= 50 else 0)
    if payment.settlement is not None:
        platform = payment.settlement.amount - sum(t.amount for t in payment.transfers)
        assert 0 <= platform <= payment.settlement.amount
