"""Who may sit where: resume secrets bound to the page's key, seats that are taken over, links of the wrong side."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.caller import Key
from tests.integration.conftest import Stand


async def test_law7_a_page_comes_back_on_a_new_socket_and_its_media_never_stopped(stand: Stand) -> None:
    session = await stand.paid()
    client, expert = await stand.pair(session, bound=True)
    before = client.connection
    for _ in range(2):
        await client.disconnect()
        await expert.hears(10)
        assert (await client.return_())["type"] == "welcome"
    assert client.connection is before
    for caller in (client, expert):
        await caller.hears(10)
    assert (await stand.get(f"/v1/sessions/{session['id']}"))["status"] == "live"
    await client.say("leave")
    await stand.settled(session["id"])
    usage = await stand.get(f"/v1/sessions/{session['id']}/usage")
    assert len(usage["intervals"]) == 1


@pytest.mark.parametrize("proof", ["", "AAAA", Key().proof("nonce")], ids=["none", "short", "of another key"])
async def test_law7_a_secret_without_its_keys_proof_opens_nothing(stand: Stand, proof: str) -> None:
    session = await stand.paid()
    client, stranger = (stand.caller(session, "client", bound=True) for _ in range(2))
    await client.join()
    said = {"resume": client.resume} | ({"proof": proof} if proof else {})
    assert (await stranger.hello(**said))["code"] == "resume_invalid"
    assert await stranger.closed() == 4001
    assert client.close_code is None


async def test_law7_a_proof_of_an_older_nonce_and_a_used_secret_open_nothing(stand: Stand) -> None:
    client = stand.caller(await stand.paid(), "client", bound=True)
    await client.join()
    assert client.key is not None
    secrets = [(client.resume, client.nonce)]
    for _ in range(2):
        assert (await client.return_())["type"] == "welcome"
        secrets.append((client.resume, client.nonce))
    (first, first_nonce), _, (newest, _) = secrets
    for resume, nonce in ((first, first_nonce), (newest, first_nonce)):
        refused = await client.return_(resume=resume, proof=client.key.proof(nonce))
        assert refused["code"] == "resume_invalid"
        assert await client.closed() == 4001
    assert (await client.return_())["type"] == "welcome"


async def test_law7_one_sides_secret_does_not_open_the_others_seat(stand: Stand) -> None:
    session = await stand.paid()
    client, expert = (stand.caller(session, role, bound=True) for role in ("client", "expert"))
    for caller in (client, expert):
        await caller.join()
    theirs = expert.resume
    for resume in (theirs, theirs.replace(".expert.", ".client."), client.resume.replace(".client.", ".expert.")):
        assert (await client.return_(resume=resume))["code"] == "resume_invalid"
        assert await client.closed() == 4001
    assert expert.close_code is None


async def test_law7_a_join_token_is_spent_once_its_leg_is_heard_also_if_the_page_resumed_before(stand: Stand) -> None:
    session = await stand.paid()
    client, expert = stand.caller(session, "client"), stand.caller(session, "expert")
    token = (await client.enter())["token"]
    await client.join(token=token)
    await client.return_()
    await expert.join()
    await client.until("status", status="live")
    await client.hears(20)
    stranger = stand.caller(session, "client")
    assert (await stranger.hello(token=token))["code"] == "token_used"
    assert await stranger.closed() == 4001


async def test_r02_a_second_page_takes_the_seat_and_the_call_goes_on_there(stand: Stand) -> None:
    session = await stand.paid()
    client, expert = await stand.pair(session)
    await expert.hears(20)
    second = stand.caller(session, "client")
    assert (await second.join())["generation"]["mine"] == 2
    assert (await client.until("error"))["code"] == "replaced"
    assert await client.closed() == 4002
    assert (await expert.until("peer", replaced=True))["generation"]["mine"] == 2
    await client.close()
    for caller in (second, expert):
        await caller.hears(20)
    await expert.say("leave")
    final = await stand.settled(session["id"])
    assert final["amount_captured"] == final["amount_total"] == 100 * final["billable_seconds"]
    usage = await stand.get(f"/v1/sessions/{session['id']}/usage")
    assert usage["union_ms"] == sum(interval["ms"] for interval in usage["intervals"]), "law 3"


async def test_who_is_told_by_whom_that_the_other_is_there(stand: Stand) -> None:
    session = await stand.paid()
    client, expert = await stand.pair(session)
    assert (await client.until("peer", state="connected"))["media"] == {"audio": True, "video": False}
    await expert.say("media", audio=False, video=True)
    await client.until("peer", media={"audio": False, "video": True})
    await expert.disconnect()
    await client.until("peer", state="connected")
    await asyncio.sleep(0)
    await expert.return_()
    await expert.say("rate", stars=5, comment="clear")
    async with asyncio.timeout(5):
        while "session.rated" not in [event["type"] for event in await stand.events(session["id"])]:
            await asyncio.sleep(0.05)
