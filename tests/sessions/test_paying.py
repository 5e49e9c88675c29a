"""What the pay page asks for, by how the money stands."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from gateway.api.answers import PaymentStatus
from gateway.sessions.paying import asked, state_of
from gateway.sessions.shown import Docs
from tests.billing_bridge.receipt_cases import payment, people
from tests.billing_bridge.receipt_cases import session as finished
from tests.orders import NOW


def docs(money: str = "due", letters: Any = None, **changes: Any) -> Docs:
    record = finished() | {
        "expires_at": NOW, "ring": False, "hold": "now", "cap_ms": 5_400_000, "amount_max": 25_500,
        "funding": {"attempt": 1, "payment_method": "pm_1", "amount": 25_500, "requested_at": NOW},
    }  # fmt: skip
    held = payment(status=money, decline_code="hold_lost", action_url=None)
    return Docs(record | changes, held, people(), letters)


def test_a_due_bill_is_asked_for_with_its_amount_and_the_experts_name() -> None:
    page = asked(docs())
    assert (page["state"], page["amount"], page["currency"], page["attempt"]) == ("due", 7_500, "usd", 1)
    assert (page["expert"], page["over"], page["decline_code"]) == ("Expert Two", True, None)


def test_law7_the_page_knows_nothing_of_the_expert_but_the_name() -> None:
    shown = str(asked(docs()))
    for secret in ("example.com", "acct_", "cus_", "ses_", "pi_"):
        assert secret not in shown


def test_before_the_call_the_whole_hold_is_asked_for() -> None:
    page = asked(docs("failed", status="created", bill=None))
    assert (page["state"], page["amount"], page["over"]) == ("hold", 25_500, False)


def test_a_receipt_is_linked_once_it_has_its_number() -> None:
    letter = {"secret": "s" * 32, "number": None}
    assert asked(docs("captured", {"client": letter}))["receipt"] is None
    assert asked(docs("captured", {"client": letter | {"number": "C-1"}}))["receipt"] == "/r/" + "s" * 32


@pytest.mark.parametrize("status", ["created", "ready", "live", "ended", "finalized"])
@pytest.mark.parametrize("money", get_args(PaymentStatus))
def test_a_card_is_asked_for_only_where_one_would_be_taken(status: str, money: str) -> None:
    wanted = {"created": {"failed": "hold"}, "ready": {"failed": "hold"}, "live": {"failed": "hold"}}
    state = state_of(status, {"status": money})
    if state in ("due", "hold"):
        assert money == "due" or wanted.get(status, {}).get(money) == state
    if money in ("captured", "refunded", "partially_refunded", "disputed"):
        assert state == "paid"
