"""What an order leaves behind beside the session's record, and the order that would open a session once more. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.session import Ambassador, NewClient, NewExpert, NewSession, SessionRecord


def people_of(terms: NewSession) -> dict[str, Any]:
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


def again(record: SessionRecord, people: Mapping[str, Any]) -> NewSession:
    """The order that would open a session like this one."""
    left_ms = max(0, record.free_ms - (record.bill or {}).get("union_ms", 0))
    return NewSession(
        client=NewClient(
            record.client["id"], **people["client"], stripe_customer=record.client["stripe_customer"],
            payment_method=record.funding.payment_method if record.funding else None,
        ),
        expert=NewExpert(
            record.expert["id"], **people["expert"], stripe_account=record.expert["stripe_account"],
            country=record.expert["country"], rating_milli=record.expert["rating_milli"],
        ),
        unit_amount=record.unit_amount, currency=record.currency, reference=record.reference, kind=record.kind,
        media=record.media, ambassador=Ambassador(**record.ambassador) if record.ambassador else None,
        free_minutes=left_ms // 60_000, max_minutes=max(1, record.limit_ms // 60_000),
        commission_bps=record.commission_bps, continues=record.id,
    )  # fmt: skip
