"""An SFU on aiortc as a process: `python -m loadtests.peers.forwarder`, on uvloop, spoken to by JSON lines.

It ends ICE, DTLS and SRTP on both legs. `leg` and `join` forward RTP without decoding it (one leg's opened packets are
sealed for the other, nothing else is done: no RTCP, no repetition). `publish` and `watch` go through MediaRelay, which
decodes and encodes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import uvloop
from aiortc import RTCCertificate, RTCDtlsTransport, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaRelay

from loadtests.peers.webrtc import begin, describe, gathered, only, peer_connection


class Forwarder:
    def __init__(self, profile: str) -> None:
        self.profile = profile
        self.certificate = RTCCertificate.generateCertificate()
        self.legs: list[RTCDtlsTransport] = []
        self.starting: list[asyncio.Task[None]] = []
        self.connections: list[RTCPeerConnection] = []
        self.published: Any = None

    async def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        with only("127.0.0.1", self.profile):
            match question["do"]:
                case "leg":
                    return await self.leg(question["other"])
                case "join":
                    return await self.join()
                case "publish":
                    return {"sdp": await self.publish(question["sdp"])}
                case "watch":
                    return {"sdp": await self.watch(question["sdp"])}
        return {"error": "unknown question"}

    async def leg(self, other: dict[str, Any]) -> dict[str, Any]:
        dtls = await gathered(self.certificate, controlling=False)
        self.legs.append(dtls)
        self.starting.append(asyncio.create_task(begin(dtls, other)))
        return {"other": describe(dtls)}

    async def join(self) -> dict[str, Any]:
        """Each even leg's RTP goes out of the odd leg after it, and the other way round."""
        await asyncio.gather(*self.starting)
        for one, two in zip(self.legs[::2], self.legs[1::2], strict=True):
            _forward(one, two)
            _forward(two, one)
        return {"states": [leg.state for leg in self.legs]}

    async def publish(self, offer: str) -> str:
        connection = self._connection()

        @connection.on("track")
        def _on_track(track: Any) -> None:
            self.published = MediaRelay().subscribe(track)

        return await _answered(connection, offer)

    async def watch(self, offer: str) -> str:
        connection = self._connection()
        connection.addTrack(self.published)
        return await _answered(connection, offer)

    def _connection(self) -> RTCPeerConnection:
        self.connections.append(peer_connection())
        return self.connections[-1]


async def _answered(connection: RTCPeerConnection, offer: str) -> str:
    await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
    await connection.setLocalDescription(await connection.createAnswer())
    return str(connection.localDescription.sdp)


def _forward(source: RTCDtlsTransport, target: RTCDtlsTransport) -> None:
    async def forward(data: bytes, arrival_time_ms: int) -> None:
        await target._send_rtp(data)

    source._handle_rtp_data = forward  # type: ignore[method-assign]


async def main(profile: str) -> None:
    forwarder = Forwarder(profile)
    reader = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        print(json.dumps(await forwarder.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
