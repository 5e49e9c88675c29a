"""What goes wrong in the world: cards, links, strangers, and a gateway that is killed in a call."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Browser

from tests.conftest import free_port
from tests.e2e.pages import Caller, truth_seconds
from tests.e2e.stack import Dev, dev
from tests.e2e.test_calls import pair

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

HELLO = {"type": "hello", "sdk": "test/1", "media": {"audio": True, "video": True}}


async def say(gateway: Dev, first: str | bytes) -> tuple[list[dict[str, Any]], int | None]:
    """Open a signaling socket, send one frame, and give what came back until it was closed."""
    heard: list[dict[str, Any]] = []
    async with gateway.http.ws_connect(gateway.url + "/v1/signal", protocols=["parley.v1"]) as socket:
        await (socket.send_bytes(first) if isinstance(first, bytes) else socket.send_str(first))
        async with asyncio.timeout(10):
            async for message in socket:
                heard.append(json.loads(message.data))
        return heard, socket.close_code


async def test_r04_a_declined_card_never_goes_live_and_a_second_card_does(gateway: Dev, browser: Browser) -> None:
    session = await gateway.order("pm_card_chargeDeclined")
    assert session["payment"]["status"] == "failed"
    assert session["payment"]["decline_code"] == "generic_decline"
    client = await Caller.open(browser, session["participants"]["client"]["url"])
    expert = await Caller.open(browser, session["participants"]["expert"]["url"])
    await expert.join()
    await expert.page.wait_for_timeout(1500)
    found = await gateway.get(f"/v1/sessions/{session['id']}")
    assert (found["status"], found["started_at"]) == ("created", None)
    status, paid = await gateway.call(
        "POST", f"/v1/sessions/{session['id']}/payment", {"payment_method": "pm_card_mastercard"}
    )
    assert (status, paid["payment"]["status"], paid["status"]) == (200, "held", "ready")
    await client.page.reload()
    await client.join()
    await client.sees()
    await asyncio.sleep(3)
    await client.click("hangup")
    final = await gateway.settled(session["id"])
    assert final["payment"]["card"]["brand"] == "mastercard"
    intents = [i for i in (await gateway.sandbox())["payment_intents"] if i["metadata"]["session"] == session["id"]]
    assert sorted(i["amount_received"] for i in intents) == [0, final["amount_total"]]
    assert not any(i["status"] == "requires_capture" for i in intents)


async def test_law7_spent_expired_and_foreign_tokens_open_nothing(gateway: Dev, browser: Browser) -> None:
    session = await gateway.order()
    spent = session["participants"]["client"]["token"]
    client = await Caller.open(browser, gateway.url + "/call#" + spent)
    expert = await Caller.open(browser, session["participants"]["expert"]["url"])
    for caller in (client, expert):
        await caller.join()
    await client.sees()
    header, claims, _ = spent.split(".")
    for token in (
        "",
        "x",
        spent[:-4] + "AAAA",
        f"{header}.{claims}.",
        session["participants"]["client"]["url"].split("#")[1],
    ):
        heard, close = await say(gateway, json.dumps({**HELLO, "token": token or "-"}))
        assert heard[-1]["type"] == "error"
        assert heard[-1]["code"] in ("token_invalid", "bad_message")
        assert close in (4000, 4001)
    found = await gateway.get(f"/v1/sessions/{session['id']}")
    assert found["status"] == "live"
    await client.click("hangup")


async def test_law7_strangers_and_nonsense_get_errors_or_silence_and_the_call_goes_on(
    gateway: Dev, browser: Browser
) -> None:
    session = await gateway.order()
    client, expert = await pair(browser, session)
    cases: list[tuple[str | bytes, int]] = [
        ("{", 4000), ("[]", 4000), ('{"type":"hello"}', 4000), ('{"type":"leave"}', 4000),
        (b"\x00\x01", 4004), ("x" * 70_000, 4004),
        (json.dumps({**HELLO, "resume": f"{session['id']}.client.AAAA"}), 4001),
    ]  # fmt: skip
    for first, code in cases:
        heard, close = await say(gateway, first)
        assert close == code, (first[:30], heard, close)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.settimeout(0.3)
        for junk in (b"", b"\x00", os.urandom(1), os.urandom(1200), b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12),
                     b"\x16\xfe\xfd" + os.urandom(200), b"\x80\x60" + os.urandom(800)):  # fmt: skip
            stranger.sendto(junk, ("127.0.0.1", gateway.media_port))
        with pytest.raises(TimeoutError):
            stranger.recv(2048)
    for path in ("/v1/sessions", "/v1/sessions/ses_x", "/metrics", "/livez"):
        async with gateway.http.get(gateway.url + path) as answer:
            assert answer.status in (401, 404)
    status, problem = await gateway.call("POST", "/v1/sessions", {"rate": "free"})
    assert (status, problem["type"].split("/")[-1] != "") == (400, True)
    assert problem["code"]
    before = len(await expert.changes())
    await asyncio.sleep(1)
    assert len(await expert.changes()) > before
    await client.click("hangup")


GRACE = "[session]\ngrace_seconds = 6\n"


async def test_law3_law5_killed_in_a_call_and_started_again_bills_once_and_no_more(
    tmp_path: Path, browser: Browser
) -> None:
    ports = (free_port(), free_port(), free_port())
    async with dev(tmp_path, GRACE, ports) as gateway:
        session = await gateway.order()
        client, expert = await pair(browser, session)
        await asyncio.sleep(8)
        await gateway.kill()
    truth = await truth_seconds(client, expert)
    for caller in (client, expert):
        await caller.context.close()
    async with dev(tmp_path, GRACE, ports) as again:
        final = await again.settled(session["id"], 60)
        assert final["end_reason"] in ("node_lost", "connection_lost")
        assert final["billable_seconds"] <= truth + 0.25
        assert final["billable_seconds"] >= truth - 2.5, "a crash loses at most a second, and the floor another"
        intents = [i for i in (await again.sandbox())["payment_intents"] if i["metadata"]["session"] == session["id"]]
        assert [i["amount_received"] for i in intents] == [final["amount_total"]]
        types = [event["type"] for event in await again.events(session["id"])]
        assert types.count("session.finalized") == 1


async def test_pages_find_a_restarted_gateway_and_the_call_goes_on_without_a_new_handshake(
    tmp_path: Path, browser: Browser
) -> None:
    ports = (free_port(), free_port(), free_port())
    async with dev(tmp_path, "", ports) as gateway:
        session = await gateway.order()
        client, expert = await pair(browser, session)
        certificates = await client.certificates()
        await asyncio.sleep(3)
        await gateway.kill()
    async with dev(tmp_path, "", ports) as again:
        async with asyncio.timeout(40):
            while (await again.get(f"/v1/sessions/{session['id']}"))["status"] != "live":
                await asyncio.sleep(0.2)
        before = len(await client.changes())
        async with asyncio.timeout(20):
            while len(await client.changes()) < before + 10:
                await asyncio.sleep(0.2)
        assert await client.certificates() == certificates
        await client.click("hangup")
        await client.summary()
        final = await again.settled(session["id"])
        assert final["end_reason"] == "client_left"
        assert final["billable_seconds"] <= await truth_seconds(client, expert) + 0.25


async def test_the_receipt_opens_by_its_link_and_by_no_other(gateway: Dev, browser: Browser) -> None:
    session = await gateway.order()
    client, _expert = await pair(browser, session)
    await asyncio.sleep(3)
    await client.click("hangup")
    await client.page.wait_for_selector(client.id("receipt-link"), timeout=15_000)
    link = await client.page.get_attribute(client.id("receipt-link"), "href")
    final = await gateway.settled(session["id"])
    assert link is not None
    async with aiohttp.ClientSession() as http:
        async with http.get(link if link.startswith("http") else gateway.url + link) as page:
            assert page.status == 200
            assert f"{final['amount_total'] / 100:.2f}" in await page.text()
        async with http.get(gateway.url + "/r/" + "A" * 32) as page:
            assert page.status == 404
