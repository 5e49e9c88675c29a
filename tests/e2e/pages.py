"""The call page in a real Chromium, driven by its test ids, and the truth about a call taken outside the gateway."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream", "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip

# Every 40 ms: the wall time, and whether packets came in since the last look. Nothing is asked before the connection
# stands: a report that is taken during the handshake makes Chromium keep one without the peer's certificate. What was
# seen outlives a reload.
WATCH = """
window.truth = { looks: JSON.parse(sessionStorage.getItem("truth") ?? "[]") };
// A page that was away heard nothing, however soon it came back.
if (window.truth.looks.length) window.truth.looks.push([performance.timeOrigin, null]);
addEventListener("pagehide", () => sessionStorage.setItem("truth", JSON.stringify(window.truth.looks)));
let before = {};
setInterval(async () => {
  const pc = window.parley && window.parley.peerConnection;
  if (!pc || pc.connectionState !== "connected") return;
  let grew = false;
  (await pc.getStats()).forEach((r) => {
    if (r.type !== "inbound-rtp") return;
    if (r.packetsReceived > (before[r.id + r.ssrc] || 0)) grew = true;
    before[r.id + r.ssrc] = r.packetsReceived;
  });
  window.truth.looks.push([performance.timeOrigin + performance.now(), grew]);
}, 40);
"""

# Sends this page's media through another port: a network that a test can cut.
DETOUR = """
const original = RTCPeerConnection.prototype.setRemoteDescription;
RTCPeerConnection.prototype.setRemoteDescription = function (description) {
  const sdp = description.sdp.replaceAll(" %d typ host", " %d typ host");
  return original.call(this, { type: description.type, sdp });
};
"""

REMOTE_PICTURE = """() => {
  const video = document.querySelector("[data-testid=remote-video]");
  return video && video.videoWidth > 0 && video.currentTime > 0;
}"""

HEARD = """async () => {
  const pc = window.parley && window.parley.peerConnection;
  if (!pc || pc.connectionState !== "connected") return false;
  let heard = false;
  (await pc.getStats()).forEach((r) => {
    if (r.type === "inbound-rtp" && r.kind === "audio" && r.packetsReceived > 0) heard = true;
  });
  return heard;
}"""

CERTIFICATES = """async () => {
  const found = {};
  const stats = await window.parley.peerConnection.getStats();
  stats.forEach((r) => {
    if (r.type !== "transport") return;
    found.local = stats.get(r.localCertificateId).fingerprint;
    found.remote = stats.get(r.remoteCertificateId).fingerprint;
    found.version = r.tlsVersion;
  });
  return found;
}"""


@dataclass
class Caller:
    """One side's page."""

    page: Page
    context: BrowserContext

    @classmethod
    async def open(cls, browser: Browser, url: str, *, scripts: tuple[str, ...] = (), **options: Any) -> Caller:
        context = await browser.new_context(viewport={"width": 1280, "height": 800}, **options)
        await context.add_init_script(WATCH)
        for script in scripts:
            await context.add_init_script(script)
        page = await context.new_page()
        await page.goto(url)
        return cls(page, context)

    def id(self, name: str) -> str:
        return f"[data-testid={name}]"

    async def join(self) -> None:
        await self.page.click(self.id("join") + ":not([disabled])")

    async def click(self, name: str) -> None:
        await self.page.click(self.id(name))

    async def text(self, name: str) -> str:
        return (await self.page.text_content(self.id(name)) or "").strip()

    async def sees(self, seconds: float = 10) -> None:
        await self.page.wait_for_function(REMOTE_PICTURE, timeout=seconds * 1000, polling=20)

    async def hears(self, seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while not await self.page.evaluate(HEARD):
                await asyncio.sleep(0.05)

    async def reload(self) -> None:
        await self.page.reload()

    async def watched(self) -> list[Look]:
        """Every look over all loads of the page."""
        return [(at, grew) for at, grew in await self.page.evaluate("window.truth.looks")]

    async def changes(self) -> list[float]:
        return [at for at, grew in await self.watched() if grew]

    async def summary(self, seconds: float = 10) -> str:
        await self.page.wait_for_selector(self.id("summary-total"), timeout=seconds * 1000)
        return await self.text("summary-total")

    async def certificates(self) -> dict[str, str]:
        return dict(await self.page.evaluate(CERTIFICATES))


Look = tuple[
    float, bool | None
]  # wall ms; whether packets had come in since the look before; None: the page was loaded
GAP_MS, GAP_LOOKS = 700, 8  # as long, and seen so often, without a packet: that side was not connected


async def truth_seconds(*callers: Caller) -> float:
    """How long both received at the same time: the common part of each side's stretches of arriving packets."""
    first, second = [stretches(await caller.watched()) for caller in callers]
    return sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a in first for b in second) / 1000


def stretches(looks: list[Look]) -> list[tuple[float, float]]:
    """From the first to the last change of each run; a page that could not look is no witness of a gap."""
    runs: list[tuple[float, float]] = []
    blind, loads = 0, -1
    for at, grew in looks:
        if grew is None:
            loads = len(runs)
        elif not grew:
            blind += 1
        elif len(runs) == loads:
            runs.append((at, at))
            blind = 0
        elif runs and (at - runs[-1][1] <= GAP_MS or blind < GAP_LOOKS):
            runs[-1], blind = (runs[-1][0], at), 0
        else:
            runs.append((at, at))
            blind = 0
    return runs
