"""Two real pages whose network passes no UDP: the same call, by TCP, and neither page is told."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Browser

from tests.e2e.pages import Caller
from tests.e2e.stack import Dev

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

# The browser never hears of our UDP candidates: what a firewall that drops UDP comes to.
NO_UDP = """
const original = RTCPeerConnection.prototype.setRemoteDescription;
RTCPeerConnection.prototype.setRemoteDescription = function (description) {
  const sdp = description.sdp.replace(/a=candidate:\\S+ 1 udp .*\\r\\n/g, "");
  return original.call(this, { type: description.type, sdp });
};
"""

PROTOCOL = """async () => {
  const stats = await window.parley.peerConnection.getStats();
  let protocol = null;
  stats.forEach((r) => {
    if (r.type === "transport") protocol = stats.get(stats.get(r.selectedCandidatePairId).localCandidateId).protocol;
  });
  return protocol;
}"""


@pytest.mark.parametrize("blocked", [("client", "expert"), ("expert",)])
async def test_pages_without_udp_have_their_call_by_tcp(
    gateway: Dev, browser: Browser, blocked: tuple[str, ...]
) -> None:
    session = await gateway.order()
    callers = {
        role: await Caller.open(
            browser, session["participants"][role]["url"], scripts=(NO_UDP,) if role in blocked else ()
        )
        for role in ("client", "expert")
    }
    for caller in callers.values():
        await caller.join()
    for caller in callers.values():
        await caller.sees()
        await caller.hears()
    for role, caller in callers.items():
        assert await caller.page.evaluate(PROTOCOL) == ("tcp" if role in blocked else "udp")
    await asyncio.sleep(3)
    for caller in callers.values():
        await caller.hears()
    await callers["client"].click("hangup")
    await callers["client"].summary()
    await callers["expert"].summary()
    for caller in callers.values():
        await caller.context.close()
