"""A connected account's record: what is asked of Stripe, what is told, and that a payout schedule is set once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.billing_bridge.account_steps import (
    SET_AGAIN_MS,
    WITHHELD_LOOK_MS,
    applied,
    look_at,
    next_call,
)
from gateway.billing_bridge.outcome import Busy, Done, Outcome, Refused, Unknown
from gateway.payees.accounts import EXPERTS, PAYOUTS, Connected, asking
from gateway.payees.routes import Account, Schedule, schedule_of

NOW = 1_700_000_000_000
NEW = Connected("acct_1", "acc_1", livemode=False, experts=("e1",))


def stripes(**changes: Any) -> dict[str, Any]:
    """The account as Stripe gives it."""
    return {
        "id": "acct_1", "object": "account", "country": "US", "capabilities": {"transfers": "active"},
        "payouts_enabled": True, "requirements": {"currently_due": [], "disabled_reason": None}, "type": "express",
        "controller": {"type": "application", "stripe_dashboard": {"type": "express"}},
        "settings": {"payouts": {"schedule": {"interval": "daily", "delay_days": 2}}},
    } | changes  # fmt: skip


def balance_settings(day: str = "friday") -> dict[str, Any]:
    return {"payments": {"payouts": {"schedule": {"interval": "weekly", "weekly_payout_days": [day]}}}}


def step(record: Connected, outcome: Outcome) -> tuple[Connected, list[str]]:
    call = next_call(record, NOW, "friday", withheld=False)
    assert call is not None
    record, told = applied(record, call, outcome, NOW)
    assert Connected.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    return record, [notice.type for notice in told]


def seen(**changes: Any) -> Connected:
    return step(NEW, Done(stripes(**changes)))[0]


def schedule(record: Connected) -> Schedule | None:
    assert record.seen is not None
    return record.seen.schedule


def asked(record: Connected, weekday: str = "friday", now: int = NOW, *, withheld: bool = False) -> str | None:
    call = next_call(record, now, weekday, withheld=withheld)
    return None if call is None else call.operation


def test_the_first_look_answers_and_tells_nothing() -> None:
    record, told = step(NEW, Done(stripes()))
    assert (record.waiting, record.seen, told) == (
        False, Account("acct_1", True, NOW, "US", "active", True, schedule=Schedule("daily")), []
    )  # fmt: skip


def test_r17_a_change_of_the_account_is_told() -> None:
    restricted = stripes(
        capabilities={"transfers": "inactive"}, requirements={"currently_due": ["tos"], "disabled_reason": "past_due"}
    )
    record, told = step(asking(seen()), Done(restricted))
    assert told == ["account.updated"]
    assert (record.seen and record.seen.able, record.seen and record.seen.due) == (False, ("tos",))
    assert step(asking(record), Done(restricted))[1] == [], "and only a change"


def test_r17_an_account_that_the_platform_may_not_see_does_not_exist_for_it() -> None:
    record, _ = step(NEW, Refused("account_invalid"))
    assert (record.seen and record.seen.exists, record.waiting, asked(record)) == (False, False, None)


def test_an_answer_that_did_not_come_leaves_the_question() -> None:
    for outcome in (Busy("rate_limit"), Unknown("TimeoutError"), Refused("authentication"), Refused("permission")):
        record, told = step(NEW, outcome)
        assert (record.waiting, record.seen, told) == (True, None, [])
        first = look_at(record, NOW, withheld=False)
        later = look_at(step(record, outcome)[0], NOW, withheld=False)
        assert first is not None
        assert later is not None
        assert NOW < first < later, "ever more seldom"
        assert look_at(step(record, Done(stripes()))[0], NOW, withheld=False) is None


def test_r18_stripe_is_told_to_pay_out_weekly_once() -> None:
    record = seen()
    call = next_call(record, NOW, "friday", withheld=False)
    assert call is not None
    assert (call.operation, call.params["stripe_account"]) == ("balance_settings.update", "acct_1")
    assert call.params["payments"]["payouts"]["schedule"] == {"interval": "weekly", "weekly_payout_days": ["friday"]}
    record, _ = step(record, Done(balance_settings()))
    assert schedule(record) == Schedule("weekly", ("friday",))
    assert asked(record) is None
    assert asked(record, "monday", NOW + SET_AGAIN_MS) == "balance_settings.update"


def test_r18_a_schedule_that_stripe_refuses_or_forgets_is_tried_daily_with_a_new_key() -> None:
    record = seen()
    first = next_call(record, NOW, "friday", withheld=False)
    record, _ = step(record, Refused("payouts_not_allowed"))
    assert (record.refused, asked(record), asked(record, now=NOW + SET_AGAIN_MS)) == (
        "payouts_not_allowed", None, "balance_settings.update",
    )  # fmt: skip
    second = next_call(record, NOW + SET_AGAIN_MS, "friday", withheld=False)
    assert first is not None
    assert second is not None
    assert first.key != second.key, "Stripe keeps a refusal under its key"


def test_r18_a_schedule_that_is_the_experts_own_is_only_shown() -> None:
    for change in (
        {"controller": {"type": "application", "stripe_dashboard": {"type": "full"}}},
        {"controller": {"type": "account"}},
        {"type": "standard"},
    ):
        record = seen(**change)
        assert (schedule(record), asked(record)) == (Schedule("daily", (), own=True), None)


def test_r18_no_weekday_leaves_schedules_alone_and_so_does_an_account_without_an_expert() -> None:
    assert asked(seen(), "") is None
    assert asked(replace(seen(), experts=())) is None


def test_a_weekly_schedule_is_read_in_both_of_stripes_spellings() -> None:
    for schedule in ({"weekly_anchor": "friday"}, {"weekly_payout_days": ["friday"]}):
        account = stripes(settings={"payouts": {"schedule": {"interval": "weekly", **schedule}}})
        assert schedule_of(account) == Schedule("weekly", ("friday",))


def test_r18_a_payout_is_told_once_in_each_of_its_states_as_stripe_shows_it() -> None:
    record = seen(settings=None)
    told: list[str] = []
    for status in ("pending", "paid", "paid", "failed"):
        record = step(asking(record, payout="po_1"), Done(stripes(settings=None)))[0]
        payout = {"id": "po_1", "amount": 8100, "currency": "usd", "status": status, "automatic": True}
        record, more = step(record, Done(payout))
        told += more
    assert told == ["payout.paid", "payout.failed"]
    assert record.open == ()


def test_while_transfers_wait_the_account_is_looked_at_without_being_asked() -> None:
    record = seen(settings=None)
    assert asked(record, withheld=True) is None
    assert look_at(record, NOW, withheld=True) == NOW + WITHHELD_LOOK_MS
    assert asked(record, now=NOW + WITHHELD_LOOK_MS, withheld=True) == "accounts.retrieve"


@given(st.lists(st.tuples(st.sampled_from(["e1", "e2", None]), st.integers(0, 99)), max_size=120))
def test_what_is_remembered_stays_small_and_the_latest_expert_leads(wishes: list[tuple[str | None, int]]) -> None:
    record = replace(NEW, experts=(), asked=0)
    for number, (expert, payout) in enumerate(wishes, 1):
        record = asking(record, expert, f"po_{payout}")
        assert record.asked == number
        assert expert in (None, record.experts[0] if record.experts else None)
        assert len(record.experts) == len(set(record.experts)) <= EXPERTS
        assert len(record.open) == len(set(record.open)) <= PAYOUTS
