"""The ledger in a real Valkey: fenced, clipped, idempotent."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from gateway.errors import Conflict
from gateway.journal import Journal
from gateway.keys import Keys
from gateway.meter.ledger import UNDER_WAY, Lease, Ledger, Write


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


async def test_law3_nor_by_a_clock_that_was_set_forward_meanwhile(ledger: Ledger) -> None:
    """The successor's start is ten seconds later on the clock that Redis has by then than on its former owner's."""
    old = await ledger.acquire("ses_1", "a")
    new = await ledger.acquire("ses_1", "b", owner_gone=True)
    stepped = Write(old, {1: (old.acquired_at - 20_000, new.acquired_at)}, renew=False, at=new.now - 10_000)
    (written,) = await ledger.write([stepped])
    assert written.code == "former"
    row = (await ledger.usage("ses_1")).rows[0]
    assert row.start == row.end == old.acquired_at, "before its own start it cannot go back"


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


async def test_many_sessions_in_one_call_are_answered_each_for_itself(journal: Journal) -> None:
    """One that is refused, with whatever rows, must not shift what its neighbours read or hear."""
    ledger = Ledger(journal.redis, Keys(1), lease_ms=60_000)
    leases = [await ledger.acquire(f"ses_{number}", "a") for number in range(6)]
    await journal.redis.hset(ledger._keys.of("ses_2", "lease"), "final", "1")
    successor = await ledger.acquire("ses_3", "b", owner_gone=True)
    await journal.redis.delete(ledger._keys.of("ses_4", "lease"))
    start = max(lease.acquired_at for lease in leases)
    rows = {1: (start, start), 2: (start, start + 1), 7: (start - 9_000, start + 90_000)}
    writes = [Write(lease, rows, 5) for lease in leases]
    writes[0] = Write(leases[0], {}, None)
    writes[1] = Write(replace(leases[1], epoch=7), rows, 5)
    written = await ledger.write([*writes, Write(leases[5], {9: (start, start)}, 4)])
    assert [(answer.code, answer.usage) for answer in written] == [
        ("ok", 0), ("fenced", 0), ("final", 0), ("former", 1), ("restored", 1), ("ok", 1), ("stale", 1)
    ]  # fmt: skip
    assert [answer.ahead_ms > 60_000 for answer in written] == [False, False, False, False, True, True, False]
    kept = {lease.session: (await ledger.usage(lease.session)).rows for lease in leases}
    assert [len(rows) for rows in kept.values()] == [0, 0, 0, 3, 3, 3]
    assert all(row.end <= successor.acquired_at for row in kept["ses_3"])
    (first, second, third) = kept["ses_5"]
    assert [(row.number, row.end - row.start) for row in (first, second)] == [(1, 0), (2, 1)]
    assert (third.number, third.start) == (7, leases[5].acquired_at)


async def test_a_redis_that_hangs_is_not_waited_for_once_for_each_trip(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    async def hanging(*call: object) -> None:
        tries.append(call)
        await asyncio.sleep(0)
        raise TimeoutError("Timeout reading from socket")

    monkeypatch.setattr("gateway.meter.ledger.piped", hanging)
    monkeypatch.setattr("gateway.meter.ledger.TOGETHER", 1)
    written = await ledger.write([Write(Lease(f"ses_{number}", 1, "a", 0, 0), {}) for number in range(50)])
    assert {answer.code for answer in written} == {"away"}
    assert len(tries) == UNDER_WAY
