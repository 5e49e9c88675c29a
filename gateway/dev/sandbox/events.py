"""Webhooks: which endpoint gets which event when, and how a delivery is signed (docs.stripe.com/webhooks)."""

from __future__ import annotations

import hashlib
import hmac
import json

from gateway.dev.sandbox import endpoints
from gateway.dev.sandbox.faults import Fault, FaultBook
from gateway.dev.sandbox.store import Delivery, Doc, Store
from gateway.dev.sandbox.turn import public

# Before each retry. Stripe does not publish its intervals; ours begin quickly, since someone watches, and end
# within 3 days.
RETRY_SECONDS = (1, 2, 4, 8, 15, 30, 60, 300, 1_800, 3_600, 7_200, 14_400, 28_800, 57_600, 86_400)

# A reordered event waits for the next one, but not forever.
BEHIND_SECONDS = 10


def post(store: Store, faults: FaultBook, emitted: list[tuple[str, str, str]], now_ms: int) -> None:
    """Queue what just happened for every endpoint that wants it; inside the transaction that made it happen."""
    known = store.find("webhook_endpoint", account=None)
    if not known:
        return
    for event, kind, account in emitted:
        wanted = endpoints.wanting(known, kind, account)
        fault = faults.take(f"event {kind}") if wanted else None
        for endpoint in wanted:
            _queue(store, event, endpoint["id"], now_ms, fault)


def _queue(store: Store, event: str, endpoint: str, now_ms: int, fault: Fault | None) -> None:
    kind = fault.kind if fault else None
    if kind == "lose":
        return
    if kind == "reorder":
        store.send(event, endpoint, now_ms + BEHIND_SECONDS * 1_000, behind=True)
        return
    store.send(event, endpoint, now_ms + (fault.ms if fault and kind == "delay" else 0))
    if kind == "duplicate":
        store.send(event, endpoint, now_ms)


def payload(store: Store, delivery: Delivery) -> tuple[Doc, bytes] | None:
    """The endpoint and the bytes to send; None when either is gone or switched off."""
    endpoint = store.get("webhook_endpoint", delivery.endpoint, None)
    event = store.get("event", delivery.event, None)
    if endpoint is None or event is None or endpoint["status"] != "enabled":
        return None
    event["pending_webhooks"] = store.pending(delivery.event)
    return endpoint, json.dumps(public(event)).encode()


def signature(secret: str, body: bytes, now: int) -> str:
    """The Stripe-Signature header: HMAC-SHA256 over "timestamp.body"."""
    digest = hmac.new(secret.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={now},v1={digest}"


def settle(store: Store, delivery: Delivery, *, accepted: bool, now_ms: int) -> None:
    """After an attempt: done, tried again later, or given up."""
    if accepted:
        store.delivered(delivery.seq)
        store.release_behind(delivery.endpoint, now_ms)
    elif delivery.attempt >= len(RETRY_SECONDS):
        store.delivered(delivery.seq)
    else:
        store.retry(delivery.seq, now_ms + RETRY_SECONDS[delivery.attempt] * 1_000)
