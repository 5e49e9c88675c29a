"""Calls over real networks, each caller in a namespace of its own: UDP blocked, addresses that change, loss."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import async_playwright

from tests.e2e.namespaces import USABLE, Network, network
from tests.e2e.pages import FLAGS, Caller
from tests.e2e.stack import dev

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not USABLE, reason="network namespaces need root, iproute2 and nftables"),
]

PROTOCOL = """async () => {
  const stats = await window.parley.peerConnection.getStats();
  let protocol = null;
  stats.forEach((r) => {
    if (r.type === "transport" && r.selectedCandidatePairId)
      protocol = stats.get(stats.get(r.selectedCandidatePairId).localCandidateId).protocol;
  });
  return protocol;
}"""

# Whoever makes another connection, or does DTLS again in this one, shows here.
MARK = """() => {
  const pc = window.parley.peerConnection;
  pc.marked = [];
  const dtls = pc.getSenders()[0].transport;
  dtls.addEventListener("statechange", () => pc.marked.push(dtls.state));
}"""

RECEIVED = """async () => {
  let packets = 0;
  (await window.parley.peerConnection.getStats()).forEach((r) => {
    if (r.type === "inbound-rtp") packets += r.packetsReceived;
  });
  return packets;
}"""


@asynccontextmanager
async def callers(tmp_path: Path, networks: list[Network]) -> AsyncIterator[tuple[Any, dict[str, Any], list[Caller]]]:
    """A gateway at the first network's end, and a page joined to one session from each network."""
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(dev(tmp_path / "dev", host=networks[0].gateway))
        session = await gateway.order()
        playwright = await stack.enter_async_context(async_playwright())
        found = []
        for role, where in zip(("client", "expert"), networks, strict=True):
            browser = await playwright.chromium.launch(
                executable_path=where.browser(tmp_path),
                args=[*FLAGS, f"--unsafely-treat-insecure-origin-as-secure={gateway.url}"],
            )
            stack.push_async_callback(browser.close)
            found.append(await Caller.open(browser, session["participants"][role]["url"]))
        for caller in found:
            await caller.join()
        yield gateway, session, found


@pytest.fixture
def networks() -> Any:
    with ExitStack() as stack:
        yield [stack.enter_context(network(number)) for number in (1, 2)]


async def test_blocked_udp_means_tcp_and_nobody_is_told(tmp_path: Path, networks: list[Network]) -> None:
    networks[0].firewall("meta l4proto udp drop")
    async with callers(tmp_path, networks) as (_, _, (client, expert)):
        for caller in (client, expert):
            await caller.sees(20)
            await caller.hears(20)
        assert await client.page.evaluate(PROTOCOL) == "tcp"
        assert await expert.page.evaluate(PROTOCOL) == "udp"
        await client.click("hangup")
        await client.summary()


async def media_back(caller: Caller, since: float) -> float:
    """Seconds from `since` until packets come in again; those still under way when it begins do not count."""
    await asyncio.sleep(0.2)
    before = await caller.page.evaluate(RECEIVED)
    while await caller.page.evaluate(RECEIVED) <= before:
        assert time.monotonic() - since < 10
        await asyncio.sleep(0.05)
    return time.monotonic() - since


async def test_a_new_address_in_mid_call_and_the_media_is_back_without_a_new_handshake(
    tmp_path: Path, networks: list[Network]
) -> None:
    async with callers(tmp_path, networks) as (_, _, (client, expert)):
        for caller in (client, expert):
            await caller.sees(20)
        await asyncio.sleep(3)
        await client.page.evaluate(MARK)
        networks[0].move()
        moved = time.monotonic()
        back = await asyncio.gather(*(media_back(caller, moved) for caller in (client, expert)))
        assert max(back) < 3, back
        assert await client.page.evaluate("window.parley.peerConnection.marked") == []


async def test_a_call_holds_at_a_fifth_lost(tmp_path: Path, networks: list[Network]) -> None:
    async with callers(tmp_path, networks) as (gateway, session, (client, expert)):
        for caller in (client, expert):
            await caller.sees(20)
        networks[0].firewall("meta l4proto udp numgen random mod 100 < 20 drop")
        for _ in range(5):
            before = [await caller.page.evaluate(RECEIVED) for caller in (client, expert)]
            await asyncio.sleep(2)
            after = [await caller.page.evaluate(RECEIVED) for caller in (client, expert)]
            assert all(new > old for old, new in zip(before, after, strict=True))
        assert (await gateway.get(f"/v1/sessions/{session['id']}"))["status"] == "live"
