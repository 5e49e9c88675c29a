"""PaymentIntents: the states from creation to capture or cancellation.

docs.stripe.com/payments/paymentintents/lifecycle
"""

from __future__ import annotations

import re
from typing import Any

from gateway.dev.sandbox import charges, disputes, people
from gateway.dev.sandbox.cards import Card, card_of
from gateway.dev.sandbox.currencies import KNOWN, MAXIMUM, MINIMUM, exchanged, shown
from gateway.dev.sandbox.refusals import Refusal
from gateway.dev.sandbox.store import Doc
from gateway.dev.sandbox.turn import Turn, at_least_one, merged_metadata, public

CANCELABLE = ("requires_payment_method", "requires_capture", "requires_confirmation", "requires_action", "processing")
CHANGEABLE = ("requires_payment_method", "requires_confirmation", "requires_action")
_ONLY_WITH_CONFIRM = ("return_url", "off_session", "error_on_requires_action", "use_stripe_sdk")
_SUFFIX_REFUSED = re.compile(r"[<>\\'\"*]")
_CHOOSERS = ("allowed_payment_method_types", "automatic_payment_methods", "excluded_payment_method_types")

_AUTHENTICATION = (
    "authentication_required",
    "authentication_required",
    "Your card was declined. This transaction requires authentication.",
)


def create(turn: Turn, p: Doc) -> Doc:
    _check_money(turn, p["amount"], p["currency"].lower())
    _check_choosers(p)
    _check_suffix(p)
    if not p.get("confirm"):
        _refuse_confirm_only(p)
    if "customer" in p:
        turn.get("customer", p["customer"], param="customer")
    intent = _new(turn, p)
    if "payment_method" in p:
        intent["payment_method"] = people.usable(turn, p["payment_method"], intent["customer"])["id"]
        intent["status"] = "requires_confirmation"
    turn.put(intent)
    turn.emit("payment_intent.created", intent)
    return _confirm(turn, intent, p) if p.get("confirm") else intent


def _new(turn: Turn, p: Doc) -> Doc:
    ident = turn.new_id("pi")
    automatic = None
    if "allowed_payment_method_types" not in p:
        given = p.get("automatic_payment_methods") or {}
        automatic = {"allow_redirects": given.get("allow_redirects", "always"), "enabled": given.get("enabled", True)}
    return {
        "id": ident, "object": "payment_intent", "allowed_payment_method_types": p.get("allowed_payment_method_types"),
        "amount": p["amount"], "amount_capturable": 0, "amount_details": {"tip": {}}, "amount_received": 0,
        "application": None, "application_fee_amount": None, "automatic_payment_methods": automatic,
        "canceled_at": None,
        "cancellation_reason": None, "capture_method": p.get("capture_method", "automatic_async"),
        "client_secret": f"{ident}_secret_{turn.new_id('x').removeprefix('x_')}",
        "confirmation_method": p.get("confirmation_method", "automatic"), "created": turn.now,
        "currency": p["currency"].lower(), "customer": p.get("customer"), "customer_account": None,
        "description": p.get("description"), "excluded_payment_method_types": p.get("excluded_payment_method_types"),
        "last_payment_error": None, "latest_charge": None, "livemode": False,
        "metadata": merged_metadata({}, p.get("metadata")), "next_action": None, "on_behalf_of": None,
        "payment_method": None, "payment_method_configuration_details": None,
        "payment_method_options": {"card": {
            "installments": None, "mandate_options": None, "network": None, "request_three_d_secure": "automatic",
            **((p.get("payment_method_options") or {}).get("card") or {}),
        }},
        "payment_method_types": ["card"], "processing": None, "receipt_email": p.get("receipt_email"), "review": None,
        "setup_future_usage": p.get("setup_future_usage"), "shipping": None, "source": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": p.get("statement_descriptor_suffix"), "status": "requires_payment_method",
        "transfer_data": None, "transfer_group": p.get("transfer_group"),
    }  # fmt: skip


def _check_money(turn: Turn, amount: int, currency: str) -> None:
    if currency not in KNOWN:
        raise Refusal(
            f"Invalid currency: {currency}. Stripe currently supports these currencies: {', '.join(sorted(KNOWN))}",
            param="currency",
            saved=False,
        )
    at_least_one(amount, "amount")
    if amount > MAXIMUM:
        raise Refusal(
            f"Amount must be no more than {shown(MAXIMUM, currency)}", code="amount_too_large", param="amount"
        )
    check_minimum(turn, amount, currency, "amount")


def check_minimum(turn: Turn, amount: int, currency: str, param: str) -> None:
    """The least depends on the settlement currency (docs.stripe.com/currencies#minimum-and-maximum-charge-amounts)."""
    settled = turn.settled(currency)
    least = MINIMUM.get(settled, 50)
    worth = exchanged(amount, currency, settled)
    if worth >= least:
        return
    if settled == currency:
        message = f"Amount must be at least {shown(least, currency)} {currency}"
    else:
        message = (
            f"Amount must convert to at least {least} cents. {shown(amount, currency)} converts to approximately "
            f"{shown(worth, settled)}."
        )
    raise Refusal(message, code="amount_too_small", param=param)


def _check_choosers(p: Doc) -> None:
    given = [name for name in _CHOOSERS if name in p]
    if len(given) > 1 and "allowed_payment_method_types" in given:
        raise Refusal(f"You may only specify one of these parameters: {', '.join(given)}.", param=given[0], saved=False)
    allowed = p.get("allowed_payment_method_types")
    if allowed is not None and "card" not in allowed:
        raise Refusal(
            "The sandbox models cards only.",
            code="sandbox_not_modelled",
            param="allowed_payment_method_types",
            saved=False,
        )


def _check_suffix(p: Doc) -> None:
    """docs.stripe.com/get-started/account/statement-descriptors: Latin letters, one at least, none of < > \\ ' " *"""
    suffix = p.get("statement_descriptor_suffix")
    if not suffix:
        return
    param = "statement_descriptor_suffix"
    if len(suffix) > 22:
        raise Refusal("The statement descriptor suffix must be at most 22 characters.", param=param)
    if _SUFFIX_REFUSED.search(suffix):
        raise Refusal("The statement descriptor suffix must not contain the characters <, >, \\, ', \", *", param=param)
    if not re.search(r"[A-Za-z]", suffix):
        raise Refusal("The statement descriptor suffix must contain at least one alphabetic character.", param=param)


def _refuse_confirm_only(p: Doc) -> None:
    for name in _ONLY_WITH_CONFIRM:
        if name in p:
            raise Refusal(
                f"The parameter `{name}` cannot be passed when creating a PaymentIntent unless `confirm` is set "
                "to true.",
                param=name,
            )


def confirm(turn: Turn, p: Doc, ident: str) -> Doc:
    intent = turn.get("payment_intent", ident)
    if intent["status"] == "succeeded":
        raise unexpected(
            intent,
            "You cannot confirm this PaymentIntent because it has already succeeded after being previously confirmed.",
        )
    if intent["status"] not in CHANGEABLE:
        raise unexpected(
            intent,
            f"You cannot confirm this PaymentIntent because it has a status of {intent['status']}. Only a "
            "PaymentIntent with one "
            "of the following statuses may be confirmed: requires_confirmation, requires_action.",
        )
    if "payment_method" in p:
        intent["payment_method"] = people.usable(turn, p["payment_method"], intent["customer"])["id"]
    for name in ("setup_future_usage", "receipt_email", "capture_method"):
        if name in p:
            intent[name] = p[name] or None
    return _confirm(turn, intent, p)


def _confirm(turn: Turn, intent: Doc, p: Doc) -> Doc:
    """Try the payment. Declines are Refusals that keep what was written: the failed charge and the intent's error."""
    if intent["payment_method"] is None:
        raise unexpected(
            intent,
            "You cannot confirm this PaymentIntent because it's missing a payment method. You can either update the "
            "PaymentIntent with a payment method and then confirm it again, or confirm it again directly with a "
            "payment "
            "method or ConfirmationToken.",
        )
    _need_return_url(intent, p)
    method = turn.get("payment_method", intent["payment_method"], param="payment_method")
    card = card_of(method)
    off_session = bool(p.get("off_session"))
    intent["_"] = {"off_session": off_session, "return_url": p.get("return_url")}
    if not _challenged(intent, method, card):
        return _charge(turn, intent, method, card.outcome, authenticated=False)
    if off_session or p.get("error_on_requires_action"):
        return _charge(turn, intent, method, _AUTHENTICATION, authenticated=False)
    return _ask(turn, intent, use_sdk=bool(p.get("use_stripe_sdk")))


def _need_return_url(intent: Doc, p: Doc) -> None:
    """docs.stripe.com/upgrades/manage-payment-methods: what may redirect needs somewhere to come back to."""
    automatic = intent["automatic_payment_methods"]
    if automatic and automatic["allow_redirects"] == "always" and not (p.get("return_url") or p.get("use_stripe_sdk")):
        raise Refusal(
            "This PaymentIntent is configured to accept payment methods enabled in your Dashboard. Because some "
            "of these "
            "payment methods might redirect your customer off of your page, you must provide a `return_url`. If "
            "you don't want "
            "to accept redirect-based payment methods, set `automatic_payment_methods[enabled]` to `true` and "
            "`automatic_payment_methods[allow_redirects]` to `never` when creating Setup Intents and Payment Intents.",
            fields={"payment_intent": public(intent)},
        )


def _challenged(intent: Doc, method: Doc, card: Card) -> bool:
    if card.challenge == "unless_set_up":
        return not method.get("_", {}).get("set_up")
    return card.challenge == "always"


def _ask(turn: Turn, intent: Doc, *, use_sdk: bool) -> Doc:
    """requires_action: where the customer approves (docs.stripe.com/payments/3d-secure/authentication-flow)."""
    url = f"{turn.terms.base_url}/3ds/{intent['id']}?secret={intent['client_secret']}"
    return_url = intent["_"]["return_url"]
    if return_url and not use_sdk:
        action: Doc = {"type": "redirect_to_url", "redirect_to_url": {"return_url": return_url, "url": url}}
    else:
        action = {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect", "stripe_js": url}}
    intent.update(status="requires_action", next_action=action, last_payment_error=None)
    turn.emit("payment_intent.requires_action", intent)
    return turn.put(intent)


def authenticate(turn: Turn, ident: str, *, approved: bool) -> Doc:
    """What the customer did on the 3DS page. Never raises for a refused payment: the page only sends them back."""
    intent = turn.get("payment_intent", ident)
    if intent["status"] != "requires_action":
        return intent
    method = turn.get("payment_method", intent["payment_method"], param="payment_method")
    intent["next_action"] = None
    if not approved:
        message = (
            "The provided PaymentMethod has failed authentication. You can provide payment_method_data or a new "
            "PaymentMethod "
            "to attempt to fulfill this PaymentIntent again."
        )
        _fail(
            turn,
            intent,
            method,
            ("payment_intent_authentication_failure", None, message),
            None,
            kind="invalid_request_error",
        )
        return intent
    try:
        return _charge(turn, intent, method, card_of(method).outcome, authenticated=True)
    except Refusal:
        return intent


def _charge(
    turn: Turn, intent: Doc, method: Doc, refused: tuple[str, str | None, str] | None, *, authenticated: bool
) -> Doc:
    charge = charges.attempt(turn, intent, method, refused, authenticated=authenticated)
    intent.update(latest_charge=charge["id"], next_action=None)
    if refused is not None:
        raise _fail(turn, intent, method, refused, charge)
    _remember_card(turn, intent, method, authenticated=authenticated)
    intent["last_payment_error"] = None
    if intent["capture_method"] == "manual":
        return _hold(turn, intent, charge)
    return _take(turn, intent, charge, intent["amount"], settle_now=intent["capture_method"] == "automatic")


def _remember_card(turn: Turn, intent: Doc, method: Doc, *, authenticated: bool) -> None:
    if intent["setup_future_usage"] and intent["customer"]:
        if authenticated:
            people.note(turn, method, set_up=True)
        people.keep(turn, method, intent["customer"])
    elif method["customer"] is None:
        people.note(turn, method, spent=True)


def _fail(
    turn: Turn,
    intent: Doc,
    method: Doc,
    refused: tuple[str, str | None, str],
    charge: Doc | None,
    kind: str = "card_error",
) -> Refusal:
    """Back to requires_payment_method, with the reason on the intent; gives the 402 to raise."""
    code, decline_code, message = refused
    error: dict[str, Any] = {"charge": charge["id"]} if charge else {}
    if decline_code:
        error["decline_code"] = decline_code
    error["payment_method"] = public(method)
    doc_url = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
    intent["last_payment_error"] = {**error, "code": code, "doc_url": doc_url, "message": message, "type": kind}
    intent.update(status="requires_payment_method", payment_method=None)
    turn.put(intent)
    if charge is not None:
        turn.emit("charge.failed", charge)
    turn.emit("payment_intent.payment_failed", intent)
    return Refusal(
        message, status=402, kind=kind, code=code, keep=True, fields={**error, "payment_intent": public(intent)}
    )


def _hold(turn: Turn, intent: Doc, charge: Doc) -> Doc:
    intent.update(status="requires_capture", amount_capturable=intent["amount"])
    before: int = charge["payment_method_details"]["card"]["capture_before"]
    turn.store.schedule("hold", intent["id"], before)
    turn.emit("charge.succeeded", charge)
    turn.emit("payment_intent.amount_capturable_updated", intent)
    return turn.put(intent)


def _take(turn: Turn, intent: Doc, charge: Doc, amount: int, *, settle_now: bool) -> Doc:
    held = intent["status"] == "requires_capture"
    charges.capture(turn, charge, amount, settle_now=settle_now)
    intent.update(status="succeeded", amount_capturable=0, amount_received=amount)
    turn.store.schedule("hold", intent["id"], None)
    turn.put(intent)
    turn.emit("charge.captured" if held else "charge.succeeded", charge)
    turn.emit("payment_intent.succeeded", intent)
    disputes.open_by_card(turn, charge)
    return intent


def capture(turn: Turn, p: Doc, ident: str) -> Doc:
    intent = turn.get("payment_intent", ident)
    if intent["status"] == "succeeded":
        raise unexpected(intent, "This PaymentIntent could not be captured because it has already been captured.")
    if intent["status"] != "requires_capture":
        raise unexpected(
            intent,
            f"This PaymentIntent could not be captured because it has a status of {intent['status']}. Only a "
            "PaymentIntent with "
            "one of the following statuses may be captured: requires_capture.",
        )
    capturable: int = intent["amount_capturable"]
    amount: int = p.get("amount_to_capture", capturable)
    at_least_one(amount, "amount_to_capture")
    if amount > capturable:
        raise Refusal(
            "The payment could not be captured because the requested capture amount is greater than the amount "
            "you can capture "
            "for this charge.",
            code="amount_too_large",
            param="amount_to_capture",
            fields={"payment_intent": public(intent)},
        )
    check_minimum(turn, amount, intent["currency"], "amount_to_capture")
    _check_suffix(p)
    return _capture(turn, intent, p, amount)


def _capture(turn: Turn, intent: Doc, p: Doc, amount: int) -> Doc:
    charge = turn.get("charge", intent["latest_charge"])
    if "metadata" in p:
        intent["metadata"] = merged_metadata(intent["metadata"], p["metadata"])
    if "statement_descriptor_suffix" in p:
        intent["statement_descriptor_suffix"] = charge["statement_descriptor_suffix"] = p["statement_descriptor_suffix"]
    return _take(turn, intent, charge, amount, settle_now=True)


def cancel(turn: Turn, p: Doc, ident: str) -> Doc:
    intent = turn.get("payment_intent", ident)
    if intent["status"] not in CANCELABLE:
        raise unexpected(
            intent,
            f"You cannot cancel this PaymentIntent because it has a status of {intent['status']}. Only a "
            "PaymentIntent with one "
            f"of the following statuses may be canceled: {', '.join(CANCELABLE)}.",
        )
    return void(turn, intent, p.get("cancellation_reason"))


def void(turn: Turn, intent: Doc, reason: str | None) -> Doc:
    """Cancel in any open state; a hold goes back to the customer at once."""
    held = intent["status"] == "requires_capture"
    intent.update(
        status="canceled", amount_capturable=0, canceled_at=turn.now, cancellation_reason=reason, next_action=None
    )
    turn.store.schedule("hold", intent["id"], None)
    turn.put(intent)
    if held and reason == "expired":
        turn.emit("charge.expired", turn.get("charge", intent["latest_charge"]))
    turn.emit("payment_intent.canceled", intent)
    return intent


def expire_due(turn: Turn, ident: str) -> None:
    """capture_before has passed: the hold is gone and the intent canceled."""
    turn.store.schedule("hold", ident, None)
    intent = turn.store.get("payment_intent", ident, None)
    if intent is not None and intent["status"] == "requires_capture":
        void(turn, intent, "expired")


def update(turn: Turn, p: Doc, ident: str) -> Doc:
    intent = turn.get("payment_intent", ident)
    for name in ("amount", "currency", "customer", "payment_method", "setup_future_usage", "transfer_group"):
        if name in p and intent["status"] not in CHANGEABLE:
            raise unexpected(
                intent,
                f"This PaymentIntent's {name} could not be updated because it has a status of {intent['status']}. "
                "You may only "
                f"update the {name} of a PaymentIntent with one of the following statuses: {', '.join(CHANGEABLE)}.",
            )
    _check_suffix(p)
    _change(turn, intent, p)
    return turn.put(intent)


def _change(turn: Turn, intent: Doc, p: Doc) -> None:
    if "amount" in p or "currency" in p:
        intent.update(
            amount=p.get("amount", intent["amount"]), currency=str(p.get("currency", intent["currency"])).lower()
        )
        _check_money(turn, intent["amount"], intent["currency"])
    if "customer" in p:
        intent["customer"] = turn.get("customer", p["customer"], param="customer")["id"]
    if "payment_method" in p:
        intent["payment_method"] = people.usable(turn, p["payment_method"], intent["customer"])["id"]
        intent.update(status="requires_confirmation", next_action=None)
    for name in ("description", "receipt_email", "setup_future_usage", "statement_descriptor_suffix", "transfer_group"):
        if name in p:
            intent[name] = p[name] or None
    if "metadata" in p:
        intent["metadata"] = merged_metadata(intent["metadata"], p["metadata"])


def unexpected(intent: Doc, message: str) -> Refusal:
    return Refusal(message, code="payment_intent_unexpected_state", fields={"payment_intent": public(intent)})
