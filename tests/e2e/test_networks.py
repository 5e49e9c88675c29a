"""Calls over real networks, each caller in a namespace of its own: UDP blocked, addresses that change, loss."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.browsers import WITH_FIREFOX, Engine, callers, chromium, firefox
from tests.e2e.line import Line
from tests.e2e.namespaces import NEEDS, USABLE, Network, network
from tests.e2e.pages import Caller, truth_seconds
from tests.e2e.stack import Dev
from tests.e2e.test_calls import check_bill

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not USABLE, reason=NEEDS),
]

# Firefox marks the pair in use, Chromium's transport names it.
PROTOCOL = """async () => {
  const stats = await window.parley.peerConnection.getStats();
  let protocol = null;
  stats.forEach((r) => {
    const pair = r.selected ? r : r.selectedCandidatePairId && stats.get(r.selectedCandidatePairId);
    if (pair) protocol = stats.get(pair.localCandidateId).protocol;
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


async def meet(*pair: Caller) -> None:
    """Both join, and see and hear each other."""
    for caller in pair:
        await caller.join()
    for caller in pair:
        await caller.sees(20)
        await caller.hears(20)


@pytest.fixture
def networks() -> Any:
    with ExitStack() as stack:
        yield [stack.enter_context(network(number)) for number in (1, 2)]


async def media_back(caller: Caller, since: float) -> float:
    """Seconds from `since` until packets come in again; those still under way when it begins do not count."""
    await asyncio.sleep(0.2)
    before = await caller.page.evaluate(RECEIVED)
    while await caller.page.evaluate(RECEIVED) <= before:
        assert time.monotonic() - since < 10
        await asyncio.sleep(0.05)
    return time.monotonic() - since


async def moved(wire: Network, *pair: Caller) -> None:
    """Gives the network another address; the media is back within 3 s."""
    wire.move()
    since = time.monotonic()
    back = await asyncio.gather(*(media_back(caller, since) for caller in pair))
    assert max(back) < 3, back


@pytest.mark.parametrize("engine", [chromium, pytest.param(firefox, marks=WITH_FIREFOX)])
async def test_blocked_udp_means_tcp_also_after_a_move_and_nobody_is_told(
    tmp_path: Path, networks: list[Network], engine: Engine
) -> None:
    networks[0].firewall("meta l4proto udp drop")
    async with callers(tmp_path, networks, (engine, chromium)) as (_, _, (client, expert)):
        await meet(client, expert)
        assert await client.page.evaluate(PROTOCOL) == "tcp"
        assert await expert.page.evaluate(PROTOCOL) == "udp"
        certificates = await expert.certificates()
        await moved(networks[0], client, expert)
        assert await client.page.evaluate(PROTOCOL) == "tcp"
        assert await expert.certificates() == certificates, "the same handshake"
        await client.click("hangup")
        await client.summary()


async def test_a_new_address_in_mid_call_and_the_media_is_back_without_a_new_handshake(
    tmp_path: Path, networks: list[Network]
) -> None:
    async with callers(tmp_path, networks) as (_, _, (client, expert)):
        await meet(client, expert)
        await asyncio.sleep(3)
        await client.page.evaluate(MARK)
        await moved(networks[0], client, expert)
        assert await client.page.evaluate("window.parley.peerConnection.marked") == []


async def test_at_200_ms_and_a_fifth_lost_each_way_a_call_comes_up_holds_and_is_billed_right(tmp_path: Path) -> None:
    line = Line()
    with network(1, line) as far, network(2) as near:
        line.open()
        async with callers(tmp_path, [far, near]) as (gateway, session, (client, expert)):
            line.delay_s, line.loss = 0.2, 0.2
            await meet(client, expert)
            for _ in range(3):
                before = [await caller.page.evaluate(RECEIVED) for caller in (client, expert)]
                await asyncio.sleep(2)
                after = [await caller.page.evaluate(RECEIVED) for caller in (client, expert)]
                assert all(new > old for old, new in zip(before, after, strict=True))
            assert (await gateway.get(f"/v1/sessions/{session['id']}"))["status"] == "live"
            await expert.click("hangup")
            shown = await client.summary()
            await check_bill(gateway, session, await truth_seconds(client, expert), shown)


async def rated(caller: Caller, seconds: float, **wanted: tuple[str, ...]) -> None:
    """Wait until the page shows one of the wanted steps: `quality` of its own connection, `peer` of the other's."""
    seen: dict[str, str] = {}
    async with asyncio.timeout(seconds):
        while not all(seen.get(name) in steps for name, steps in wanted.items()):
            seen = await caller.page.evaluate("({ ...document.getElementById('quality').dataset })")
            await asyncio.sleep(0.1)


async def counted(gateway: Dev, *figures: str) -> None:
    """Wait until the metrics say so; the relay's come to them every few seconds."""
    metrics = ""
    async with asyncio.timeout(10):
        while not all(figure in metrics for figure in figures):
            async with gateway.http.get(f"{gateway.private}/metrics") as answer:
                metrics = await answer.text()
            await asyncio.sleep(0.1)


async def test_both_pages_show_whose_connection_loses_and_who_is_silent_and_that_it_is_over(
    tmp_path: Path, networks: list[Network]
) -> None:
    fine, wire = ("excellent", "good"), networks[0]
    async with callers(tmp_path, networks) as (gateway, _, (client, expert)):
        await meet(client, expert)
        for caller in (client, expert):
            await rated(caller, 10, quality=fine, peer=fine)
        wire.firewall("meta l4proto udp numgen random mod 100 < 20 drop")
        await rated(client, 10, quality=("poor",), peer=fine)
        await rated(expert, 10, quality=fine, peer=("poor",))
        assert await expert.text("peer-quality") == "Client’s connection: poor"
        wire.open()
        for caller in (client, expert):
            await rated(caller, 20, quality=fine, peer=fine)
        # What is neither STUN nor DTLS: the client's checks go on, its media does not leave.
        wire.firewall("meta l4proto udp @th,64,8 >= 128 drop", hooks=("output",))
        await rated(client, 10, quality=("lost",), peer=fine)
        await rated(expert, 10, quality=fine, peer=("lost",))
        await counted(gateway, "gateway_relay_one_way_calls 1.0", "gateway_relay_silent_legs 1.0")
        wire.open()
        for caller in (client, expert):
            await rated(caller, 10, quality=fine, peer=fine)
