"""A caller without a browser: a client of the signaling protocol by the book, with aiortc's own peer connection."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fractions
import json
import re
from typing import Any

import aiohttp
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack
from av import VideoFrame
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

Message = dict[str, Any]

# aiortc offers its certificate's hash three times; the gateway takes sha-256 only (6-media, SAS).
OTHER_FINGERPRINTS = re.compile(r"a=fingerprint:sha-(384|512) [^\r\n]*\r\n")


class Picture(VideoStreamTrack):  # type: ignore[misc]
    """A small picture ten times a second: enough to be video, little enough for a busy machine."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    async def recv(self) -> VideoFrame:
        await asyncio.sleep(0.1)
        self._count += 1
        frame = VideoFrame(80, 64, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes([self._count % 255]) * plane.buffer_size)
        frame.pts, frame.time_base = self._count * 9000, fractions.Fraction(1, 90_000)
        return frame


class Key:
    """The page's WebCrypto key: ECDSA on P-256, its signature as raw r||s."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def jwk(self) -> Message:
        numbers = self._key.public_key().public_numbers()
        return {"kty": "EC", "crv": "P-256", "x": _b64(numbers.x.to_bytes(32)), "y": _b64(numbers.y.to_bytes(32))}

    def proof(self, nonce: str) -> str:
        r, s = utils.decode_dss_signature(self._key.sign(nonce.encode(), ec.ECDSA(SHA256())))
        return _b64(r.to_bytes(32) + s.to_bytes(32))


class Caller:
    """One page. `heard` is every message of its sockets, in order; `arrived` counts frames, by kind of media."""

    def __init__(
        self, http: aiohttp.ClientSession, url: str, secret: str, *, video: bool = False, bound: bool = False
    ) -> None:
        self.heard: list[Message] = []
        self.close_code: int | None = None
        self.arrived: dict[str, int] = {"audio": 0, "video": 0}
        self.connection: RTCPeerConnection | None = None
        self.key = Key() if bound else None
        self.entry: Message = {}
        self.resume = self.nonce = ""
        self._http, self._url, self._secret = http, url, secret
        self._video = video
        self._role = ""
        self._page = 0
        self._generation: Message | None = None
        self._offered = False
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Condition()

    async def enter(self) -> Message:
        """What the link says; gives the join token."""
        async with self._http.post(f"{self._url}/v1/enter", json={"secret": self._secret}) as answer:
            self.entry = await answer.json()
            assert answer.status == 200, self.entry
        return self.entry

    async def join(self, *, consent: bool = True, token: str | None = None) -> Message:
        """Through the link and the first `hello`; the welcome."""
        if token is None:
            token = (await self.enter())["token"]
        hello: Message = {"token": token}
        if self.key is not None:
            hello["key"] = self.key.jwk
        if consent:
            amount = self.entry.get("pricing", {}).get("amount_max", 0)
            hello["consent"] = {"text_version": "1", "locale": "en", "amount_max": amount}
        return await self.hello(**hello)

    async def return_(self, *, fresh: bool = False, resume: str | None = None, proof: str | None = None) -> Message:
        """Back on a new socket by the resume secret; `fresh`: as a page that was loaded anew."""
        if fresh:
            await self._drop_connection()
            self._generation = None
        hello: Message = {"resume": resume or self.resume}
        if proof is not None or self.key is not None:
            hello["proof"] = proof or (self.key.proof(self.nonce) if self.key else None)
        return await self.hello(**hello)

    async def hello(self, **said: Any) -> Message:
        """Open a socket, say hello, and take its first answer: `welcome`, or the refusing `error`."""
        await self.disconnect()
        socket = await self._http.ws_connect(f"{self._url}/v1/signal", protocols=["parley.v1"])
        media = {"audio": True, "video": self._video}
        await socket.send_json({"type": "hello", "media": media, "generation": self._generation, **said})
        first = json.loads((await socket.receive(20)).data)
        self.heard.append(first)
        self._socket, self.close_code = socket, None
        if first["type"] == "welcome":
            self._role, self.resume, self.nonce = first["role"], first["resume"], first["nonce"]
            await self._turn_to(first["generation"], first["peer"]["state"], first["offerer"])
        self._tasks.append(asyncio.create_task(self._listen(socket)))
        return first

    async def say(self, kind: str, /, **fields: Any) -> None:
        assert self._socket is not None
        await self._socket.send_json({"type": kind, **fields})

    async def disconnect(self) -> None:
        """The socket goes, the media stays."""
        if self._socket is not None:
            await self._socket.close()

    async def close(self) -> None:
        """The whole page goes."""
        await self.disconnect()
        await self._drop_connection()
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def until(self, kind: str, /, seconds: float = 15, **wanted: Any) -> Message:
        """The last message of this kind that is as wanted, once there is one; `...` stands for anything but null."""
        try:
            async with asyncio.timeout(seconds), self._news:
                while True:
                    if found := [message for message in self.said(kind) if _fits(message, wanted)]:
                        return found[-1]
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"no {kind} {wanted}; the last was {self.heard[-3:]}") from None

    async def closed(self, seconds: float = 15) -> int | None:
        """The code by which the gateway closed the socket."""
        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(lambda: self.close_code is not None)
        return self.close_code

    async def hears(self, frames: int = 5, kind: str = "audio", seconds: float = 20) -> None:
        """That much more of the other's media has arrived."""
        until = self.arrived[kind] + frames
        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(lambda: self.arrived[kind] >= until)

    def said(self, kind: str) -> list[Message]:
        return [message for message in self.heard if message["type"] == kind]

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        with contextlib.suppress(ConnectionError):
            async for frame in socket:
                message = json.loads(frame.data)
                self.heard.append(message)
                if socket is self._socket:
                    await self._follow(message)
                await self._tell()
        if socket is self._socket:
            self.close_code = socket.close_code
        await self._tell()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def _follow(self, message: Message) -> None:
        if message["type"] == "peer":
            await self._turn_to(message["generation"], message["state"], self._role == "client")
        elif message["type"] == "description":
            await self._described(message)

    async def _turn_to(self, generation: Message, peer: str, offerer: bool) -> None:
        """A new incarnation takes a new connection; the offerer offers as soon as somebody is there."""
        if generation["mine"] != self._page or self.connection is None:
            await self._drop_connection()
            self._page, self._offered, self.connection = generation["mine"], False, self._new_connection()
        self._generation = generation
        if offerer and peer not in ("absent", "left") and not self._offered:
            self._offered = True
            await self.connection.setLocalDescription(await self.connection.createOffer())
            await self._describe("offer")

    def _new_connection(self) -> RTCPeerConnection:
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connection.addTrack(AudioStreamTrack())
        if self._video:
            connection.addTrack(Picture())
        connection.on("track", lambda track: self._tasks.append(asyncio.create_task(self._watch(track))))
        return connection

    async def _described(self, message: Message) -> None:
        assert self.connection is not None
        self._generation = message["generation"]
        await self.connection.setRemoteDescription(RTCSessionDescription(message["sdp"], message["kind"]))
        if message["kind"] == "offer":
            await self.connection.setLocalDescription(await self.connection.createAnswer())
            await self._describe("answer")

    async def _describe(self, kind: str) -> None:
        assert self.connection is not None
        sdp = OTHER_FINGERPRINTS.sub("", self.connection.localDescription.sdp)
        await self.say("description", kind=kind, sdp=sdp, generation=self._generation)

    async def _watch(self, track: Any) -> None:
        # `recv` ends with an error of aiortc's when the connection is closed.
        with contextlib.suppress(Exception):
            while True:
                await track.recv()
                self.arrived[track.kind] += 1
                await self._tell()

    async def _drop_connection(self) -> None:
        if self.connection is not None:
            connection, self.connection = self.connection, None
            await connection.close()


def _fits(message: Message, wanted: Message) -> bool:
    return all(message.get(name) is not None if value is ... else message.get(name) == value
               for name, value in wanted.items())  # fmt: skip


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
