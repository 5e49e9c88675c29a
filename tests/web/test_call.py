"""Two pages in one call: media both ways, controls, figures, warnings, the end and the way on."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import expect

from tests.web.conftest import Visit
from tests.web.conversation import call, connected, holds, join, picture, received, until
from tests.web.room import Room

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_r08_two_pages_see_and_hear_each_other(visit: Visit, room: Room) -> None:
    pages = await call(visit)
    for page in pages:
        await picture(page)
        assert await received(page, "audio") > 0
        await expect(page.get_by_test_id("quality")).to_have_attribute(
            "aria-label", "Connection: excellent", timeout=8000
        )
    await until(lambda: all(seat.of("stats") for seat in room.seats.values()))
    assert all(isinstance(value, str | int | float) for value in room.seats["client"].of("stats")[0].values())


async def test_r08_voice_becomes_video_and_voice_again_in_mid_call(visit: Visit, room: Room) -> None:
    room.media = "voice"
    client, expert = await call(visit)
    sections = "parley.peerConnection.getTransceivers().length"
    assert await client.evaluate(sections) == await expert.evaluate(sections) == 1
    await expert.get_by_test_id("camera").click()
    await picture(client)
    await client.get_by_test_id("camera").click()
    await picture(expert)
    await expert.get_by_test_id("camera").click()
    await expect(client.locator("#stage")).to_have_class("stage no-picture")
    assert await expert.evaluate("parley.localStream.getVideoTracks().length") == 0
    heard = await received(client, "audio")
    await holds(client, "parley.state === 'connected'")
    await until(lambda: room.seats["expert"].media == {"audio": True, "video": False})
    await asyncio.sleep(0.3)
    assert await received(client, "audio") > heard
    assert room.count == 1


async def test_r08_both_turn_their_cameras_on_at_once(visit: Visit, room: Room) -> None:
    room.media = "voice"
    client, expert = await call(visit)
    await asyncio.gather(*(page.get_by_test_id("camera").click() for page in (client, expert)))
    await asyncio.gather(picture(client), picture(expert))


async def test_r08_voice_only_from_the_start_by_choice(visit: Visit, room: Room) -> None:
    client = await visit("client")
    await expect(client.get_by_test_id("join")).to_be_enabled()
    await client.get_by_text("Voice only").click()
    await expect(client.get_by_test_id("camera")).to_have_attribute("aria-pressed", "false")
    await join(client)
    await until(lambda: bool(room.seats["client"].hellos))
    assert room.seats["client"].hellos[0]["media"] == {"audio": True, "video": False}


async def test_a_muted_microphone_is_told_and_sends_silence(visit: Visit, room: Room) -> None:
    client, expert = await call(visit)
    await client.get_by_test_id("mic").click()
    await until(lambda: room.seats["client"].media == {"audio": False, "video": True})
    assert await client.evaluate("parley.localStream.getAudioTracks()[0].enabled") is False
    await holds(expert, "parley.peer.media.audio === false")
    await client.get_by_test_id("mic").click()
    await until(lambda: room.seats["client"].media == {"audio": True, "video": True})


async def test_the_device_can_be_changed_in_mid_call(visit: Visit, room: Room) -> None:
    client, expert = await call(visit)
    await client.get_by_role("button", name="Devices").click()
    await expect(client.locator("#videoinput option")).to_have_text(["fake_device_0"])
    device = await client.evaluate("parley.activeDevice('videoinput')")
    before = await client.evaluate("parley.localStream.getVideoTracks()[0].id")
    await client.evaluate("(device) => parley.switchDevice('videoinput', device)", device)
    assert await client.evaluate("parley.localStream.getVideoTracks()[0].id") != before
    await picture(expert)


async def test_r05_the_client_sees_the_cost_and_the_expert_the_earnings(visit: Visit, room: Room) -> None:
    client, expert = await call(visit)
    await room.tick(120, "free")
    await expect(client.get_by_test_id("timer")).to_have_text("2:00")
    await expect(client.get_by_test_id("amount")).to_have_text("0.00 USD")
    await expect(client.locator("#billing")).to_have_text("Free")
    await room.tick(754)
    await expect(client.get_by_test_id("timer")).to_have_text("12:34")
    await expect(client.get_by_test_id("amount")).to_have_text("22.70 USD")
    await expect(expert.get_by_test_id("amount")).to_have_text("20.43 USD")
    await room.tick(754, "paused")
    await expect(expert.locator("#billing")).to_have_text("Paused")


async def test_r06_both_are_warned_also_by_screen_reader(visit: Visit, room: Room) -> None:
    pages = await call(visit)
    await room.tell({"type": "warning", "remaining": 600, "reason": "cap_ending"})
    for page in pages:
        warning = page.get_by_test_id("warning")
        await expect(warning).to_be_visible()
        await expect(warning).to_contain_text("10 minutes left")
        await expect(warning).to_have_attribute("aria-live", "assertive")
    await room.tell({"type": "warning", "remaining": 10, "reason": "free_ending"})
    await expect(pages[0].get_by_test_id("warning")).to_contain_text("Then it costs 3.00 USD a minute")


async def test_hanging_up_ends_in_a_summary_a_rating_and_a_receipt(visit: Visit, room: Room) -> None:
    client, expert = await call(visit)
    await client.get_by_test_id("hangup").click()
    for page, total in ((client, "75.00 USD"), (expert, "67.50 USD")):
        await expect(page.get_by_test_id("summary")).to_be_visible()
        await expect(page.get_by_test_id("summary-total")).to_have_text(total)
        await expect(page.get_by_test_id("receipt-link")).to_be_hidden()
        assert await page.evaluate("parley.localStream.getTracks().length") == 0
    await expect(client.get_by_text("You hung up.")).to_be_visible()
    await client.get_by_test_id("rating-4").click()
    await until(lambda: bool(room.seats["client"].of("rate")))
    await client.get_by_label("A word about it").fill("Clear and patient")
    await client.get_by_role("button", name="Send").click()
    await until(lambda: len(room.seats["client"].of("rate")) == 2)
    assert room.seats["client"].of("rate")[1] == {"type": "rate", "stars": 4, "comment": "Clear and patient"}
    await room.finish("client_left", receipt="/r/abc")
    await expect(client.get_by_test_id("receipt-link")).to_have_attribute("href", "/r/abc")


async def test_r06_both_go_on_in_a_new_session_on_the_same_page(visit: Visit, room: Room) -> None:
    client, expert = await call(visit)
    await client.evaluate("window.samePage = true")
    await room.finish("cap_reached", more=True)
    await client.get_by_test_id("continue").click()
    await expect(expert.get_by_test_id("continue")).to_have_text("Go on in a new call")
    await room.say("client", {"type": "continue", "state": "offered"})
    await expect(client.get_by_test_id("continue")).to_have_text("Asking Expert…")
    await expert.get_by_test_id("continue").click()
    await until(lambda: all(seat.of("continue") for seat in room.seats.values()))
    await room.go_on("ses_next")
    await holds(client, "parley.session === 'ses_next'")
    await connected(client, expert)
    assert await client.evaluate("window.samePage") is True
    await picture(client)


async def test_leaving_the_page_in_a_live_call_asks_first(visit: Visit, room: Room) -> None:
    client, _ = await call(visit)
    kinds: list[str] = []

    async def stay(dialog: object) -> None:
        kinds.append(dialog.type)  # type: ignore[attr-defined]
        await dialog.dismiss()  # type: ignore[attr-defined]

    client.on("dialog", stay)
    await client.evaluate("setTimeout(() => location.assign('/sdk/parley.d.ts'))")
    await until(lambda: kinds == ["beforeunload"])
    await connected(client)


async def test_the_session_ended_while_nobody_could_say_so(visit: Visit, room: Room) -> None:
    """Close code 4003 without `ended`: the link's own entry tells how it ended."""
    client, _ = await call(visit)
    room.end = {"reason": "ended_by_api", "summary": {**room.summary("client", 600), "receipt_url": "/r/x"}}
    socket = room.seats["client"].socket
    assert socket is not None
    await socket.close(code=4003)
    await expect(client.get_by_test_id("summary-total")).to_have_text("30.00 USD")
    await expect(client.get_by_test_id("receipt-link")).to_have_attribute("href", "/r/x")


async def test_both_connections_are_shown_by_the_gateways_word(visit: Visit, room: Room) -> None:
    client, _ = await call(visit)
    shown = client.get_by_test_id("quality")
    await expect(shown).to_have_attribute("data-quality", "excellent", timeout=8000)
    await room.say("client", {"type": "quality", "mine": "good", "peer": "poor"})
    await expect(shown).to_have_attribute("aria-label", "Connection: good. Expert’s connection: poor")
    await expect(client.get_by_test_id("peer-quality")).to_have_text("Expert’s connection: poor")
    await room.say("client", {"type": "quality", "mine": "excellent", "peer": "excellent"})
    await expect(shown).to_have_attribute("aria-label", "Connection: excellent. Expert’s connection: excellent")
    await expect(client.get_by_test_id("peer-quality")).to_be_empty()
