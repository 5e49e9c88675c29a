"""R22: what is kept of a person can be had, and be erased from wherever it is, while figures and proofs stay."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import redis.asyncio as aioredis

from gateway.archive.directory import Directory
from gateway.archive.people import People
from gateway.archive.person import Person
from gateway.billing_bridge.archiver import Archiver, ArchiverSettings
from gateway.clock import SystemClock
from gateway.errors import Conflict
from gateway.journal import Journal
from gateway.keys import Keys
from gateway.meter.ledger import Ledger
from gateway.meter.replay import replay
from tests.settled import COMMENT, PERSONAL, archive_in, settled

CLIENT, EXPERT = Person("acc_test", False, "c1"), Person("acc_test", False, "e1")


@pytest.fixture
async def journal(redis: aioredis.Redis, tmp_path: Path) -> Journal:
    return Journal(redis, Keys(partitions=4), archive=await archive_in(tmp_path / "archive"))


@pytest.fixture
def archiver(journal: Journal) -> Archiver:
    assert journal.archive is not None
    return Archiver(journal, journal.archive, ArchiverSettings(quiet_ms=0), SystemClock())


async def everything(journal: Journal) -> str:
    """All that Redis and the archive hold, as text."""
    assert journal.archive is not None
    root = cast(Directory, journal.archive.store).root
    told = [path.read_text() for path in root.rglob("*") if path.is_file()]
    async for key in journal.redis.scan_iter("*", count=1000):
        if not key.endswith(b":finalized"):  # frozen bills, with ids only
            told.append(str(await journal.redis.dump(key)))
            kind = await journal.redis.type(key)
            told.append(str(await journal.redis.hgetall(key)) if kind == b"hash" else "")  # type: ignore[misc]
            told.append(str(await journal.redis.lrange(key, 0, -1)) if kind == b"list" else "")  # type: ignore[misc]
    return "".join(told).replace("\\\\", "").replace("\\", "")


async def test_r22_both_sides_erased_leave_nothing_personal_anywhere(journal: Journal, archiver: Archiver) -> None:
    hot, cold = await settled(journal), await settled(journal)
    await archiver.archive([cold])
    before = await everything(journal)
    assert all(word in before for word in PERSONAL)
    people = People(journal)
    assert [await people.erase(person) for person in (CLIENT, EXPERT)] == [2, 2]
    after = await everything(journal)
    assert [word for word in PERSONAL if word in after] == []
    ledger = Ledger(journal.redis, journal.keys, archive=journal.archive)
    for session in (hot, cold):
        again = await replay(journal, ledger, session)
        assert (again.differences, again.broken, again.bill.amount_total) == ({}, [], 450)
        events = await journal.events(session)
        assert [event["sequence"] for event in events] == [1, 2, 3, 4]
        assert events[2]["data"] == {"by": "client", "stars": 4, "comment": None, "parameters": {}}
    assert [await people.erase(person) for person in (CLIENT, EXPERT)] == [0, 0]
    assert journal.archive is not None
    assert await journal.archive.faults() == []


async def test_r22_one_side_erased_leaves_the_other(journal: Journal) -> None:
    session = await settled(journal)
    await People(journal).erase(EXPERT)
    docs = await journal.read(session, "people", "session", "payment")
    assert docs["people"] is not None
    assert docs["session"] is not None
    assert docs["people"].body["client"]["email"] == "client@example.com"
    assert docs["people"].body["expert"] == {"name": "", "email": None, "locale": "en", "timezone": None}
    assert docs["session"].body["ratings"]["client"]["comment"] == COMMENT


async def test_r22_what_was_erased_while_it_came_back_is_erased_there_too(
    journal: Journal, archiver: Archiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await settled(journal)
    await archiver.archive([session])
    put_back = journal.hot.put_back

    async def erased_first(snapshot: object, look_at: int) -> object:
        assert journal.archive is not None
        await journal.archive.erase(CLIENT)
        return await put_back(snapshot, look_at)  # type: ignore[arg-type]

    monkeypatch.setattr(journal.hot, "put_back", erased_first)
    await journal.wake(session)
    assert "client@example.com" not in await everything(journal)


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("number", range(6))
async def test_r22_a_session_that_moves_during_an_erasure_is_met(
    journal: Journal, archiver: Archiver, monkeypatch: pytest.MonkeyPatch, number: int, back: bool
) -> None:
    """Out of Redis into the archive, or back, before the erasure's `number`th step."""
    session, left = await settled(journal), number
    if back:
        await archiver.archive([session])

    def moved_first(work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def step(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left == -1:
                await (journal.wake(session) if back else archiver.archive([session]))
            return await work(*arguments)

        return step

    people = People(journal)
    monkeypatch.setattr(journal.archive, "erase", moved_first(journal.archive.erase))  # type: ignore[union-attr]
    monkeypatch.setattr(people, "_listed", moved_first(people._listed))
    monkeypatch.setattr(journal.hot, "erase", moved_first(journal.hot.erase))
    assert await people.erase(CLIENT) == 1
    assert "client@example.com" not in await everything(journal)


async def test_r22_a_copy_in_redis_that_an_erasure_missed_does_not_come_back_by_the_archive(
    journal: Journal, archiver: Archiver
) -> None:
    """As after a Redis that came back with an old append-only file."""
    session = await settled(journal)
    await archiver.archive([session])
    before = await journal.archived(session)
    assert journal.archive is not None
    assert before is not None
    await journal.archive.erase(CLIENT)
    await journal.hot.put_back(before, 0)
    assert await archiver.archive([session]) == {session: None}
    assert "client@example.com" not in await everything(journal)


async def test_r22_a_session_still_to_be_paid_keeps_its_people(journal: Journal) -> None:
    done, open_ = await settled(journal), await settled(journal)
    doc = (await journal.read(open_, "payment"))["payment"]
    assert doc is not None
    await journal.commit(open_, {"payment": (doc.version, {**doc.body, "settled": False})})
    with pytest.raises(Conflict) as refused:
        await People(journal).erase(CLIENT)
    assert (refused.value.code, refused.value.extra["sessions"]) == ("person_in_use", [open_])
    docs = await journal.read(done, "people")
    assert docs["people"] is not None
    assert docs["people"].body["client"]["name"] == "Client", "all or nothing"


async def test_r22_the_export_has_both_sides_of_one_person_and_nobody_elses(journal: Journal) -> None:
    await settled(journal, client={"id": "e1", "stripe_customer": "cus_1"})
    found, more = await People(journal).export(EXPERT, limit=1)
    assert ([each["role"] for each in found], more) == (["client", "expert"], False)
    assert found[1]["money"]["transfers"][0]["amount"] == 405
    assert found[0]["receipts"] == [{"number": "TEST-C-2023-000001", "issued_at": 1_700_000_000_000, "mail": "sent"}]
    assert await People(journal).export(Person("acc_other", False, "e1"), limit=9) == ([], False)
    assert await People(journal).export(Person("acc_test", True, "e1"), limit=9) == ([], False)
