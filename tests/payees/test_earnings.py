"""R18: the list of an expert's earnings: its order, its pages, its sums, and that it changes with the payment alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Conflict, NotFound
from gateway.journal import Journal
from gateway.payees.earned import SUMS, Earned, totals
from gateway.payees.earnings import Earnings

WHOSE: Any = ("acc_1", False, "e1")
SHARE = Earned(
    session="ses_1", reference="order-1", ended_at=1_000, week="2026-W47", currency="usd", amount_share=900,
    settlement_currency="usd", amount=900, amount_offset=0, amount_reversed=0, amount_owed=0, status="paid",
    reason=None, stripe_id="tr_1", stripe_account="acct_1", platform="main",
)  # fmt: skip
FOR_EVER = 2**53 - 1


async def earn(journal: Journal, session: str, at: int, version: int = 0, **changes: Any) -> Earned:
    share = replace(SHARE, session=session, ended_at=at, **changes)
    await journal.commit(session, {"payment": (version, {})}, lines=[share.line(*WHOSE)])
    return share


async def pages(journal: Journal, limit: int, since: int = 0, until: int = FOR_EVER) -> list[list[str]]:
    found: list[list[str]] = []
    after, more = None, True
    while more:
        page, more = await Earnings(journal).page(*WHOSE, since=since, until=until, limit=limit, after=after)
        found.append([row.session for row in page])
        after = page[-1].session if page else None
    return found


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_r18_pages_are_newest_first_and_miss_and_repeat_none_also_within_one_ms(
    journal: Journal, limit: int
) -> None:
    ends = {f"ses_{n}": 1_000 + n // 3 for n in range(8)}
    for session, at in ends.items():
        await earn(journal, session, at)
    expected = sorted(ends, key=lambda session: (ends[session], session), reverse=True)
    found = await pages(journal, limit)
    assert [session for page in found for session in page] == expected
    assert all(len(page) == limit for page in found[:-1])


async def test_r18_from_is_included_and_to_is_not(journal: Journal) -> None:
    for at in (1_000, 2_000, 3_000):
        await earn(journal, f"ses_{at}", at)
    assert await pages(journal, 10, since=2_000, until=3_000) == [["ses_2000"]]
    sums = await Earnings(journal).totals(*WHOSE, since=2_000, until=3_001)
    assert sums["usd"]["sessions"] == 2


async def test_r18_a_share_is_listed_once_and_shows_its_last_state(journal: Journal) -> None:
    await earn(journal, "ses_1", 1_000, status="pending", stripe_id=None)
    paid = await earn(journal, "ses_1", 1_000, 1)
    [row], more = await Earnings(journal).page(*WHOSE, since=0, until=FOR_EVER, limit=10, after=None)
    assert (row, more) == (paid, False)


async def test_r18_a_commit_that_was_refused_lists_nothing(journal: Journal) -> None:
    with pytest.raises(Conflict):
        await earn(journal, "ses_1", 1_000, version=7)
    assert await pages(journal, 10) == [[]]


async def test_experts_modes_and_accounts_are_kept_apart(journal: Journal) -> None:
    await earn(journal, "ses_1", 1_000)
    for whose in (("acc_2", False, "e1"), ("acc_1", True, "e1"), ("acc_1", False, "e2")):
        assert await Earnings(journal).totals(*whose, since=0, until=FOR_EVER) == {}
    with pytest.raises(NotFound):
        await Earnings(journal).page("acc_2", False, "e1", since=0, until=FOR_EVER, limit=1, after="ses_1")


shares = st.builds(
    lambda parts, owed, state, sent, currency: replace(
        SHARE, amount=sum(parts), amount_offset=parts[0], amount_reversed=parts[1] if sent else 0,
        amount_owed=min(owed, parts[2]), status=state if not sent else "paid", settlement_currency=currency,
        stripe_id="tr_1" if sent else None,
    ),
    st.tuples(*[st.integers(0, 10_000)] * 3), st.integers(0, 10_000), st.sampled_from(["pending", "withheld"]),
    st.booleans(), st.sampled_from(["usd", "aud"]),
)  # fmt: skip


@given(st.lists(shares, max_size=20))
def test_law6_the_sums_of_each_currency_add_up_to_its_amount(rows: list[Earned]) -> None:
    found = totals(rows)
    assert {currency: sums["sessions"] for currency, sums in found.items()} == {
        currency: sum(row.settlement_currency == currency for row in rows)
        for currency in sorted({row.settlement_currency for row in rows})
    }
    for currency, sums in found.items():
        parts = ("paid", "pending", "withheld", "offset", "reversed")
        assert set(sums) == {"sessions", *SUMS}
        assert sum(sums[name] for name in parts) == sums["amount"]
        assert min(sums.values()) >= 0
        assert sums["amount"] == sum(row.amount for row in rows if row.settlement_currency == currency)
