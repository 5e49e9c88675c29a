"""A signaling server for the page's tests: one session, two seats, the protocol's shapes, and knobs to misbehave.

It keeps the promises a page relies on (generations, resume with proof, newest page wins) and no others: no money, no
clockwork. `tamper` changes descriptions under way, `say` sends any message to a page, `entry` edits what enter answers.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256

from gateway.web import FILES, HEADERS
from tests.web.relay import Relay

ROLES = ("client", "expert")


def other(role: str) -> str:
    return ROLES[role == "client"]


def unb64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def proof_holds(jwk: dict[str, str], nonce: str, proof: str) -> bool:
    x, y = (int.from_bytes(unb64url(jwk[name]), "big") for name in ("x", "y"))
    key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    raw = unb64url(proof)
    signature = utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    try:
        key.verify(signature, nonce.encode(), ec.ECDSA(SHA256()))
    except Exception:
        return False
    return True


@dataclass
class Seat:
    role: str
    socket: web.WebSocketResponse | None = None
    joined: bool = False
    token: str = ""
    resume: str = ""
    nonce: str = ""
    key: dict[str, str] | None = None
    media: dict[str, bool] | None = None
    transport: int = 1
    ufrag: str | None = None
    hellos: list[dict[str, Any]] = field(default_factory=list)
    heard: list[dict[str, Any]] = field(default_factory=list)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.heard if message["type"] == kind]


class Room:
    def __init__(self) -> None:
        self.seats = {role: Seat(role) for role in ROLES}
        self.session = "ses_test"
        self.count = 1
        self.relay = Relay()
        self.tamper: Callable[[str, str], str] = lambda sdp, role: sdp
        self.forge: Callable[[dict[str, Any]], dict[str, Any]] = lambda message: message
        self.problem: tuple[int, str] | None = None
        self.away = False
        self.end: dict[str, Any] | None = None
        self.entry: dict[str, dict[str, Any]] = {"client": {}, "expert": {}}
        self.media = "video"
        self.origin = ""
        self.elapsed = 0
        self._ticker: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def serving(self) -> Any:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self.relay, local_addr=("127.0.0.1", 0))
        runner = web.AppRunner(self._app(), shutdown_timeout=0.2)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.origin = f"http://localhost:{port}"
        try:
            yield self
        finally:
            if self._ticker:
                self._ticker.cancel()
            await runner.cleanup()
            assert self.relay.transport is not None
            self.relay.transport.close()

    def link(self, role: str) -> str:
        return f"{self.origin}/call#secret-{role}"

    def _app(self) -> web.Application:
        app = web.Application()
        app.add_routes([web.post("/v1/enter", self._enter), web.get("/v1/signal", self._signal)])
        app.add_routes([web.get(path, self._asset) for path in FILES])
        return app

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        asset = FILES[request.path]
        return web.Response(body=asset.path.read_bytes(), headers={**HEADERS, "Content-Type": asset.content_type})

    async def _enter(self, request: web.Request) -> web.Response:
        if self.away:
            return web.json_response({"code": "store_unavailable", "detail": "away"}, status=503)
        role = (await request.json())["secret"].removeprefix("secret-")
        if role not in ROLES:
            return web.json_response({"code": "link_invalid", "title": "x", "status": 404}, status=404)
        if self.problem:
            status, code = self.problem
            return web.json_response({"code": code, "title": code, "status": status}, status=status)
        self.seats[role].token = secrets.token_urlsafe(12)
        return web.json_response(self._entry(role))

    def _entry(self, role: str) -> dict[str, Any]:
        pricing = {"currency": "usd", "unit_amount": 300, "free_seconds": 300, "limit_seconds": 1800}
        pricing |= {"commission_bps": 1000} | ({"amount_max": 7500} if role == "client" else {})
        payment = {"status": "held", "amount_held": 7500, "card": {"brand": "visa", "last4": "4242"}}
        payment |= {"hold_until": 1900000000000, "action_url": None, "decline_code": None}
        names = {"client": "Client", "expert": "Expert"}
        body = {
            "session": self.session,
            "role": role,
            "token": self.seats[role].token,
            "signal": self.origin.replace("http", "ws", 1) + "/v1/signal",
            "status": "created",
            "media": self.media,
            "locale": "en",
            "you": {"name": names[role]},
            "peer": {"name": names[other(role)]},
            "pricing": pricing,
            "payment": payment if role == "client" else {"status": "held"},
            "terms": {"version": "1"},
            "expires_at": 1900000000000,
            "end": self.end,
        }
        return body | self.entry[role]

    async def _signal(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=["parley.v1"])
        await socket.prepare(request)
        if self.away:
            await socket.close(code=WSCloseCode.TRY_AGAIN_LATER)
            return socket
        hello = await socket.receive_json()
        seat = next((seat for seat in self.seats.values() if self._admits(seat, hello)), None)
        if seat is None:
            await socket.send_json({"type": "error", "code": "resume_invalid", "message": "no", "fatal": True})
            await socket.close(code=4001)
            return socket
        await self._sit(seat, socket, hello)
        await self._serve(seat, socket)
        return socket

    def _admits(self, seat: Seat, hello: dict[str, Any]) -> bool:
        if hello.get("resume"):
            fits = bool(seat.resume) and hello["resume"] == seat.resume and seat.key is not None
            return fits and proof_holds(seat.key or {}, seat.nonce, hello["proof"])
        return bool(seat.token) and hello.get("token") == seat.token

    async def _sit(self, seat: Seat, socket: web.WebSocketResponse, hello: dict[str, Any]) -> None:
        old, seat.socket = seat.socket, socket
        seat.hellos.append(hello)
        seat.key = hello.get("key") or seat.key
        seat.media = hello["media"]
        if old is not None and not old.closed:
            with contextlib.suppress(ConnectionError):
                await old.send_json({"type": "error", "code": "replaced", "message": "elsewhere", "fatal": True})
                await old.close(code=4002)
        fresh = hello["generation"] is None
        if fresh and seat.joined:
            self.count += 1
        if fresh:
            self._new_legs()
        moved = {"replaced": True} if fresh and seat.joined else {}
        seat.joined = True
        await socket.send_json(self._welcome(seat))
        await self.say(other(seat.role), {"type": "peer", **self._peer(seat.role), **moved})

    def _new_legs(self) -> None:
        for role, leg in self.relay.legs.items():
            leg.renew()
            self.seats[role].transport += 1
            self.seats[role].ufrag = None

    def _generation(self, role: str) -> dict[str, int]:
        return {"mine": self.count, "peer": self.count, "transport": self.seats[role].transport}

    def _peer(self, role: str) -> dict[str, Any]:
        """What the other side is told about `role`."""
        seat = self.seats[role]
        state = "absent" if not seat.joined else "joined" if seat.socket else "reconnecting"
        return {"state": state, "media": seat.media, "generation": self._generation(other(role))}

    def _welcome(self, seat: Seat) -> dict[str, Any]:
        seat.resume, seat.nonce = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
        return {
            "type": "welcome",
            "session": self.session,
            "role": seat.role,
            "polite": seat.role == "expert",
            "offerer": seat.role == "client",
            "resume": seat.resume,
            "nonce": seat.nonce,
            "ping": 20,
            "cap": 1800,
            "limit": 1800,
            "warnings": [600, 300, 60, 30],
            "timers": {"lone": 120, "grace": 60},
            "pricing": self._entry(seat.role)["pricing"],
            "peer": {**self._peer(other(seat.role)), "name": other(seat.role).title()},
            "ice_servers": [],
            "generation": self._generation(seat.role),
            "status": "ready",
            "elapsed": self.elapsed,
            "billable": 0,
            "media": self.media,
        }

    async def _serve(self, seat: Seat, socket: web.WebSocketResponse) -> None:
        async for frame in socket:
            if frame.type is not WSMsgType.TEXT:
                break
            message = json.loads(frame.data)
            seat.heard.append(message)
            await self._heard(seat, message)
        if seat.socket is socket:
            seat.socket = None
            await self.say(other(seat.role), {"type": "peer", **self._peer(seat.role)})

    async def _heard(self, seat: Seat, message: dict[str, Any]) -> None:
        peer = other(seat.role)
        match message["type"]:
            case "description":
                await self._pass_on(seat, message)
            case "sas":
                await self.say(peer, self.forge(message))
            case "continue":
                await self.say(peer, {"type": "continue", "state": "peer_wants"})
            case "media":
                seat.media = {"audio": message["audio"], "video": message["video"]}
                await self.say(peer, {"type": "peer", **self._peer(seat.role)})
            case "ping":
                await self.say(seat.role, {"type": "pong", "t": message["t"]})
            case "leave":
                await self.finish(f"{seat.role}_left")

    async def _pass_on(self, seat: Seat, message: dict[str, Any]) -> None:
        generation = message["generation"]
        if (generation["mine"], generation["peer"]) != (self.count, self.count):
            await self.say(seat.role, {"type": "error", "code": "stale", "message": "stale", "fatal": False})
            return
        peer = other(seat.role)
        ufrag = next(line for line in message["sdp"].split("\r\n") if line.startswith("a=ice-ufrag:"))
        if seat.ufrag not in (None, ufrag) and message["kind"] == "offer":
            # Either leg's restart renews both here; the gateway spares the other one.
            self._new_legs()
        seat.ufrag = ufrag
        sdp = self.tamper(self.relay.rewrite(message["sdp"], peer), peer)
        out = {"type": "description", "sdp": sdp, "kind": message["kind"], "generation": self._generation(peer)}
        out["number"] = message["number"]
        await self.say(peer, out)

    async def say(self, role: str, message: dict[str, Any]) -> None:
        socket = self.seats[role].socket
        if socket is not None and not socket.closed:
            with contextlib.suppress(ConnectionError):
                await socket.send_json(message)

    async def tell(self, message: dict[str, Any]) -> None:
        for role in ROLES:
            await self.say(role, message)

    def meter(self, role: str, elapsed: int, billing: str = "running") -> dict[str, Any]:
        cost = max(0, elapsed - 300) * 5
        money = {"cost": cost} if role == "client" else {"earnings": cost * 9 // 10}
        times = {"elapsed": elapsed, "billable": max(0, elapsed - 300), "remaining": 1800 - elapsed}
        return {"type": "meter", **times, "billing": billing, "currency": "usd", **money}

    async def tick(self, elapsed: int, billing: str = "running") -> None:
        for role in ROLES:
            await self.say(role, self.meter(role, elapsed, billing))

    async def finish(self, reason: str, billable: int = 1500, receipt: str | None = None, more: bool = False) -> None:
        for role in ROLES:
            summary = self.summary(role, billable) | {"receipt_url": receipt, "continue": more}
            await self.say(role, {"type": "ended", "reason": reason, "summary": summary})

    def summary(self, role: str, billable: int) -> dict[str, Any]:
        figures: dict[str, Any] = {"billable_seconds": billable, "free_seconds": 300, "amount_total": billable * 5}
        figures |= {"currency": "usd", "duration_seconds": billable + 300, "receipt_url": None, "continue": False}
        return figures | ({"amount_expert": billable * 45 // 10} if role == "expert" else {})

    async def go_on(self, session: str) -> None:
        """Both want to go on: the same two people in another session, told over their old sockets."""
        before, self.session = self.seats, session
        self.seats = {role: Seat(role) for role in ROLES}
        for role, seat in before.items():
            assert seat.socket is not None
            agreed = {"type": "continue", "state": "agreed", "session": session, "url": self.link(role)}
            await seat.socket.send_json(agreed)
