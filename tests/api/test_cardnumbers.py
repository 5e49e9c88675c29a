from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.cardnumbers import find_card, looks_like_card, luhn


def completed(digits: str) -> str:
    """The digits with their check digit."""
    return next(digits + str(check) for check in range(10) if luhn(digits + str(check)))


CARDS = st.builds(
    lambda first, rest: completed(first + rest),
    st.sampled_from("23456"),
    st.text("0123456789", min_size=11, max_size=17),
)


@given(CARDS)
def test_every_number_of_13_to_19_digits_with_a_check_digit_is_seen(card: str) -> None:
    assert looks_like_card(card)
    assert looks_like_card(f"please use {card}, thanks")
    assert looks_like_card(" ".join(card[i : i + 4] for i in range(0, len(card), 4)))
    assert looks_like_card("-".join(card[i : i + 4] for i in range(0, len(card), 4)))


@given(CARDS, st.integers(1, 9))
def test_one_wrong_digit_makes_it_no_card(card: str, shift: int) -> None:
    wrong = card[:-1] + str((int(card[-1]) + shift) % 10)
    assert not luhn(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "order-123", "1700000000000", "1795291200000", "ses_01k9m0h3f8q2v7x4r6s5t1w2y3", "acct_1032D82eZvKYlo2C",
        "550e8400-e29b-41d4-a716-446655440000", "424242424242", "+49 30 1234567", "2026-11-21T20:00:00.000Z",
    ],
)  # fmt: skip
def test_what_marketplaces_send_is_no_card(text: str) -> None:
    assert not looks_like_card(text)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"client": {"name": "4242 4242 4242 4242"}}, "client.name"),
        ({"a": [{"b": "x"}, {"b": 4242424242424242}]}, "a.1.b"),
        ({"a": 4242424242424242.0}, "a"),
        ({"client": {"4242424242424242": 1}}, "client"),
        ("4242424242424242", ""),
        ({"a": True, "b": None, "c": 1.5, "d": "x"}, None),
    ],
)
def test_the_field_is_named(value: object, path: str | None) -> None:
    assert find_card(value) == path
