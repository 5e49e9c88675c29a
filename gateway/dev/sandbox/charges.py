"""Charges: one attempt on a card, its capture, and its settlement on our balance."""

from __future__ import annotations

from typing import Any

from gateway.dev.sandbox.cards import Card, card_of
from gateway.dev.sandbox.currencies import exchanged
from gateway.dev.sandbox.store import Doc
from gateway.dev.sandbox.turn import DAY, Turn, merged_metadata

# docs.stripe.com/payments/place-a-hold-on-a-payment-method: 7 days; Visa without the customer present 4 days 18 hours.
HOLD_SECONDS = 7 * DAY
VISA_OFF_SESSION_HOLD_SECONDS = 4 * DAY + 18 * 3600

# automatic_async payments get their balance transaction a moment later
# (docs.stripe.com/payments/payment-intents/asynchronous-capture).
ASYNC_SETTLE_SECONDS = 1


def attempt(
    turn: Turn, intent: Doc, method: Doc, refused: tuple[str, str | None, str] | None, *, authenticated: bool
) -> Doc:
    """A new charge of the intent's amount; `refused` is the issuer's (code, decline_code, message)."""
    card = card_of(method)
    held = refused is None and intent["capture_method"] == "manual"
    off_session = bool(intent.get("_", {}).get("off_session"))
    details = _card_details(method, card, intent["amount"], authenticated=authenticated)
    if held:
        visa_alone = off_session and card.brand == "visa"
        details["capture_before"] = turn.now + (VISA_OFF_SESSION_HOLD_SECONDS if visa_alone else HOLD_SECONDS)
    suffix = intent["statement_descriptor_suffix"]
    charge: Doc = {
        "id": turn.new_id("ch"), "object": "charge", "amount": intent["amount"], "amount_captured": 0,
        "amount_refunded": 0,
        "application": None, "application_fee": None, "application_fee_amount": None, "balance_transaction": None,
        "billing_details": method["billing_details"],
        "calculated_statement_descriptor": None if refused else ("PARLEY* " + suffix if suffix else "PARLEY"),
        "captured": False, "created": turn.now, "currency": intent["currency"], "customer": intent["customer"],
        "description": intent["description"], "disputed": False, "failure_balance_transaction": None,
        "failure_code": refused[0] if refused else None, "failure_message": refused[2] if refused else None,
        "fraud_details": {}, "livemode": False, "metadata": dict(intent["metadata"]), "on_behalf_of": None,
        "outcome": _outcome(card, refused), "paid": refused is None, "payment_intent": intent["id"],
        "payment_method": method["id"], "payment_method_details": {"card": details, "type": "card"},
        "presentment_details": None, "radar_options": {}, "receipt_email": intent["receipt_email"],
        "receipt_number": None,
        "receipt_url": None, "refunded": False, "review": None, "shipping": None, "source_transfer": None,
        "statement_descriptor": None, "statement_descriptor_suffix": suffix,
        "status": "failed" if refused else "succeeded", "transfer_data": None,
        "transfer_group": intent["transfer_group"],
    }  # fmt: skip
    turn.put(charge)
    return charge


def _card_details(method: Doc, card: Card, amount: int, *, authenticated: bool) -> Doc:
    kept: Doc = method["card"]
    unavailable = {"status": "unavailable"}
    return {
        "amount_authorized": amount, "authorization_code": "123456", "brand": card.brand, "checks": kept["checks"],
        "country": card.country, "exp_month": kept["exp_month"], "exp_year": kept["exp_year"],
        "extended_authorization": {"status": "disabled"}, "fingerprint": card.fingerprint, "funding": card.funding,
        "incremental_authorization": unavailable, "installments": None, "last4": card.last4, "mandate": None,
        "multicapture": unavailable, "network": card.brand, "network_token": {"used": False},
        "network_transaction_id": "NT" + method["id"][-12:],
        "overcapture": {"maximum_amount_capturable": amount, "status": "unavailable"},
        "regulated_status": "unregulated", "three_d_secure": _three_d_secure(authenticated), "wallet": None,
    }  # fmt: skip


def _three_d_secure(authenticated: bool) -> Doc | None:
    if not authenticated:
        return None
    return {
        "authentication_flow": "challenge", "electronic_commerce_indicator": "05", "exemption_indicator": None,
        "result": "authenticated", "result_reason": None, "transaction_id": None, "version": "2.2.0",
    }  # fmt: skip


def _outcome(card: Card, refused: tuple[str, str | None, str] | None) -> Doc:
    outcome: dict[str, Any] = {
        "advice_code": None, "network_advice_code": None, "network_decline_code": None,
        "network_status": "approved_by_network", "reason": None, "risk_level": "normal", "risk_score": 20,
        "seller_message": "Payment complete.", "type": "authorized",
    }  # fmt: skip
    if refused is None:
        return outcome
    reason = refused[1] or refused[0]
    blocked = {
        "network_status": "not_sent_to_network",
        "type": "blocked",
        "reason": "highest_risk_level",
        "risk_level": "highest",
    }
    declined = {"network_status": "declined_by_network", "type": "issuer_declined", "reason": reason}
    message = (
        "Stripe blocked this payment."
        if card.blocked
        else "The bank did not return any further details with this decline."
    )
    return {**outcome, **(blocked if card.blocked else declined), "seller_message": message}


def capture(turn: Turn, charge: Doc, amount: int, *, settle_now: bool) -> Doc:
    """Take `amount` of the charge; its money lands on our balance now, or in a moment."""
    charge["captured"] = True
    charge["amount_captured"] = amount
    if settle_now:
        settle(turn, charge)
    else:
        turn.store.schedule("settle", charge["id"], turn.now + ASYNC_SETTLE_SECONDS)
    return turn.put(charge)


def settle(turn: Turn, charge: Doc) -> Doc:
    """Write the charge's balance transaction: exchanged into a settlement currency, less Stripe's fee."""
    target = turn.settled(charge["currency"])
    gross = exchanged(charge["amount_captured"], charge["currency"], target)
    fee = (2 * gross * turn.terms.fee_bps + 10_000) // 20_000 + exchanged(turn.terms.fee_fixed, "usd", target)
    at_once = card_of({"card": charge["payment_method_details"]["card"]}).available_at_once
    moved = turn.move(
        "charge",
        charge["id"],
        charge["amount_captured"],
        charge["currency"],
        fee=fee,
        available_on=turn.now if at_once else turn.now + turn.terms.settles_after,
        account=turn.account,
    )
    charge["balance_transaction"] = moved["id"]
    turn.store.schedule("settle", charge["id"], None)
    return turn.put(charge)


def settle_due(turn: Turn, ident: str) -> None:
    """The moment of an automatic_async payment has come."""
    charge = turn.store.get("charge", ident, None)
    turn.store.schedule("settle", ident, None)
    if charge is not None and charge["captured"] and charge["balance_transaction"] is None:
        settle(turn, charge)
        turn.emit("charge.updated", charge, previous={"balance_transaction": None})


def update(turn: Turn, p: Doc, ident: str) -> Doc:
    charge = turn.get("charge", ident)
    for name in ("description", "receipt_email", "transfer_group"):
        if name in p:
            charge[name] = p[name] or None
    if "metadata" in p:
        charge["metadata"] = merged_metadata(charge["metadata"], p["metadata"])
    turn.emit("charge.updated", charge)
    return turn.put(charge)
