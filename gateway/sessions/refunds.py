"""The orders to refund a session: what may be ordered, and the `refunds` document that keeps them. Pure.

The bridge carries the orders out by itself, as it does with `funding`: an order names what is wanted, never a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from gateway.errors import Conflict

ChargeTo = Literal["shares", "platform"]
REFUNDABLE: Final = frozenset({"captured", "partially_refunded"})


@dataclass(frozen=True, slots=True)
class NewRefund:
    """`amount` in minor units of the session's currency; None for all that is left. `charge_to` says who bears it."""

    id: str
    amount: int | None
    reason: str
    charge_to: ChargeTo


def refundable(payment: Mapping[str, Any], orders: Mapping[str, Any] | None) -> int:
    """What is left of the charge: captured, less every refund that was ordered or made and did not fail."""
    made = payment.get("refunds", ())
    failed = {refund["number"] for refund in made if refund["status"] == "failed"}
    # Numbers below 1 are nobody's orders: lost disputes, and what the terms of a booking give back.
    lost = sum(refund["amount"] for refund in made if refund["number"] < 1 and refund["status"] != "failed")
    ordered = sum(order["amount"] for order in (orders or {}).get("orders", ()) if order["number"] not in failed)
    return int(payment["amount_captured"] - lost - ordered)


def ordered(payment: Mapping[str, Any], orders: dict[str, Any] | None, new: NewRefund, now: int) -> dict[str, Any]:
    """The `refunds` document with the new order; the same one if it has it already (a repeated request).

    Raises Conflict `payment_state` when there is nothing to refund now, `refund_too_large` with what is left.
    """
    had = orders["orders"] if orders else []
    if orders is not None and any(order["id"] == new.id for order in had):
        return orders
    if payment["status"] not in REFUNDABLE:
        raise Conflict(f"A payment that is {payment['status']} cannot be refunded.", code="payment_state")
    left = refundable(payment, orders)
    amount = left if new.amount is None else new.amount
    if not 0 < amount <= left:
        raise Conflict(f"{left} minor units are left to refund.", code="refund_too_large", param="amount", left=left)
    order = {
        "number": len(had) + 1, "id": new.id, "amount": amount, "reason": new.reason, "charge_to": new.charge_to,
        "at": now,
    }  # fmt: skip
    return {"schema": 1, "orders": [*had, order]}


def order_of(orders: Mapping[str, Any], ident: str) -> Mapping[str, Any]:
    """The order with that id, which must be there."""
    found: Mapping[str, Any] = next(order for order in orders["orders"] if order["id"] == ident)
    return found
