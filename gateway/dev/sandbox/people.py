"""Customers and payment methods: kept cards, and the rules of who may charge them."""

from __future__ import annotations

from typing import Any

from gateway.dev.sandbox.cards import CARDS, Card, card_of
from gateway.dev.sandbox.refusals import Refusal, missing
from gateway.dev.sandbox.store import Doc
from gateway.dev.sandbox.turn import LABELS, Turn, merged_metadata

_NO_ADDRESS = {"city": None, "country": None, "line1": None, "line2": None, "postal_code": None, "state": None}
_CUSTOMER_FIELDS = ("email", "name", "phone", "description", "address", "shipping", "preferred_locales")


DEMO_CUSTOMER = "cus_demo"


def seed(turn: Turn) -> None:
    """The customer that a platform has from the start, for a first order by hand."""
    if turn.store.get("customer", DEMO_CUSTOMER, turn.account) is None:
        turn.put(_new_customer(turn, DEMO_CUSTOMER))


def create_customer(turn: Turn, p: Doc) -> Doc:
    doc = _new_customer(turn, turn.new_id("cus"))
    _apply(doc, p)
    turn.put(doc)
    if "payment_method" in p:
        attach(turn, {"customer": doc["id"]}, p["payment_method"], param="payment_method")
    turn.emit("customer.created", doc)
    return doc


def _new_customer(turn: Turn, ident: str) -> Doc:
    return {
        "id": ident, "object": "customer", "address": None, "balance": 0, "created": turn.now,
        "currency": None,
        "customer_account": None, "default_source": None, "delinquent": False, "description": None, "email": None,
        "invoice_prefix": turn.new_id("inv")[-8:].upper(), "livemode": False, "metadata": {}, "name": None,
        "invoice_settings": {
            "custom_fields": None, "default_payment_method": None, "footer": None, "rendering_options": None,
        },
        "next_invoice_sequence": 1, "phone": None, "preferred_locales": [], "shipping": None, "tax_exempt": "none",
        "test_clock": None,
    }  # fmt: skip


def update_customer(turn: Turn, p: Doc, ident: str) -> Doc:
    doc = turn.get("customer", ident)
    _apply(doc, p)
    turn.emit("customer.updated", doc)
    return turn.put(doc)


def delete_customer(turn: Turn, _p: Doc, ident: str) -> Doc:
    """Permanent; its cards can never be charged again (docs.stripe.com/api/customers/delete)."""
    doc = turn.get("customer", ident)
    for method in turn.store.find("payment_method", account=turn.account, where={"customer": ident}):
        _release(turn, method)
    turn.store.delete(ident)
    turn.emit("customer.deleted", doc)
    return {"id": ident, "object": "customer", "deleted": True}


def _apply(doc: Doc, p: Doc) -> None:
    for name in _CUSTOMER_FIELDS:
        if name in p:
            doc[name] = p[name] if p[name] != "" else None
    if "metadata" in p:
        doc["metadata"] = merged_metadata(doc["metadata"], p["metadata"])
    settings = p.get("invoice_settings") or {}
    if "default_payment_method" in settings:
        doc["invoice_settings"]["default_payment_method"] = settings["default_payment_method"] or None


def create_method(turn: Turn, p: Doc) -> Doc:
    """From one of Stripe's test tokens only; card numbers are refused here as Stripe refuses them by default."""
    if p.get("type") != "card":
        raise Refusal("The sandbox models cards only.", code="sandbox_not_modelled", param="type", saved=False)
    card = p.get("card") or {}
    if "number" in card:
        raise Refusal(
            "Sending credit card numbers directly to the Stripe API is generally unsafe. We suggest you use test "
            "tokens "
            "that map to the test card you are using, see https://stripe.com/docs/testing.",
            status=402,
            kind="card_error",
        )
    known = CARDS.get("pm_card_" + str(card.get("token", "")).removeprefix("tok_"))
    if known is None:
        raise missing("token", str(card.get("token", "")), "card[token]", in_path=False)
    doc = _new_method(turn, known)
    doc["metadata"] = merged_metadata({}, p.get("metadata"))
    doc["billing_details"] = {**doc["billing_details"], **(p.get("billing_details") or {})}
    return turn.put(doc)


def _new_method(turn: Turn, card: Card) -> Doc:
    checks = {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"}
    return turn.put(
        {
            "id": turn.new_id("pm"),
            "object": "payment_method",
            "allow_redisplay": "unspecified",
            "billing_details": {"address": _NO_ADDRESS, "email": None, "name": None, "phone": None, "tax_id": None},
            "card": {
                "brand": card.brand,
                "checks": checks,
                "country": card.country,
                "display_brand": card.brand,
                "exp_month": 11,
                "exp_year": 2030,
                "fingerprint": card.fingerprint,
                "funding": card.funding,
                "generated_from": None,
                "last4": card.last4,
                "networks": {"available": [card.brand], "preferred": None},
                "regulated_status": "unregulated",
                "three_d_secure_usage": {"supported": True},
                "wallet": None,
            },
            "created": turn.now,
            "customer": None,
            "customer_account": None,
            "livemode": False,
            "metadata": {},
            "type": "card",
        }
    )


def find_method(turn: Turn, ident: str, *, param: str | None) -> Doc:
    """The PaymentMethod; one of Stripe's test ids becomes a new object each time, as at Stripe."""
    if ident in CARDS:
        return _new_method(turn, CARDS[ident])
    doc = turn.store.get("payment_method", ident, turn.account)
    if doc is None:
        raise missing(LABELS["payment_method"], ident, param or "payment_method", in_path=param is None)
    return doc


def usable(turn: Turn, ident: str, customer: str | None) -> Doc:
    """The payment method for a payment of `customer` (docs.stripe.com/payments/payment-methods, Reusability).

    Raises Refusal when it belongs to somebody else, or was used up without a customer.
    """
    method = find_method(turn, ident, param="payment_method")
    owner = method["customer"]
    if owner and not customer:
        raise Refusal(
            "The payment method you provided is attached to a customer so for security purposes you must provide the "
            "customer in the request.",
            param="payment_method",
        )
    if owner and owner != customer:
        raise not_theirs(ident)
    if method.get("_", {}).get("spent"):
        raise Refusal(
            "The provided PaymentMethod was previously used with a PaymentIntent without Customer attachment, "
            "shared with a "
            "connected account without Customer attachment, or was detached from a Customer. It may not be used "
            "again. To "
            "use a PaymentMethod multiple times, you must attach it to a Customer first.",
            param="payment_method",
        )
    return method


def not_theirs(ident: str) -> Refusal:
    return Refusal(
        f"The customer does not have a payment method with the ID {ident}. The payment method must be attached to "
        "the customer.",
        code="resource_missing",
        param="payment_method",
    )


def attach(turn: Turn, p: Doc, ident: str, *, param: str | None = None) -> Doc:
    """Keep a card for a customer; `param` says where its id stood, if not in the path."""
    method = find_method(turn, ident, param=param)
    customer = turn.get("customer", p["customer"], param="customer")
    if method["customer"] and method["customer"] != customer["id"]:
        raise Refusal(
            "The payment method you provided has already been attached to a customer.", param="payment_method"
        )
    if method.get("_", {}).get("spent"):
        raise Refusal(
            "This PaymentMethod was previously used without being attached to a Customer or was detached from a "
            "Customer, and "
            "may not be used again."
        )
    _refuse_bad_card(method)
    return keep(turn, method, customer["id"])


def _refuse_bad_card(method: Doc) -> None:
    """Attaching checks the card with its issuer: one that always declines cannot be kept, 0341 can (testing)."""
    card = card_of(method)
    if card.outcome and not card.challenge and card.token != "chargeCustomerFail":  # noqa: S105 - name of a test card
        code, decline_code, message = card.outcome
        raise Refusal(message, status=402, kind="card_error", code=code, fields={"decline_code": decline_code})


def keep(turn: Turn, method: Doc, customer: str) -> Doc:
    """Attach without asking: what setup_future_usage does after a payment went through."""
    if method["customer"] == customer:
        return method
    method["customer"] = customer
    turn.emit("payment_method.attached", method)
    return turn.put(method)


def detach(turn: Turn, _p: Doc, ident: str) -> Doc:
    method = find_method(turn, ident, param=None)
    if not method["customer"]:
        raise Refusal("The payment method you provided is not attached to a customer so detachment is impossible.")
    return _release(turn, method)


def _release(turn: Turn, method: Doc) -> Doc:
    before = {"customer": method["customer"]}
    method["customer"] = None
    method["_"] = {**method.get("_", {}), "spent": True}
    turn.emit("payment_method.detached", method, previous=before)
    return turn.put(method)


def update_method(turn: Turn, p: Doc, ident: str) -> Doc:
    method = turn.get("payment_method", ident)
    if "metadata" in p:
        method["metadata"] = merged_metadata(method["metadata"], p["metadata"])
    if "billing_details" in p:
        method["billing_details"] = {**method["billing_details"], **p["billing_details"]}
    turn.emit("payment_method.updated", method)
    return turn.put(method)


def note(turn: Turn, method: Doc, **notes: Any) -> Doc:
    """Remember something of the card that Stripe does not show."""
    method["_"] = {**method.get("_", {}), **notes}
    return turn.put(method)


def retrieve_method(turn: Turn, _p: Doc, ident: str) -> Doc:
    return find_method(turn, ident, param=None)
