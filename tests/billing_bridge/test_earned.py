"""R18: what a session's payment tells the list of its expert's earnings, at each of its turns."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.payees.earned import Earned, line_of
from gateway.payees.earnings import Earnings
from tests.billing_bridge.account import Account
from tests.billing_bridge.fixtures import Till
from tests.billing_bridge.settling import NOW, Settling, finalize, live, news, order_refund, recharge, session_doc
from tests.billing_bridge.test_payment import held

FOR_EVER = 2**53 - 1


def listed(settling: Settling) -> Earned | None:
    """The line that would stand in the list now."""
    line = line_of(settling.session, settling.payment.to_dict())
    return Earned(**json.loads(json.dumps(line.body))) if line else None


def billed(total: int = 4500, account: Account | None = None) -> Settling:
    settling = Settling(session_doc(), account)
    settling.run()
    live(settling.session)
    finalize(settling.session, total)
    settling.run()
    return settling


def test_r18_a_paid_share_with_the_week_of_its_payout() -> None:
    row = listed(billed())
    assert row is not None
    assert (row.session, row.ended_at, row.week) == ("ses_1", NOW + 60_000, "2023-W46")
    assert (row.amount_share, row.amount, row.status, row.parts["paid"]) == (4050, 4050, "paid", 4050)


def test_r18_a_bill_that_was_paid_late_counts_in_the_week_in_which_it_was_paid() -> None:
    settling = held()
    settling.account.intents["pi_1"]["status"] = "canceled"
    live(settling.session)
    finalize(settling.session, 4500)
    settling.run()
    settling.now = NOW + 21 * 86_400_000
    recharge(settling.session, "pm_other")
    settling.run()
    row = listed(settling)
    assert row is not None
    assert (row.ended_at, row.week) == (NOW + 60_000, "2023-W49")


@pytest.mark.parametrize("total", [0, 40])
def test_r18_a_session_that_paid_nothing_is_not_in_the_list(total: int) -> None:
    assert listed(billed(total)) is None


def test_r18_a_share_is_withheld_while_the_account_is_restricted_and_paid_when_it_is_not() -> None:
    settling = billed(account=Account(restricted=frozenset({"acct_expert"})))
    row = listed(settling)
    assert row is not None
    assert (row.status, row.reason, row.parts["withheld"]) == (
        "withheld", "insufficient_capabilities_for_transfer", 4050,
    )  # fmt: skip
    settling.account.restricted = frozenset()
    news(settling.session, "accounts")
    settling.run()
    row = listed(settling)
    assert row is not None
    assert (row.status, row.parts["paid"], row.parts["withheld"]) == ("paid", 4050, 0)


def test_r18_a_refund_takes_from_it_and_what_the_balance_lacks_is_owed() -> None:
    settling = billed()
    order_refund(settling.session, 1500)
    settling.run()
    row = listed(settling)
    assert row is not None
    assert (row.parts["reversed"], row.parts["paid"]) == (1350, 2700)
    settling.account.empty = frozenset({"acct_expert"})
    order_refund(settling.session, 3000)
    settling.run()
    row = listed(settling)
    assert row is not None
    assert (row.status, row.parts["owed"], row.parts["paid"]) == ("owed", 2700, 2700)


def test_r18_an_older_debt_is_shown_as_kept_back() -> None:
    row = listed(billed(account=Account(debts={"acct_expert": 1000})))
    assert row is not None
    assert (row.parts["offset"], row.parts["paid"], row.amount) == (1000, 3050, 4050)


@settings(max_examples=60, deadline=None)
@given(
    total=st.integers(50, 7500),
    refunds=st.lists(st.integers(1, 7500), max_size=3),
    restricted=st.booleans(),
    empty=st.booleans(),
    debt=st.integers(0, 5000),
)
def test_law6_whatever_happens_the_parts_of_a_share_add_up(
    total: int, refunds: list[int], restricted: bool, empty: bool, debt: int
) -> None:
    settling = held()
    settling.account.debts = {"acct_expert": debt}
    settling.account.restricted = frozenset({"acct_expert"} if restricted else ())
    live(settling.session)
    finalize(settling.session, total)
    settling.run()
    settling.account.empty = frozenset({"acct_expert"} if empty else ())
    for amount in refunds:
        order_refund(settling.session, amount)
        settling.run()
        row = listed(settling)
        assert row is not None
        parts = row.parts
        assert sum(parts[name] for name in ("paid", "pending", "withheld", "offset", "reversed")) == row.amount
        assert min(parts.values()) >= 0
        assert parts["paid"] == settling.account.net("acct_expert")
        assert parts["owed"] <= parts["paid"] + parts["offset"]


async def test_r18_the_list_is_written_with_the_payment(till: Till) -> None:
    session = await till.open()
    await till.settle()
    await till.finish(session, 4500)
    await till.settle()
    whose: Any = (session["account"], session["livemode"], "e1")
    [row], _ = await Earnings(till.journal).page(*whose, since=0, until=FOR_EVER, limit=5, after=None)
    payment = await till.payment()
    assert (row.amount, row.stripe_id, row.status) == (4050, payment.transfers[0].stripe_id, "paid")
    await till.refund(1500)
    await till.settle()
    sums = await Earnings(till.journal).totals(*whose, since=0, until=FOR_EVER)
    assert (sums["usd"]["paid"], sums["usd"]["reversed"]) == (2700, 1350)
