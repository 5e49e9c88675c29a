"""Stripe's webhooks in: verified, remembered by id, and turned into a nudge to look at the session.

An event is a hint, never a fact: events come late, twice and out of order, so the bridge fetches the object itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import stripe
import structlog
from prometheus_client import Counter
from redis.exceptions import RedisError

from gateway.billing_bridge.index import Index
from gateway.billing_bridge.nudges import Topic, meetings_of, nudge
from gateway.clock import Clock
from gateway.errors import InvalidRequest, StoreUnavailable, Unauthorized
from gateway.ids import OWNERS
from gateway.journal import Journal
from gateway.payees.payability import index_of, wish

log = structlog.get_logger(__name__)

RECEIVED = Counter("gateway_stripe_events_total", "Events received from Stripe by what came of them", ["outcome"])

TOLERANCE_S: Final = 300
# Stripe repeats an event for up to three days; remembered for longer than that, none is handled twice.
REMEMBER_S: Final = 7 * 86_400
# These only echo what the bridge did itself, or come with another that says more.
ECHOES: Final = frozenset(
    {
        "payment_intent.created", "payment_intent.processing", "charge.succeeded", "charge.captured",
        "charge.refunded", "transfer.created", "transfer.reversed",
    }
)  # fmt: skip
TOPICS: Final[Mapping[str, Topic]] = {"charge.dispute.": "disputes", "refund.": "refunds", "account.": "accounts"}
# What of a booking's charge is its meetings' matter, each by its part.
OF_THE_CHARGE: Final = frozenset({"disputes", "refunds"})
# Payment statuses and the status of the intent that is known by them: an event which repeats it is no news.
KNOWN_BY: Final = {
    "held": "requires_capture", "action_required": "requires_action", "captured": "succeeded", "released": "canceled",
    "partially_refunded": "succeeded", "refunded": "succeeded", "disputed": "succeeded",
}  # fmt: skip
# About a connected account: its record is renewed from Stripe itself.
OF_ACCOUNTS: Final = ("account.", "capability.", "balance_settings.", "payout.")


class StripeEvents:
    """Receives Stripe's events for one platform account. `secrets`: the endpoint's, and the next while it rotates."""

    def __init__(self, journal: Journal, secrets: Sequence[str], clock: Clock, *, livemode: bool | None = None) -> None:
        self._journal, self._secrets, self._clock, self._livemode = journal, tuple(secrets), clock, livemode
        self._index = Index(journal.redis)

    async def receive(self, payload: bytes, signature: str) -> None:
        """Take one delivery; returning means that it may be answered 2xx.

        The nudge is written before the event's id, both before the answer: a crash between them makes Stripe send it
        again, and a second nudge does no harm. The other order would lose it (an id claimed, its effect never made).
        Raises Unauthorized (signature, or a date more than five minutes off), InvalidRequest, StoreUnavailable.
        """
        self._verify(payload, signature)
        event = _event(payload)
        if self._livemode is not None and bool(event.get("livemode")) != self._livemode:
            RECEIVED.labels("other_mode").inc()
            return
        RECEIVED.labels(await self._take(event)).inc()

    def _verify(self, payload: bytes, signature: str) -> None:
        for secret in self._secrets:
            try:
                stripe.WebhookSignature.verify_header(payload, signature, secret)
            except (stripe.SignatureVerificationError, UnicodeDecodeError):
                continue
            return self._check_date(signature)
        RECEIVED.labels("bad_signature").inc()
        raise Unauthorized("The signature does not match.", code="bad_signature")

    def _check_date(self, signature: str) -> None:
        """The SDK lets dates in the future pass, so a stolen delivery could be dated to outlive its tolerance."""
        dated = int(next(part[2:] for part in signature.split(",") if part.startswith("t=")))
        if abs(self._clock.wall_ms() // 1000 - dated) > TOLERANCE_S:
            RECEIVED.labels("bad_date").inc()
            raise Unauthorized("The signature's date is too far from now.", code="bad_signature")

    async def _take(self, event: Mapping[str, Any]) -> str:
        key = f"gateway:stripe:event:{event['id']}"
        try:
            if await self._journal.redis.exists(key):
                return "duplicate"
            known = False
            for session in await self._sessions_of(event):
                known |= await self._nudge(session, event)
            known |= await self._heard(event)
            await self._journal.redis.set(key, event["type"], nx=True, ex=REMEMBER_S)
        except RedisError as error:
            raise StoreUnavailable("The session store is away; send it again.") from error
        return "nudged" if known else "ignored"

    async def _sessions_of(self, event: Mapping[str, Any]) -> list[str]:
        """Whom it concerns. An account that may receive again frees every transfer that waits for it."""
        thing = event["data"]["object"]
        if event["type"] in ECHOES or (event["type"] == "refund.created" and session_of(thing)):
            return []  # a refund without our name on it was made by somebody at Stripe
        if event["type"] == "account.updated":
            able = (thing.get("capabilities") or {}).get("transfers") == "active"
            return await self._index.withheld(thing["id"]) if able else []
        session = session_of(thing) or await self._index.session_of(thing)
        if session is None:
            return []
        of_the_charge = topic_of(event["type"]) in OF_THE_CHARGE
        return [session, *(await meetings_of(self._journal, session) if of_the_charge else ())]

    async def _nudge(self, session: str, event: Mapping[str, Any]) -> bool:
        """Count one more event in the session's `stripe` record and have the bridge look; False if there is no need."""
        thing, told = event["data"]["object"], {"event": event["id"], "type": event["type"]}
        topic = topic_of(event["type"])
        return await nudge(self._journal, session, topic, told, lambda payment: _no_news(payment, thing))

    async def _heard(self, event: Mapping[str, Any]) -> bool:
        """Have the bridge look at a connected account that somebody wanted to know about, and at its payout."""
        if not event["type"].startswith(OF_ACCOUNTS):
            return False
        thing = event["data"]["object"]
        ident = event.get("account") or (thing["id"] if thing.get("object") == "account" else None)
        if not isinstance(ident, str):
            return False
        streams = await cast(Any, self._journal.redis.smembers(index_of(ident)))
        payout = thing["id"] if thing.get("object") == "payout" else None
        for stream in sorted(stream.decode() for stream in streams):
            await wish(self._journal, stream, payout=payout)
        return bool(streams)


def _event(payload: bytes) -> dict[str, Any]:
    try:
        event = json.loads(payload)
        well_formed = isinstance(event["id"], str) and isinstance(event["type"], str)
        if not (well_formed and isinstance(event["data"]["object"], dict)):
            raise ValueError("not an event")
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRequest("The body is no event of Stripe.") from error
    return dict(event)


def _no_news(payment: Mapping[str, Any], thing: Mapping[str, Any]) -> bool:
    """Whether an intent in an event looks as our record has it. A stale one may too; then the newer event will come."""
    return thing.get("id") == payment["payment_intent"] and thing.get("status") == KNOWN_BY.get(payment["status"])


def topic_of(kind: str) -> Topic | None:
    return next((topic for prefix, topic in TOPICS.items() if kind.startswith(prefix)), None)


def session_of(thing: Mapping[str, Any]) -> str | None:
    """The session that an object of Stripe belongs to: its metadata says so, or its transfer group."""
    named = (thing.get("metadata") or {}).get("session") or thing.get("transfer_group")
    return named if isinstance(named, str) and named.startswith(OWNERS) else None
