"""Whole calls in one process: from the order over two callers' media to the receipts in two mailboxes."""

from __future__ import annotations

import asyncio
import time

from tests.integration.conftest import Site, Stand


async def test_law3_a_plain_paid_call_from_the_order_to_two_receipts(stand: Stand) -> None:
    session = await stand.paid()
    assert (session["payment"]["status"], session["payment"]["amount_held"]) == ("held", 180_000)
    before = time.monotonic()
    client, expert = await stand.pair(session, video=True)
    for caller in (client, expert):
        await caller.hears(20, "audio")
        await caller.hears(5, "video")
    await asyncio.sleep(1.5)
    await client.say("leave")
    for caller in (client, expert):
        ended = await caller.until("ended", reason="client_left", summary=...)
    longest = time.monotonic() - before
    final = await stand.settled(session["id"])
    seconds = final["billable_seconds"]
    assert 2 <= seconds <= longest
    assert final["amount_total"] == 100 * seconds == ended["summary"]["amount_total"]
    assert [intent["amount_received"] for intent in await stand.intents(session["id"])] == [100 * seconds]
    assert final["amount_total"] <= client.said("meter")[-1]["cost"], "law 9"
    for text in (await stand.mail_texts(session["id"])).values():
        assert f"{seconds}.00" in text


async def test_r10_the_marketplace_ends_a_call_in_the_middle_and_nothing_is_billed_after(stand: Stand) -> None:
    session = await stand.paid()
    client, expert = await stand.pair(session)
    await expert.hears(60)
    ended = await stand.post(f"/v1/sessions/{session['id']}/end", {"reason": "policy"})
    for caller in (client, expert):
        await caller.until("ended", reason="ended_by_api", summary=...)
        heard = caller.arrived["audio"]
        await asyncio.sleep(0.3)
        # What aiortc's jitter buffer still holds comes out after the cut; no more than that.
        assert caller.arrived["audio"] - heard < 15, "law 4"
    final = await stand.settled(session["id"])
    assert (final["end_reason"], final["ended_at"]) == ("ended_by_api", ended["ended_at"])
    assert final["amount_captured"] == 100 * final["billable_seconds"] > 0
    usage = await stand.get(f"/v1/sessions/{session['id']}/usage")
    assert max(row["ended_at"] for row in usage["intervals"]) <= final["ended_at"]


async def test_r06_a_call_at_its_cap_warns_both_and_bills_exactly_the_cap(site: Site) -> None:
    async with site.run("cap_seconds = 4\nwarnings = [3, 1]\n") as stand:
        session = await stand.paid()
        assert session["payment"]["amount_held"] == 400
        client, expert = await stand.pair(session)
        for caller in (client, expert):
            ended = await caller.until("ended", reason="cap_reached", summary=...)
            assert [(w["remaining"], w["reason"]) for w in caller.said("warning")] == [
                (3, "cap_ending"), (1, "cap_ending"),
            ]  # fmt: skip
            assert ended["summary"]["continue"] is True
        final = await stand.settled(session["id"])
        assert (final["billable_seconds"], final["amount_total"], final["amount_captured"]) == (4, 400, 400)


async def test_r06_both_go_on_after_the_cap_in_a_session_of_their_own(site: Site) -> None:
    async with site.run("cap_seconds = 2\nwarnings = [1]\n") as stand:
        session = await stand.paid()
        client, expert = await stand.pair(session)
        for caller in (client, expert):
            await caller.until("ended", reason="cap_reached", summary=...)
        await client.say("continue")
        await expert.until("continue", state="peer_wants")
        await expert.say("continue")
        agreed = [await caller.until("continue", state="agreed") for caller in (client, expert)]
        assert agreed[0]["session"] == agreed[1]["session"] != session["id"]
        for caller, told in zip((client, expert), agreed, strict=True):
            assert (await caller.join(token=told["token"]))["session"] == told["session"]
        for caller in (client, expert):
            await caller.hears(5)
        successor = await stand.get(f"/v1/sessions/{agreed[0]['session']}")
        assert (successor["payment"]["status"], successor["payment"]["amount_held"]) == ("held", 200)
        assert successor["reference"] == session["reference"]


async def test_r06_the_next_sessions_hold_is_placed_while_this_one_runs_and_only_once(stand: Stand) -> None:
    session = await stand.paid(max_minutes=5, reference="order-7")
    client, expert = await stand.pair(session)
    assert (await client.until("continue", state="possible"))["amount_max"] == 30_000
    for caller in (client, expert, client):
        await caller.say("continue")
    told = await client.until("continue", state="agreed")
    assert (told["payment"]["status"], told["payment"]["amount_held"]) == ("held", 30_000)
    assert (await expert.until("continue", state="agreed"))["payment"] == {"status": "held"}
    running, successor = [await stand.get(f"/v1/sessions/{id}") for id in (session["id"], told["session"])]
    assert (running["status"], running["payment"]["status"]) == ("live", "held")
    assert (running["continued_by"], successor["continues"]) == (successor["id"], running["id"])
    assert successor["reference"] == "order-7"
    for id in (session["id"], successor["id"]):
        assert [intent["status"] for intent in await stand.intents(id)] == ["requires_capture"]


async def test_r15_waived_in_the_call_releases_the_hold_and_both_receipts_say_why(stand: Stand) -> None:
    session = await stand.paid()
    client, expert = await stand.pair(session)
    await client.until("meter", billing="running")
    await asyncio.sleep(1)
    await stand.post(f"/v1/sessions/{session['id']}/waive")
    released = await stand.until(session["id"], waived=True)
    for caller in (client, expert):
        told = await caller.until("status", pricing=...)
        assert told["pricing"]["unit_amount"] == 0, "no price changes silently"
    await client.until("meter", billing="free")
    await client.hears(10)
    await expert.say("leave")
    final = await stand.settled(session["id"])
    assert released["limit_seconds"] == final["limit_seconds"] == session["limit_seconds"]
    assert final["payment"]["status"] == "released"
    assert final["amount_total"] == 0 < final["amount_metered"] == final["amount_waived"]
    assert [(i["status"], i["amount_received"]) for i in await stand.intents(session["id"])] == [("canceled", 0)]
    for text in (await stand.mail_texts(session["id"])).values():
        assert "waived" in text


async def test_r15_a_free_session_needs_no_card_and_costs_nothing(stand: Stand) -> None:
    session = await stand.order(None, kind="free", rate=None)
    assert (session["payment"]["status"], session["limit_seconds"]) == ("none", 900)
    client, _ = await stand.pair(session)
    await client.hears(30)
    await client.say("leave")
    ended = await client.until("ended", reason="client_left", summary=...)
    final = await stand.settled(session["id"])
    assert (final["amount_total"], ended["summary"]["amount_total"]) == (0, 0)
    assert await stand.intents(session["id"]) == []
    assert len(await stand.mail_texts(session["id"])) == 2


async def test_r06_one_who_stays_alone_is_sent_home_and_the_hold_is_released(stand: Stand) -> None:
    session = await stand.paid()
    client = stand.caller(session, "client")
    await client.join()
    await client.until("ended", reason="lone_party_timeout")
    final = await stand.until(session["id"], settled=True)
    assert (final["payment"]["status"], final["amount_total"]) == ("released", 0)
