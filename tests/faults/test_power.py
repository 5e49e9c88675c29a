"""The power fails: what Valkey had not synced is gone, in the middle of a record too; and Valkey that is full or hangs.

`appendfsync everysec`, as operators run it. A power loss takes the last second, but nothing of which a process was told
(WAITAOF) that it is on disk: the answers are seen on the wires, and Valkey's file is cut back behind the last of them.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from gateway.meter.ledger import Ledger
from tests.faults.checks import checked
from tests.faults.yard import Part, Yard, yard

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVERY_S: Final = 1.0  # `appendfsync everysec`
LOOK_S: Final = 0.02


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Yard]:
    async with yard(tmp_path_factory.mktemp("power"), fsync="everysec") as made:
        yield made


class Synced:
    """How much of Valkey's file a power loss leaves at least: all that a process was told is on disk, and what was
    written more than a second ago."""

    def __init__(self, running: Yard) -> None:
        self._running = running
        self._sizes: deque[int] = deque(maxlen=int(EVERY_S / LOOK_S))
        self._confirmed = 0

    @property
    def file(self) -> Path:
        (found,) = (self._running.folder / "appendonlydir").glob("*.incr.aof")
        return found

    def confirmed(self) -> None:
        self._confirmed = self.file.stat().st_size

    async def watch(self) -> None:
        for wire in self._running.wires.values():
            wire.confirmed = self.confirmed
        while True:
            self._sizes.append(self.file.stat().st_size)
            await asyncio.sleep(LOOK_S)

    def cut(self) -> int:
        """Cut the file back, in the middle of a record or not; by how many bytes."""
        whole = self.file.stat().st_size
        least = max(self._confirmed, self._sizes[0])
        # As likely as not to the least that can be left.
        left = least + random.choice((0, random.randint(0, whole - least)))
        os.truncate(self.file, left)
        return whole - left


@asynccontextmanager
async def power_fails(running: Yard, *also: Part) -> AsyncIterator[None]:
    """At the end of the block, for Valkey (and for `also`, on the same machine); then all is started again."""
    synced = Synced(running)
    watching = asyncio.create_task(synced.watch())
    try:
        yield
        for part in ("valkey", *also):
            await running.kill(part)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    print(f"{synced.cut()} bytes lost")
    for part in ("valkey", *also):
        await running.start(part)
    await running.ready()
    for part in ("valkey", *also):
        await running.leases_run_out(part)


async def rows_end(running: Yard, session: str) -> int:
    """The last instant that the ledger has, wall ms."""
    usage = await Ledger(running.redis, running.journal.keys).usage(session)
    return max(row.end for row in usage.rows)


async def test_law3_a_machine_without_power_loses_two_seconds_of_a_call_and_bills_none_twice(running: Yard) -> None:
    """Node and Valkey on one machine: what is left is what was synced."""
    async with power_fails(running, "node"):
        session, client, expert = await running.talk(seconds=3.5)
        before = time.time() * 1000
    cut = time.time() * 1000
    for caller in (client, expert):
        await caller.close()
    await running.watched(session["id"])
    final = await checked(running, session["id"], mailed_again=True)
    assert final["end_reason"] == "node_lost"
    assert before - 2_000 <= await rows_end(running, session["id"]) <= cut


async def test_law3_a_node_that_outlives_valkeys_power_loses_nothing(running: Yard) -> None:
    async with power_fails(running):
        session, client, _ = await running.talk(seconds=2.5)
    await asyncio.sleep(0.5)
    await client.say("leave")
    left = time.time() * 1000
    final = await checked(running, session["id"], mailed_again=True)
    assert final["end_reason"] == "client_left"
    assert left - 500 <= await rows_end(running, session["id"]) <= left + 200
    assert (await running.get(f"/v1/sessions/{session['id']}/usage"))["union_ms"] >= 2_500


async def told(running: Yard, session: str, kind: str) -> None:
    async with asyncio.timeout(30):
        while not any((e["session"], e["type"]) == (session, kind) for e in running.received):
            await asyncio.sleep(0.002)


async def test_law8_what_the_marketplace_was_told_survives_the_loss_of_power(running: Yard) -> None:
    """Valkey and the bridge lose power in the moment in which the marketplace hears of a start, of the end of all."""
    async with power_fails(running, "bridge"):
        session, client, _ = await running.talk(seconds=0)
        await told(running, session["id"], "session.started")
    await asyncio.sleep(1.2)
    async with power_fails(running, "bridge"):
        await client.say("leave")
        await told(running, session["id"], "session.settled")
    await checked(running, session["id"], mailed_again=True)


async def test_law5_the_power_fails_after_stripe_captured_and_transferred(running: Yard) -> None:
    await running.fault("POST /v1/payment_intents/*/capture", "timeout_after_commit", ms=60_000)
    async with power_fails(running, "bridge"):
        session = await running.over()
        await running.done_at_stripe(
            session, lambda there: any(i["status"] == "succeeded" for i in there["payment_intents"])
        )
    await running.fault("POST /v1/transfers", "timeout_after_commit", ms=60_000)
    before = await running.sandbox()
    async with power_fails(running, "bridge"):
        await running.grown("transfers", before)
    await checked(running, session, mailed_again=True)


async def test_law3_valkey_full_while_one_talks_and_another_is_settled(running: Yard) -> None:
    """Every write is refused (`noeviction`); calls go on, usage waits, money waits, and nothing is lost."""
    over = await running.over()
    session, client, _ = await running.talk()
    await running.redis.config_set("maxmemory", 1)
    status, refused = await running.call("POST", "/v1/sessions", await running.terms())
    assert (status, refused["code"]) == (503, "store_unavailable")
    await client.hears(60)
    await client.say("leave")
    left = time.time() * 1000
    await asyncio.sleep(1)
    await running.redis.config_set("maxmemory", 0)
    await running.leases_run_out("valkey")
    for each in (over, session["id"]):
        await checked(running, each, mailed_again=True)
    assert left - 500 <= await rows_end(running, session["id"]) <= left + 200


async def test_law3_valkey_hangs_for_ten_seconds_while_one_talks_and_another_is_settled(running: Yard) -> None:
    over = await running.over()
    session, client, expert = await running.talk()
    os.kill(running.pids["valkey"], signal.SIGSTOP)
    try:
        await asyncio.sleep(10)
        for caller in (client, expert):
            await caller.hears(10)
    finally:
        os.kill(running.pids["valkey"], signal.SIGCONT)
    await running.leases_run_out("valkey")
    await client.say("leave")
    left = time.time() * 1000
    for each in (over, session["id"]):
        final = await checked(running, each, mailed_again=True)
    assert (final["end_reason"], final["billable_seconds"] >= 11) == ("client_left", True)
    assert left - 500 <= await rows_end(running, session["id"]) <= left + 200
    events = await running.journal.events(session["id"])
    assert "session.interrupted" not in [event["type"] for event in events]
