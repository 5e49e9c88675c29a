"""Stripe through its own SDK: the only importer of `stripe` (with `stripe_events`); outcomes come back as values.

The SDK's own retries are off: its keys die with the process, it does not retry 429, and a repeated POST belongs to
the ledger, which has the key. Its errors become outcomes here and nowhere else.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import quote_plus

import aiohttp
import stripe
import structlog
from prometheus_client import Counter, Histogram

from gateway.billing_bridge.outcome import Busy, Declined, Done, Outcome, Refused, Unknown, name_of

log = structlog.get_logger(__name__)

REQUESTS = Counter(
    "gateway_stripe_requests_total", "Requests to Stripe by endpoint and outcome", ["endpoint", "outcome"]
)
SECONDS = Histogram(
    "gateway_stripe_request_seconds", "Time from request to answer of Stripe", ["endpoint"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)  # fmt: skip

# A hold asks the card's bank, which may take several seconds; shorter, and good holds become unknown ones.
TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 5.0

# operation → method, and path with the parameter that goes into it
OPERATIONS: Final[Mapping[str, tuple[str, str]]] = {
    "payment_intents.create": ("post", "/v1/payment_intents"),
    "payment_intents.retrieve": ("get", "/v1/payment_intents/{payment_intent}"),
    "payment_intents.list": ("get", "/v1/payment_intents"),
    "payment_intents.capture": ("post", "/v1/payment_intents/{payment_intent}/capture"),
    "payment_intents.cancel": ("post", "/v1/payment_intents/{payment_intent}/cancel"),
    "payment_methods.retrieve": ("get", "/v1/payment_methods/{payment_method}"),
    "customers.payment_methods.list": ("get", "/v1/customers/{customer}/payment_methods"),
    "transfers.create": ("post", "/v1/transfers"),
    "transfers.list": ("get", "/v1/transfers"),
    "transfers.reversals.create": ("post", "/v1/transfers/{transfer}/reversals"),
    "transfers.reversals.list": ("get", "/v1/transfers/{transfer}/reversals"),
    "refunds.create": ("post", "/v1/refunds"),
    "refunds.list": ("get", "/v1/refunds"),
    "disputes.list": ("get", "/v1/disputes"),
    "accounts.retrieve": ("get", "/v1/accounts/{account}"),
    "payouts.retrieve": ("get", "/v1/payouts/{payout}"),
    "balance_settings.update": ("post", "/v1/balance_settings"),
}
_IN_PATH: Final = re.compile(r"\{(\w+)\}")


class StripeClient:
    """One platform account at Stripe. Use as an async context manager, or call `close`: its connections stay open.

    `base` replaces https://api.stripe.com (the sandbox); `timeout_s` bounds one whole request.
    """

    def __init__(
        self,
        api_key: str,
        base: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        limits = aiohttp.ClientTimeout(total=timeout_s, connect=connect_timeout_s)
        self._http = stripe.AIOHTTPClient(timeout=limits)
        addresses: Any = {"api": base.rstrip("/")} if base else {}
        self._sdk = stripe.StripeClient(
            api_key, base_addresses=addresses, http_client=self._http, max_network_retries=0
        )

    async def __aenter__(self) -> StripeClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; the SDK would leave them to the garbage collector."""
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def send(self, operation: str, params: Mapping[str, Any], key: str | None = None) -> Outcome:
        """One request, tried once. `key` is our idempotency key; without it the request must be one that only asks.
        The parameter `stripe_account` makes it a request of that connected account."""
        started = time.perf_counter()
        outcome = await self._outcome(operation, dict(params), key)
        SECONDS.labels(operation).observe(time.perf_counter() - started)
        REQUESTS.labels(operation, name_of(outcome)).inc()
        return outcome

    async def _outcome(self, operation: str, params: dict[str, Any], key: str | None) -> Outcome:
        method, path = OPERATIONS[operation]
        path = _IN_PATH.sub(lambda place: quote_plus(params.pop(place[1])), path)
        if key:
            params["idempotency_key"] = key
        try:
            # As the SDK's own methods send it; but theirs make objects of the answer, to be unmade here, which costs
            # as much as the request itself.
            answer = await self._sdk.raw_request_async(method, path, **params)
        except stripe.StripeError as error:
            log.info("stripe.refusal", operation=operation, kind=type(error).__name__, request=error.request_id)
            return outcome_of(error)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:  # the body broke off: the SDK lets these through
            return Unknown(type(error).__name__)
        return Done(json.loads(answer.body))


def outcome_of(error: stripe.StripeError) -> Outcome:
    """What an error of the SDK says about whether the request was done (docs.stripe.com/api/errors)."""
    if isinstance(error, stripe.CardError):
        return _declined(error)
    if isinstance(error, stripe.RateLimitError):
        return Busy(error.code or "rate_limit", _retry_after_ms(error))
    if isinstance(error, stripe.APIConnectionError):
        return _unconnected(error)
    if error.http_status == 409:
        return Busy("in_flight", _retry_after_ms(error), in_flight=True)
    refused = {400: "invalid_request", 401: "authentication", 403: "permission", 404: "resource_missing"}
    if error.http_status in refused:
        code = "idempotency_error" if isinstance(error, stripe.IdempotencyError) else _code(error)
        return Refused(code or refused[error.http_status], error.user_message or "")
    return Unknown(f"http_{error.http_status}", spent=_header(error, "idempotent-replayed") == "true")


def _declined(error: stripe.CardError) -> Declined:
    body = _body(error)
    intent = (body.get("payment_intent") or {}).get("id")
    return Declined(error.code or "card_declined", body.get("decline_code"), error.user_message or "", intent)


def _unconnected(error: stripe.APIConnectionError) -> Outcome:
    """Only a connection that never came to be is sure not to have carried the request."""
    cause = error.__cause__
    if isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return Busy("unreachable")
    return Unknown(type(cause).__name__ if cause is not None else "connection")


def _code(error: stripe.StripeError) -> str | None:
    return error.code or _body(error).get("code")


def _body(error: stripe.StripeError) -> dict[str, Any]:
    body = error.json_body
    return cast(dict[str, Any], body.get("error") or {}) if isinstance(body, dict) else {}


def _header(error: stripe.StripeError, name: str) -> str:
    return {key.lower(): value for key, value in (error.headers or {}).items()}.get(name, "")


def _retry_after_ms(error: stripe.StripeError) -> int:
    """Retry-After in seconds, if there is a usable one; Stripe does not promise it."""
    value = _header(error, "retry-after")
    return int(value) * 1000 if value.isdigit() else 0
