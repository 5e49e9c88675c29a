"""The room of one session: pairs client and expert, hands descriptions across, and keeps generations and credentials.

An *incarnation* is one pair of RTCPeerConnections. A fresh page on either side starts the next one (a reload is a new
DTLS identity, 6-media); a page that comes back on a new socket goes on in the present one. Within it, offers and
answers pass as perfect negotiation has them, each rewritten so that its receiver finds the relay and not its peer.

Pure: calls take `now` (ms of one clock), give outputs as values; randomness is injected. The host applies outputs in
their order: `LegsChanged` comes before the messages that rest on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from gateway.session import ROLES, Role
from gateway.sfu.port import Candidate, Credentials, LegConfig
from gateway.signaling import sdp
from gateway.signaling.leg import Leg
from gateway.signaling.messages import (
    ClientMessage,
    Close,
    Description,
    ErrorMessage,
    Generation,
    Media,
    MediaState,
    Peer,
    PeerInfo,
    PeerIs,
    Restart,
    Rollback,
    Sas,
    ServerMessage,
)

# A page that was ordered to restart offers within a round trip. Asking again sooner would make it offer twice.
RESTART_AGAIN_MS: Final = 3000
# How far ahead of us a page's generation may be: the restored state can be that much older than the page's.
MAX_AHEAD: Final = 1000


@dataclass(frozen=True, slots=True)
class Send:
    """To the socket in this seat."""

    role: Role
    message: ServerMessage


@dataclass(frozen=True, slots=True)
class CloseSeat:
    """Close the socket in this seat."""

    role: Role
    code: Close


@dataclass(frozen=True, slots=True)
class LegsChanged:
    """`Room.incarnation` or `Room.legs` changed: tell the relay, and keep a new `Room.snapshot()`."""


Output = Send | CloseSeat | LegsChanged


@dataclass(frozen=True, slots=True)
class Joined:
    """`before`: for the socket that held the seat until now. `welcome` is sent next, then `after` is applied."""

    before: tuple[Output, ...]
    after: tuple[Output, ...]
    polite: bool
    offerer: bool
    generation: Generation
    peer: PeerInfo


@dataclass(frozen=True, slots=True)
class _Offer:
    """An offer that waits for its answer. `renews_*`: that leg's pending credentials become current with the answer."""

    sdp: str
    remote: Credentials
    forwarded: Description
    renews_own: bool
    renews_peer: bool


@dataclass(frozen=True, slots=True)
class _Answered:
    """The last negotiation that a side began, in case its answer got lost on the way."""

    offer: str
    answer: Description


@dataclass(slots=True)
class _Seat:
    """One side. Everything from `described` on belongs to the present incarnation."""

    role: Role
    online: bool = False
    arrived: bool = False
    left: bool = False
    page: int = 0  # the incarnation that its page was told of last
    media: MediaState | None = None
    shown: tuple[PeerIs, MediaState | None, int] | None = None  # what it knows of the other side
    leg: Leg = field(default_factory=Leg)
    described: bool = False
    aware: bool = False  # what it sends from now on is meant for this incarnation
    present: bool = False
    was_present: bool = False
    offer: _Offer | None = None
    answered: _Answered | None = None
    unheard: Description | None = None  # an answer that met no socket
    agreed: str | None = None  # its last description that became part of an agreement
    setup: Literal["active", "passive"] = "active"
    fingerprint: str | None = None
    sas: dict[str, Sas] = field(default_factory=dict)

    def begin(self, incarnation: int, credentials: Credentials) -> None:
        self.leg.begin(credentials)
        self.page = incarnation if self.online else self.page
        self.described = self.aware = self.present = self.was_present = False
        self.offer = self.answered = self.unheard = self.agreed = self.fingerprint = None
        self.sas = {}

    @property
    def state(self) -> PeerIs:
        """As the other side is told it. Media without a socket goes on, so presence counts first (6-media, Secrets)."""
        if self.left:
            return "left"
        if self.present:
            return "connected"
        if self.online and not self.was_present:
            return "joined"
        return "reconnecting" if self.arrived else "absent"


@dataclass(slots=True)
class _Order:
    """Both legs are to be renewed; `asked` are those whose next offer does it."""

    reason: str
    again_at: int
    asked: list[Role] = field(default_factory=list)


class _Refused(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.answer = ErrorMessage(code=code, message=message)


class Room:
    """See the module. `client` is leg 0, `expert` leg 1; the expert is polite, the client offers first."""

    def __init__(self, candidates: Sequence[Candidate], new_credentials: Callable[[], Credentials]) -> None:
        self.candidates = tuple(candidates)
        self.incarnation = 0
        self._new_credentials = new_credentials
        self._seats = {role: _Seat(role) for role in ROLES}
        self._established = False
        self._order: _Order | None = None

    @classmethod
    def restored(
        cls,
        snapshot: Mapping[str, Any],
        candidates: Sequence[Candidate],
        new_credentials: Callable[[], Credentials],
    ) -> Room:
        """A room that goes on elsewhere: generations are kept, credentials are not, so `restart` has to follow."""
        room = cls(candidates, new_credentials)
        room.incarnation = snapshot["incarnation"]
        room._established = room.incarnation > 0
        for role, seat in room._seats.items():
            seat.page, seat.leg.number = snapshot[role]["page"], snapshot[role]["transport"]
            seat.arrived = seat.described = seat.page > 0
        return room

    def snapshot(self) -> dict[str, Any]:
        """Incarnation and generations, as JSON; no SDP and no secrets."""
        snapshot: dict[str, Any] = {"incarnation": self.incarnation}
        for role, seat in self._seats.items():
            snapshot[role] = {"page": seat.page, "transport": seat.leg.number}
        return snapshot

    @property
    def legs(self) -> tuple[LegConfig, LegConfig]:
        return self._seats["client"].leg.config, self._seats["expert"].leg.config

    def generation(self, role: Role) -> Generation:
        """What this side's page should hold; `transport` is one ahead for a page that is asked to restart."""
        ahead = self._order is not None and role in self._order.asked
        number = self._seats[role].leg.number + ahead
        return Generation(mine=self.incarnation, peer=self.incarnation, transport=number)

    def state(self, role: Role) -> PeerIs:
        return self._seats[role].state

    def media(self, role: Role) -> MediaState | None:
        return self._seats[role].media

    # Coming and going

    def join(self, role: Role, generation: Generation | None, media: MediaState, now: int) -> Joined:
        """A socket takes the seat, with `hello`'s generation and media."""
        seat, other = self._pair(role)
        before = _replaced(role) if seat.online else ()
        incarnation, page = self.incarnation, seat.page
        self._seat_page(seat, generation)
        seat.online, seat.arrived, seat.left, seat.aware = True, True, False, True
        seat.page, seat.media, seat.shown = self.incarnation, media, None
        after: list[Output] = [LegsChanged()] if incarnation != self.incarnation or page != seat.page else []
        after += self._show(seat)
        after += self._show(other, replaced=generation is None and page > 0)
        after += self._again(seat, other, now)
        peer = PeerInfo(state=other.state, media=other.media)
        return Joined(before, tuple(after), role == "expert", role == "client", self.generation(role), peer)

    def lost(self, role: Role, now: int) -> Sequence[Output]:
        """The seat's socket is gone; not to be called for one that another socket replaced."""
        seat, other = self._pair(role)
        seat.online = False
        return self._show(other)

    def leave(self, role: Role, now: int) -> Sequence[Output]:
        """The participant hung up."""
        seat, other = self._pair(role)
        seat.left = True
        return self._show(other)

    def presence(self, role: Role, present: bool, now: int) -> Sequence[Output]:
        """The relay hears this leg, or does not any more."""
        seat, other = self._pair(role)
        seat.present = present
        seat.was_present = seat.was_present or present
        return self._show(other)

    def _seat_page(self, seat: _Seat, generation: Generation | None) -> None:
        """Start the next incarnation unless the page belongs to this one, or this one has no page of that side yet."""
        ahead = generation is not None and 0 < generation.mine - self.incarnation <= MAX_AHEAD
        if generation is not None and ahead:
            self._incarnate(above=generation.mine)
        elif self.incarnation == 0:
            self._incarnate()
        elif generation is None:
            if seat.page == self.incarnation:
                self._incarnate()
        elif not generation.mine == generation.peer == self.incarnation:
            # Told of this incarnation and gone before it heard; unless it spoke in it, it can still begin it.
            if seat.page == self.incarnation and seat.described:
                self._incarnate()

    def _incarnate(self, above: int = 0) -> None:
        self.incarnation = max(self.incarnation, above) + 1
        self._established = False
        self._order = None
        for seat in self._seats.values():
            seat.begin(self.incarnation, self._new_credentials())

    def _show(self, seat: _Seat, *, replaced: bool = False) -> list[Output]:
        """Tell this side of the other, if there is anything new to tell."""
        _, other = self._pair(seat.role)
        shown = (other.state, other.media, self.incarnation)
        if not seat.online or (shown == seat.shown and not replaced):
            return []
        if seat.shown is None and not other.arrived:
            return []
        seat.shown = shown
        generation = self.generation(seat.role)
        peer = Peer(state=other.state, media=other.media, generation=generation, replaced=replaced or None)
        return [Send(seat.role, peer)]

    def _again(self, seat: _Seat, other: _Seat, now: int) -> Iterator[Output]:
        """What this side may have missed: it ignores an answer that it does not wait for, and answers an offer again."""
        if other.offer is not None:
            yield Send(seat.role, other.offer.forwarded)
        if seat.unheard is not None:
            yield Send(seat.role, seat.unheard)
            seat.unheard = None
        seat.leg.told(now)
        yield from (Send(seat.role, sas) for sas in other.sas.values())
        if self._order is not None and (not self._order.asked or self._order.asked[-1] == seat.role):
            yield from self._ask(seat, now)

    # Messages

    def receive(self, role: Role, message: ClientMessage, now: int) -> Sequence[Output]:
        """Take a description, rollback, sas or media message; others are not the room's, and pass without effect."""
        seat, other = self._pair(role)
        try:
            match message:
                case Description():
                    return self._described(seat, other, message, now)
                case Rollback():
                    return self._rolled_back(seat, message)
                case Sas():
                    return self._sas(seat, other, message)
                case Media():
                    seat.media = MediaState(audio=message.audio, video=message.video)
                    return self._show(other)
                case _:
                    return ()
        except _Refused as refusal:
            return [Send(role, refusal.answer)]

    def _described(self, seat: _Seat, other: _Seat, message: Description, now: int) -> Sequence[Output]:
        self._check_incarnation(message.generation)
        seat.aware = True
        if not other.arrived:
            raise _Refused("protocol", "Nobody is here yet to describe this to.")
        repeated = self._repeated(seat, message)
        if repeated is not None:
            return repeated
        self._check_transport(seat, message)
        transport = self._checked(seat, message)
        if message.kind == "offer":
            return self._offered(seat, other, message, transport, now)
        return self._answer(seat, other, message, transport, now)

    def _repeated(self, seat: _Seat, message: Description) -> Sequence[Output] | None:
        """A page that lost its socket says its last description again; None if this one is new."""
        if message.kind == "answer":
            return () if message.sdp == seat.agreed else None
        if seat.offer is not None and seat.offer.sdp == message.sdp:
            return ()
        if seat.answered is not None and seat.answered.offer == message.sdp:
            return [Send(seat.role, seat.answered.answer)]
        return None

    def _check_incarnation(self, generation: Generation) -> None:
        if not generation.mine == generation.peer == self.incarnation:
            raise _Refused("stale", "This belongs to a connection that has been replaced.")

    def _check_transport(self, seat: _Seat, message: Description) -> None:
        asked = self._order is not None and seat.role in self._order.asked
        current = seat.leg.number
        fits = {current + 1} if asked and message.kind == "offer" else {current}
        if asked or seat.leg.pending is not None:
            fits.add(current + 1)
        if message.generation.transport not in fits:
            raise _Refused("stale", "The connection's transport has been renewed since.")

    def _checked(self, seat: _Seat, message: Description) -> sdp.Transport:
        """The description's transport. A side's certificate stays the same for an incarnation (law 1)."""
        try:
            sdp.validate(message.sdp, message.kind)
            transport = sdp.transport_of(message.sdp)
        except sdp.SdpError as error:
            raise _Refused(error.code, error.detail) from None
        if seat.fingerprint not in (None, transport.fingerprint):
            raise _Refused("bad_fingerprint", "The certificate changed; a new connection needs a new hello.")
        seat.fingerprint = transport.fingerprint
        seat.described = True
        return transport

    def _offered(
        self, seat: _Seat, other: _Seat, message: Description, transport: sdp.Transport, now: int
    ) -> Sequence[Output]:
        asked = self._order is not None and seat.role in self._order.asked
        new_ufrag = seat.leg.remote not in (None, transport.credentials)
        renews_own = asked or seat.leg.local is None or (self._established and new_ufrag)
        renews_peer = asked or other.leg.local is None
        self._drop_offer(seat)
        if renews_own:
            self._renew(seat.leg)
        if renews_peer:
            self._renew(other.leg)
        if not self._established:
            seat.leg.remote = transport.credentials
        if renews_own and not renews_peer and self._may_answer_for(other, seat, message.sdp):
            return self._answer_for(other, seat, message, transport, now)
        forwarded = self._forwarded(message, other, renewed=renews_peer)
        seat.offer = _Offer(message.sdp, transport.credentials, forwarded, renews_own, renews_peer)
        seat.answered = seat.unheard = None
        return [LegsChanged(), *self._send(other, forwarded)]

    def _renew(self, leg: Leg) -> None:
        """Unanswered offers share pending credentials: an ignored one must not invalidate what its successor says."""
        leg.pending = leg.pending or self._new_credentials()

    def _forwarded(self, message: Description, to: _Seat, *, renewed: bool) -> Description:
        """The description for the other side: its own leg's credentials are what it will talk to."""
        credentials = to.leg.pending if renewed else to.leg.local
        assert credentials is not None
        generation = Generation(mine=self.incarnation, peer=self.incarnation, transport=to.leg.number + renewed)
        rewritten = sdp.rewrite(message.sdp, credentials, self.candidates)
        return Description(sdp=rewritten, kind=message.kind, generation=generation)

    def _answer(
        self, seat: _Seat, other: _Seat, message: Description, transport: sdp.Transport, now: int
    ) -> Sequence[Output]:
        """An answer to the other side's offer: what was pending for that becomes current."""
        offer, other.offer = other.offer, None
        if offer is None:
            raise _Refused("stale", "No offer waits for this answer.")
        if offer.renews_own:
            other.leg.promote(now, told=other.online)
        if offer.renews_peer:
            seat.leg.promote(now, told=True)
            self._order = None
        self._drop_offer(seat)
        seat.leg.remote, other.leg.remote = transport.credentials, offer.remote
        self._established = True
        self._agree(seat, message.sdp, other, offer.sdp, transport.setup)
        forwarded = self._forwarded(message, other, renewed=False)
        other.answered = _Answered(offer.sdp, forwarded)
        other.unheard = None if other.online else forwarded
        return [LegsChanged(), *self._send(other, forwarded)]

    @staticmethod
    def _agree(answerer: _Seat, answer: str, offerer: _Seat, offer: str, setup: str) -> None:
        answerer.agreed, offerer.agreed = answer, offer
        answerer.setup = "active" if setup == "active" else "passive"
        offerer.setup = "passive" if setup == "active" else "active"

    def _drop_offer(self, seat: _Seat) -> None:
        """The side's own offer is void: rolled back by glare, by word, or by the next one."""
        _, other = self._pair(seat.role)
        promised = self._order is not None or (other.offer is not None and other.offer.renews_peer)
        if not promised:
            seat.leg.pending = None
        seat.offer = None

    @staticmethod
    def _may_answer_for(away: _Seat, seat: _Seat, offer: str) -> bool:
        """A restart of one leg changes nothing for the other side, so it need not wait for that side's socket."""
        if away.online or away.offer is not None or away.agreed is None or seat.agreed is None:
            return False
        return sdp.same_media(seat.agreed, offer)

    def _answer_for(
        self, away: _Seat, seat: _Seat, message: Description, transport: sdp.Transport, now: int
    ) -> Sequence[Output]:
        assert away.agreed is not None
        seat.leg.promote(now, told=True)
        seat.leg.remote = transport.credentials
        seat.agreed, seat.offer = message.sdp, None
        answer = Description(
            sdp=sdp.as_answer(away.agreed, away.setup), kind="answer", generation=self.generation(seat.role)
        )
        forwarded = self._forwarded(answer, seat, renewed=False)
        seat.answered = _Answered(message.sdp, forwarded)
        return [LegsChanged(), Send(seat.role, forwarded)]

    def _rolled_back(self, seat: _Seat, message: Rollback) -> Sequence[Output]:
        self._check_incarnation(message.generation)
        if seat.offer is None:
            return ()
        self._drop_offer(seat)
        return [LegsChanged()]

    def _sas(self, seat: _Seat, other: _Seat, message: Sas) -> Sequence[Output]:
        """Passed on as it is; which step follows which is for the two pages to judge (law 1)."""
        if not seat.aware or other.page != self.incarnation:
            raise _Refused("stale", "The connection has been replaced; verify the new one.")
        seat.sas[message.step] = message
        return self._send(other, message)

    # Restart by order

    def restart(self, reason: str, now: int) -> Sequence[Output]:
        """Renew both legs: one connected participant is asked for an offer (two would be glare), or who comes next."""
        if not self._established:
            return ()
        self._order = _Order(reason, now + RESTART_AGAIN_MS)
        for role in ROLES:
            if self._seats[role].online:
                return list(self._ask(self._seats[role], now))
        return ()

    def _ask(self, seat: _Seat, now: int) -> Iterator[Output]:
        order = self._order
        if order is None or (seat.offer is not None and seat.offer.renews_peer):
            return
        order.asked = [*(role for role in order.asked if role != seat.role), seat.role]
        order.again_at = now + RESTART_AGAIN_MS
        yield Send(seat.role, Restart(reason=order.reason, generation=self.generation(seat.role)))

    def timer(self) -> int | None:
        """When `handle_timer` is next due."""
        times = [seat.leg.timer() for seat in self._seats.values()]
        if self._order is not None:
            times.append(self._order.again_at)
        return min((at for at in times if at is not None), default=None)

    def handle_timer(self, now: int) -> Sequence[Output]:
        """Former credentials expire; an order that nobody followed goes to the other side, if that is here."""
        expired = [seat.leg.expire(now) for seat in self._seats.values()]
        outputs: list[Output] = [LegsChanged()] if any(expired) else []
        if self._order is not None and now >= self._order.again_at:
            self._order.again_at = now + RESTART_AGAIN_MS
            outputs += self._ask_again(self._order, now)
        return outputs

    def _ask_again(self, order: _Order, now: int) -> Sequence[Output]:
        if any(seat.offer is not None and seat.offer.renews_peer for seat in self._seats.values()):
            return ()
        last = order.asked[-1] if order.asked else "expert"
        _, other = self._pair(last)
        for seat in (other, self._seats[last]):
            if seat.online:
                return list(self._ask(seat, now))
        return ()

    def _pair(self, role: Role) -> tuple[_Seat, _Seat]:
        return self._seats[role], self._seats["expert" if role == "client" else "client"]

    @staticmethod
    def _send(seat: _Seat, message: ServerMessage) -> list[Output]:
        return [Send(seat.role, message)] if seat.online else []


def _replaced(role: Role) -> tuple[Output, ...]:
    told = ErrorMessage(code="replaced", message="This call was opened on another page.", fatal=True)
    return Send(role, told), CloseSeat(role, Close.REPLACED)
