"""The way back from the 3DS page (docs.stripe.com/payments/payment-intents/verifying-status)."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.dev.sandbox import pages


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("requires_capture", "succeeded"), ("succeeded", "succeeded"), ("requires_payment_method", "failed")],
)
def test_the_way_back_says_which_payment_and_how_it_went(status: str, outcome: str) -> None:
    intent = {
        "id": "pi_1",
        "client_secret": "pi_1_secret_x",
        "status": status,
        "_": {"return_url": "https://a.example/b?c=d#e"},
    }
    back = pages.way_back(intent)
    assert back is not None
    parts = urlsplit(back)
    assert (parts.netloc, parts.path, parts.fragment) == ("a.example", "/b", "e")
    assert parse_qs(parts.query) == {
        "c": ["d"], "payment_intent": ["pi_1"], "payment_intent_client_secret": ["pi_1_secret_x"],
        "redirect_status": [outcome], "source_type": ["card"],
    }  # fmt: skip


def test_without_a_return_url_there_is_no_way_back() -> None:
    assert pages.way_back({"_": {"return_url": None}, "status": "succeeded"}) is None


def test_the_page_names_the_amount_and_escapes_what_it_shows() -> None:
    page = pages.challenge({"id": "pi_<1>", "amount": 25_500, "currency": "usd"})
    assert "$255.00" in page
    assert "pi_<1>" not in page
