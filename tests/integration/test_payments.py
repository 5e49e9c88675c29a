"""Money before and during a call: cards that are refused or ask, holds that wait for the client, references."""

from __future__ import annotations

import asyncio

from tests.integration.conftest import Stand


async def test_r04_a_declined_card_never_goes_live_and_another_one_does(stand: Stand) -> None:
    session = await stand.paid(card="pm_card_chargeDeclined")
    assert (session["status"], session["payment"]["status"]) == ("created", "failed")
    assert session["payment"]["decline_code"] == "generic_decline"
    client, expert = stand.caller(session, "client"), stand.caller(session, "expert")
    for caller in (client, expert):
        await caller.join()
    await asyncio.sleep(1)
    assert client.arrived == expert.arrived == {"audio": 0, "video": 0}, "law 2"
    paid = await stand.post(f"/v1/sessions/{session['id']}/payment", {"payment_method": "pm_card_mastercard"})
    assert paid["payment"]["status"] == "held"
    for caller in (client, expert):
        await caller.until("status", status="live")
    await client.hears(60)
    await client.say("leave")
    final = await stand.settled(session["id"])
    assert final["payment"]["card"]["brand"] == "mastercard"
    received = sorted(intent["amount_received"] for intent in await stand.intents(session["id"]))
    assert received == [0, 100 * final["billable_seconds"]]


async def test_r04_with_hold_join_the_card_is_held_when_the_client_joins(stand: Stand) -> None:
    session = await stand.paid(hold="join")
    assert (session["status"], session["payment"]["status"]) == ("created", "awaiting_join")
    expert = stand.caller(session, "expert")
    await expert.join()
    assert await stand.intents(session["id"]) == []
    client = stand.caller(session, "client")
    await client.join(consent=True)
    await client.until("status", status="live")
    held = await stand.get(f"/v1/sessions/{session['id']}")
    assert (held["payment"]["status"], held["payment"]["amount_held"]) == ("held", 180_000)
    doc = (await stand.running.gateway.journal.read(session["id"], "session"))["session"]
    assert doc is not None
    assert (doc.body["consent"]["amount_max"], doc.body["consent"]["text_version"]) == (180_000, "1")


async def test_r04_with_hold_join_nothing_is_held_before_the_client_agrees_to_the_price(stand: Stand) -> None:
    session = await stand.paid(hold="join")
    client = stand.caller(session, "client")
    await client.join(consent=False)
    await client.until("error", code="consent_required")
    assert (await stand.get(f"/v1/sessions/{session['id']}"))["payment"]["status"] == "awaiting_join"
    assert await stand.intents(session["id"]) == []
    agrees = stand.caller(session, "client")
    await agrees.join()
    await agrees.until("status", status="ready")
    (intent,) = await stand.intents(session["id"])
    assert intent["status"] == "requires_capture"


async def test_r06_with_hold_join_too_nobody_waits_alone_for_ever(stand: Stand) -> None:
    session = await stand.paid(hold="join")
    client = stand.caller(session, "client")
    await client.join()
    await client.until("status", status="ready")
    await client.until("ended", reason="lone_party_timeout")
    assert (await stand.until(session["id"], settled=True))["payment"]["status"] == "released"


async def test_another_card_before_the_client_joined_waits_for_the_client_like_the_first(stand: Stand) -> None:
    session = await stand.paid(hold="join")
    async with asyncio.timeout(5):
        other = await stand.post(f"/v1/sessions/{session['id']}/payment", {"payment_method": "pm_card_mastercard"})
    assert other["payment"]["status"] == "awaiting_join"
    await stand.caller(session, "client").join()
    held = await stand.until(session["id"], status="ready")
    assert held["payment"]["card"]["brand"] == "mastercard"


async def test_r04_a_card_that_asks_makes_the_session_ready_when_its_owner_said_yes(stand: Stand) -> None:
    session = await stand.paid(card="pm_card_authenticationRequired")
    assert (session["status"], session["payment"]["status"]) == ("created", "action_required")
    client, expert = stand.caller(session, "client"), stand.caller(session, "expert")
    assert (await expert.enter())["payment"] == {"status": "action_required"}
    asked = (await client.enter())["payment"]["action_url"]
    async with stand.http.post(asked, data={"verdict": "approve"}, allow_redirects=False) as answer:
        assert answer.status == 303
    await stand.until(session["id"], status="ready")
    for caller in (client, expert):
        await caller.join()
    for caller in (client, expert):
        await caller.until("status", status="live")


async def test_r04_a_card_whose_owner_said_no_is_declined_and_another_one_serves(stand: Stand) -> None:
    session = await stand.paid(card="pm_card_authenticationRequired")
    (intent,) = await stand.intents(session["id"])
    await stand.private(f"payment_intents/{intent['id']}/authenticate", approved=False)
    client = stand.caller(session, "client")
    await client.join()
    async with asyncio.timeout(10):
        while (await stand.get(f"/v1/sessions/{session['id']}"))["payment"]["status"] != "failed":
            await asyncio.sleep(0.05)
    await stand.post(f"/v1/sessions/{session['id']}/payment", {"payment_method": "pm_card_visa"})
    await client.until("status", status="ready")


async def test_a_reference_belongs_to_one_unfinished_session_also_when_both_come_at_once(stand: Stand) -> None:
    terms = await stand.terms(reference="order-1")
    answers = await asyncio.gather(*(stand.call("POST", "/v1/sessions", terms) for _ in range(4)))
    made = [body["id"] for status, body in answers if status == 201]
    refused = [(status, body["code"], body["session"]) for status, body in answers if status != 201]
    assert len(made) == 1
    assert refused == [(409, "reference_in_use", made[0])] * 3
    await stand.post(f"/v1/sessions/{made[0]}/end")
    assert (await stand.order(reference="order-1"))["id"] != made[0]
