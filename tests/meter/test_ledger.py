"""The ledger in a real Valkey: fenced, clipped, idempotent."""

from __future__ import annotations

import pytest

from gateway.errors import Conflict
from gateway.journal import Journal
from gateway.meter.ledger import Ledger


@pytest.fixture
def ledger(journal: Journal) -> Ledger:
    return Ledger(journal.redis, journal.keys, lease_ms=60_000)


async def test_a_retry_rewrites_the_same_row(ledger: Ledger) -> None:
    lease = await ledger.acquire("ses_1", "a")
    start = lease.acquired_at
    assert await ledger.flush(lease, {1: (start, start)}) == 0
    await ledger.flush(lease, {1: (start, start)})
    usage = await ledger.usage("ses_1")
    assert [(row.number, row.start, row.end) for row in usage.rows] == [(1, start, start)]
    assert usage.version == 2


async def test_law3_rows_lie_within_the_owners_time_by_redis_clock(ledger: Ledger) -> None:
    lease = await ledger.acquire("ses_1", "a")
    ahead = await ledger.flush(lease, {1: (lease.acquired_at - 5_000, lease.acquired_at + 5_000)})
    row = (await ledger.usage("ses_1")).rows[0]
    assert row.start == lease.acquired_at
    assert 4_000 < ahead <= 5_000
    assert row.end + ahead == lease.acquired_at + 5_000


async def test_law3_a_former_owner_cannot_bill_the_time_of_its_successor(ledger: Ledger) -> None:
    old = await ledger.acquire("ses_1", "a")
    new = await ledger.acquire("ses_1", "b", owner_gone=True)
    assert new.epoch == old.epoch + 1
    await ledger.flush(old, {1: (old.acquired_at, new.acquired_at + 60_000)})
    row = (await ledger.usage("ses_1")).rows[0]
    assert row.end <= new.acquired_at


async def test_a_live_lease_is_not_taken(ledger: Ledger) -> None:
    lease = await ledger.acquire("ses_1", "a")
    with pytest.raises(Conflict) as caught:
        await ledger.acquire("ses_1", "b")
    assert caught.value.code == "held"
    assert (await ledger.acquire("ses_1", "a")).epoch == lease.epoch
    await ledger.release(lease)
    assert (await ledger.acquire("ses_1", "b")).epoch == lease.epoch + 1


async def test_an_unknown_epoch_is_fenced(ledger: Ledger) -> None:
    lease = await ledger.acquire("ses_1", "a")
    stranger = type(lease)("ses_1", 7, "x", lease.acquired_at, lease.now)
    with pytest.raises(Conflict) as caught:
        await ledger.flush(stranger, {1: (0, 1)})
    assert caught.value.code == "fenced"


async def test_nothing_is_written_to_a_final_ledger(ledger: Ledger, journal: Journal) -> None:
    lease = await ledger.acquire("ses_1", "a")
    await journal.commit("ses_1", {"session": (0, {})}, fence=lease.fence(usage=0), finalized={"id": "ses_1"})
    for attempt in (ledger.flush(lease, {1: (0, 1)}), ledger.acquire("ses_1", "b")):
        with pytest.raises(Conflict) as caught:
            await attempt
        assert caught.value.code == "final"


async def test_law3_a_bill_cannot_be_frozen_over_rows_it_has_not_seen(ledger: Ledger, journal: Journal) -> None:
    lease = await ledger.acquire("ses_1", "a")
    seen = (await ledger.usage("ses_1")).version
    await ledger.flush(lease, {1: (lease.acquired_at, lease.acquired_at + 1)})
    with pytest.raises(Conflict) as caught:
        await journal.commit("ses_1", {"session": (0, {})}, fence=lease.fence(usage=seen), finalized={})
    assert caught.value.code == "version_conflict"
