"""Sockets that drop, pages that reload, calls opened twice, media that stalls: the call goes on."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import expect

from tests.web.conftest import Visit
from tests.web.conversation import call, connected, holds, picture, received, until
from tests.web.room import Room

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

MARK = "parley.peerConnection.marked = true"
MARKED = "parley.peerConnection.marked === true"


async def test_a_dropped_socket_resumes_with_proof_and_the_call_goes_on(visit: Visit, room: Room) -> None:
    client, _expert = await call(visit)
    seat = room.seats["client"]
    await client.evaluate(MARK)
    before = await received(client, "audio")
    await client.evaluate("parley.simulate('socket-drop')")
    await until(lambda: len(seat.hellos) == 2)
    hello = seat.hellos[1]
    assert hello["resume"]
    assert hello["proof"]
    assert "token" not in hello
    assert hello["generation"] == {"mine": 1, "peer": 1, "transport": hello["generation"]["transport"]}
    await holds(client, "parley.signaling.open")
    assert await client.evaluate(MARKED)
    assert await received(client, "audio") > before
    assert room.count == 1


async def test_the_secret_rotates_and_the_key_cannot_be_taken_out(visit: Visit, room: Room) -> None:
    client, _ = await call(visit)
    for drops in (1, 2):
        await client.evaluate("parley.simulate('socket-drop')")
        await until(lambda drops=drops: len(room.seats["client"].hellos) == drops + 1)
        await holds(client, "parley.signaling.open")
    first, second = (hello["resume"] for hello in room.seats["client"].hellos[1:])
    assert first != second
    exported = await client.evaluate(
        """() => new Promise((resolve) => {
             indexedDB.open("parley").onsuccess = ({ target: { result: db } }) => {
               db.transaction("keys").objectStore("keys").getAll().onsuccess = ({ target: { result: [pair] } }) =>
                 crypto.subtle.exportKey("jwk", pair.privateKey).then(() => resolve("taken"), (e) => resolve(e.name));
             };
           })"""
    )
    assert exported == "InvalidAccessError"


async def test_a_second_socket_is_made_before_the_first_is_broken(visit: Visit, room: Room) -> None:
    client, _ = await call(visit)
    await client.evaluate(
        "window.down = 0; parley.addEventListener('signaling', ({ detail }) => (window.down += !detail.open))"
    )
    await client.evaluate("parley.simulate('socket-doubt')")
    await until(lambda: len(room.seats["client"].hellos) == 2)
    await asyncio.sleep(0.2)
    assert await client.evaluate("[parley.state, parley.signaling.open, window.down]") == ["connected", True, 0]


@pytest.mark.parametrize("role", ["client", "expert"])
async def test_a_reloaded_page_walks_straight_back_in(visit: Visit, room: Room, role: str) -> None:
    pages = dict(zip(("client", "expert"), await call(visit), strict=True))
    survivor = pages["expert" if role == "client" else "client"]
    await survivor.evaluate(MARK)
    await pages[role].get_by_test_id("mic").click()
    await pages[role].reload()
    await until(lambda: len(room.seats[role].hellos) == 2)
    await expect(survivor.locator("#toast")).to_have_text(f"{role.title()} is back. The signs for comparison are new.")
    assert room.seats[role].hellos[1]["generation"] is None
    assert room.seats[role].hellos[1]["resume"]
    assert room.seats[role].hellos[1]["media"] == {"audio": False, "video": True}
    await connected(*pages.values())
    await asyncio.gather(*(picture(page) for page in pages.values()))
    assert not await survivor.evaluate(MARKED)
    assert room.count == 2


async def test_a_refused_resume_enters_by_the_link_again(visit: Visit, room: Room) -> None:
    client, expert = await call(visit)
    room.seats["client"].resume = "forgotten"
    await client.evaluate("parley.simulate('socket-drop')")
    await until(lambda: len(room.seats["client"].hellos) == 2)
    assert room.seats["client"].hellos[1]["token"] == room.seats["client"].token
    await connected(client, expert)


async def test_opened_elsewhere_is_final_until_use_here(visit: Visit, room: Room) -> None:
    first, expert = await call(visit)
    second = await visit("client")
    await second.get_by_test_id("join").click()
    await expect(first.get_by_role("heading", name="The call moved to another window")).to_be_visible()
    await connected(second, expert)
    hellos = len(room.seats["client"].hellos)
    await asyncio.sleep(0.5)
    assert len(room.seats["client"].hellos) == hellos
    await first.get_by_role("button", name="Use here").click()
    await connected(first, expert)
    await picture(first)
    await expect(second.get_by_role("button", name="Use here")).to_be_visible()


async def test_a_gateway_that_is_away_is_said_and_awaited(visit: Visit, room: Room) -> None:
    client, _expert = await call(visit)
    await room.tick(400)
    await expect(client.locator("#billing")).to_have_text("Running")
    room.away = True
    await client.evaluate("parley.simulate('socket-drop')")
    await expect(client.get_by_test_id("status")).to_contain_text("The gateway is away, your call goes on")
    await expect(client.locator("#billing")).to_have_text("Reconnecting…")
    before = await received(client, "audio")
    room.away = False
    await connected(client)
    await expect(client.locator("#billing")).to_have_text("Running")
    assert await received(client, "audio") > before


async def test_a_stall_brings_a_second_socket_and_an_ice_restart(visit: Visit, room: Room) -> None:
    client, expert = await call(visit)
    await picture(client)
    await client.evaluate(MARK)
    offers, theirs = (len(room.seats[role].of("description")) for role in ("client", "expert"))
    room.relay.legs["client"].cut = True
    await holds(client, "parley.state === 'reconnecting'")
    await until(lambda: len(room.seats["client"].hellos) >= 2)
    await until(lambda: len(room.seats["client"].of("description")) > offers)
    assert room.seats["client"].of("description")[-1]["kind"] == "offer"
    assert all(told["kind"] == "answer" for told in room.seats["expert"].of("description")[theirs:]), "both at once"
    room.relay.legs["client"].cut = False
    await connected(client, expert)
    assert await client.evaluate(MARKED)
    await picture(client)


async def test_no_restart_while_the_peer_is_reported_absent(visit: Visit, room: Room) -> None:
    client, expert = await call(visit)
    await picture(client)
    await expert.context.close()
    await holds(client, "parley.peer.state === 'reconnecting'")
    offers = len(room.seats["client"].of("description"))
    await asyncio.sleep(2.5)
    assert len(room.seats["client"].of("description")) == offers
    await expect(client.get_by_test_id("status")).to_have_text("Expert is reconnecting…")


async def test_a_restart_by_order_keeps_dtls_and_carries_the_generation(visit: Visit, room: Room) -> None:
    client, expert = await call(visit)
    await client.evaluate(MARK)
    generation = {"mine": 1, "peer": 1, "transport": room.seats["client"].transport + 1}
    offers = len(room.seats["client"].of("description"))
    await room.say("client", {"type": "restart", "reason": "drain", "generation": generation})
    await until(lambda: len(room.seats["client"].of("description")) > offers)
    offer = room.seats["client"].of("description")[offers]
    assert offer["kind"] == "offer"
    assert offer["generation"]["transport"] >= generation["transport"]
    await connected(client, expert)
    assert await client.evaluate(MARKED)
    await picture(expert)


async def test_stale_descriptions_change_nothing(visit: Visit, room: Room) -> None:
    client, _expert = await call(visit)
    sdp = room.seats["expert"].of("description")[0]["sdp"]
    old = {"mine": 0, "peer": 0, "transport": 1}
    await room.say("client", {"type": "description", "sdp": sdp, "kind": "offer", "generation": old})
    await room.say("client", {"type": "error", "code": "stale", "message": "old", "fatal": False})
    await asyncio.sleep(0.3)
    assert await client.evaluate("[parley.state, parley.peerConnection.signalingState]") == ["connected", "stable"]
    await expect(client.locator("#toast")).to_be_hidden()
