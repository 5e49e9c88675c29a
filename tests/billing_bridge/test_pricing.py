"""Money at the border of Stripe: parts sum in both currencies, the smallest charge, the words on a card statement."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing_bridge.pricing import MINIMUM_MINOR, Terms, descriptor_suffix, minimum_charge
from gateway.dev.sandbox.currencies import exchanged
from gateway.money import CURRENCIES, Shares, settled_shares, split

totals = st.integers(1, 10_000_000)
bps = st.integers(0, 10_000)


@given(total=totals, commission=bps, ambassador=bps, balance=st.integers(0, 20_000_000))
def test_law6_parts_sum_in_the_settlement_currency_too(
    total: int, commission: int, ambassador: int, balance: int
) -> None:
    shares = settled_shares(balance, split(total, commission, ambassador))
    assert shares.expert + shares.platform + shares.ambassador == shares.total == balance


@given(total=totals, commission=bps, ambassador=bps)
def test_law6_without_conversion_the_settled_shares_are_the_shares(
    total: int, commission: int, ambassador: int
) -> None:
    shares = split(total, commission, ambassador)
    assert settled_shares(total, shares) == shares


@given(total=totals, commission=bps, ambassador=bps, balance=totals)
def test_r3_nobody_but_the_platform_gains_by_rounding(
    total: int, commission: int, ambassador: int, balance: int
) -> None:
    shares = split(total, commission, ambassador)
    settled = settled_shares(balance, shares)
    assert settled.expert * total <= balance * shares.expert < (settled.expert + 1) * total
    assert settled.ambassador * total <= balance * shares.ambassador < (settled.ambassador + 1) * total


def test_r3_ninety_dollars_settled_in_dollars_and_from_euros() -> None:
    shares = split(9000, 1000, 2000)
    assert shares == Shares(9000, 8100, 720, 180)
    assert settled_shares(9789, shares) == Shares(9789, 8810, 784, 195)


def test_a_total_of_nothing_leaves_the_balance_with_the_platform() -> None:
    assert settled_shares(0, split(0, 1000, 2000)) == Shares(0, 0, 0, 0)


@pytest.mark.parametrize(("currency", "minimum"), [("usd", 50), ("gbp", 30), ("eur", 50), ("cad", 50), ("chf", 50)])
def test_minimum_charge_is_by_settlement_currency(currency: str, minimum: int) -> None:
    assert minimum_charge(currency, Terms(settlement_currency=currency)) == minimum


@pytest.mark.parametrize("currency", sorted(CURRENCIES - {"usd"}))
def test_a_foreign_charge_must_reach_the_minimum_after_conversion(currency: str) -> None:
    # 30 pence would be allowed by the pound's own row, and refused by a platform that settles in dollars.
    assert minimum_charge(currency, Terms(settlement_currency="usd")) == 80


@pytest.mark.parametrize("settlement", sorted(MINIMUM_MINOR))
@pytest.mark.parametrize("currency", sorted(CURRENCIES))
def test_a_minimum_reaches_that_of_every_platforms_currency_and_stays_small(currency: str, settlement: str) -> None:
    """Ten pesos are no ten dollars."""
    minimum = minimum_charge(currency, Terms(settlement_currency=settlement))
    assert exchanged(minimum, currency, settlement) >= MINIMUM_MINOR[settlement]
    assert minimum <= 160


def test_minimum_charge_is_configurable() -> None:
    assert minimum_charge("usd", Terms(minimum_minor={"usd": 100})) == 100
    assert minimum_charge("eur", Terms(minimum_minor={"usd": 100}, foreign_margin_bps=0)) == 100


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("Expert", "EXPERT"),
        ("  Two   words ", "TWO WORDS"),
        ("Ünïcode", "UNICODE"),
        ("A*B<C>D\"E'F\\G", "ABCDEFG"),
        ("A name that is far too long", "A NAME THA"),
        ("42", None),
        ("", None),
        ("專家", None),
    ],
)
def test_statement_descriptor_suffix(name: str, suffix: str | None) -> None:
    assert descriptor_suffix(name) == suffix


@given(st.text(), st.integers(0, 30))
def test_a_suffix_is_always_one_that_stripe_takes(name: str, prefix_length: int) -> None:
    suffix = descriptor_suffix(name, prefix_length)
    if suffix is not None:
        assert 0 < len(suffix) <= 22 - prefix_length - 2
        assert suffix.isascii()
        assert any(c.isalpha() for c in suffix)
        assert not set(suffix) & set("<>\\'\"*")
