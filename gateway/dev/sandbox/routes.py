"""Every endpoint that the sandbox serves: path, the SDK's parameters for it, what of them it models, who answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.dev.sandbox import (
    accounts,
    answers,
    charges,
    disputes,
    endpoints,
    intents,
    people,
    refunds,
    transfers,
)  # fmt: skip
from gateway.dev.sandbox.store import Doc
from gateway.dev.sandbox.turn import Turn

Endpoint = Callable[..., Doc]


@dataclass(frozen=True, slots=True)
class Route:
    """`call` names the SDK's parameters; of those only `models` have an effect here, the others are refused aloud."""

    method: str
    pattern: re.Pattern[str]
    call: str
    models: frozenset[str]
    endpoint: Endpoint


_CURSOR = "limit starting_after ending_before"
_PAGE = f"{_CURSOR} created"


def _route(method: str, path: str, call: str, models: str, endpoint: Endpoint) -> Route:
    pattern = re.compile("/v1/" + re.sub(r"\{\w+\}", r"([^/]+)", path) + r"\Z")
    return Route(
        method, pattern, call, frozenset(models.split() + (["expand"] if method != "DELETE" else [])), endpoint
    )


def _read(kind: str) -> Endpoint:
    def endpoint(turn: Turn, _p: Doc, ident: str) -> Doc:
        return turn.get(kind, ident)

    return endpoint


def _list(kind: str, path: str, *filters: str) -> Endpoint:
    def endpoint(turn: Turn, p: Doc) -> Doc:
        return answers.page(turn, kind, p, f"/v1/{path}", filters=filters)

    return endpoint


def _list_reversals(turn: Turn, p: Doc, ident: str) -> Doc:
    turn.get("transfer", ident)
    return answers.page(turn, "transfer_reversal", p, f"/v1/transfers/{ident}/reversals", where={"transfer": ident})


def _list_of_customer(turn: Turn, p: Doc, ident: str) -> Doc:
    turn.get("customer", ident)
    where = {"customer": ident}
    return answers.page(
        turn, "payment_method", p, f"/v1/customers/{ident}/payment_methods", filters=("type",), where=where
    )


def _read_of_customer(turn: Turn, _p: Doc, ident: str, method: str) -> Doc:
    found = turn.get("payment_method", method)
    if found["customer"] != ident:
        raise people.not_theirs(method)
    return found


def _list_of_charge(turn: Turn, p: Doc, ident: str) -> Doc:
    turn.get("charge", ident)
    return answers.page(turn, "refund", p, f"/v1/charges/{ident}/refunds", where={"charge": ident})


def _list_events(turn: Turn, p: Doc) -> Doc:
    where: dict[str, Any] = {"type": p["types"]} if "types" in p else {}
    return answers.page(turn, "event", p, "/v1/events", filters=("type",), where=where)


def _list_accounts(turn: Turn, p: Doc) -> Doc:
    return answers.page(turn, "account", p, "/v1/accounts", account="")


_CONFIRM = "payment_method payment_method_options return_url off_session error_on_requires_action use_stripe_sdk"
_INTENT = "customer description metadata receipt_email setup_future_usage statement_descriptor_suffix transfer_group"
_CUSTOMER = "email name phone description address shipping preferred_locales metadata invoice_settings"

ROUTES = (
    _route(
        "POST", "payment_intents", "payment_intent_create",
        "amount currency confirm capture_method confirmation_method allowed_payment_method_types "
        "automatic_payment_methods "
        f"excluded_payment_method_types {_CONFIRM} {_INTENT}", intents.create,
    ),
    _route(
        "GET", "payment_intents", "payment_intent_list", f"customer {_PAGE}", _list("payment_intent",
        "payment_intents", "customer"),
    ),
    _route("GET", "payment_intents/{id}", "payment_intent_retrieve", "client_secret", _read("payment_intent")),
    _route(
        "POST", "payment_intents/{id}", "payment_intent_update",
        f"amount currency payment_method {_INTENT}", intents.update,
    ),
    _route(
        "POST", "payment_intents/{id}/confirm", "payment_intent_confirm",
        f"{_CONFIRM} receipt_email setup_future_usage capture_method", intents.confirm,
    ),
    _route(
        "POST", "payment_intents/{id}/capture", "payment_intent_capture",
        "amount_to_capture metadata statement_descriptor_suffix final_capture", intents.capture,
    ),
    _route("POST", "payment_intents/{id}/cancel", "payment_intent_cancel", "cancellation_reason", intents.cancel),
    _route("POST", "customers", "customer_create", f"payment_method {_CUSTOMER}", people.create_customer),
    _route("GET", "customers", "customer_list", f"email {_PAGE}", _list("customer", "customers", "email")),
    _route("GET", "customers/{id}", "customer_retrieve", "", _read("customer")),
    _route("POST", "customers/{id}", "customer_update", _CUSTOMER, people.update_customer),
    _route("DELETE", "customers/{id}", "customer_delete", "", people.delete_customer),
    _route(
        "GET", "customers/{id}/payment_methods", "customer_payment_method_list", f"type {_CURSOR}", _list_of_customer,
    ),
    _route("GET", "customers/{id}/payment_methods/{pm}", "customer_payment_method_retrieve", "", _read_of_customer),
    _route(
        "POST", "payment_methods", "payment_method_create", "type card billing_details metadata",
        people.create_method,
    ),
    _route(
        "GET", "payment_methods", "payment_method_list", f"customer type {_CURSOR}",
        _list("payment_method", "payment_methods", "customer", "type"),
    ),
    _route("GET", "payment_methods/{id}", "payment_method_retrieve", "", people.retrieve_method),
    _route("POST", "payment_methods/{id}", "payment_method_update", "metadata billing_details", people.update_method),
    _route("POST", "payment_methods/{id}/attach", "payment_method_attach", "customer", people.attach),
    _route("POST", "payment_methods/{id}/detach", "payment_method_detach", "", people.detach),
    _route(
        "GET", "charges", "charge_list", f"customer payment_intent transfer_group {_PAGE}",
        _list("charge", "charges", "customer", "payment_intent", "transfer_group"),
    ),
    _route("GET", "charges/{id}", "charge_retrieve", "", _read("charge")),
    _route(
        "POST", "charges/{id}", "charge_update", "description metadata receipt_email transfer_group", charges.update,
    ),
    _route("GET", "charges/{id}/refunds", "charge_list_refunds", _CURSOR, _list_of_charge),
    _route(
        "GET", "balance_transactions", "balance_transaction_list", f"currency payout source type {_PAGE}",
        _list("balance_transaction", "balance_transactions", "currency", "payout", "source", "type"),
    ),
    _route("GET", "balance_transactions/{id}", "balance_transaction_retrieve", "", _read("balance_transaction")),
    _route("POST", "refunds", "refund_create", "amount charge payment_intent reason metadata", refunds.create),
    _route(
        "GET", "refunds", "refund_list", f"charge payment_intent {_PAGE}",
        _list("refund", "refunds", "charge", "payment_intent"),
    ),
    _route("GET", "refunds/{id}", "refund_retrieve", "", _read("refund")),
    _route("POST", "refunds/{id}", "refund_update", "metadata", refunds.update),
    _route(
        "POST", "transfers", "transfer_create",
        "amount currency destination description metadata source_transaction transfer_group", transfers.create,
    ),
    _route(
        "GET", "transfers", "transfer_list", f"destination transfer_group {_PAGE}",
        _list("transfer", "transfers", "destination", "transfer_group"),
    ),
    _route("GET", "transfers/{id}", "transfer_retrieve", "", _read("transfer")),
    _route("POST", "transfers/{id}", "transfer_update", "description metadata", transfers.update),
    _route(
        "POST", "transfers/{id}/reversals", "transfer_reversal_create", "amount description metadata",
        transfers.reverse,
    ),
    _route("GET", "transfers/{id}/reversals", "transfer_reversal_list", _CURSOR, _list_reversals),
    _route("GET", "transfers/{id}/reversals/{rev}", "transfer_reversal_retrieve", "", transfers.retrieve_reversal),
    _route("GET", "account", "account_retrieve_current", "", accounts.retrieve_own),
    _route("GET", "accounts", "account_list", _PAGE, _list_accounts),
    _route(
        "POST", "accounts", "account_create",
        "type country email capabilities tos_acceptance metadata controller", accounts.create,
    ),
    _route("GET", "accounts/{id}", "account_retrieve", "", accounts.retrieve),
    _route("POST", "accounts/{id}", "account_update", "metadata email settings", accounts.update),
    _route("GET", "balance", "balance_retrieve", "", accounts.balance),
    _route("GET", "balance_settings", "balance_settings_retrieve", "", accounts.settings),
    _route("POST", "balance_settings", "balance_settings_update", "payments", accounts.update_settings),
    _route(
        "GET", "payouts", "payout_list", f"destination status {_PAGE}", _list("payout", "payouts",
        "destination", "status"),
    ),
    _route("GET", "payouts/{id}", "payout_retrieve", "", _read("payout")),
    _route(
        "GET", "disputes", "dispute_list", f"charge payment_intent {_PAGE}",
        _list("dispute", "disputes", "charge", "payment_intent"),
    ),
    _route("GET", "disputes/{id}", "dispute_retrieve", "", _read("dispute")),
    _route("POST", "disputes/{id}", "dispute_update", "evidence metadata submit", disputes.update),
    _route("POST", "disputes/{id}/close", "dispute_close", "", disputes.close),
    _route("GET", "events", "event_list", f"type types {_PAGE}", _list_events),
    _route("GET", "events/{id}", "event_retrieve", "", _read("event")),
    _route(
        "POST", "webhook_endpoints", "webhook_endpoint_create",
        "url enabled_events description metadata connect api_version", endpoints.create,
    ),
    _route(
        "GET", "webhook_endpoints", "webhook_endpoint_list", _CURSOR, _list("webhook_endpoint", "webhook_endpoints"),
    ),
    _route("GET", "webhook_endpoints/{id}", "webhook_endpoint_retrieve", "", _read("webhook_endpoint")),
    _route(
        "POST", "webhook_endpoints/{id}", "webhook_endpoint_update",
        "url enabled_events description metadata disabled", endpoints.update,
    ),
    _route("DELETE", "webhook_endpoints/{id}", "webhook_endpoint_delete", "", endpoints.delete),
)  # fmt: skip

_BY_FIRST: dict[tuple[str, str], list[Route]] = {}
for _each in ROUTES:
    _BY_FIRST.setdefault((_each.method, _each.pattern.pattern.split("/")[2].removesuffix(r"\Z")), []).append(_each)


def find(method: str, path: str) -> tuple[Route, tuple[str, ...]] | None:
    """The route and the ids in the path, or None."""
    parts = path.split("/", 3)
    for route in _BY_FIRST.get((method, parts[2] if len(parts) > 2 else ""), ()):
        match = route.pattern.match(path)
        if match is not None:
            return route, match.groups()
    return None
