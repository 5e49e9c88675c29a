"""The API over the real use cases and a real Valkey; only Stripe's answer is put in by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
import redis.asyncio as aioredis
from aiohttp.test_utils import TestClient, TestServer

from gateway.api.auth import KeyRing
from gateway.api.context import ApiContext
from gateway.api.idempotency import Idempotency
from gateway.api.routes import public_app
from gateway.archive.people import People
from gateway.billing_bridge import payment
from gateway.billing_bridge.archiver import Archiver, ArchiverSettings
from gateway.billing_bridge.record import Payment
from gateway.changes import Changes
from gateway.clock import SystemClock
from gateway.errors import StoreUnavailable
from gateway.journal import Journal
from gateway.keys import Keys
from gateway.meter.ledger import Ledger
from gateway.sessions import sessions
from gateway.sessions.rules import Rules
from gateway.sessions.sessions import Sessions
from gateway.tokens import Tokens
from tests.api.market import FULL, KEYS, order
from tests.api.test_routes import documented
from tests.settled import archive_in, settled

Api = TestClient[Any, Any]


def held(session: dict[str, Any], now: int) -> dict[str, Any]:
    """A payment record as the bridge leaves it when the card was good."""
    record = Payment.from_dict(payment.opened(session, now))
    if session["funding"] is None:
        return asdict(record)
    card = {"brand": "visa", "last4": "4242", "country": "US"}
    return asdict(replace(record, status="held", amount_held=session["amount_max"], card=card, attempt=1))


@pytest.fixture
async def journal(redis: aioredis.Redis, tmp_path: Path) -> Journal:
    return Journal(redis, Keys(partitions=4), archive=await archive_in(tmp_path / "archive"))


@pytest.fixture
async def market(redis: aioredis.Redis, journal: Journal) -> AsyncIterator[Api]:
    use_cases = Sessions(
        journal,
        Ledger(redis, journal.keys, archive=journal.archive),
        Tokens(b"k" * 32),
        SystemClock(),
        Changes(journal),
        rules=Rules(),
        public_url="https://gateway.example",
        open_payment=held,
    )
    context = ApiContext(
        use_cases,
        KeyRing(KEYS),
        Idempotency(redis),
        "https://gateway.example",
        people=People(journal),
        archived_after_ms=ArchiverSettings().quiet_ms,
    )
    headers = {"Authorization": f"Bearer {FULL}"}
    async with TestClient(TestServer(public_app(context)), headers=headers) as client:
        yield client


async def created(market: Api, key: str = "k", **changes: Any) -> Any:
    answer = await market.post("/v1/sessions", json=order(**changes), headers={"Idempotency-Key": key})
    return await documented(answer, "/v1/sessions")


async def test_a_session_from_creation_to_its_end(market: Api) -> None:
    made = await created(market)
    assert (made["status"], made["payment"]["status"], made["payment"]["amount_held"]) == ("ready", "held", 25500)
    path = f"/v1/sessions/{made['id']}"
    read = await documented(await market.get(path), "/v1/sessions/{id}")
    assert read == made | {"participants": read["participants"]}
    usage = await documented(await market.get(f"{path}/usage"), "/v1/sessions/{id}/usage")
    assert (usage["union_ms"], usage["bill"]["amount_total"], usage["final"]) == (0, 0, False)
    ended = await documented(await market.post(f"{path}/end", json={}), "/v1/sessions/{id}/end")
    assert (ended["status"], ended["end_reason"]) == ("ended", "ended_by_api")
    told = await documented(await market.get(f"{path}/events"), "/v1/sessions/{id}/events")
    assert [event["sequence"] for event in told["data"]] == list(range(1, len(told["data"]) + 1))
    assert {"session.created", "session.ended"} <= {event["type"] for event in told["data"]}


async def test_the_links_secret_opens_the_page_for_its_own_side(market: Api) -> None:
    made = await created(market)
    for role in ("client", "expert"):
        secret = made["participants"][role]["url"].partition("#")[2]
        entrance = await documented(await market.post("/v1/enter", json={"secret": secret}), "/v1/enter")
        assert (entrance["role"], entrance["session"]) == (role, made["id"])
    forged = await market.post("/v1/enter", json={"secret": secret[:-4] + "AAAA"})
    assert (await documented(forged, "/v1/enter"))["code"] == "link_invalid"


async def test_a_reference_is_unique_among_unfinished_sessions(market: Api) -> None:
    made = await created(market)
    refused = await created(market, key="other")
    assert (refused["code"], refused["session"]) == ("reference_in_use", made["id"])
    await market.post(f"/v1/sessions/{made['id']}/end", json={})
    assert (await created(market, key="other"))["id"] != made["id"]


async def test_a_waiver_frees_the_session_of_its_price(market: Api) -> None:
    made = await created(market)
    answer = await market.post(f"/v1/sessions/{made['id']}/waive", json={}, headers={"Idempotency-Key": "w"})
    waived = await documented(answer, "/v1/sessions/{id}/waive")
    assert (waived["waived"], waived["limit_seconds"]) == (True, 900)


async def test_lists_page_and_filter(market: Api) -> None:
    ids = [(await created(market, key=f"k{n}", reference=f"r{n}", client__id=f"c{n % 2}"))["id"] for n in range(4)]
    first = await documented(await market.get("/v1/sessions?limit=3"), "/v1/sessions")
    assert ([found["id"] for found in first["data"]], first["has_more"]) == (ids[:0:-1], True)
    after = await market.get(f"/v1/sessions?limit=3&starting_after={first['data'][-1]['id']}")
    rest = await documented(after, "/v1/sessions")
    assert ([found["id"] for found in rest["data"]], rest["has_more"]) == (ids[:1], False)
    narrowed = await documented(await market.get("/v1/sessions?client=c1&status=ready"), "/v1/sessions")
    assert [found["id"] for found in narrowed["data"]] == [ids[3], ids[1]]


async def test_a_free_session_takes_no_card(market: Api) -> None:
    changes = {"kind": "free", "max_minutes": 15, "rate": ..., "client__payment_method": ..., "ambassador": ...}
    made = await created(market, **changes)
    assert (made["status"], made["payment"]["status"], made["limit_seconds"]) == ("ready", "none", 900)


async def put_payment(journal: Journal, session: str, **changes: Any) -> None:
    doc = (await journal.read(session, "payment"))["payment"]
    assert doc is not None
    await journal.commit(session, {"payment": (doc.version, doc.body | changes)})


@pytest.mark.parametrize("meanwhile", ["failed", "held"])
async def test_law5_a_card_is_tried_once_though_the_request_that_named_it_was_cut_off(
    market: Api, journal: Journal, redis: aioredis.Redis, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    monkeypatch.setattr("gateway.sessions.sessions.HOLD_WAIT_S", 0.01)
    made = await created(market)
    path, body = f"/v1/sessions/{made['id']}/payment", {"payment_method": "pm_card_mastercard"}
    await put_payment(journal, made["id"], status="failed", decline_code="generic_decline")
    with monkeypatch.context() as patch:
        patch.setattr(Idempotency, "keep", AsyncMock(side_effect=StoreUnavailable("away")))
        cut_off = await market.post(path, json=body, headers={"Idempotency-Key": "p"})
        assert cut_off.status == 503
    for key in await redis.keys("idem:*"):
        await redis.hset(key, "locked_until", "0")  # as time goes by
    await put_payment(journal, made["id"], status=meanwhile)
    answer = await market.post(path, json=body, headers={"Idempotency-Key": "p"})
    repeated = await documented(answer, "/v1/sessions/{id}/payment")
    doc = (await journal.read(made["id"], "session"))["session"]
    assert (answer.status, repeated["payment"]["status"]) == (200, meanwhile)
    assert doc is not None
    assert doc.body["funding"]["attempt"] == 2


async def test_refunds_are_orders_bounded_by_what_is_left(
    market: Api, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.sessions.sessions.HOLD_WAIT_S", 0.01)
    made = await created(market)
    path, shape = f"/v1/sessions/{made['id']}/refunds", "/v1/sessions/{id}/refunds"

    async def refund(key: str, **body: Any) -> Any:
        answer = await market.post(path, json={"reason": "r", **body}, headers={"Idempotency-Key": key})
        return await documented(answer, shape)

    assert (await refund("early"))["code"] == "payment_state"
    await put_payment(journal, made["id"], status="captured", amount_captured=7500)
    first = await refund("a", amount=5000)
    assert (first["status"], first["amount"], first["charge_to"]) == ("ordered", 5000, "shares")
    assert (await refund("a", amount=5000)) == first
    refused = await refund("b", amount=2501)
    assert (refused["code"], refused["left"]) == ("refund_too_large", 2500)
    assert (await refund("b2"))["amount"] == 2500
    assert (await refund("c"))["code"] == "refund_too_large"
    doc = (await journal.read(made["id"], "refunds"))["refunds"]
    assert doc is not None
    assert [(order["number"], order["amount"]) for order in doc.body["orders"]] == [(1, 5000), (2, 2500)]


async def test_law5_a_due_bill_takes_another_card_and_a_paid_one_none(
    market: Api, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.sessions.sessions.HOLD_WAIT_S", 0.01)
    made = await created(market)
    doc = (await journal.read(made["id"], "session"))["session"]
    assert doc is not None
    final = doc.body | {"status": "finalized", "ended_at": doc.body["created"], "bill": {"amount_total": 4500}}
    await journal.commit(made["id"], {"session": (doc.version, final)})
    card, path = {"payment_method": "pm_other"}, f"/v1/sessions/{made['id']}/payment"
    await put_payment(journal, made["id"], status="captured")
    refused = await market.post(path, json=card, headers={"Idempotency-Key": "p"})
    assert (await documented(refused, "/v1/sessions/{id}/payment"))["code"] == "payment_state"
    await put_payment(journal, made["id"], status="due")
    answer = await market.post(path, json=card, headers={"Idempotency-Key": "q"})
    assert answer.status == 200
    docs = await journal.read(made["id"], "session", "payment")
    session, payment = docs["session"], docs["payment"]
    assert session is not None
    assert payment is not None
    funding = session.body["funding"]
    assert (funding["attempt"], funding["amount"], funding["recharge"]) == (2, 4500, True)
    assert payment.body["status"] == "pending"


async def archived(journal: Journal) -> str:
    assert journal.archive is not None
    session = await settled(journal, account="acc_dev")
    archiver = Archiver(journal, journal.archive, ArchiverSettings(quiet_ms=0), SystemClock())
    assert await archiver.archive([session]) == {session: None}
    assert await journal.redis.exists(journal.keys.of(session, "session")) == 0
    return session


async def test_an_archived_session_is_read_as_before_by_its_id(market: Api, journal: Journal) -> None:
    path = f"/v1/sessions/{await archived(journal)}"
    session = await documented(await market.get(path), "/v1/sessions/{id}")
    assert (session["status"], session["amount_total"], session["client"]["name"]) == ("finalized", 450, "Client")
    usage = await documented(await market.get(f"{path}/usage"), "/v1/sessions/{id}/usage")
    assert (len(usage["rows"]), usage["union_ms"], usage["final"]) == (3, 90_000, True)
    receipts = await documented(await market.get(f"{path}/receipts"), "/v1/sessions/{id}/receipts")
    assert [receipt["number"] for receipt in receipts["data"]] == ["TEST-C-2023-000001", "TEST-C-2023-000002"]
    told = await documented(await market.get(f"{path}/events"), "/v1/sessions/{id}/events")
    assert [event["sequence"] for event in told["data"]] == [1, 2, 3, 4]
    assert await journal.redis.exists(journal.keys.of(session["id"], "session")) == 0, "reading brings nothing back"


async def test_lists_tell_since_when_they_are_complete(market: Api, journal: Journal) -> None:
    session, now = await archived(journal), datetime.now(UTC)
    page = await documented(await market.get("/v1/sessions"), "/v1/sessions")
    assert page["data"] == []
    since = datetime.fromisoformat(page["complete_since"])
    assert timedelta(days=29) < now - since < timedelta(days=31)
    own = await documented(await market.get(f"/v1/events?session={session}"), "/v1/events")
    assert (len(own["data"]), own["complete_since"]) == (4, None), "by its id all is there"


async def test_a_refund_of_an_archived_session_brings_it_back(
    market: Api, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "HOLD_WAIT_S", 0)
    session = await archived(journal)
    answer = await market.post(
        f"/v1/sessions/{session}/refunds", json={"reason": "kind", "amount": 100}, headers={"Idempotency-Key": "r"}
    )
    made = await documented(answer, "/v1/sessions/{id}/refunds")
    assert (made["amount"], made["status"]) == (100, "ordered")
    docs = await journal.read(session, "payment", "refunds")
    assert docs["refunds"] is not None
    assert await journal.redis.exists(journal.keys.of(session, "payment")) == 1
    assert [claim.session for claim in await journal.due("money", lease_ms=1)] == [session]


async def test_r22_a_person_is_exported_and_erased_from_redis_and_archive(market: Api, journal: Journal) -> None:
    sessions_ = [await archived(journal), await settled(journal, account="acc_dev")]
    asked = "/v1/people/c1/export"
    page = await documented(await market.get(f"{asked}?limit=1"), "/v1/people/{person}/export")
    assert ([each["session"] for each in page["data"]], page["has_more"]) == (sessions_[:1], True)
    rest = await documented(await market.get(f"{asked}?starting_after={sessions_[0]}"), "/v1/people/{person}/export")
    (one,) = rest["data"]
    assert (one["session"], one["role"], one["email"], rest["has_more"]) == (
        sessions_[1], "client", "client@example.com", False
    )  # fmt: skip
    assert (one["money"]["card"]["last4"], one["rating_given"]["stars"]) == ("4242", 4)
    assert "expert@example.com" not in str(rest), "law 7"
    erased = await documented(await market.delete("/v1/people/c1"), "/v1/people/{person}")
    assert erased == {"id": "c1", "erased": True, "sessions": 2}
    for session in sessions_:
        read = await documented(await market.get(f"/v1/sessions/{session}"), "/v1/sessions/{id}")
        assert (read["client"]["email"], read["client"]["id"], read["amount_total"]) == (None, "c1", 450)
        assert read["expert"]["email"] == "expert@example.com"
    left = await documented(await market.get(asked), "/v1/people/{person}/export")
    assert [(each["email"], each["receipts"] != []) for each in left["data"]] == [(None, True)] * 2


async def test_r22_nobody_is_erased_while_money_is_open(market: Api) -> None:
    made = await created(market)
    refused = await documented(await market.delete("/v1/people/c1"), "/v1/people/{person}")
    assert (refused["code"], refused["sessions"]) == ("person_in_use", [made["id"]])
    assert (await documented(await market.delete("/v1/people/nobody"), "/v1/people/{person}"))["sessions"] == 0
