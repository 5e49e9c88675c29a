"""The cards that a returning client is offered."""

from __future__ import annotations

from typing import Any

from gateway.kept_cards import MOST, offered, read, written
from tests.orders import NOW  # in November 2023


def method(number: int, **card: Any) -> dict[str, Any]:
    shown = {"brand": "visa", "last4": f"{number:04}", "exp_month": 12, "exp_year": 2030, "fingerprint": f"f{number}"}
    return {
        "id": f"pm_{number}",
        "card": shown | card,
        "customer": "cus_1",
        "billing_details": {"email": "a@b.example"},
    }


def ids(*methods: dict[str, Any]) -> list[str]:
    return [card.id for card in offered({"data": methods}, NOW)]


def test_a_card_that_was_kept_twice_is_offered_once_the_newer_one() -> None:
    assert ids(method(1), method(2), method(3, fingerprint="f1")) == ["pm_1", "pm_2"]


def test_a_card_is_good_to_the_end_of_its_month() -> None:
    kept = [(11, 2023), (10, 2023), (1, 2024), (12, 2022)]
    found = ids(*(method(n, exp_month=month, exp_year=year) for n, (month, year) in enumerate(kept)))
    assert found == ["pm_0", "pm_2"]


def test_what_is_no_card_or_not_to_be_shown_again_is_left_out() -> None:
    assert ids({"id": "pm_1", "card": None}, method(2) | {"allow_redisplay": "limited"}, method(3)) == ["pm_3"]


def test_only_so_many_are_offered_and_of_each_only_what_names_it() -> None:
    cards = offered({"data": [method(number) for number in range(20)]}, NOW)
    assert len(cards) == MOST
    assert read(written(cards).encode()) == cards
    assert "example" not in written(cards)
