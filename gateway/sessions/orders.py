"""What an order leaves behind beside the session's record, and the order that would open a session once more. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.bookings.booking import NewBooking
from gateway.money import hold_amount
from gateway.session import Ambassador, NewClient, NewExpert, NewSession, SessionRecord


def people_of(terms: NewSession | NewBooking) -> dict[str, Any]:
    """The record of people, apart from the session's own (R22)."""
    return {
        "schema": 1,
        **{
            role: {
                "name": party.name,
                "email": party.email,
                "locale": party.locale,
                "timezone": party.timezone,
            }
            for role, party in (("client", terms.client), ("expert", terms.expert))
        },
    }


# How long after the limit of the session before it a continued one waits for its callers; then its hold is released.
ENTER_MS: Final = 600_000


def again(record: SessionRecord, people: Mapping[str, Any], now: int, card: str | None) -> NewSession:
    """The order that would open a session like this one, after it. It offers the same free part, of which it gets what
    is surely left; the rest is given by `session.carried` once this one's bill is final. After a booked meeting, whose
    `reference` is its booking's, it is metered."""
    to_come_ms = max(0, (record.deadline or now) - now) if record.open else 0
    return NewSession(
        client=NewClient(
            record.client["id"], **people["client"], stripe_customer=record.client["stripe_customer"],
            payment_method=card,
        ),
        expert=NewExpert(
            record.expert["id"], **people["expert"], stripe_account=record.expert["stripe_account"],
            country=record.expert["country"], rating_milli=record.expert["rating_milli"],
        ),
        unit_amount=record.unit_amount, currency=record.currency,
        reference=None if record.meeting else record.reference, kind="metered" if record.meeting else record.kind,
        media=record.media, ambassador=Ambassador(**record.ambassador) if record.ambassador else None,
        free_minutes=record.free_offer_ms // 60_000, max_minutes=max(1, record.limit_ms // 60_000),
        commission_bps=record.commission_bps, continues=record.id, expires_in_ms=to_come_ms + ENTER_MS,
        platform=record.platform, if_not_eligible=record.if_not_eligible,
    )  # fmt: skip


def free_left_ms(record: SessionRecord) -> int:
    """What a session surely leaves of its free part. Before its bill is final, nothing is sure: it may yet be used."""
    return 0 if record.bill is None else max(0, record.free_ms - int(record.bill["union_ms"]))


def next_amount(record: SessionRecord) -> int:
    """The most that the session after this one can cost, as its client is told before agreeing: minor units."""
    paid = record.kind in ("metered", "booked")
    return hold_amount(record.unit_amount, record.limit_ms, free_left_ms(record)) if paid else 0
