"""Callers behind a firewall that passes TLS only: a real call through Debian's coturn, which reaches nothing but us."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

import pytest
from aioice import stun
from aioice.turn import create_turn_endpoint
from playwright.async_api import Browser, async_playwright

from gateway.signaling.turn import Turn
from tests.e2e.coturn import PROGRAM, SECRET, coturn
from tests.e2e.pages import CHROMIUM, FLAGS, Caller
from tests.e2e.stack import dev

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(240),
    pytest.mark.skipif(PROGRAM is None, reason="Debian's coturn is not installed"),
]

# What a network that passes TLS only comes to: the browser uses nothing but the TURN server.
RELAY_ONLY = """
const Original = RTCPeerConnection;
window.RTCPeerConnection = class extends Original {
  constructor(configuration) { super({ ...configuration, iceTransportPolicy: "relay" }); }
};
"""

PAIR = """async () => {
  const stats = await window.parley.peerConnection.getStats();
  let found = null;
  stats.forEach((r) => {
    if (r.type !== "transport" || !r.selectedCandidatePairId) return;
    const local = stats.get(stats.get(r.selectedCandidatePairId).localCandidateId);
    found = [local.candidateType, local.relayProtocol];
  });
  return found;
}"""


@pytest.fixture
async def trusting() -> Browser:  # type: ignore[misc]
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*FLAGS, "--ignore-certificate-errors"]
        )
        yield chromium
        await chromium.close()


async def test_a_call_through_turn_over_tls(tmp_path: Path, trusting: Browser) -> None:
    # The gateway of this test sits on the loopback, which coturn refuses unless it is told otherwise twice.
    async with coturn(tmp_path / "turn", allowed="127.0.0.1", extra=["allow-loopback-peers"]) as server:
        config = f'[turn]\nurls = ["{server.url}"]\nsecret = "{SECRET}"\n'
        async with dev(tmp_path / "dev", config) as gateway:
            session = await gateway.order()
            urls = session["participants"]
            client = await Caller.open(trusting, urls["client"]["url"], scripts=(RELAY_ONLY,))
            expert = await Caller.open(trusting, urls["expert"]["url"])
            for caller in (client, expert):
                await caller.join()
            for caller in (client, expert):
                await caller.sees(30)
                await caller.hears(30)
            assert await client.page.evaluate(PAIR) == ["relay", "tls"]
            await client.click("hangup")
            await client.summary()
            final = await gateway.settled(session["id"])
            assert final["amount_total"] == final["amount_captured"]


async def allocate(port: int, turn: Turn, now_ms: int | None = None):  # type: ignore[no-untyped-def]
    (server,) = turn.servers("ses_1", "client", time.time_ns() // 1_000_000 if now_ms is None else now_ms)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    transport, _ = await create_turn_endpoint(
        asyncio.DatagramProtocol, ("127.0.0.1", port), server.username, server.credential, ssl=context, transport="tcp"
    )
    return transport


@pytest.mark.parametrize("peer", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "192.0.2.1", "0.0.0.0"])
async def test_turn_reaches_no_address_but_the_relays(tmp_path: Path, peer: str) -> None:
    async with coturn(tmp_path) as server:
        transport = await allocate(server.port, Turn((server.url,), SECRET))
        inner = transport._TurnTransport__inner_protocol
        with pytest.raises(stun.TransactionFailed) as refused:
            await inner.channel_bind(0x4000, (peer, 6379))
        assert refused.value.response.attributes["ERROR-CODE"][0] == 403
        # What is allowed is: the address in media.advertise.
        await inner.channel_bind(0x4001, ("203.0.113.10", 3478))
        transport.close()


@pytest.mark.parametrize(("secret", "age_s"), [("another secret than coturn's", 0), (SECRET, 7_300)])
async def test_turn_serves_nobody_without_fresh_credentials(tmp_path: Path, secret: str, age_s: int) -> None:
    async with coturn(tmp_path) as server:
        with pytest.raises(stun.TransactionFailed) as refused:
            await allocate(server.port, Turn((server.url,), secret), time.time_ns() // 1_000_000 - age_s * 1000)
        assert refused.value.response.attributes["ERROR-CODE"][0] == 401
