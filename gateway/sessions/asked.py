"""What is asked of a client, and how far it is: as the pay page shows it, of a session or of a booking. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from gateway.bookings.booking import BookingRecord
from gateway.session import SessionRecord
from gateway.sessions.shown import Docs

State = Literal["due", "hold", "working", "confirm", "paid", "held", "nothing"]
PAID: Final = frozenset({"captured", "partially_refunded", "refunded", "disputed"})
# The states in which the client has to do something.
WAITING: Final = frozenset({"due", "hold", "confirm"})
# Reasons of a failed payment that are none of the card's.
LOST: Final = frozenset({None, "hold_lost", "superseded"})


def of_session(docs: Docs) -> dict[str, Any]:
    """Amounts in minor units, times wall ms. Nothing of the expert's but the name."""
    record, payment = docs.record, docs.payment
    bill, over = record.bill or {}, not record.open
    receipt = (docs.receipts or {}).get("client")
    return {
        **_of_payment(payment),
        "state": state_of(record.status, payment),
        "asks": "bill" if over else "hold",
        "amount": bill.get("amount_total", 0) if over else record.amount_max,
        "platform": record.platform,
        "attempt": record.funding.attempt if record.funding else 0,
        **_terms(record, docs.people),
        "free_seconds": record.free_ms // 1000,
        "limit_seconds": record.limit_ms // 1000,
        "billable_seconds": bill.get("billable_seconds"),
        "started_at": record.started_at,
        "meetings": [],
        "receipt": f"/r/{receipt['secret']}" if receipt and receipt["number"] else None,
    }


def of_booking(record: BookingRecord, payment: Mapping[str, Any], meetings: Sequence[Docs]) -> dict[str, Any]:
    """The one charge of all meetings."""
    places = [docs.record.meeting for docs in meetings]
    return {
        **_of_payment(payment),
        "state": state_of_booking(payment, wanted=any(docs.record.open for docs in meetings)),
        "asks": "booking",
        "amount": record.funding.amount,
        "platform": record.platform,
        "attempt": record.funding.attempt,
        **_terms(record, meetings[0].people),
        "free_seconds": 0,
        "limit_seconds": record.minutes * 60,
        "billable_seconds": None,
        "started_at": None,
        "meetings": [place.starts_at if place else None for place in places],
        "receipt": None,
    }


def _of_payment(payment: Mapping[str, Any]) -> dict[str, Any]:
    declined = payment.get("decline_code")
    return {
        "card": payment.get("card"),
        "hold_until": payment.get("hold_until"),
        "decline_code": None if declined in LOST else declined,
        "action_url": payment.get("action_url"),
    }


def _terms(record: SessionRecord | BookingRecord, people: Mapping[str, Any]) -> dict[str, Any]:
    client = people.get("client") or {}
    return {
        "currency": record.currency,
        "unit_amount": record.unit_amount,
        "expert": (people.get("expert") or {}).get("name") or "",
        "media": record.media,
        "locale": client.get("locale") or "en",
        "timezone": client.get("timezone"),
        "livemode": record.livemode,
    }


def state_of(status: str, payment: Mapping[str, Any]) -> State:
    """Before the call a hold is asked for, after it a bill is. A bill that was declined is due again in a moment."""
    money, over = payment["status"], status in ("ended", "finalized")
    if money in PAID:
        return "paid"
    if money in ("action_required", "due"):
        return "confirm" if money == "action_required" else "due"
    if money == "held" and not over:
        return "held"
    if money in ("pending", "capturing", "held") or (money == "failed" and status == "finalized"):
        return "working"
    return "hold" if money == "failed" and not over else "nothing"


def state_of_booking(payment: Mapping[str, Any], *, wanted: bool) -> State:
    """`wanted`: a meeting is left to be held."""
    money = payment["status"]
    if money in PAID:
        return "paid"
    if money == "pending":
        return "working"
    if not wanted:
        return "nothing"
    return "confirm" if money == "action_required" else "due" if money == "failed" else "nothing"
