"""Redis killed, held, set back and full in a call: it goes on, and its bill is what the relay forwarded (law 3)."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from gateway.clock import SystemClock
from gateway.journal import Journal
from gateway.keys import Keys
from gateway.meter.flusher import Flusher
from gateway.meter.ledger import Ledger, Write
from gateway.meter.replay import replay
from gateway.meter.usage_file import UsageFile
from tests.meter.life import Process, Valkey, living, order

pytestmark = pytest.mark.timeout(60)

SESSION = "ses_1"
OUTAGE_S = 1.5
CLOCKS_MS = 30  # how well the node knows Redis's clock on a loaded machine


async def killed(valkey: Valkey) -> None:
    await valkey.kill()
    await asyncio.sleep(OUTAGE_S)
    await valkey.start()


async def hanging(valkey: Valkey) -> None:
    """Longer than a lease, and what was sent meanwhile is executed late, in any order."""
    valkey.signal(signal.SIGSTOP)
    await asyncio.sleep(OUTAGE_S)
    valkey.signal(signal.SIGCONT)


async def set_back(valkey: Valkey) -> None:
    """A power failure: what it had answered for the last second and more is gone."""
    await asyncio.sleep(0.2)
    kept = valkey.copy()
    await asyncio.sleep(1.2)
    await valkey.kill()
    valkey.restore(kept)
    await asyncio.sleep(0.3)
    await valkey.start()


async def full(valkey: Valkey) -> None:
    await valkey.limit_memory("1")
    await asyncio.sleep(OUTAGE_S)
    await valkey.limit_memory("0")


async def bill_of(process: Process) -> tuple[int, int]:
    """Milliseconds billed, and how often `session.finalized` was told; the bill follows from the ledger alone."""
    again = await replay(process.journal, process.ledger, SESSION)
    assert again.frozen is not None
    assert not again.differences
    events = [event["type"] for event in await process.journal.events(SESSION)]
    assert [event for event in events if event == "session.started"] == ["session.started"]
    return again.frozen["union_ms"], events.count("session.finalized")


@pytest.mark.parametrize("outage", [killed, hanging, set_back, full])
async def test_law3_a_call_outlives_redis_and_is_billed_in_full(
    tmp_path: Path, outage: Callable[[Valkey], Awaitable[None]]
) -> None:
    async with living(tmp_path) as (valkey, process):
        await order(process.journal, SESSION)
        await process.sit(SESSION)
        await process.until(SESSION, "live")
        await outage(valkey)
        relay = process.relay
        assert relay.configured[SESSION].until > SystemClock().boot_ms() + 20_000, "the relay was told to go on"
        await asyncio.sleep(0.5)
        truth = relay.truth(SESSION)
        await process.sessions.end("acc_test", SESSION)
        await process.until(SESSION, "finalized")
        billed, finals = await bill_of(process)
        assert finals == 1
        assert truth - CLOCKS_MS <= billed, "nothing lost"
        assert billed <= relay.forwarded[SESSION] + CLOCKS_MS, "nothing doubled"
    assert (tmp_path / "usage.jsonl").read_bytes() == b""


async def test_law3_a_call_whose_end_falls_into_the_outage_is_final_after_it(tmp_path: Path) -> None:
    async with living(tmp_path) as (valkey, process):
        await order(process.journal, SESSION)
        await process.sit(SESSION)
        await process.until(SESSION, "live")
        await valkey.kill()
        await asyncio.sleep(0.3)
        truth = process.relay.truth(SESSION)
        process.relay.shut(SESSION, "deadline")
        await asyncio.sleep(OUTAGE_S)
        await valkey.start()
        await process.until(SESSION, "finalized")
        billed, finals = await bill_of(process)
        assert (finals, billed) == (1, pytest.approx(truth, abs=30))


async def test_law3_set_back_before_its_very_start_a_call_is_still_billed(tmp_path: Path) -> None:
    """Lost with the last second: the seats, the lease, the epoch and the start."""
    async with living(tmp_path) as (valkey, process):
        await order(process.journal, SESSION)
        kept = valkey.copy()
        await process.sit(SESSION)
        await process.until(SESSION, "live")
        await asyncio.sleep(0.5)
        await valkey.kill()
        valkey.restore(kept)
        await valkey.start()
        await process.until(SESSION, "live")
        await asyncio.sleep(0.5)
        truth = process.relay.truth(SESSION)
        await process.sessions.end("acc_test", SESSION)
        await process.until(SESSION, "finalized")
        billed, finals = await bill_of(process)
        assert finals == 1
        assert truth - CLOCKS_MS <= billed <= process.relay.forwarded[SESSION] + CLOCKS_MS


async def test_a_crash_of_node_and_redis_at_once_loses_at_most_a_second(tmp_path: Path) -> None:
    """The node's file is replayed at its next start, as the usage of the owner who wrote it."""
    (tmp_path / "valkey").mkdir()
    valkey, clock, path = Valkey(tmp_path / "valkey"), SystemClock(), tmp_path / "usage.jsonl"
    await valkey.start()
    try:
        redis = Redis.from_url(valkey.url, socket_timeout=0.5)
        ledger, file = Ledger(redis, Keys(4)), UsageFile(path)
        lease = await ledger.acquire(SESSION, "a")
        flusher = Flusher(ledger, clock, file=file)
        running, tab = asyncio.create_task(flusher.run()), flusher.open(lease)
        await asyncio.sleep(0.7)
        await valkey.kill()
        began = clock.boot_ms()
        while (lasted := clock.boot_ms() - began) < 2_000:
            tab.put({1: (lease.acquired_at, lease.acquired_at + 700 + lasted)}, clock.boot_ms())
            await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        file.close()
        await valkey.start()
        after = Flusher(ledger, clock, file=UsageFile(path))
        await after.stop()
        (row,) = (await ledger.usage(SESSION)).rows
        assert (row.owner, row.start) == ("a", lease.acquired_at)
        assert 1_700 <= row.end - row.start <= 2_700
        assert path.read_bytes() == b""
        await redis.aclose()
    finally:
        await valkey.kill()


async def test_what_a_hung_redis_executes_late_changes_nothing(journal: Journal) -> None:
    ledger = Ledger(journal.redis, journal.keys)
    lease = await ledger.acquire(SESSION, "a")
    start = lease.acquired_at
    await asyncio.sleep(0.02)
    (new,) = await ledger.write([Write(lease, {1: (start, start + 9)}, sequence=2)])
    (late,) = await ledger.write([Write(lease, {1: (start, start + 3)}, sequence=1)])
    assert (new.code, late.code) == ("ok", "stale")
    assert [row.end - row.start for row in (await ledger.usage(SESSION)).rows] == [9]
