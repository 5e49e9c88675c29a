"""What happened in a session, in words for somebody who knows nothing of the gateway. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.money import minor_units

SAID: Final = {
    "session.created": "The session was ordered.",
    "session.ready": "The session was open to both.",
    "session.made_free": "The session was made free of charge.",
    "session.started": "Both were connected for the first time: metering began.",
    "session.interrupted": "The connection broke: metering stopped.",
    "session.resumed": "Both were connected again: metering went on.",
    "session.warning": "Both were warned that the time, or its free part, would end soon.",
    "session.ended": "The call was over",
    "session.finalized": "Usage and bill were fixed and sealed.",
    "session.settled": "All steps of the payment were done.",
    "participant.joined": "{role} opened the call.",
    "payment.held": "The card was authorised{held}.",
    "payment.action_required": "The cardholder's bank asked for a confirmation (3-D Secure).",
    "payment.failed": "The card was declined.",
    "payment.captured": "The card was charged{captured}.",
    "payment.released": "The authorisation was released; nothing was charged.",
    "payment.due": "The authorisation was lost; the client was asked to pay with another card.",
    "payment.refunded": "A refund was made{refund}.",
    "payment.disputed": "The cardholder's dispute: {dispute}.",
    "transfer.created": "A share was paid out.",
    "transfer.reversed": "A part of a share was taken back.",
    "transfer.withheld": "A share was kept back for its payee.",
    "receipt.sent": "A receipt was sent to the {role_low}.",
}
ENDS: Final = {
    "client_left": "the client hung up",
    "expert_left": "the expert hung up",
    "limit_reached": "its agreed time was over",
    "cap_reached": "the longest time that a call may take was over",
    "ended_by_api": "the marketplace ended it",
    "funds_reached": "its funds were used up",
    "lone_party_timeout": "one side was alone for too long",
    "connection_lost": "the connection was lost",
    "node_lost": "the server that carried it was lost",
    "canceled": "it was canceled",
    "expired": "its time to begin was over",
    "no_show_client": "the client did not come",
    "no_show_expert": "the expert did not come",
    "payment_failed": "the payment failed",
}


def money(amount: int, currency: str) -> str:
    """`1,234.50 USD` from minor units."""
    unit = minor_units(currency)
    return f"{amount / unit:,.{len(str(unit)) - 1}f} {currency.upper()}"


def ending(reason: str | None) -> str:
    return ENDS.get(reason or "", (reason or "no reason is known").replace("_", " "))


def said(event: Mapping[str, Any]) -> str:
    """One event in words; its own name where there are none for it."""
    data: Mapping[str, Any] = event.get("data") or {}
    text = SAID.get(event["type"], str(event["type"]))
    if event["type"] == "session.ended" and data.get("end_reason"):
        return f"{text}: {ending(data['end_reason'])}."
    role = data.get("role") or "one side"
    return text.format(
        role=f"The {role}" if data.get("role") else "One side", role_low=role,
        held=_sum(data, "amount_held"), captured=_sum(data, "amount_captured"),
        refund=_sum({**data, **(data.get("refund") or {})}, "amount"),
        dispute=(data.get("dispute") or {}).get("status", "open"),
    )  # fmt: skip


def _sum(data: Mapping[str, Any], name: str) -> str:
    known = data.get(name) is not None and data.get("currency")
    return f": {money(data[name], data['currency'])}" if known else ""
