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
from typing import Any, Final

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
from gateway.signaling.side import Answered, Offer, Side

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
        self._sides = {role: Side(role) for role in ROLES}
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
        for role, side in room._sides.items():
            side.page, side.leg.number = snapshot[role]["page"], snapshot[role]["transport"]
            side.leg.inherits = room.incarnation > 0
            side.arrived = side.described = side.page > 0
        return room

    def snapshot(self) -> dict[str, Any]:
        """Incarnation and generations, as JSON; no SDP and no secrets."""
        snapshot: dict[str, Any] = {"incarnation": self.incarnation}
        for role, side in self._sides.items():
            snapshot[role] = {"page": side.page, "transport": side.leg.number}
        return snapshot

    @property
    def legs(self) -> tuple[LegConfig, LegConfig]:
        return self._sides["client"].leg.config, self._sides["expert"].leg.config

    def generation(self, role: Role) -> Generation:
        """What this side's page should hold; `transport` is one ahead for a page that is asked to restart."""
        number = self._sides[role].leg.number + self._is_asked(self._sides[role])
        return Generation(mine=self.incarnation, peer=self.incarnation, transport=number)

    def state(self, role: Role) -> PeerIs:
        return self._sides[role].state

    def media(self, role: Role) -> MediaState | None:
        return self._sides[role].media

    # Coming and going

    def join(self, role: Role, generation: Generation | None, media: MediaState, now: int) -> Joined:
        """A socket takes the seat, with `hello`'s generation and media."""
        side, other = self._pair(role)
        before = _replaced(role) if side.online else ()
        incarnation, page = self.incarnation, side.page
        self._page(side, generation)
        side.online, side.arrived, side.left, side.aware = True, True, False, True
        side.page, side.media, side.shown = self.incarnation, media, None
        after: list[Output] = [LegsChanged()] if incarnation != self.incarnation or page != side.page else []
        after += self._show(side)
        after += self._show(other, replaced=generation is None and page > 0)
        after += self._again(side, other, now)
        peer = PeerInfo(state=other.state, media=other.media)
        return Joined(before, tuple(after), role == "expert", role == "client", self.generation(role), peer)

    def lost(self, role: Role, now: int) -> Sequence[Output]:
        """The seat's socket is gone; not to be called for one that another socket replaced."""
        side, other = self._pair(role)
        side.online = False
        return self._show(other)

    def leave(self, role: Role, now: int) -> Sequence[Output]:
        """The participant hung up."""
        side, other = self._pair(role)
        side.left = True
        return self._show(other)

    def presence(self, role: Role, present: bool, now: int) -> Sequence[Output]:
        """The relay hears this leg, or does not any more."""
        side, other = self._pair(role)
        side.present = present
        side.was_present = side.was_present or present
        return self._show(other)

    def _page(self, side: Side, generation: Generation | None) -> None:
        """Start the next incarnation, unless the page belongs to this one or this one has no page of that side yet."""
        if generation is not None and 0 < generation.mine - self.incarnation <= MAX_AHEAD:
            self._incarnate(above=generation.mine)
        elif self.incarnation == 0 or self._is_another_page(side, generation):
            self._incarnate()

    def _is_another_page(self, side: Side, generation: Generation | None) -> bool:
        """Whether a page other than the one that comes now had its part in this incarnation."""
        if side.page != self.incarnation:
            return False
        if generation is None:
            return True
        # Told of this incarnation and gone before it heard; unless it spoke in it, it can still begin it.
        return not generation.mine == generation.peer == self.incarnation and side.described

    def _incarnate(self, above: int = 0) -> None:
        self.incarnation = max(self.incarnation, above) + 1
        self._established = False
        self._order = None
        for side in self._sides.values():
            side.begin(self.incarnation, self._new_credentials())

    def _show(self, side: Side, *, replaced: bool = False) -> list[Output]:
        """Tell this side of the other, if there is anything new to tell."""
        _, other = self._pair(side.role)
        shown = (other.state, other.media, self.incarnation)
        if not side.online or (shown == side.shown and not replaced):
            return []
        if side.shown is None and not other.arrived:
            return []
        side.shown = shown
        generation = self.generation(side.role)
        peer = Peer(state=other.state, media=other.media, generation=generation, replaced=replaced or None)
        return [Send(side.role, peer)]

    def _again(self, side: Side, other: Side, now: int) -> Iterator[Output]:
        """What this side may have missed. It ignores an answer that it does not wait for, answers an offer again.

        The answer goes first: with its own offer still open, the impolite side would take the other's for glare.
        """
        if side.unheard is not None:
            yield Send(side.role, side.unheard)
            side.unheard = None
        if other.offer is not None:
            yield Send(side.role, other.offer.forwarded)
        side.leg.told(now)
        yield from (Send(side.role, sas) for sas in other.sas.values())
        if self._order is not None and not self._is_offered() and self._order.asked[-1:] in ([], [side.role]):
            yield from self._ask(side, now)

    # Messages

    def receive(self, role: Role, message: ClientMessage, now: int) -> Sequence[Output]:
        """Take a description, rollback, sas or media message; others are not the room's, and pass without effect."""
        side, other = self._pair(role)
        try:
            match message:
                case Description():
                    return self._described(side, other, message, now)
                case Rollback():
                    return self._rolled_back(side, message)
                case Sas():
                    return self._sas(side, other, message)
                case Media():
                    side.media = MediaState(audio=message.audio, video=message.video)
                    return self._show(other)
                case _:
                    return ()
        except _Refused as refusal:
            return [Send(role, refusal.answer)]

    def _described(self, side: Side, other: Side, message: Description, now: int) -> Sequence[Output]:
        self._check_incarnation(message.generation)
        side.aware = True
        if not other.arrived:
            raise _Refused("protocol", "Nobody is here yet to describe this to.")
        repeated = self._repeated(side, message)
        if repeated is not None:
            return repeated
        if message.kind == "offer" and side.leg.local is None and not self._is_asked(side):
            return self._unanswerable(side, now)
        if not self._fits_transport(side, message):
            return self._outdated(side, message, now)
        transport = self._checked(side, message)
        if message.kind == "offer":
            return self._offered(side, other, message, transport, now)
        return self._answer(side, other, message, transport, now)

    def _repeated(self, side: Side, message: Description) -> Sequence[Output] | None:
        """A page that lost its socket says its last description again; None if this one is new."""
        if message.kind == "answer":
            return () if message.sdp == side.agreed else None
        if side.offer is not None and side.offer.sdp == message.sdp:
            return ()
        if side.answered is not None and side.answered.offer == message.sdp:
            return [Send(side.role, side.answered.answer)]
        return None

    def _check_incarnation(self, generation: Generation) -> None:
        if not generation.mine == generation.peer == self.incarnation:
            raise _Refused("stale", "This belongs to a connection that has been replaced.")

    def _fits_transport(self, side: Side, message: Description) -> bool:
        asked = self._is_asked(side)
        current = side.leg.number
        fits = {current + 1} if asked and message.kind == "offer" else {current}
        if asked or side.leg.pending is not None:
            fits.add(current + 1)
        return message.generation.transport in fits

    def _outdated(self, side: Side, message: Description, now: int) -> Sequence[Output]:
        """A page takes no other's offer while its own stands open, so under an order it is asked for the right one."""
        stale = ErrorMessage(code="stale", message="The connection's transport has been renewed since.")
        asked = self._ask(side, now) if message.kind == "offer" and self._order is not None else ()
        return [Send(side.role, stale), *asked]

    def _checked(self, side: Side, message: Description) -> sdp.Transport:
        """The description's transport. A side's certificate stays the same for an incarnation (law 1)."""
        try:
            sdp.validate(message.sdp, message.kind)
            transport = sdp.transport_of(message.sdp)
        except sdp.SdpError as error:
            raise _Refused(error.code, error.detail) from None
        if side.fingerprint not in (None, transport.fingerprint):
            raise _Refused("bad_fingerprint", "The certificate changed; a new connection needs a new hello.")
        side.fingerprint = transport.fingerprint
        side.described = True
        return transport

    def _offered(
        self, side: Side, other: Side, message: Description, transport: sdp.Transport, now: int
    ) -> Sequence[Output]:
        asked = self._is_asked(side)
        new_ufrag = side.leg.remote not in (None, transport.credentials)
        renews_own = asked or (self._established and new_ufrag)
        renews_peer = asked or other.leg.local is None
        self._drop_offer(side)
        if renews_own:
            self._renew(side.leg)
        if renews_peer:
            self._renew(other.leg)
        if not self._established:
            side.leg.remote = transport.credentials
        if renews_own and not renews_peer and self._may_answer_for(other, side, message.sdp):
            return self._answer_for(other, side, message, transport, now)
        forwarded = self._forwarded(message, other, renewed=renews_peer)
        side.offer = Offer(message.sdp, transport.credentials, forwarded, renews_own, renews_peer)
        side.answered = side.unheard = None
        return [LegsChanged(), *self._send(other, forwarded)]

    def _renew(self, leg: Leg) -> None:
        """Unanswered offers share pending credentials: an ignored one must not invalidate what its successor says."""
        leg.pending = leg.pending or self._new_credentials()

    def _forwarded(self, message: Description, to: Side, *, renewed: bool) -> Description:
        """The description for the other side: its own leg's credentials are what it will talk to."""
        credentials = to.leg.pending if renewed else to.leg.local
        assert credentials is not None
        generation = Generation(mine=self.incarnation, peer=self.incarnation, transport=to.leg.number + renewed)
        rewritten = sdp.rewrite(message.sdp, credentials, self.candidates)
        return Description(sdp=rewritten, kind=message.kind, generation=generation, number=message.number)

    def _answer(
        self, side: Side, other: Side, message: Description, transport: sdp.Transport, now: int
    ) -> Sequence[Output]:
        """An answer to the other side's offer: what was pending for that becomes current."""
        offer = other.offer
        if offer is None or not _answers(message, offer):
            raise _Refused("stale", "No offer waits for this answer.")
        other.offer = None
        if offer.renews_own:
            other.leg.promote(now, told=other.online)
        if offer.renews_peer:
            side.leg.promote(now, told=True)
            self._order = None
        self._drop_offer(side)
        side.leg.remote, other.leg.remote = transport.credentials, offer.remote
        self._established = True
        self._agree(side, message.sdp, other, offer.sdp, transport.setup)
        forwarded = self._forwarded(message, other, renewed=False)
        other.answered = Answered(offer.sdp, forwarded)
        other.unheard = None if other.online else forwarded
        return [LegsChanged(), *self._send(other, forwarded)]

    @staticmethod
    def _agree(answerer: Side, answer: str, offerer: Side, offer: str, setup: str) -> None:
        answerer.agreed, offerer.agreed = answer, offer
        answerer.setup = "active" if setup == "active" else "passive"
        offerer.setup = "passive" if setup == "active" else "active"

    def _drop_offer(self, side: Side) -> None:
        """The side's own offer is void: rolled back by glare, by word, or by the next one."""
        _, other = self._pair(side.role)
        promised = self._order is not None or (other.offer is not None and other.offer.renews_peer)
        if not promised:
            side.leg.pending = None
        side.offer = None

    @staticmethod
    def _may_answer_for(away: Side, side: Side, offer: str) -> bool:
        """A restart of one leg changes nothing for the other side, so it need not wait for that side's socket."""
        if away.online or away.offer is not None or away.agreed is None or side.agreed is None:
            return False
        return sdp.same_media(side.agreed, offer)

    def _answer_for(
        self, away: Side, side: Side, message: Description, transport: sdp.Transport, now: int
    ) -> Sequence[Output]:
        assert away.agreed is not None
        side.leg.promote(now, told=True)
        side.leg.remote = transport.credentials
        side.agreed, side.offer = message.sdp, None
        answer_sdp = sdp.as_answer(away.agreed, away.setup, message.sdp)
        answer = Description(sdp=answer_sdp, kind="answer", generation=message.generation, number=message.number)
        forwarded = self._forwarded(answer, side, renewed=False)
        side.answered = Answered(message.sdp, forwarded)
        return [LegsChanged(), Send(side.role, forwarded)]

    def _rolled_back(self, side: Side, message: Rollback) -> Sequence[Output]:
        self._check_incarnation(message.generation)
        if side.offer is None:
            return ()
        self._drop_offer(side)
        return [LegsChanged()]

    def _sas(self, side: Side, other: Side, message: Sas) -> Sequence[Output]:
        """Passed on as it is; which step follows which is for the two pages to judge (law 1)."""
        if not side.aware or other.page != self.incarnation:
            raise _Refused("stale", "The connection has been replaced; verify the new one.")
        side.sas[message.step] = message
        return self._send(other, message)

    # Restart by order

    def restart(self, reason: str, now: int) -> Sequence[Output]:
        """Renew both legs: one connected participant is asked for an offer (two would be glare), or who comes next."""
        if not self._established:
            return ()
        self._order = self._order or _Order(reason, now + RESTART_AGAIN_MS)
        for role in [*reversed(self._order.asked), *ROLES]:
            if self._sides[role].online:
                return list(self._ask(self._sides[role], now))
        return ()

    def _is_asked(self, side: Side) -> bool:
        return self._order is not None and side.role in self._order.asked

    def _is_offered(self) -> bool:
        """Whether an offer that renews both legs waits for its answer."""
        return any(side.offer is not None and side.offer.renews_peer for side in self._sides.values())

    def _unanswerable(self, side: Side, now: int) -> Sequence[Output]:
        """After a takeover only a restart can be answered: the credentials that this offer relies on are lost."""
        stale = ErrorMessage(code="stale", message="This gateway has taken the call over; restart first.")
        self._order = self._order or _Order("takeover", now + RESTART_AGAIN_MS)
        return [Send(side.role, stale), *self._ask(side, now)]

    def _ask(self, side: Side, now: int) -> Iterator[Output]:
        order = self._order
        assert order is not None
        order.asked = [*(role for role in order.asked if role != side.role), side.role]
        order.again_at = now + RESTART_AGAIN_MS
        yield Send(side.role, Restart(reason=order.reason, generation=self.generation(side.role)))

    def timer(self) -> int | None:
        """When `handle_timer` is next due."""
        times = [side.leg.timer() for side in self._sides.values()]
        if self._order is not None:
            times.append(self._order.again_at)
        return min((at for at in times if at is not None), default=None)

    def handle_timer(self, now: int) -> Sequence[Output]:
        """Former credentials expire; an order that nobody followed goes to the other side, if that is here."""
        expired = [side.leg.expire(now) for side in self._sides.values()]
        outputs: list[Output] = [LegsChanged()] if any(expired) else []
        if self._order is not None and now >= self._order.again_at:
            self._order.again_at = now + RESTART_AGAIN_MS
            outputs += self._ask_again(self._order, now)
        return outputs

    def _ask_again(self, order: _Order, now: int) -> Sequence[Output]:
        if self._is_offered():
            return ()
        last = order.asked[-1] if order.asked else "expert"
        _, other = self._pair(last)
        for side in (other, self._sides[last]):
            if side.online:
                return list(self._ask(side, now))
        return ()

    def _pair(self, role: Role) -> tuple[Side, Side]:
        return self._sides[role], self._sides["expert" if role == "client" else "client"]

    @staticmethod
    def _send(side: Side, message: ServerMessage) -> list[Output]:
        return [Send(side.role, message)] if side.online else []


def _answers(message: Description, offer: Offer) -> bool:
    number = offer.forwarded.number
    return number is None or message.number in (None, number)


def _replaced(role: Role) -> tuple[Output, ...]:
    told = ErrorMessage(code="replaced", message="This call was opened on another page.", fatal=True)
    return Send(role, told), CloseSeat(role, Close.REPLACED)
