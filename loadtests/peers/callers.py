"""WebRTC callers as a process: aiortc does ICE and DTLS, then hands over each socket, and seals packets with its keys.

`python -m loadtests.peers.callers ADDRESS PROFILE FD` talks by JSON lines and sends the sockets over FD. Its event loop
stands still while no question is worked on, so it never reads from the sockets that the C generator has by then.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiortc import RTCCertificate, RTCDtlsTransport, RTCPeerConnection, RTCSessionDescription

from loadtests.peers.webrtc import begin, describe, gathered, only, peer_connection

PATIENCE_S: Final = 30.0
_PATTERN: Final = b"\x10"
"""Also the first octets of the payload: a VP8 payload descriptor that begins a partition (RFC 7741 section 4.2)."""


@dataclass
class Leg:
    """One caller; `ssrc` and `payload_type` as it declared them."""

    dtls: RTCDtlsTransport
    ssrc: int
    payload_type: int
    sequence: int = 0

    def sealed(self, size: int) -> bytes:
        """The next packet, ready for the wire."""
        self.sequence += 1
        stamp = self.sequence * 90 & 0xFFFFFFFF
        header = struct.pack("!BBHII", 0x80, self.payload_type, self.sequence & 0xFFFF, stamp, self.ssrc)
        packet: bytes = self.dtls._tx_srtp.protect(header.ljust(size, _PATTERN))
        return packet


class Callers:
    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.certificate = RTCCertificate.generateCertificate()
        self.legs: list[Leg] = []
        self.connection: RTCPeerConnection | None = None
        self.dtls: RTCDtlsTransport | None = None

    async def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        match question["do"]:
            case "gather":
                self.dtls = await gathered(self.certificate, controlling=True)
                return {"other": describe(self.dtls)}
            case "begin":
                assert self.dtls is not None
                await begin(self.dtls, question["other"])
                return self.hand_over(Leg(self.dtls, 1000 + len(self.legs), 96))
            case "offer":
                return {"sdp": await self.offer()}
            case "answer":
                return self.hand_over(await self.answered(question["sdp"]))
            case "seal":
                return {"length": self.seal(**question["packets"])}
        return {"error": "unknown question"}

    async def offer(self) -> str:
        """Of a new connection with one video section."""
        self.connection = peer_connection()
        self.connection.addTransceiver("video", direction="sendrecv")
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return str(self.connection.localDescription.sdp)

    async def answered(self, sdp: str) -> Leg:
        assert self.connection is not None
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
        transceiver = self.connection.getTransceivers()[0]
        dtls = transceiver.sender.transport
        while dtls.state in ("new", "connecting"):
            await asyncio.sleep(0.005)
        payload_type = transceiver._codecs[0].payloadType
        assert payload_type is not None, "negotiated codecs have one"
        return Leg(dtls, transceiver.sender._ssrc, payload_type)

    def hand_over(self, leg: Leg) -> dict[str, Any]:
        """The leg's socket goes over the channel; where it sends to and its ICE credentials are the answer."""
        if leg.dtls.state != "connected":
            return {"error": f"a WebRTC leg is {leg.dtls.state}"}
        connection = leg.dtls.transport._connection
        pair = connection._nominated[1]
        own = pair.protocol.transport.get_extra_info("socket").fileno()
        # Not by the public method, which refuses descriptors that a transport owns.
        asyncio.get_running_loop()._remove_reader(own)  # type: ignore[attr-defined]
        socket.send_fds(self.channel, [b"."], [own])
        self.legs.append(leg)
        credentials = (
            connection.local_username, connection.local_password,
            connection.remote_username, connection.remote_password,
        )  # fmt: skip
        return {"remote": pair.remote_addr, "credentials": credentials}

    def seal(self, senders: list[int], count: int, size: int, path: str) -> int:
        """`count` packets of each sender, one sender after the other; the length of each."""
        length = 0
        with Path(path).open("wb") as file:
            for sender in senders:
                packets = [self.legs[sender].sealed(size) for _ in range(count)]
                length = len(packets[0])
                file.write(b"".join(packets))
        return length


def main(address: str, profile: str, fd: int) -> None:
    loop = asyncio.new_event_loop()
    callers = Callers(socket.socket(fileno=fd))
    with only(address, profile):
        for line in sys.stdin:
            answer = loop.run_until_complete(asyncio.wait_for(callers.answer(json.loads(line)), PATIENCE_S))
            print(json.dumps(answer), flush=True)
    # Without ceremony: half-run tasks of aiortc would each complain.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
