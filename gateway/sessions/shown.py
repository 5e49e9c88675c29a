"""A session's records as they were read together, and what of them each side is shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.session import Role, SessionRecord, other

DOCS: Final = ("session", "payment", "people", "receipts")
TERMS_VERSION: Final = "1"


@dataclass(frozen=True, slots=True)
class Docs:
    """All records of a session as they were read together. `pay_url`: its client's pay page, while something has to be
    done there."""

    session: dict[str, Any]
    payment: dict[str, Any]
    people: dict[str, Any]
    receipts: dict[str, Any] | None
    pay_url: str | None = None

    @property
    def record(self) -> SessionRecord:
        return SessionRecord.from_dict(self.session)


def entrance(docs: Docs, role: Role) -> dict[str, Any]:
    """What the page shows before joining."""
    record = docs.record
    return {
        "session": record.id,
        "role": role,
        "status": record.status,
        "media": record.media,
        "locale": docs.people[role]["locale"],
        "you": {"name": docs.people[role]["name"]},
        "peer": {"name": docs.people[other(role)]["name"]},
        "pricing": pricing(record, role),
        "payment": payment_for(docs.payment, role),
        "terms": terms(record, docs.payment, role),
        "expires_at": record.expires_at,
        "end": None if record.open else {"reason": record.end_reason, "summary": summary(docs, role)},
    }


def pricing(record: SessionRecord, role: Role) -> dict[str, Any]:
    """What a side may know of the price; the expert also the commission, and not what is held on the client's card."""
    told: dict[str, Any] = {
        "currency": record.currency,
        "unit_amount": record.unit_amount if record.priced else 0,
        "free_seconds": record.free_ms // 1000,
        "limit_seconds": record.limit_ms // 1000,
        "amount_max": record.amount_max if record.priced else 0,
    }
    if record.meeting is not None and record.priced:
        told["fee"] = record.amount_max  # paid with its booking
    return told if role == "client" else {**told, "commission_bps": record.commission_bps}


def payment_for(payment: Mapping[str, Any], role: Role) -> dict[str, Any]:
    """The payment as a side may see it: the expert only whether the money is there."""
    if role == "expert":
        return {"status": payment["status"]}
    names = ("status", "amount_held", "card", "hold_until", "action_url", "decline_code", "client_secret", "attempt")
    return {name: payment.get(name) for name in names}


def terms(record: SessionRecord, payment: Mapping[str, Any], role: Role) -> dict[str, Any]:
    """The version of the consent text and the figures that go into it; the page words it in the caller's language."""
    return {
        "version": TERMS_VERSION,
        "free_seconds": record.free_ms // 1000,
        "amount_max": record.amount_max if record.priced and role == "client" else 0,
        "hold_until": payment.get("hold_until") if role == "client" else None,
    }


def summary(docs: Docs, role: Role, receipt_url: str | None = None) -> dict[str, Any]:
    """What a side is told when the session has ended; figures are None until the bill is final."""
    record = docs.record
    final = record.bill or {}
    told: dict[str, Any] = {
        "duration_seconds": final.get("union_ms", 0) // 1000,
        "billable_seconds": final.get("billable_seconds"),
        "free_seconds": final.get("free_seconds_used"),
        "amount_total": final.get("amount_total"),
        "amount_waived": final.get("amount_waived"),
        "waived_reason": final.get("waived_reason"),
        "currency": record.currency,
        "receipt_url": receipt_url or _receipt_url(docs, role),
        "continue": record.end_reason in ("limit_reached", "cap_reached") and record.continued_by is None,
    }
    return told if role == "client" else {**told, "amount_expert": final.get("amount_expert")}


def _receipt_url(docs: Docs, role: Role) -> str | None:
    receipt = (docs.receipts or {}).get(role)
    return f"/r/{receipt['secret']}" if receipt else None


def arithmetic(record: SessionRecord, final: Mapping[str, Any]) -> str:
    """The bill as one line that can be checked by hand; amounts in minor units."""
    return (
        f"⌊max(0, {final['union_ms']} ms − {record.free_ms} ms free) ÷ 1000⌋ = {final['billable_seconds']} s; "
        f"{_fee(record, final)} = {final['amount_metered']}; "
        f"waived {final['amount_waived']}; total {final['amount_total']} = expert {final['amount_expert']} "
        f"+ platform {final['amount_platform']} + ambassador {final['amount_ambassador']} {record.currency}"
    )


def _fee(record: SessionRecord, final: Mapping[str, Any]) -> str:
    if record.kind == "metered":
        return f"round({record.unit_amount} × {final['billable_seconds']} ÷ 60)"
    if record.kind == "booked":
        return f"{record.unit_amount} × {record.limit_ms // 60_000} min booked" if record.funded else "booked, not paid"
    return f"{record.kind}, no fee"
