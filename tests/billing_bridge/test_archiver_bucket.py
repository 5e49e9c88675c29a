"""The whole way through a bucket: out of Redis, read where it is, back after a loss; and nothing leaves without it."""

from __future__ import annotations

from typing import Any

import pytest
import redis.asyncio as aioredis

from gateway.archive import bucket
from gateway.archive.archive import Archive
from gateway.archive.hot import KNOWN, meet
from gateway.archive.places import BucketPlace, store_at
from gateway.archive.store import ArchiveUnavailable
from gateway.billing_bridge.archiver import TURN, Archiver, ArchiverSettings
from gateway.clock import SystemClock
from gateway.ids import first_id
from gateway.journal import Journal
from gateway.keys import Keys
from gateway.meter.ledger import Ledger
from gateway.meter.replay import replay
from tests.orders import NOW
from tests.s3 import S3Service
from tests.settled import settled, traces


@pytest.fixture
def place(s3_service: S3Service) -> BucketPlace:
    return s3_service.place()


@pytest.fixture
async def journal(redis: aioredis.Redis, place: BucketPlace) -> Journal:
    return await journal_at(redis, place)


async def journal_at(redis: aioredis.Redis, place: BucketPlace) -> Journal:
    """As a process that starts has it."""
    await meet(archive := Archive(store_at(place)), redis)
    return Journal(redis, Keys(partitions=4), archive=archive)


def archiver_of(journal: Journal) -> Archiver:
    assert journal.archive is not None
    return Archiver(journal, journal.archive, ArchiverSettings(quiet_ms=0, per_second=1000), SystemClock())


async def seen(journal: Journal, session: str) -> list[Any]:
    docs = await journal.read(session, "session", "payment", "people", "receipts")
    again = await replay(journal, Ledger(journal.redis, journal.keys, archive=journal.archive), session)
    assert (again.differences, again.broken) == ({}, [])
    return [docs, await journal.events(session), again.usage, again.bill]


async def test_into_the_bucket_and_back_gives_the_same_bills(
    journal: Journal, redis: aioredis.Redis, place: BucketPlace
) -> None:
    sessions = [await settled(journal) for _ in range(3)]
    before = [await seen(journal, session) for session in sessions]
    for session in sessions:
        await journal.schedule("archive", session, 1)
    await archiver_of(journal).all_due()
    assert [await traces(journal, session) for session in sessions] == [set()] * 3
    assert await redis.pttl(TURN) > 3_000_000, "nobody begins the next pass before its time"
    fresh = await journal_at(redis, place)
    assert [await seen(fresh, session) for session in sessions] == before
    await redis.flushall()
    after = await journal_at(redis, place)
    assert [await archiver_of(after).restore(session) for session in sessions] == ["put"] * 3
    assert after.archive is not None
    assert await after.archive.faults() == []
    here = Journal(redis, Keys(partitions=4))
    assert [await seen(here, session) for session in sessions] == before


async def test_while_the_bucket_is_away_nothing_leaves_redis(
    journal: Journal, redis: aioredis.Redis, place: BucketPlace, s3_service: S3Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "RETRIES", 0)
    kept, session = await settled(journal, first_id("ses", NOW)), await settled(journal)
    await archiver_of(journal).archive([kept])
    before = await seen(journal, session)
    with s3_service.failing(lambda request: "503"):
        started = await journal_at(redis, place)  # a process starts without it
        with pytest.raises(ArchiveUnavailable):
            await archiver_of(started).archive([session])
        with pytest.raises(ArchiveUnavailable):
            await started.read(kept, "session")
        assert await seen(started, session) == before
    assert await archiver_of(journal).archive([session]) == {session: None}
    assert await seen(journal, session) == before
    assert await redis.exists(KNOWN)
