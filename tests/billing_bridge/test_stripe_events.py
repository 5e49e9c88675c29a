"""Stripe's webhooks in: whom we believe, what we remember, and that an event is never more than a nudge."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import stripe
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.billing_bridge.record import Payment
from gateway.billing_bridge.stripe_events import StripeEvents, session_of
from gateway.clock import SystemClock
from gateway.errors import InvalidRequest, StoreUnavailable, Unauthorized
from gateway.journal import Journal

SECRET = "whsec_test"


class At:
    """A clock that is off by `skew_ms`."""

    def __init__(self, skew_ms: int = 0) -> None:
        self.skew_ms = skew_ms

    def wall_ms(self) -> int:
        return SystemClock().wall_ms() + self.skew_ms

    def boot_ms(self) -> int:
        return SystemClock().boot_ms()


def event(ident: str = "evt_1", kind: str = "payment_intent.canceled", **thing: Any) -> bytes:
    thing = {"id": "pi_1", "object": "payment_intent", "metadata": {"session": "ses_1"}, "status": "canceled"} | thing
    return json.dumps(
        {"id": ident, "object": "event", "type": kind, "livemode": False, "data": {"object": thing}}
    ).encode()


def signed(payload: bytes, secret: str = SECRET, at_s: int | None = None) -> str:
    return stripe.WebhookSignature.generate_signature_header(payload.decode(), secret, at_s)


def events(journal: Journal, *, skew_ms: int = 0, **more: Any) -> StripeEvents:
    return StripeEvents(journal, [SECRET], At(skew_ms), **more)


async def session(journal: Journal, **changes: Any) -> None:
    body = Payment("held", "usd", payment_intent="pi_1").to_dict() | changes
    await journal.commit("ses_1", {"session": (0, {"id": "ses_1"}), "payment": (0, body)})


async def nudges(journal: Journal) -> int:
    doc = (await journal.read("ses_1", "stripe"))["stripe"]
    return int(doc.body["count"]) if doc else 0


async def queued(journal: Journal) -> bool:
    return await journal.redis.zscore(journal.keys.beside("ses_1", "due:money"), "ses_1") is not None


async def test_an_event_has_the_bridge_look_at_its_session(journal: Journal) -> None:
    await session(journal)
    await events(journal).receive(event(), signed(event()))
    assert await nudges(journal) == 1
    assert await queued(journal)


async def test_an_event_never_touches_the_payment_itself(journal: Journal) -> None:
    await session(journal)
    before = await journal.read("ses_1", "payment", "session")
    await events(journal).receive(event(), signed(event()))
    assert await journal.read("ses_1", "payment", "session") == before


async def test_an_event_counts_once_however_often_it_comes(journal: Journal) -> None:
    await session(journal)
    for _ in range(3):
        await events(journal).receive(event(), signed(event()))
    assert await nudges(journal) == 1


async def test_events_that_come_together_all_count(journal: Journal) -> None:
    await session(journal)
    payloads = [event(f"evt_{n}") for n in range(8)]
    await asyncio.gather(*(events(journal).receive(payload, signed(payload)) for payload in payloads))
    assert await nudges(journal) == 8


@pytest.mark.parametrize("signature", ["", "t=1", "v1=abc", "nonsense", "t=x,v1=y"])
async def test_law7_without_a_valid_signature_nothing_is_read(journal: Journal, signature: str) -> None:
    await session(journal)
    with pytest.raises(Unauthorized):
        await events(journal).receive(event(), signature)
    assert await nudges(journal) == 0


async def test_a_changed_body_or_another_secret_is_refused(journal: Journal) -> None:
    for signature in (signed(event("evt_2")), signed(event(), "whsec_other")):
        with pytest.raises(Unauthorized):
            await events(journal).receive(event(), signature)


@pytest.mark.parametrize("skew_s", [301, -301])
async def test_a_date_more_than_five_minutes_off_is_refused_both_ways(journal: Journal, skew_s: int) -> None:
    with pytest.raises(Unauthorized):
        await events(journal, skew_ms=skew_s * 1000).receive(event(), signed(event()))
    await events(journal, skew_ms=skew_s * 900).receive(event(), signed(event()))


async def test_while_a_secret_is_rotated_both_count(journal: Journal) -> None:
    await session(journal)
    both = StripeEvents(journal, ["whsec_old", "whsec_new"], At())
    for number, secret in enumerate(["whsec_old", "whsec_new"]):
        payload = event(f"evt_{number}")
        await both.receive(payload, signed(payload, secret))
    assert await nudges(journal) == 2


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"id":"evt_1","type":"x","data":{}}', b"not json"])
async def test_a_body_that_is_no_event_is_refused(journal: Journal, payload: bytes) -> None:
    with pytest.raises(InvalidRequest):
        await events(journal).receive(payload, signed(payload))


@pytest.mark.parametrize(
    "payload",
    [
        event(metadata={}, transfer_group=None),
        event(metadata={"session": "ses_unknown"}),
        event(kind="payment_intent.created"),
        event(kind="refund.created"),
        event(kind="charge.succeeded"),
        event(status="requires_capture"),
    ],
)
async def test_an_event_that_is_no_news_makes_nobody_look(journal: Journal, payload: bytes) -> None:
    await session(journal)
    await events(journal).receive(payload, signed(payload))
    assert await nudges(journal) == 0
    assert not await queued(journal)


async def test_an_event_of_the_other_mode_is_taken_and_ignored(journal: Journal) -> None:
    await session(journal)
    await events(journal, livemode=True).receive(event(), signed(event()))
    assert await nudges(journal) == 0


async def test_a_transfers_group_names_its_session(journal: Journal) -> None:
    await session(journal)
    payload = event(kind="transfer.updated", id="tr_1", metadata={}, transfer_group="ses_1")
    await events(journal).receive(payload, signed(payload))
    assert await nudges(journal) == 1


async def test_law8_an_event_whose_nudge_failed_is_not_remembered(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await session(journal)

    async def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as broken:
        broken.setattr(journal, "commit", away)
        with pytest.raises(StoreUnavailable):
            await events(journal).receive(event(), signed(event()))
    await events(journal).receive(event(), signed(event()))
    assert await nudges(journal) == 1


@pytest.mark.parametrize(("kind", "on_disk"), [
    ("charge.dispute.created", True), ("refund.failed", True), ("payment_intent.canceled", False),
])  # fmt: skip
async def test_5_money_what_only_an_event_tells_is_on_disk_before_stripe_is_answered(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, kind: str, on_disk: bool
) -> None:
    await session(journal)
    asked = []
    commit = journal.commit

    async def noted(*given: Any, durable: bool = False, **more: Any) -> dict[str, int]:
        asked.append(durable)
        return await commit(*given, durable=durable, **more)

    monkeypatch.setattr(journal, "commit", noted)
    payload = event(kind=kind)
    await events(journal).receive(payload, signed(payload))
    assert asked == [on_disk]


async def test_a_store_that_is_away_is_said_so_that_stripe_sends_it_again(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise RedisConnectionError("away")

    monkeypatch.setattr(journal.redis, "exists", away)
    with pytest.raises(StoreUnavailable):
        await events(journal).receive(event(), signed(event()))


@pytest.mark.parametrize(
    ("thing", "session_id"),
    [
        ({"metadata": {"session": "ses_1"}}, "ses_1"),
        ({"metadata": {}, "transfer_group": "ses_2"}, "ses_2"),
        ({"metadata": {"session": "ses_1"}, "transfer_group": "ses_2"}, "ses_1"),
        ({"metadata": None, "transfer_group": "group_pi_1"}, None),
        ({"metadata": {"session": ["ses_1"]}}, None),
        ({}, None),
    ],
)
def test_whose_an_object_is(thing: dict[str, Any], session_id: str | None) -> None:
    assert session_of(thing) == session_id
