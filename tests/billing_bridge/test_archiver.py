"""Out of Redis into the archive and back: never lost, never in both with different content, whatever dies between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as aioredis

from gateway.archive.hot import Hot
from gateway.archive.snapshot import Snapshot
from gateway.billing_bridge.archiver import DAY_MS, Archiver, ArchiverSettings
from gateway.billing_bridge.debts import Debts
from gateway.billing_bridge.record import Step
from gateway.clock import SystemClock
from gateway.errors import NotFound
from gateway.ids import new_id
from gateway.journal import NOW, Event, Journal
from gateway.keys import Keys
from gateway.meter.ledger import Ledger
from gateway.meter.replay import replay
from gateway.payees.earnings import Earnings
from gateway.receipts.mail_desk import UNDELIVERABLE
from gateway.receipts.mailer import ALLOCATE, Mailer, MailSettings
from gateway.receipts.receipt import Issuer
from gateway.receipts.register import MARGIN, key_of, registers_of
from gateway.webhooks.endpoints import Endpoints
from gateway.webhooks.lanes import Lanes
from gateway.webhooks.webhooks import DEAD, Webhooks, WebhookSettings
from tests.settled import archive_in, settled, traces

SETTINGS = ArchiverSettings(quiet_ms=0)


@pytest.fixture
async def journal(redis: aioredis.Redis, tmp_path: Path) -> Journal:
    return Journal(redis, Keys(partitions=4), archive=await archive_in(tmp_path / "archive"))


@pytest.fixture
def archiver(journal: Journal) -> Archiver:
    assert journal.archive is not None
    return Archiver(journal, journal.archive, SETTINGS, SystemClock())


async def hot(journal: Journal, session: str) -> Snapshot | None:
    found = await Hot(journal.redis, journal.keys).read(session)
    return found.snapshot if found else None


async def cold(journal: Journal, session: str) -> Snapshot | None:
    assert journal.archive is not None
    return await journal.archive.find(session)


async def test_a_settled_session_leaves_no_trace_in_redis(journal: Journal, archiver: Archiver) -> None:
    session = await settled(journal)
    before = await hot(journal, session)
    assert len(await traces(journal, session)) > 10
    await journal.schedule("archive", session, 1)
    await archiver.round()
    assert await cold(journal, session) == before
    assert await traces(journal, session) == set()


async def test_an_archived_session_reads_as_it_did(journal: Journal, archiver: Archiver) -> None:
    session = await settled(journal)
    ledger = Ledger(journal.redis, journal.keys, archive=journal.archive)

    async def seen() -> list[Any]:
        docs = await journal.read(session, "session", "payment", "people", "receipts", "refunds")
        again = await replay(journal, ledger, session)
        assert (again.differences, again.broken, again.frozen is not None) == ({}, [], True)
        return [docs, await journal.events(session), await journal.events(session, 2), again.usage]

    before = await seen()
    assert await archiver.archive([session]) == {session: None}
    assert await hot(journal, session) is None
    assert await seen() == before


async def test_the_receipts_page_opens_from_the_archive(journal: Journal, archiver: Archiver) -> None:
    session = await settled(journal)
    settings = MailSettings("localhost", 25, "Parley <r@example.com>", Issuer("Parley"), "https://calls.example.com")
    mailer = Mailer(journal, settings, SystemClock())
    secret = f"{session[4:]}{'c' * 32}"
    before = await mailer.receipt_page(secret)
    await archiver.archive([session])
    assert await mailer.receipt_page(secret) == before
    with pytest.raises(NotFound):
        await mailer.receipt_page(secret[:-1] + "t")


async def test_whoever_changes_an_archived_session_brings_it_back_first(journal: Journal, archiver: Archiver) -> None:
    session = await settled(journal)
    before = await hot(journal, session)
    await archiver.archive([session])
    await journal.commit(session, {"stripe": (0, {"count": 1})}, events=[Event("payment.disputed", {})], durable=True)
    after = await hot(journal, session)
    assert before is not None
    assert after is not None
    assert after.docs == before.docs | {"stripe": (1, {"count": 1})}
    assert [event["sequence"] for event in after.events] == [1, 2, 3, 4, 5]
    assert (await journal.event_place(before.events[0]["id"])) == (session, 1)
    assert [claim.session for claim in await journal.due("archive", lease_ms=1)] == [session]


async def test_a_commit_on_a_session_that_never_was_makes_none(journal: Journal) -> None:
    with pytest.raises(NotFound):
        await journal.commit("ses_01kt0q8m3fe9w7r2c5x6y8z0ab", {"stripe": (0, {"count": 1})}, due={"money": NOW})
    assert await journal.redis.dbsize() == 0


async def test_it_is_archived_again_with_what_changed(journal: Journal, archiver: Archiver) -> None:
    session = await settled(journal)
    await archiver.archive([session])
    await journal.commit(session, {"stripe": (0, {"count": 1})})
    after = await hot(journal, session)
    assert await archiver.archive([session]) == {session: None}
    assert (await hot(journal, session), await cold(journal, session)) == (None, after)


class Crash(Exception):
    pass


STEPS: list[tuple[str, str, bool]] = [
    ("_archive", "keep", False), ("_archive", "keep", True),
    ("_hot", "take_out", False), ("_hot", "take_out", True),
    ("_hot", "leave_aside", False), ("_hot", "leave_aside", True),
    ("_register", "forget", False), ("_register", "forget", True),
]  # fmt: skip


def dying(archiver: Archiver, part: str, name: str, *, after: bool, patch: pytest.MonkeyPatch) -> None:
    """That call never comes, or comes and is the last thing that happens."""
    work: Callable[..., Awaitable[Any]] = getattr(getattr(archiver, part), name)

    async def call(*args: Any) -> None:
        if after:
            await work(*args)
        raise Crash

    patch.setattr(getattr(archiver, part), name, call)


@pytest.mark.parametrize(("part", "name", "after"), STEPS)
async def test_a_crash_between_any_two_steps_loses_nothing_and_the_next_try_ends_it(
    journal: Journal, archiver: Archiver, part: str, name: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await settled(journal)
    before = await hot(journal, session)
    dying(archiver, part, name, after=after, patch=monkeypatch)
    with pytest.raises(Crash):
        await archiver.archive([session])
    copies = [copy for copy in (await hot(journal, session), await cold(journal, session)) if copy is not None]
    assert copies
    assert all(copy == before for copy in copies)
    monkeypatch.undo()
    assert await archiver.archive([session]) == {session: None}
    assert (await hot(journal, session), await cold(journal, session)) == (None, before)
    assert await traces(journal, session) == set()


@pytest.mark.parametrize("change", ["doc", "event", "row", "delivery", "work"])
async def test_law5_what_changes_while_it_is_being_archived_stays(
    journal: Journal, archiver: Archiver, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await settled(journal)
    archive = journal.archive
    assert archive is not None
    keep = archive.keep

    async def meanwhile(some: Any) -> None:
        await keep(some)
        if change == "doc":
            await journal.commit(session, {"refunds": (0, {"orders": []})})
        elif change == "event":
            await journal.commit(session, {}, events=[Event("session.rated", {})], due={"outbox": None})
        elif change == "row":
            await journal.redis.hincrby(journal.keys.of(session, "lease"), "usage", 1)  # type: ignore[misc]
        elif change == "delivery":
            await journal.redis.hset(journal.keys.of(session, "deliveries"), "o:whe_1:1", "0:1:")  # type: ignore[misc]
        else:
            await journal.schedule("money", session, 1)

    monkeypatch.setattr(archive, "keep", meanwhile)
    again = await archiver.archive([session])
    assert again[session] is not None
    assert await hot(journal, session) is not None


async def test_law5_an_unsettled_session_stays(journal: Journal, archiver: Archiver) -> None:
    session = await settled(journal)
    doc = (await journal.read(session, "payment"))["payment"]
    assert doc is not None
    await journal.commit(session, {"payment": (doc.version, {**doc.body, "settled": False})})
    assert await archiver.archive([session]) == {session: None}
    assert (await hot(journal, session) is not None, await cold(journal, session)) == (True, None)


async def test_a_booking_stays_until_its_meetings_are_over(journal: Journal, archiver: Archiver) -> None:
    booking, meeting = new_id("bkg"), await settled(journal)
    docs = await journal.read(meeting, "session", "payment")
    assert docs["session"] is not None
    assert docs["payment"] is not None
    body = {**docs["session"].body, "id": booking, "kind": "booking", "status": "booked", "meetings": [meeting]}
    await journal.commit(booking, {"session": (0, body), "payment": (0, docs["payment"].body)})
    await journal.commit(meeting, {"session": (docs["session"].version, {**docs["session"].body, "status": "live"})})
    assert (await archiver.archive([booking]))[booking] is not None
    version = docs["session"].version + 1
    await journal.commit(meeting, {"session": (version, docs["session"].body)})
    assert await archiver.archive([booking]) == {booking: None}
    assert (await hot(journal, booking), (await cold(journal, booking)) is not None) == (None, True)


async def test_all_comes_back_after_redis_lost_everything(journal: Journal, archiver: Archiver) -> None:
    sessions = [await settled(journal) for _ in range(3)]
    before = [await hot(journal, session) for session in sessions]
    await archiver.archive(sessions)
    await journal.redis.flushall()
    assert [await archiver.restore(session) for session in sessions] == ["put"] * 3
    for session, was in zip(sessions, before, strict=True):
        now = await hot(journal, session)
        assert now is not None
        assert was is not None
        asked = now.docs["stripe"][1]
        assert (asked["disputes"], asked["refunds"]) == (1, 1), "Stripe is asked what came since"
        assert {name: doc for name, doc in now.docs.items() if name != "stripe"} == was.docs
        assert (now.events, now.usage, now.lease) == (was.events, was.usage, was.lease)
    assert await journal.redis.hget(key_of("default", "TEST-C-2023"), "last") == b"6", "no number is given twice"  # type: ignore[misc]
    earned = await Earnings(journal).totals("acc_test", False, "e1", since=0, until=2**53)
    assert earned["usd"]["sessions"] == 3, "R18: the list of earnings is whole again"
    assert await archiver.restore(sessions[0]) == "newer"
    lists = [key async for key in journal.redis.scan_iter("*:earned:acc_test:test:e1")]
    assert sum([await journal.redis.zcard(key) for key in lists]) == 3


async def test_r18_no_receipt_number_is_given_twice_after_redis_lost_the_count(
    journal: Journal, archiver: Archiver
) -> None:
    await archiver.archive([await settled(journal)])
    keys, allocate = [key_of("default", "C-2026"), registers_of("default")], journal.redis.register_script(ALLOCATE)
    given = [int((await allocate(keys=keys, args=[f"{n}|client", 1])).split(b":")[0]) for n in range(3)]
    await archiver.all_due()
    given.append(int((await allocate(keys=keys, args=["after|client", 1])).split(b":")[0]))  # since the pass
    for life in ("first", "second"):
        await journal.redis.flushall()
        await archiver.go_on()
        await archiver.go_on()
        given.append(int((await allocate(keys=keys, args=[f"{life}|client", 1])).split(b":")[0]))
    assert given == [1, 2, 3, 4, 3 + MARGIN + 1, 3 + 2 * MARGIN + 1]


async def test_restoring_never_overwrites_what_is_newer_in_redis(journal: Journal, archiver: Archiver) -> None:
    session = await settled(journal)
    await archiver.archive([session])
    assert await journal.wake(session)
    assert await archiver.restore(session) == "same"
    await journal.commit(session, {"stripe": (0, {"count": 1})})
    newer = await hot(journal, session)
    assert await archiver.restore(session) == "newer"
    assert await hot(journal, session) == newer


async def test_a_redis_that_lost_its_last_writes_is_mended(journal: Journal, archiver: Archiver) -> None:
    """An old append-only file came back: the archive knows more of the session than Redis does."""
    session = await settled(journal)
    whole = await hot(journal, session)
    assert whole is not None
    await archiver.archive([session])
    await journal.wake(session)
    await journal.redis.hset(journal.keys.of(session, "payment"), "v", "0")  # type: ignore[misc]
    await journal.redis.rpop(journal.keys.of(session, "events"))  # type: ignore[misc]
    assert await Hot(journal.redis, journal.keys).put_back(whole, 0) == "replaced"
    assert await hot(journal, session) == whole
    await journal.redis.hset(journal.keys.of(session, "payment"), "v", "0")  # type: ignore[misc]
    await journal.redis.hset(journal.keys.of(session, "session"), "v", "99")  # type: ignore[misc]
    assert await archiver.restore(session) == "conflict"


async def test_how_its_events_were_delivered_is_told_from_the_archive_too(journal: Journal, archiver: Archiver) -> None:
    endpoints = Endpoints(journal.redis, SystemClock())
    await endpoints.add("https://marketplace.example/hook")
    webhooks = Webhooks(journal, endpoints, WebhookSettings(), SystemClock())
    session = await settled(journal)
    lanes = Lanes(journal)
    before = await lanes.fields(session)
    await archiver.archive([session])
    assert await lanes.fields(session) == before != {}
    assert len(await webhooks.deliveries(session)) == 4


async def test_what_did_not_arrive_is_listed_for_as_long_as_the_ledgers_rows_are_kept(
    journal: Journal, archiver: Archiver
) -> None:
    now = SystemClock().wall_ms()
    for listed in (DEAD, UNDELIVERABLE):
        await journal.redis.zadd(listed, {"evt_old|ses_1|1|whe_1": now - 91 * DAY_MS, "evt_new|ses_1|2|whe_1": now})
    await archiver.expire()
    assert [await journal.redis.zcard(listed) for listed in (DEAD, UNDELIVERABLE)] == [1, 1]


async def test_the_keys_of_debts_go_with_their_session_and_the_debt_stays(journal: Journal, archiver: Archiver) -> None:
    session = await settled(journal)
    params = {"account": "acct_demo", "currency": "usd", "amount": 70}
    await Debts(journal.redis).send("debts.owe", params, "k-owe")
    doc = (await journal.read(session, "payment"))["payment"]
    assert doc is not None
    owe = asdict(Step("owe_expert", 1, "k-owe", params, "done"))
    await journal.commit(session, {"payment": (doc.version, {**doc.body, "steps": [*doc.body["steps"], owe]})})
    await archiver.archive([session])
    assert await journal.redis.hgetall("{acct:acct_demo}:debts:usd") == {b"owed": b"70"}  # type: ignore[misc]


async def test_bytes_of_a_settled_session_before_and_after(journal: Journal, archiver: Archiver) -> None:
    """What Redis holds of a hundred sessions, by its own account: what is left is not one of them."""

    async def used() -> int:
        keys = [key async for key in journal.redis.scan_iter("*", count=1000)]
        return sum([await journal.redis.memory_usage(key, samples=0) for key in keys if b":finalized" not in key])

    empty = await used()
    sessions = [await settled(journal) for _ in range(30)]
    before = (await used() - empty) / len(sessions)
    await archiver.archive(sessions)
    after = (await used() - empty) / len(sessions)
    print(f"bytes in Redis of a settled session: {before:.0f} before, {after:.0f} after")
    assert before > 4_000
    assert after < 50
