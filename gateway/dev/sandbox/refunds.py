"""Refunds of captured charges.

What a partial capture or a cancellation gives back is no refund: since 2025-03-31.basil neither writes a Refund nor
changes `amount_refunded` ("remove-refund-from-partial-capture-and-payment-cancellation-flow" in Stripe's changelog).
"""

from __future__ import annotations

from gateway.dev.sandbox.cards import card_of
from gateway.dev.sandbox.currencies import shown
from gateway.dev.sandbox.refusals import Refusal
from gateway.dev.sandbox.store import Doc
from gateway.dev.sandbox.turn import Turn, at_least_one, merged_metadata

# A test card's late refund changes state after this long.
LATE_SECONDS = 5


def create(turn: Turn, p: Doc) -> Doc:
    """docs.stripe.com/api/refunds/create: never more than what is left of the charge."""
    charge = _charge_of(turn, p)
    left = charge["amount_captured"] - charge["amount_refunded"]
    amount: int = p.get("amount", left)
    if left == 0:
        raise Refusal(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
    if charge["disputed"]:
        raise Refusal(f"Charge {charge['id']} has been charged back; cannot issue a refund.", code="charge_disputed")
    at_least_one(amount, "amount")
    if amount > left:
        raise _too_much(charge, amount, left)
    refund = _new(turn, charge, amount, p.get("reason"), merged_metadata({}, p.get("metadata")))
    _move(turn, charge, refund, amount)
    turn.emit("refund.created", refund)
    turn.emit("charge.refunded", charge)
    return refund


def _charge_of(turn: Turn, p: Doc) -> Doc:
    if ("charge" in p) == ("payment_intent" in p):
        raise Refusal(
            "One of the following params should be provided for this request: payment_intent or charge.", saved=False
        )
    if "charge" in p:
        charge = turn.get("charge", p["charge"], param="charge")
    else:
        intent = turn.get("payment_intent", p["payment_intent"], param="payment_intent")
        found = turn.store.get("charge", intent["latest_charge"] or "", turn.account)
        if found is None:
            raise _nothing_paid(intent["id"])
        charge = found
    if not charge["captured"]:
        raise _nothing_paid(charge["payment_intent"])
    return charge


def _nothing_paid(intent: str) -> Refusal:
    return Refusal(f"This PaymentIntent ({intent}) does not have a successful charge to refund.")


def _too_much(charge: Doc, amount: int, left: int) -> Refusal:
    asked = shown(amount, charge["currency"])
    if not charge["amount_refunded"]:
        message = f"Refund amount ({asked}) is greater than charge amount ({shown(left, charge['currency'])})"
    else:
        message = (
            f"Refund amount ({asked}) is greater than unrefunded amount on charge ({shown(left, charge['currency'])})"
        )
    return Refusal(message, param="amount")


def _new(turn: Turn, charge: Doc, amount: int, reason: str | None, metadata: dict[str, str]) -> Doc:
    card = {"reference_status": "pending", "reference_type": "acquirer_reference_number", "type": "refund"}
    return {
        "id": turn.new_id("re"), "object": "refund", "amount": amount, "balance_transaction": None,
        "charge": charge["id"],
        "created": turn.now, "currency": charge["currency"], "customer": charge["customer"], "customer_account": None,
        "destination_details": {"card": card, "type": "card"}, "metadata": metadata,
        "payment_intent": charge["payment_intent"], "payment_method": charge["payment_method"], "reason": reason,
        "receipt_number": None, "source_transfer_reversal": None, "status": "succeeded", "transfer_reversal": None,
    }  # fmt: skip


def _move(turn: Turn, charge: Doc, refund: Doc, amount: int) -> None:
    fate = card_of({"card": charge["payment_method_details"]["card"]}).refund
    if fate == "pending":
        refund["status"] = "pending"
    if fate:
        turn.store.schedule("refund", refund["id"], turn.now + LATE_SECONDS)
    moved = turn.move("refund", refund["id"], -amount, charge["currency"], account=turn.account)
    refund["balance_transaction"] = moved["id"]
    turn.put(refund)
    _count(turn, charge, amount)


def _count(turn: Turn, charge: Doc, amount: int) -> None:
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount_captured"]
    turn.put(charge)


def late(turn: Turn, ident: str) -> None:
    """The test cards whose refunds succeed, or fail, some time after they were made."""
    turn.store.schedule("refund", ident, None)
    refund = turn.store.get("refund", ident, None)
    if refund is None:
        return
    if refund["status"] == "pending":
        refund["status"] = "succeeded"
        turn.put(refund)
        turn.emit("refund.updated", refund, previous={"status": "pending"})
        return
    fail(turn, refund)


def fail(turn: Turn, refund: Doc) -> None:
    """The bank sent the money back to us (docs.stripe.com/refunds#failed-refunds)."""
    charge = turn.get("charge", refund["charge"])
    returned = turn.move("refund_failure", refund["id"], refund["amount"], refund["currency"], account=turn.account)
    refund.update(status="failed", failure_reason="lost_or_stolen_card", failure_balance_transaction=returned["id"])
    turn.put(refund)
    _count(turn, charge, -refund["amount"])
    turn.emit("refund.failed", refund)


def update(turn: Turn, p: Doc, ident: str) -> Doc:
    refund = turn.get("refund", ident)
    refund["metadata"] = merged_metadata(refund["metadata"], p.get("metadata"))
    turn.emit("refund.updated", refund)
    return turn.put(refund)
