"""Two pages, their lossy sockets and a room, wired without I/O; a page does what the SDK does, on a model of JSEP."""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gateway.session import ROLES, Role
from gateway.sfu.port import Candidate, Credentials
from gateway.signaling.messages import (
    ClientMessage,
    Close,
    Description,
    ErrorMessage,
    Generation,
    MediaState,
    Peer,
    Restart,
    Sas,
    ServerMessage,
)
from gateway.signaling.room import CloseSeat, Joined, LegsChanged, Output, Room, Send
from gateway.signaling.sdp import transport_of

TEMPLATE = (Path(__file__).parents[1] / "data" / "sdp" / "chromium-audio-offer.sdp").read_bytes().decode()
CANDIDATES = (Candidate("203.0.113.5", 3478),)
ON = MediaState(audio=True, video=False)
LEG: dict[Role, int] = {"client": 0, "expert": 1}
PEER: dict[Role, Role] = {"client": "expert", "expert": "client"}


def numbered(prefix: str) -> Iterator[Credentials]:
    for number in itertools.count(1):
        yield Credentials(f"{prefix}{number:04}", f"{prefix}Password{number:018}")


def describe(kind: str, credentials: Credentials, fingerprint: str, version: int, setup: str | None = None) -> str:
    """A description as Chromium writes it, by one peer connection."""
    text = re.sub(r"^o=- (\d+) \d+", rf"o=- \1 {version}", TEMPLATE, flags=re.MULTILINE)
    text = re.sub(r"a=ice-ufrag:\S+", f"a=ice-ufrag:{credentials.ufrag}", text)
    text = re.sub(r"a=ice-pwd:\S+", f"a=ice-pwd:{credentials.password}", text)
    text = re.sub(r"a=fingerprint:sha-256 \S+", f"a=fingerprint:sha-256 {fingerprint}", text)
    setup = setup or ("actpass" if kind == "offer" else "active")
    return text.replace("a=setup:actpass", f"a=setup:{setup}")


@dataclass
class Connection:
    """An RTCPeerConnection as far as signaling sees it (JSEP); breaks on what a browser would not take."""

    local: Credentials
    fingerprint: str
    version: int = 0
    state: str = "stable"
    remote: Credentials | None = None
    remote_fingerprint: str | None = None
    offered: Credentials | None = None
    restart_wanted: bool = False

    def offer(self, fresh: Credentials) -> str:
        self.offered = fresh if self.restart_wanted else self.local
        self.state = "have-local-offer"
        self.version += 1
        return describe("offer", self.offered, self.fingerprint, self.version)

    def take_answer(self, sdp: str) -> None:
        transport = transport_of(sdp)
        restarted = self.offered != self.local
        if self.remote is not None:
            assert (transport.credentials != self.remote) == restarted, (
                "an answer restarts if and only if the offer does"
            )
        assert self.offered is not None
        self.local, self.remote, self.state = self.offered, transport.credentials, "stable"
        self.offered, self.restart_wanted = None, self.restart_wanted and not restarted
        self._pin(transport.fingerprint)

    def take_offer(self, sdp: str, fresh: Credentials) -> str:
        transport = transport_of(sdp)
        self.state, self.offered = "stable", None
        if self.remote not in (None, transport.credentials):
            self.local, self.restart_wanted = fresh, False
        self.remote = transport.credentials
        self.version += 1
        self._pin(transport.fingerprint)
        return describe("answer", self.local, self.fingerprint, self.version)

    def _pin(self, fingerprint: str) -> None:
        assert self.remote_fingerprint in (None, fingerprint), "one certificate an incarnation"
        self.remote_fingerprint = fingerprint


@dataclass
class Wire:
    """A socket between page and gateway: what is queued is lost when it drops."""

    to_page: deque[ServerMessage | Joined] = field(default_factory=deque)
    to_gateway: deque[ClientMessage] = field(default_factory=deque)


class Page:
    """The SDK's negotiation (perfect negotiation, one queue), for one loaded page."""

    def __init__(self, role: Role, credentials: Iterator[Credentials], fingerprints: Iterator[str]) -> None:
        self.role = role
        self.polite = role == "expert"
        self.generation: Generation | None = None
        self.connection: Connection | None = None
        self.wire: Wire | None = None
        self.here = False
        self.wanted = False
        self.in_flight: tuple[str, str, int | None] | None = None
        self.number = 0
        self.errors: list[ErrorMessage] = []
        self.sas: list[Sas] = []
        self.peers: list[Peer] = []
        self._credentials = credentials
        self._fingerprints = fingerprints

    def take(self, message: ServerMessage | Joined) -> None:
        match message:
            case Joined():
                self._incarnation(message.generation)
                if self.in_flight is not None:
                    self._describe(*self.in_flight)
                self._peer_is(message.peer.state)
            case Peer():
                self.peers.append(message)
                self._incarnation(message.generation)
                self._peer_is(message.state)
            case Description() if self._fits(message.generation):
                self._described(message)
            case Restart() if self._fits(message.generation):
                self.restart(message.generation.transport)
            case ErrorMessage():
                self.errors.append(message)
            case Sas():
                self.sas.append(message)

    def negotiate(self) -> None:
        connection = self.connection
        if connection is None or not self.here or not self.wanted or connection.state != "stable":
            return
        if not self.polite or connection.remote is not None:
            self._offer(connection)

    def restart(self, transport: int | None = None) -> None:
        if self.connection is None or self.generation is None or not self.here:
            return
        if transport is not None:
            self.generation = self.generation.model_copy(update={"transport": transport})
        if self.connection.remote is None and self.polite:
            return
        self.connection.restart_wanted = self.connection.remote is not None
        self._offer(self.connection)

    def _incarnation(self, generation: Generation) -> None:
        if self.connection is not None and self._fits(generation):
            return
        self.generation = generation
        self.connection = Connection(next(self._credentials), next(self._fingerprints))
        self.in_flight, self.wanted, self.sas = None, True, []

    def _fits(self, generation: Generation) -> bool:
        mine = self.generation
        return mine is not None and (mine.mine, mine.peer) == (generation.mine, generation.peer)

    def _peer_is(self, state: str) -> None:
        self.here = state not in ("absent", "left")
        self.negotiate()

    def _described(self, message: Description) -> None:
        assert self.connection is not None
        assert self.generation is not None
        if message.generation.transport > self.generation.transport:
            self.generation = self.generation.model_copy(update={"transport": message.generation.transport})
        if message.kind == "answer":
            if self.connection.state == "have-local-offer" and message.number == self.number:
                self.connection.take_answer(message.sdp)
                self.in_flight = None
        elif self.connection.state == "stable" or self.polite:
            self.wanted = self.wanted or self.connection.state != "stable"
            answer = self.connection.take_offer(message.sdp, next(self._credentials))
            self._describe("answer", answer, message.number)
        self.wanted = self.wanted or (self.connection.state == "stable" and self.connection.restart_wanted)
        self.negotiate()

    def _offer(self, connection: Connection) -> None:
        self.wanted = False
        self.number += 1
        self._describe("offer", connection.offer(next(self._credentials)), self.number)

    def _describe(self, kind: str, sdp: str, number: int | None) -> None:
        assert self.generation is not None
        sent = self.wire is not None
        if self.wire is not None:
            message = {"type": "description", "sdp": sdp, "kind": kind, "generation": self.generation, "number": number}
            self.wire.to_gateway.append(Description.model_validate(message))
        self.in_flight = (kind, sdp, number) if kind == "offer" or not sent else None


class Bench:
    """A room with up to one page a role; `now` in ms."""

    def __init__(self) -> None:
        self.now = 0
        self._gateway = numbered("gate")
        self._browser = numbered("page")
        self._prints = (":".join(f"{byte:02X}" for byte in number.to_bytes(32, "big")) for number in itertools.count(1))
        self.room = Room(CANDIDATES, lambda: next(self._gateway))
        self.pages: dict[Role, Page | None] = {"client": None, "expert": None}
        self.closed: list[tuple[Role, Close]] = []
        self.legs_changed = 0

    # A page's life

    def load(self, role: Role) -> Page:
        """A fresh page takes the seat; a former page of this role is gone, its socket not yet."""
        self.pages[role] = page = Page(role, self._browser, self._prints)
        self.connect(role)
        return page

    def connect(self, role: Role) -> None:
        """The page opens a (second) socket and says hello."""
        page = self.pages[role]
        assert page is not None
        old, page.wire = page.wire, Wire()
        joined = self.room.join(role, page.generation, ON, self.now)
        self._apply(joined.before, {role: old or Wire()})
        page.wire.to_page.append(joined)
        self._apply(joined.after)

    def drop(self, role: Role) -> None:
        """The socket dies with all that is under way."""
        page = self.pages[role]
        if page is not None and page.wire is not None:
            page.wire = None
            self._apply(self.room.lost(role, self.now))

    def join_both(self) -> None:
        for role in ROLES:
            self.load(role)
        self.settle()

    # Moving messages

    def deliver_to_page(self, role: Role) -> bool:
        page = self.pages[role]
        if page is None or page.wire is None or not page.wire.to_page:
            return False
        page.take(page.wire.to_page.popleft())
        return True

    def deliver_to_gateway(self, role: Role) -> bool:
        page = self.pages[role]
        if page is None or page.wire is None or not page.wire.to_gateway:
            return False
        self._apply(self.room.receive(role, page.wire.to_gateway.popleft(), self.now))
        return True

    def settle(self, limit: int = 500) -> None:
        """Deliver until nothing moves."""
        for _ in range(limit):
            moved = [deliver(role) for role in ROLES for deliver in (self.deliver_to_gateway, self.deliver_to_page)]
            if not any(moved):
                return
        raise AssertionError("the pages talk for ever")

    def advance(self, ms: int) -> None:
        until = self.now + ms
        while (at := self.room.timer()) is not None and at <= until:
            self.now = max(self.now, at)
            self._apply(self.room.handle_timer(self.now))
        self.now = until

    def order(self, reason: str = "drain") -> None:
        self._apply(self.room.restart(reason, self.now))

    def take_over(self) -> None:
        """Another process goes on with the room; all sockets are gone."""
        self.room = Room.restored(self.room.snapshot(), CANDIDATES, lambda: next(self._gateway))
        for page in self.pages.values():
            if page is not None:
                page.wire = None
        self.order("takeover")

    def _apply(self, outputs: object, wires: dict[Role, Wire] | None = None) -> None:
        assert isinstance(outputs, (list, tuple))
        for output in outputs:
            self._apply_one(output, wires)

    def _apply_one(self, output: Output, wires: dict[Role, Wire] | None) -> None:
        match output:
            case Send(role=role, message=message):
                page = self.pages[role]
                wire = wires[role] if wires else page.wire if page else None
                assert wire is not None, "nothing is sent to an empty seat"
                wire.to_page.append(type(message).model_validate_json(message.text()))
            case CloseSeat(role=role, code=code):
                self.closed.append((role, code))
            case LegsChanged():
                self.legs_changed += 1

    # What has to hold

    def page(self, role: Role) -> Page:
        page = self.pages[role]
        assert page is not None
        return page

    def connection(self, role: Role) -> Connection:
        connection = self.page(role).connection
        assert connection is not None
        return connection

    def is_up(self) -> bool:
        """Both browsers talk to legs that know them, and hold each other's certificate."""
        return all(self._is_leg_up(role) for role in ROLES)

    def _is_leg_up(self, role: Role) -> bool:
        page, leg = self.page(role), self.room.legs[LEG[role]]
        mine, theirs = self.connection(role), self.connection(PEER[role])
        assert page.generation is not None
        return (
            page.generation.mine == self.room.incarnation
            and mine.state == "stable"
            and mine.remote in leg.local
            and mine.local == leg.remote
            and mine.remote_fingerprint == theirs.fingerprint
        )
