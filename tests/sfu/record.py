"""Records the packets in tests/data/packets from real calls on loopback: `python -m tests.sfu.record`.

Two pages of Chromium, then two aiortc peers, call each other through the small relay of the page's tests. Kept are
what each side sent first of STUN and DTLS, and the heads of a run of SRTP and SRTCP (the rest of those is ciphertext).
With them stand the relay's ICE passwords of that call, which sign the checks and opened nothing else.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack
from playwright.async_api import async_playwright

from gateway.sfu.demux import DTLS, MEDIA, STUN, classify
from tests.web.conftest import FLAGS
from tests.web.conversation import connected, join
from tests.web.relay import Address, Relay
from tests.web.room import Room

PACKETS = Path(__file__).parents[1] / "data" / "packets"
KEPT = {STUN: 6, DTLS: 10, MEDIA: 150}
HEAD = 48


class Recorder(Relay):
    """A relay that remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.packets: list[dict[str, Any]] = []
        self._counts: dict[tuple[Address, int], int] = {}
        self._began: float | None = None

    def datagram_received(self, data: bytes, addr: Address) -> None:
        super().datagram_received(data, addr)
        kind = classify(data)
        leg = next((role for role, leg in self.legs.items() if leg.address == addr), None)
        count = self._counts.get((addr, kind), 0)
        if leg is None or count >= KEPT.get(kind, 0):
            return
        self._began = self._began or time.monotonic()
        self._counts[addr, kind] = count + 1
        head = data[:HEAD] if kind == MEDIA else data
        ms = round((time.monotonic() - self._began) * 1000)
        self.packets.append({"leg": leg, "ms": ms, "size": len(data), "hex": head.hex()})

    def save(self, name: str) -> None:
        legs = {role: dict(leg.credentials) for role, leg in self.legs.items()}
        body = ",\n".join(json.dumps(packet) for packet in self.packets)
        text = f'{{"passwords": {json.dumps(legs)},\n"packets": [\n{body}\n]}}\n'
        (PACKETS / f"{name}.json").write_text(text)


async def chromium() -> None:
    room = Room()
    room.relay = recorder = Recorder()
    async with room.serving(), async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        pages = []
        for role in ("client", "expert"):
            page = await (await browser.new_context()).new_page()
            await page.goto(room.link(role))
            pages.append(page)
        await join(*pages)
        await connected(*pages)
        await asyncio.sleep(6)
        await browser.close()
    recorder.save("chromium")


async def aiortc() -> None:
    recorder = Recorder()
    for leg in recorder.legs.values():
        leg.renew()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: recorder, local_addr=("127.0.0.1", 0))
    one, two = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    for peer in (one, two):
        peer.addTrack(AudioStreamTrack())
        peer.addTrack(VideoStreamTrack())
    await one.setLocalDescription(await one.createOffer())
    offer = recorder.rewrite(one.localDescription.sdp, "expert")
    await two.setRemoteDescription(RTCSessionDescription(offer, "offer"))
    await two.setLocalDescription(await two.createAnswer())
    answer = recorder.rewrite(two.localDescription.sdp, "client")
    await one.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await asyncio.sleep(8)
    await asyncio.gather(one.close(), two.close())
    transport.close()
    recorder.save("aiortc")


async def main() -> None:
    await aiortc()
    await chromium()


if __name__ == "__main__":
    asyncio.run(main())
