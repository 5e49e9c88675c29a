"""Money in minor units: the price, the hold and the split."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.money import hold_amount, price, round_half_up, settled_shares, split

BPS = st.integers(0, 10_000)


@given(st.integers(0, 10**12), st.integers(1, 10**6))
def test_rounding_is_to_the_nearest_and_halves_go_up(numerator: int, denominator: int) -> None:
    exact = Fraction(numerator, denominator)
    rounded = round_half_up(numerator, denominator)
    assert exact - Fraction(1, 2) < rounded <= exact + Fraction(1, 2)


def test_r03_thirty_minutes_at_three_dollars() -> None:
    total = price(300, 30 * 60)
    shares = split(total, 1000)
    assert (total, shares.expert, shares.platform) == (9000, 8100, 900)


def test_r04_the_hold_of_the_contract() -> None:
    assert hold_amount(300, 90 * 60_000, 5 * 60_000) == 25_500
    assert hold_amount(300, 5 * 60_000, 10 * 60_000) == 0


@given(st.integers(0, 10**7), BPS, BPS)
def test_law6_the_parts_sum_in_integers(total: int, commission: int, ambassador: int) -> None:
    shares = split(total, commission, ambassador)
    assert shares.expert + shares.platform + shares.ambassador == total
    assert min(shares.expert, shares.platform, shares.ambassador) >= 0


def test_law6_exhaustively_for_every_rate_and_every_second() -> None:
    """Every rate from 1 to 1500 and every second from 0 to 5400: the totals that come of them, each split."""
    totals = {price(unit, seconds) for unit in range(1, 1501) for seconds in range(5401)}
    assert (min(totals), max(totals)) == (0, 135_000)
    for total in totals:
        shares = split(total, 1000, 2000)
        assert shares.expert + shares.platform + shares.ambassador == total


@pytest.mark.parametrize("rate_milli", [730, 1270, 150_000])
def test_law6_exhaustively_in_the_settlement_currency(rate_milli: int) -> None:
    """Of every total that a call can have, at rates of currencies with cents, and at one of a currency without."""
    for total in range(135_001):
        balance = total * rate_milli // 1000
        shares = settled_shares(balance, split(total, 1000, 2000))
        assert shares.expert + shares.platform + shares.ambassador == balance


@given(st.integers(1, 1500), st.integers(0, 5400), st.integers(0, 5400), st.integers(0, 5_400_000))
def test_law5_no_bill_is_above_its_hold(unit: int, limit_s: int, free_s: int, used_ms: int) -> None:
    used = max(0, min(used_ms, limit_s * 1000) - free_s * 1000) // 1000
    assert price(unit, used) <= hold_amount(unit, limit_s * 1000, free_s * 1000)


@given(st.integers(1, 1500), st.integers(0, 5399))
def test_law9_the_price_never_falls_as_time_runs(unit: int, seconds: int) -> None:
    assert price(unit, seconds) <= price(unit, seconds + 1)
