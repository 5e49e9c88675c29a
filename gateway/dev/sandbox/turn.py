"""One unit of work: the store, the moment, new ids, and the events that come of it. Every endpoint is given one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.dev.sandbox.currencies import exchanged, rate
from gateway.dev.sandbox.refusals import Refusal, missing
from gateway.dev.sandbox.store import Doc, Store

API_VERSION = "2026-10-28.endive"
DAY = 86_400

# How Stripe's "No such ..." names each kind.
LABELS = {
    "payment_intent": "payment_intent",
    "payment_method": "PaymentMethod",
    "balance_transaction": "balance transaction",
    "webhook_endpoint": "webhook endpoint",
    "transfer_reversal": "transfer reversal",
}


@dataclass(frozen=True, slots=True)
class Terms:
    """How this platform's account is set up at Stripe."""

    settlement_currencies: tuple[str, ...] = ("usd",)
    country: str = "US"
    fee_bps: int = 290
    fee_fixed: int = 30
    settles_after: int = 2 * DAY
    base_url: str = "http://127.0.0.1"


@dataclass(slots=True)
class Turn:
    """`now` in seconds since the Unix epoch; `account` is the Stripe-Account header, empty for the platform's own."""

    store: Store
    now: int
    new_id: Callable[[str], str]
    terms: Terms
    account: str = ""
    request: str | None = None
    key: str | None = None
    emitted: list[tuple[str, str, str]] = field(default_factory=list)

    def put(self, doc: Doc, account: str | None = None) -> Doc:
        self.store.put(doc, self.account if account is None else account)
        return doc

    def get(self, kind: str, ident: str, *, param: str | None = None) -> Doc:
        """The object, or Stripe's `resource_missing`: 404 for an id in the path (no `param`), else 400."""
        doc = self.store.get(kind, ident, self.account)
        if doc is None:
            raise missing(LABELS.get(kind, kind), ident, param, in_path=param is None)
        return doc

    def emit(self, kind: str, doc: Doc, *, account: str | None = None, previous: Doc | None = None) -> None:
        """Record an event with a snapshot of the object, to be delivered to the endpoints that want it."""
        data: Doc = {"object": public(doc)}
        if previous is not None:
            data["previous_attributes"] = previous
        owner = self.account if account is None else account
        event: Doc = {
            "id": self.new_id("evt"), "object": "event", "api_version": API_VERSION, "created": self.now, "data": data,
            "livemode": False, "pending_webhooks": 0, "request": {"id": self.request, "idempotency_key": self.key},
            "type": kind,
        }  # fmt: skip
        if owner:
            event["account"] = owner
        self.store.put(event, owner)
        self.emitted.append((event["id"], kind, owner))

    def settled(self, currency: str) -> str:
        """The currency in which a charge lands on our balance."""
        own = self.terms.settlement_currencies
        return currency if currency in own else own[0]

    def move(
        self,
        kind: str,
        source: str,
        amount: int,
        currency: str,
        *,
        fee: int = 0,
        available_on: int | None = None,
        account: str = "",
        target: str | None = None,
        description: str | None = None,
    ) -> Doc:
        """Write a balance transaction and its entry; `amount` (signed) in `currency`, settled in `target`."""
        settled = target or self.settled(currency)
        sign = 1 if amount >= 0 else -1
        gross = sign * exchanged(abs(amount), currency, settled)
        available = self.now if available_on is None else available_on
        category = {"payment_refund": "refund", "transfer_refund": "transfer_reversal", "adjustment": "dispute"}
        doc: Doc = {
            "id": self.new_id("txn"), "object": "balance_transaction", "amount": gross, "available_on": available,
            "balance_type": "payments", "created": self.now, "currency": settled, "description": description,
            "exchange_rate": rate(currency, settled), "fee": fee, "fee_details": _fee_details(fee, settled),
            "net": gross - fee, "reporting_category": category.get(kind, kind), "source": source,
            "status": "available" if available <= self.now else "pending", "type": kind,
        }  # fmt: skip
        self.store.put(doc, account)
        self.store.enter(doc["id"], account, settled, gross - fee, available)
        return doc


def _fee_details(fee: int, currency: str) -> list[Doc]:
    if not fee:
        return []
    return [
        {
            "amount": fee,
            "application": None,
            "currency": currency,
            "description": "Stripe processing fees",
            "type": "stripe_fee",
        }
    ]


def public(doc: Doc) -> Doc:
    """Without the sandbox's own notes."""
    return {key: value for key, value in doc.items() if key != "_"}


def at_least_one(value: int, param: str) -> None:
    if value < 1:
        raise Refusal(
            "This value must be greater than or equal to 1.", code="parameter_invalid_integer", param=param, saved=False
        )


def merged_metadata(old: dict[str, str], given: Any) -> dict[str, str]:
    """An empty value unsets a key, an empty string all of them (docs.stripe.com/api/metadata)."""
    if given == "":
        return {}
    return {key: value for key, value in {**old, **(given or {})}.items() if value != ""}
