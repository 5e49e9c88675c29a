"""What a call survives: a Redis that is killed, a gateway that is stopped and started again on the same data."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

from tests.integration.conftest import Site, Stand


async def kill_redis(stand: Stand) -> None:
    os.kill(int((stand.running.data_dir / "valkey" / "valkey.lock").read_text()), signal.SIGKILL)


async def redis_is_back(stand: Stand) -> None:
    async with asyncio.timeout(15):
        while (await stand.call("GET", "/v1/sessions"))[0] != 200:
            await asyncio.sleep(0.1)


async def check_settled_once(stand: Stand, session: str) -> dict[str, Any]:
    """One bill, over exactly the ledger's union, charged once (law 3, law 5, law 8)."""
    await redis_is_back(stand)
    final = await stand.settled(session, 40)
    usage = await stand.get(f"/v1/sessions/{session}/usage")
    assert usage["union_ms"] == sum(interval["ms"] for interval in usage["intervals"])
    assert final["billable_seconds"] == usage["union_ms"] // 1000
    assert [i["amount_received"] for i in await stand.intents(session)] == [100 * final["billable_seconds"]]
    events = await stand.events(session)
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events].count("session.finalized") == 1
    return final


async def test_law3_redis_is_killed_in_a_call_and_no_second_is_lost_or_billed_twice(stand: Stand) -> None:
    session = await stand.paid()
    client, expert = await stand.pair(session)
    since = time.monotonic()
    await asyncio.sleep(1)
    await kill_redis(stand)
    for caller in (client, expert):
        await caller.hears(25)
    await asyncio.sleep(1)
    await client.say("leave")
    lasted = time.monotonic() - since
    await client.until("ended", reason="client_left", summary=...)
    final = await check_settled_once(stand, session["id"])
    assert lasted - 2 <= final["billable_seconds"] <= lasted + 1
    assert "session.interrupted" not in [event["type"] for event in await stand.events(session["id"])]


async def test_law3_a_hang_up_while_redis_is_away_ends_the_call_then_and_is_written_later(stand: Stand) -> None:
    session = await stand.paid()
    client, _ = await stand.pair(session)
    since = time.monotonic()
    await client.hears(60)
    await kill_redis(stand)
    await client.say("leave")
    lasted = time.monotonic() - since
    final = await check_settled_once(stand, session["id"])
    assert final["end_reason"] == "client_left"
    assert final["billable_seconds"] <= lasted + 1


async def test_law3_a_gateway_stopped_in_a_call_and_not_found_again_ends_it_by_grace(site: Site) -> None:
    async with site.run() as stand:
        session = await stand.paid()
        client, expert = await stand.pair(session)
        since = time.monotonic()
        await client.hears(60)
    lasted = time.monotonic() - since
    for caller in (client, expert):
        assert await caller.closed() == 1001, "come back"
    async with site.run() as again:
        final = await check_settled_once(again, session["id"])
        assert final["end_reason"] == "node_lost"
        assert lasted - 2 <= final["billable_seconds"] <= lasted


async def test_law3_a_gateway_started_again_goes_on_with_the_call_and_the_ledger(site: Site) -> None:
    async with site.run() as stand:
        session = await stand.paid()
        callers = await stand.pair(session, bound=True)
        await callers[0].hears(60)
    async with site.run("grace_seconds = 20\n") as again:
        for caller in callers:
            assert (await caller.return_(fresh=True))["elapsed"] >= 1
        for caller in callers:
            await caller.until("status", status="live")
            await caller.hears(60)
        await callers[1].say("leave")
        final = await check_settled_once(again, session["id"])
        assert final["end_reason"] == "expert_left"
        assert final["billable_seconds"] >= 2
        rows = (await again.get(f"/v1/sessions/{session['id']}/usage"))["rows"]
        assert len({row["epoch"] for row in rows}) == 2
