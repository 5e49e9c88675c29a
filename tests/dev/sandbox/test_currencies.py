"""Exchange at fixed rates, and amounts as messages write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dev.sandbox.currencies import KNOWN, exchanged, rate, shown

CURRENCIES = st.sampled_from(sorted(KNOWN))


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [(1_234, "usd", "$12.34"), (5, "gbp", "£0.05"), (123_456_789, "eur", "€1,234,567.89"), (500, "jpy", "¥500"),
     (100, "chf", "CHF1.00")],
)  # fmt: skip
def test_amounts_in_words(amount: int, currency: str, text: str) -> None:
    assert shown(amount, currency) == text


@settings(deadline=None)
@given(st.integers(0, 99_999_999), CURRENCIES, CURRENCIES)
def test_there_and_back_loses_at_most_a_rounding(amount: int, source: str, target: str) -> None:
    there = exchanged(amount, source, target)
    back = exchanged(there, target, source)
    one_unit_of_target = max(1, exchanged(1, target, source))
    assert abs(back - amount) <= one_unit_of_target


@settings(deadline=None)
@given(st.integers(0, 99_999), st.integers(0, 99_999), CURRENCIES, CURRENCIES)
def test_more_is_never_worth_less(one: int, other: int, source: str, target: str) -> None:
    low, high = sorted((one, other))
    assert exchanged(low, source, target) <= exchanged(high, source, target)


def test_yen_have_no_cents() -> None:
    assert exchanged(1_000, "jpy", "usd") == 670
    assert rate("usd", "usd") is None
    assert rate("eur", "usd") == 1.085
