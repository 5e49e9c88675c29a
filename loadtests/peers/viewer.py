"""Both callers of a MediaRelay run as a process: one publishes 640x480 VP8 at 30 frames a second, the other watches.

`python -m loadtests.peers.viewer`, spoken to by JSON lines.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Final

from aiortc import RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from aiortc.contrib.media import MediaBlackhole
from av import VideoFrame

from loadtests.peers.webrtc import only, peer_connection

WIDTH: Final = 640
HEIGHT: Final = 480


class Moving(VideoStreamTrack):
    """A gradient that moves, so that the encoders have something to do."""

    def __init__(self) -> None:
        super().__init__()
        row = bytes(range(256)) * 4
        self._frames = [self._frame(row[shift * 8 :]) for shift in range(32)]
        self._place = 0

    def _frame(self, row: bytes) -> VideoFrame:
        frame = VideoFrame(WIDTH, HEIGHT, "yuv420p")
        for number, plane in enumerate(frame.planes):
            width = plane.line_size
            lines = (row[line % 64 : line % 64 + width].ljust(width, b"\x80") for line in range(plane.height))
            plane.update(b"".join(lines) if number == 0 else b"\x80" * plane.buffer_size)
        return frame

    async def recv(self) -> VideoFrame:
        frame = self._frames[self._place % len(self._frames)]
        self._place += 1
        frame.pts, frame.time_base = await self.next_timestamp()
        return frame


class Viewer:
    def __init__(self) -> None:
        self.publishing: RTCPeerConnection = peer_connection()
        self.watching: RTCPeerConnection = peer_connection()
        self.sink = MediaBlackhole()

    async def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        match question["do"]:
            case "publish":
                self.publishing.addTrack(Moving())
                return {"sdp": await _offer(self.publishing)}
            case "watch":
                self.watching.addTransceiver("video", direction="recvonly")
                self.watching.on("track", self.sink.addTrack)
                return {"sdp": await _offer(self.watching)}
            case "published" | "watched" as which:
                connection = self.publishing if which == "published" else self.watching
                await connection.setRemoteDescription(RTCSessionDescription(question["sdp"], "answer"))
                if which == "watched":
                    await self.sink.start()
                return {}
            case "received":
                return {"packets": await self.received()}
        return {"error": "unknown question"}

    async def received(self) -> int:
        report = await self.watching.getStats()
        return sum(one.packetsReceived for one in report.values() if one.type == "inbound-rtp")


async def _offer(connection: RTCPeerConnection) -> str:
    await connection.setLocalDescription(await connection.createOffer())
    return str(connection.localDescription.sdp)


async def main() -> None:
    viewer = Viewer()
    reader = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    with only("127.0.0.1", "SHA1"):
        while line := await reader.readline():
            print(json.dumps(await viewer.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
