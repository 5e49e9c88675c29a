"""The journal: all records of a session change together, and events are numbered without gaps."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import Conflict
from gateway.journal import NOW, Event, Fence, Journal
from gateway.keys import RECORDS


async def test_a_commit_puts_all_its_docs_or_none(journal: Journal) -> None:
    await journal.commit("ses_1", {"session": (0, {"a": 1}), "payment": (0, {"b": 2})})
    with pytest.raises(Conflict):
        await journal.commit("ses_1", {"session": (1, {"a": 9}), "payment": (0, {"b": 9})})
    docs = await journal.read("ses_1", "session", "payment", "people")
    assert docs["session"] is not None
    assert docs["session"].body == {"a": 1}
    assert docs["session"].version == 1
    assert docs["people"] is None


async def test_law8_events_are_numbered_without_gaps_under_contention(journal: Journal) -> None:
    async def write(name: str) -> None:
        for version in range(10):
            await journal.commit("ses_1", {name: (version, {})}, events=[Event("session.warning", {"from": name})])

    await asyncio.gather(*(write(n) for n in RECORDS[:5]))
    events = await journal.events("ses_1")
    assert [event["sequence"] for event in events] == list(range(1, 51))
    assert len({event["id"] for event in events}) == 50
    assert [event["sequence"] for event in await journal.events("ses_1", after=48)] == [49, 50]


async def test_a_refused_commit_leaves_no_event(journal: Journal) -> None:
    with pytest.raises(Conflict):
        await journal.commit("ses_1", {"session": (5, {})}, events=[Event("session.created", {})])
    assert await journal.events("ses_1") == []


async def test_law3_a_fenced_writer_is_refused(journal: Journal) -> None:
    lease = journal.keys.of("ses_1", "lease")
    await journal.redis.hset(lease, mapping={"epoch": "2", "owner": "node-b", "usage": "7"})
    for stale in (Fence(1, "node-a"), Fence(2, "node-a"), Fence(1, "node-b")):
        with pytest.raises(Conflict) as caught:
            await journal.commit("ses_1", {"session": (0, {})}, fence=stale)
        assert caught.value.code == "fenced"
    with pytest.raises(Conflict) as caught:
        await journal.commit("ses_1", {"session": (0, {})}, fence=Fence(2, "node-b", usage=6))
    assert caught.value.code == "version_conflict"
    await journal.commit("ses_1", {"session": (0, {})}, fence=Fence(2, "node-b", usage=7))


async def test_a_claim_that_nobody_finishes_comes_back(journal: Journal) -> None:
    await journal.commit("ses_1", {"session": (0, {})}, due={"money": 1000})
    assert await journal.due("money", lease_ms=500, now=999) == []
    first = await journal.due("money", lease_ms=500, now=1000)
    assert [claim.session for claim in first] == ["ses_1"]
    assert await journal.due("money", lease_ms=500, now=1499) == []
    again = await journal.due("money", lease_ms=500, now=1500)
    await journal.done(again[0])
    assert await journal.due("money", lease_ms=500, now=99_999) == []


async def test_a_wish_that_arrives_during_a_claim_is_not_lost(journal: Journal) -> None:
    await journal.commit("ses_1", {"session": (0, {})}, due={"money": NOW})
    claim = (await journal.due("money", lease_ms=60_000))[0]
    await journal.commit("ses_1", {"session": (1, {})}, due={"money": NOW})
    await journal.done(claim)
    assert [c.session for c in await journal.due("money", lease_ms=1000)] == ["ses_1"]


async def test_one_session_is_not_worked_on_twice_at_once(journal: Journal) -> None:
    await journal.commit("ses_1", {"session": (0, {})}, due={"mail": 1000})
    claim = (await journal.due("mail", lease_ms=500, now=1000))[0]
    await journal.schedule("mail", "ses_1", 1100)
    assert await journal.due("mail", lease_ms=500, now=1100) == []
    await journal.done(claim)
    again = await journal.due("mail", lease_ms=500, now=1101)
    assert [c.session for c in again] == ["ses_1"]
    await journal.done(again[0])
    assert await journal.due("mail", lease_ms=500, now=99_999) == []


async def test_a_claim_given_back_for_later_comes_later(journal: Journal) -> None:
    await journal.commit("ses_1", {"session": (0, {})}, due={"mail": 1000})
    claim = (await journal.due("mail", lease_ms=500, now=1000))[0]
    await journal.done(claim, again_at=5000)
    assert await journal.due("mail", lease_ms=500, now=4999) == []
    assert len(await journal.due("mail", lease_ms=500, now=5000)) == 1


async def test_law5_a_look_whose_result_redis_lost_with_its_power_is_done_again(journal: Journal) -> None:
    await journal.commit("ses_1", {"payment": (0, {})}, due={"money": NOW})
    claim = (await journal.due("money", lease_ms=60_000))[0]
    await journal.done(claim, left=("payment", 2))
    claim = (await journal.due("money", lease_ms=60_000))[0]
    await journal.done(claim, left=("payment", 1))
    assert await journal.due("money", lease_ms=500, now=claim.until + 1) == []


async def test_a_durable_commit_is_confirmed_by_the_append_only_file(journal: Journal) -> None:
    await journal.commit("ses_1", {"session": (0, {"x": "é"})}, durable=True)
    docs = await journal.read("ses_1", "session")
    assert docs["session"] is not None
    assert docs["session"].body == {"x": "é"}


async def test_a_refused_durable_commit_says_why(journal: Journal) -> None:
    with pytest.raises(Conflict) as caught:
        await journal.commit("ses_1", {"session": (3, {})}, durable=True)
    assert caught.value.code == "version_conflict"
    with pytest.raises(Conflict) as caught:
        await journal.commit("ses_1", {"session": (0, {})}, fence=Fence(1, "node-a"), durable=True)
    assert caught.value.code == "fenced"


async def test_durable_commits_of_one_moment_share_a_wait_and_nothing_else(journal: Journal) -> None:
    await journal.commit("ses_0", {"session": (0, {})})
    before = (await journal.redis.info("commandstats")).get("cmdstat_waitaof", {"calls": 0})["calls"]
    works = [journal.commit(f"ses_{n}", {"session": (0, {})}, durable=True) for n in range(20)]
    *made, refused = await asyncio.gather(*works[1:], works[0], return_exceptions=True)
    assert made == [{"session": 1}] * 19
    assert isinstance(refused, Conflict)
    assert (await journal.redis.info("commandstats"))["cmdstat_waitaof"]["calls"] == before + 1


async def test_those_who_wait_for_a_queue_are_told_whom_to_look_at(journal: Journal) -> None:
    calls = aiter(journal.calls("money"))
    first = asyncio.ensure_future(anext(calls))
    while not await journal.redis.publish("gateway:due:money", "ses_0"):
        await asyncio.sleep(0.01)
    assert await first == "ses_0"
    await journal.commit("ses_1", {"session": (0, {})}, due={"mail": NOW, "money": None})
    await journal.commit("ses_2", {"session": (0, {})}, due={"money": NOW})
    assert await anext(calls) == "ses_2"
    assert await journal.due("money", lease_ms=1000, of=["ses_1"]) == []
    assert [claim.session for claim in await journal.due("money", lease_ms=1000, of=["ses_2"])] == ["ses_2"]


async def test_changes_are_told(journal: Journal) -> None:
    changes = journal.changes()
    heard = asyncio.create_task(anext(changes))
    while not await journal.redis.pubsub_numsub(journal.channel) or (
        (await journal.redis.pubsub_numsub(journal.channel))[0][1] == 0
    ):
        await asyncio.sleep(0)
    await journal.commit("ses_1", {"session": (0, {})})
    assert await heard == "ses_1"
    await changes.aclose()
