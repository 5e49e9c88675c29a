"""Disputes: the bank takes a charge's money back until the case is decided.

docs.stripe.com/disputes/how-disputes-work
"""

from __future__ import annotations

from gateway.dev.sandbox.cards import card_of
from gateway.dev.sandbox.refusals import Refusal
from gateway.dev.sandbox.store import Doc
from gateway.dev.sandbox.turn import DAY, Turn, merged_metadata

FEE_USD = 1_500  # a lost or won dispute costs the same
OPEN = ("needs_response", "under_review", "warning_needs_response", "warning_under_review")
# docs.stripe.com/testing#evidence
_VERDICTS = {"winning_evidence": "won", "losing_evidence": "lost"}


def open_by_card(turn: Turn, charge: Doc) -> None:
    """Stripe's test cards that are disputed as soon as they have paid."""
    reason = card_of({"card": charge["payment_method_details"]["card"]}).dispute
    if reason:
        start(turn, charge, charge["amount_captured"], reason)


def start(turn: Turn, charge: Doc, amount: int | None = None, reason: str = "fraudulent") -> Doc:
    """The disputed amount and a fee leave our balance at once."""
    if not charge["captured"] or charge["disputed"]:
        raise Refusal(f"Charge {charge['id']} cannot be disputed.", param="charge")
    disputed = charge["amount_captured"] if amount is None else amount
    ident = turn.new_id("du")
    taken = turn.move(
        "adjustment", ident, -disputed, charge["currency"], fee=FEE_USD, description="Chargeback withdrawal"
    )
    card = charge["payment_method_details"]["card"]
    dispute: Doc = {
        "id": ident, "object": "dispute", "amount": disputed, "balance_transactions": [taken], "charge": charge["id"],
        "created": turn.now, "currency": charge["currency"], "enhanced_eligibility_types": [],
        "evidence": {"enhanced_evidence": {}},
        "evidence_details": {
            "due_by": turn.now + 9 * DAY, "enhanced_eligibility": {}, "has_evidence": False, "past_due": False,
            "submission_count": 0, "submission_method": "not_submitted",
        },
        "is_charge_refundable": False, "livemode": False, "metadata": {}, "payment_intent": charge["payment_intent"],
        "payment_method_details": {
            "card": {
                "brand": card["brand"], "case_type": "chargeback", "network": card["network"],
                "network_reason_code": "10.4",
            },
            "type": "card",
        },
        "reason": reason, "status": "needs_response",
    }  # fmt: skip
    charge["disputed"] = True
    turn.put(charge)
    turn.put(dispute)
    turn.emit("charge.dispute.created", dispute)
    turn.emit("charge.dispute.funds_withdrawn", dispute)
    return dispute


def decide(turn: Turn, ident: str, verdict: str) -> Doc:
    """`won` gives the money back, `lost` keeps it with the cardholder; either way the case is closed."""
    dispute = turn.get("dispute", ident)
    if dispute["status"] not in OPEN:
        raise Refusal("This dispute is already closed", param="id")
    dispute["status"] = verdict
    if verdict == "won":
        back = turn.move("adjustment", ident, dispute["amount"], dispute["currency"], description="Chargeback reversal")
        dispute["balance_transactions"].append(back)
        charge = turn.get("charge", dispute["charge"])
        charge["disputed"] = False
        turn.put(charge)
    turn.put(dispute)
    if verdict == "won":
        turn.emit("charge.dispute.funds_reinstated", dispute)
    turn.emit("charge.dispute.closed", dispute)
    return dispute


def close(turn: Turn, _p: Doc, ident: str) -> Doc:
    """Accepting a dispute loses it (docs.stripe.com/api/disputes/close)."""
    return decide(turn, ident, "lost")


def update(turn: Turn, p: Doc, ident: str) -> Doc:
    dispute = turn.get("dispute", ident)
    if "metadata" in p:
        dispute["metadata"] = merged_metadata(dispute["metadata"], p["metadata"])
    evidence = p.get("evidence") or {}
    dispute["evidence"].update(evidence)
    if evidence:
        dispute["evidence_details"]["has_evidence"] = True
    if evidence and p.get("submit", True):
        dispute["evidence_details"]["submission_count"] += 1
        dispute["evidence_details"]["submission_method"] = "manual"
        dispute["status"] = "under_review"
    turn.put(dispute)
    turn.emit("charge.dispute.updated", dispute)
    verdict = _VERDICTS.get(str(evidence.get("uncategorized_text")))
    return decide(turn, ident, verdict) if verdict and dispute["status"] == "under_review" else dispute
