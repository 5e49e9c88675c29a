"""What the pay page asks for, by how the money stands."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from gateway.api.answers import PaymentStatus
from gateway.bookings.booking import NewBooking, booked
from gateway.sessions.asked import of_booking, of_session, state_of, state_of_booking
from gateway.sessions.shown import Docs
from tests.orders import NOW, order
from tests.receipts.receipt_cases import payment, people
from tests.receipts.receipt_cases import session as finished


def docs(money: str = "due", letters: Any = None, **changes: Any) -> Docs:
    record = finished() | {
        "expires_at": NOW, "ring": False, "hold": "now", "cap_ms": 5_400_000, "amount_max": 25_500,
        "funding": {"attempt": 1, "payment_method": "pm_1", "amount": 25_500, "requested_at": NOW},
    }  # fmt: skip
    held = payment(status=money, decline_code="hold_lost", action_url=None)
    return Docs(record | changes, held, people(), letters)


def test_a_due_bill_is_asked_for_with_its_amount_and_the_experts_name() -> None:
    page = of_session(docs())
    assert (page["state"], page["amount"], page["currency"], page["attempt"]) == ("due", 7_500, "usd", 1)
    assert (page["expert"], page["asks"], page["decline_code"]) == ("Expert Two", "bill", None)


def test_law7_the_page_knows_nothing_of_the_expert_but_the_name() -> None:
    shown = str(of_session(docs()))
    for secret in ("example.com", "acct_", "cus_", "ses_", "pi_"):
        assert secret not in shown


def test_before_the_call_the_whole_hold_is_asked_for() -> None:
    page = of_session(docs("failed", status="created", bill=None))
    assert (page["state"], page["amount"], page["asks"]) == ("hold", 25_500, "hold")


def test_a_receipt_is_linked_once_it_has_its_number() -> None:
    letter = {"secret": "s" * 32, "number": None}
    assert of_session(docs("captured", {"client": letter}))["receipt"] is None
    assert of_session(docs("captured", {"client": letter | {"number": "C-1"}}))["receipt"] == "/r/" + "s" * 32


@pytest.mark.parametrize("status", ["created", "ready", "live", "ended", "finalized"])
@pytest.mark.parametrize("money", get_args(PaymentStatus))
def test_a_card_is_asked_for_only_where_one_would_be_taken(status: str, money: str) -> None:
    wanted = {"created": {"failed": "hold"}, "ready": {"failed": "hold"}, "live": {"failed": "hold"}}
    state = state_of(status, {"status": money})
    if state in ("due", "hold"):
        assert money == "due" or wanted.get(status, {}).get(money) == state
    if money in ("captured", "refunded", "partially_refunded", "disputed"):
        assert state == "paid"


def booking(money: str, **changes: Any) -> dict[str, Any]:
    new = NewBooking(order().client, order().expert, 300, "usd", 30, (NOW + 9_000_000, None), NOW + 90_000_000)
    record, steps = booked(
        new, id="bkg_01k9m0h3f8q2v7x4r6s5t1w2y3", account="a", livemode=False, now=NOW, cap_ms=5_400_000
    )
    told = {"status": money, "decline_code": None, "action_url": None} | changes
    return of_booking(record, told, [Docs(step.record.to_dict(), told, people(), None) for step in steps])


def test_r14_a_booking_is_asked_for_whole_with_the_times_of_its_meetings() -> None:
    page = booking("failed", decline_code="insufficient_funds")
    assert (page["state"], page["asks"], page["amount"], page["decline_code"]) == (
        "due", "booking", 18_000, "insufficient_funds",
    )  # fmt: skip
    assert (page["meetings"], page["limit_seconds"], page["unit_amount"]) == ([NOW + 9_000_000, None], 1_800, 300)
    assert page.keys() == of_session(docs()).keys()


@pytest.mark.parametrize("money", get_args(PaymentStatus))
def test_r14_a_bookings_card_is_asked_for_only_while_a_meeting_is_left(money: str) -> None:
    assert (state_of_booking({"status": money}, wanted=True) in ("due", "hold")) is (money == "failed")
    assert state_of_booking({"status": money}, wanted=False) in ("paid", "working", "nothing")
