"""One session as this node hosts it: seats, relay, meter and record brought together.

A single task takes everything that concerns the session in turn (seats, messages, reports of the relay, changes of the
record, time), asks the cores what follows, and does it. It owns the session by a lease while it runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import structlog
from redis.exceptions import RedisError

from gateway import session as core
from gateway.errors import Conflict, GatewayError, StoreUnavailable
from gateway.meter.intervals import Interval
from gateway.meter.ledger import Lease, refusal
from gateway.session import ROLES, Role, SessionRecord
from gateway.sessions.shown import Docs
from gateway.sfu.port import CallConfig, Report
from gateway.signaling import messages as wire
from gateway.signaling import telling
from gateway.signaling.call import Apart, Call, End, Outcome, Presence, Together, Warned
from gateway.signaling.facts import Facts
from gateway.signaling.gauges import Gauges
from gateway.signaling.going_on import GoingOn
from gateway.signaling.messages import Close, SignalError
from gateway.signaling.orphans import Tag
from gateway.signaling.room import CloseSeat, LegsChanged, Output, Room, Send
from gateway.signaling.seats import Seated, Seats
from gateway.signaling.surroundings import Surroundings
from gateway.signaling.turns import Turns
from gateway.signaling.websocket import Socket

log = structlog.get_logger(__name__)

TICK_S: Final = 0.25
# The relay forwards on its own for this long after our last word; longer, and an orphan costs more (6-media).
UNTIL_MS: Final = 30_000
OUTAGE_MAX_MS: Final = 300_000
# A session that nobody sits in any more, before it ever ran: kept this long for a page that reconnects.
EMPTY_MS: Final = 30_000
# After the end: time to rate, to go on, and to be told of the receipt.
LINGER_MS: Final = 600_000
# Longer: an end by the API whose announcement was lost cuts the call that much later. Shorter: reads for nothing.
REREAD_MS: Final = 5_000
# Ends whose instant was known before.
BY_LIMIT: Final[frozenset[core.EndReason]] = frozenset({"limit_reached", "cap_reached"})
# The hold was there and is gone: the card's bank let it go, or someone released it (5-money, end reasons).
LOST_FUNDS: Final = frozenset({"failed", "due", "released"})


class Hosted:
    """One session on this node. Everything happens in `run`, one thing after the other."""

    def __init__(
        self, host: Surroundings, docs: Docs, lease: Lease | None, room: Room, earlier: Sequence[Interval] = ()
    ) -> None:
        clock = host.node.clock
        self._host, self.docs, self.lease = host, docs, lease
        self.session = docs.record.id
        self._tab = None if lease is None else host.flusher.open(lease)
        self.call = Call(docs.record, host.timers, offset_ms=clock.offset_ms, now=clock.wall_ms(), earlier=earlier)
        self.room, self.turns, self.seats, self.facts = room, Turns(), Seats(), Facts()
        self._gauges = Gauges()
        self.going_on = GoingOn(host.sessions, self.session, self.seats.send)
        self._unspent: set[tuple[Role, str]] = set()
        self._empty_since: int | None = clock.wall_ms()
        self._second = -1
        self._over: End | None = None
        self._lost = self._going = False
        self._losses_seen = 0
        self._configured_at = 0
        self._read_at = clock.boot_ms()

    @property
    def record(self) -> SessionRecord:
        return self.call.record

    def shut(self) -> None:
        """The task is over, for whatever reason: who still waits is sent away, and comes back to the next owner; the
        lease is renewed no more."""
        if self._tab is not None:
            self._host.flusher.close(self._tab)
        self.turns.shut()
        self.going_on.shut()
        self.seats.close_both(Close.TRY_AGAIN)

    async def run(self) -> None:
        """Until the session is over and everyone has gone, or nobody came, or another node owns it."""
        async with self._host.sessions.changes.of(self.session) as changed:
            while not (self._lost or self._going or self._deserted()):
                work = await self.turns.next(TICK_S)
                try:
                    await self._turn(work, changed)
                except (StoreUnavailable, RedisError) as error:
                    log.warning("session_waits_for_store", session=self.session, error=type(error).__name__)
        await self._leave()

    async def _turn(self, work: Callable[[], Awaitable[Any]] | None, changed: asyncio.Event) -> None:
        """One turn of the task. Raises StoreUnavailable and RedisError: the next one comes to what is left."""
        try:
            # First, since all that follows may wait for Redis, and the call must go on meanwhile.
            await self._keep_relay()
            if work is not None:
                await work()
            await self._look(changed)
            await self._tick()
        except Conflict as error:
            await self._conflict(error)

    async def _look(self, changed: asyncio.Event) -> None:
        """Read the records again when someone changed them; now and then also unasked, since Redis may have lost the
        word of it."""
        boot = self._host.node.clock.boot_ms()
        if changed.is_set() or boot - self._read_at >= REREAD_MS:
            changed.clear()
            self._read_at = boot
            await self._count_others()
            await self._heed_others()
            await self._refresh()

    async def _count_others(self) -> None:
        """Former owners may write usage after we took over; it will be billed, so it belongs on display (law 9)."""
        lease = self.lease
        if lease is None or lease.epoch == 1 or not self.record.open:
            return
        usage = await self._host.ledger.usage(self.session)
        self.call.earlier = tuple((row.start, row.end) for row in usage.rows if row.epoch != lease.epoch)

    async def _heed_others(self) -> None:
        if (first := self.call.began_before) is not None:
            await self._change(lambda record: core.began(record, first))
            await self._configure()

    def _deserted(self) -> bool:
        if self.seats:
            return False
        if self._empty_since is None:  # we closed the last seat ourselves
            self._empty_since = self._host.now()
        if self.record.open and self.record.started_at is not None:
            return False
        if self.record.status == "ended":
            return False
        return self._host.now() - self._empty_since > EMPTY_MS

    async def _conflict(self, error: Conflict) -> None:
        """Another owner: it has everything that counts; our callers are told to come back, and will find it."""
        if error.code not in ("fenced", "held", "final"):
            log.error("session_conflict", session=self.session, code=error.code)
            return
        if error.code == "final":
            await self._refresh()
            return
        log.warning("session_lost", session=self.session)
        self._lost = True
        await self._host.relay.release(self.session)

    async def _leave(self) -> None:
        await self._host.relay.release(self.session)
        if self._tab is not None:
            self._host.flusher.close(self._tab)
        self.seats.close_both(Close.GOING_AWAY if self.record.open else Close.ENDED)
        if self.lease is not None and not self._lost and self.record.open:
            await self._host.give_back(self.lease)

    async def give_up(self) -> None:
        """This node goes away: write what was used, cut, and let go of the session without ending it."""
        if self.record.open and self.lease is not None:
            report = await self._host.relay.release(self.session)
            if report is not None:
                self.call.heard(report, self._host.now())
            with suppress(GatewayError):
                await self._settle_usage()
                await self._change(core.apart)
        self._going = True

    # Seats

    async def enter(self, role: Role, hello: wire.Hello, socket: Socket, key: dict[str, Any] | None,
                    token: str | None) -> None:  # fmt: skip
        """Seat a socket: newest wins. Sends `welcome`."""
        now = self._host.now()
        if self.record.open:
            consent = self._consent(role, hello, now)
            await self._change(lambda record: core.joined(record, role, now, consent))
        issued = await self._host.resume.issue(self.session, role, key)
        joined = self.room.join(role, hello.generation, hello.media, now)
        await self._carry_out(joined.before)
        self.seats.take(Seated(role, socket))
        if token is not None:
            self._unspent.add((role, token))
        self._empty_since = None
        self.call.seat(role, taken=True, now=now)
        self.facts.seated(len(self.seats), now)
        docs = replace(self.docs, session=self.record.to_dict())
        figures = self.call.figures(role, now)
        servers = self._host.turn.servers(self.session, role, now)
        socket.send(telling.welcome(docs, role, joined, issued, self._host.timers, figures, servers))
        await self._carry_out(joined.after)
        if self._gauges.ratings[role] is not None:
            self.seats.send(role, self._gauges.message(role))
        self.going_on.seated(role, self.record, now)
        if role == "client" and self.record.open and core.lacks_consent(self.record):
            text = "Nothing is held before the client agrees to the price: send `consent`."
            self.seats.send(role, wire.ErrorMessage(code="consent_required", message=text, fatal=False))
        if not self.record.open:
            await self._tell_end(only=role)

    def _consent(self, role: Role, hello: wire.Hello, now: int) -> core.Consent | None:
        if role != "client" or hello.consent is None:
            return None
        given = hello.consent
        return core.Consent(now, given.text_version, given.locale, given.amount_max or 0)

    async def left(self, role: Role, socket: Socket) -> None:
        """A socket is gone. The leg may well live on; only the relay tells."""
        if not self.seats.give_up(role, socket):
            return
        now = self._host.now()
        self.call.seat(role, taken=False, now=now)
        if not self.seats:
            self._empty_since = now
        await self._carry_out(self.room.lost(role, now))

    async def receive(self, role: Role, socket: Socket, message: wire.ClientMessage) -> None:
        """Raises SignalError, which the client is told."""
        if not self.seats.holds(role, socket):
            return
        match message:
            case wire.Leave():
                await self._hang_up(role)
            case wire.Rate():
                await self._rate(role, message)
            case wire.Continue():
                self.going_on.wanted(role, self.record, self._host.now())
            case wire.Stats():
                self._gauges.told(role, message, self._host.now())
            case wire.Description() | wire.Rollback() | wire.Sas() | wire.Media():
                await self._carry_out(self.room.receive(role, message, self._host.now()))
            case _:
                raise SignalError("bad_message", f"{message.type} is not expected now.")

    async def _hang_up(self, role: Role) -> None:
        reason: core.EndReason = "client_left" if role == "client" else "expert_left"
        now = self._host.now()
        await self._carry_out(self.room.leave(role, now))
        waits = self.record.meeting is not None and self.record.started_at is None  # until it must have begun
        if self.record.open and not waits:
            await self._end(End(reason, now))

    async def _rate(self, role: Role, message: wire.Rate) -> None:
        rating = {"stars": message.stars, "comment": message.comment, "parameters": message.parameters or {}}
        await self._host.sessions.records.apply(self.session, lambda record: core.rated(record, role, rating))

    # The relay

    def metered(self, report: Report) -> None:
        """The usage of a report, at once: it must not wait for its turn behind something that waits for Redis."""
        self.call.learn(report)
        self._put_rows()

    async def heard(self, report: Report) -> None:
        """A report of the relay."""
        for outcome in self.call.heard(report, self._host.now()):
            await self._follow(outcome)
        self.facts.heard(report)
        for role, quality in self._gauges.heard(report, self._host.now()):
            self.seats.send(role, quality)
        await self._spend_tokens()

    async def _spend_tokens(self) -> None:
        """A join token is spent once its leg is selected (6-media, Secrets and sockets)."""
        for role, token in sorted(self._unspent):
            if self.call.selected(role):
                await self._host.sessions.doors.spend(token)
                self._unspent.discard((role, token))

    async def _configure(self) -> None:
        """Say to the relay what the call should be; again each second, since `until` runs out by itself."""
        record, clock = self.record, self._host.node.clock
        if not record.open or self.lease is None:
            return
        boot = clock.boot_ms()
        deadline = None if record.deadline is None else record.deadline - self.call.offset_ms
        await self._host.relay.configure(
            CallConfig(
                call=self.session, incarnation=self.room.incarnation, legs=self.room.legs,
                funded=record.funded and record.status != "created", limit_ms=record.limit_ms,
                until=boot + UNTIL_MS, deadline=deadline, tag=str(Tag.of(self.lease, self.call.offset_ms)),
            )
        )  # fmt: skip

    async def _follow(self, outcome: Outcome) -> None:
        now = self._host.now()
        match outcome:
            case Presence(role, connected):
                await self._carry_out(self.room.presence(role, connected, now))
            case Together(at):
                self.facts.together(at)
                self._begun(at)
                await self._change(lambda record: core.together(record, at))
                await self._configure()
            case Apart():
                await self._change(core.apart)
            case Warned(reason, remaining_s):
                self.seats.send_both(wire.Warn(remaining=remaining_s, reason=reason))
                await self._change(lambda record: core.warned(record, reason, remaining_s))
            case End():
                await self._end(outcome)

    # The record

    def _begun(self, at: int) -> None:
        """From here on it is metered and displayed, also when Redis does not take that now: its end will say so."""
        if self.record.open and self.record.started_at is None:
            self.call.record = replace(self.record, started_at=at)

    async def _change(self, change: Callable[[SessionRecord], core.Step]) -> None:
        fence = self.lease.fence() if self.lease else None
        own, before = self.record, self.record.status

        def told(stored: SessionRecord) -> core.Step:
            known = core.remembered(stored, own)
            step = change(known)
            return replace(step, changed=step.changed or known is not stored)

        await self._take(await self._host.sessions.records.apply(self.session, told, fence=fence))
        if self.record.status != before:
            self.seats.send_both(wire.Status(status=self.record.status))

    async def _take(self, record: SessionRecord) -> None:
        """The record as it is stored by now. An end that Redis has not taken yet stays; one that came from elsewhere
        cuts the call."""
        was, over = self.record, self._over
        record = core.remembered(record, was)
        self.call.record = record if over is None else core.ended(record, over.reason, over.at).record
        if was.priced and not self.record.priced:
            for role in ROLES:
                self.seats.send(role, telling.made_free(self.record, role))
        if was.open and not self.record.open and over is None:
            await self._cut(End(self.record.end_reason or "ended_by_api", self.record.ended_at or 0))

    async def _refresh(self) -> None:
        """Someone changed a record of the session: the bridge, the API, another owner."""
        before = self.docs
        self.docs = await self._host.sessions.records.apply_payment(self.session)
        was = self.record
        await self._take(self.docs.record)
        if was.open and not self.record.open:
            return
        if self.docs.payment["status"] in LOST_FUNDS and self._in_call and self.record.priced:
            await self._end(End("funds_reached", self._host.now()))
            return
        if self.record.funded != was.funded or self.record.limit_ms != was.limit_ms:
            await self._configure()
        if self.docs.payment["status"] != before.payment["status"] or self.record.status != was.status:
            self._tell_status()
        if self.docs.receipts and not before.receipts and not self.record.open:
            await self._tell_end()

    @property
    def _in_call(self) -> bool:
        return self.record.open and self.record.started_at is not None

    def _tell_status(self) -> None:
        for role in ROLES:
            self.seats.send(role, telling.status(self.docs, role))

    # Time

    async def _tick(self) -> None:
        now = self._host.now()
        if self.record.open:
            for outcome in self.call.tick(now):
                await self._follow(outcome)
            await self._carry_out(self.room.handle_timer(now))
        if self.record.open:
            self._show(now)
            self._put_rows()
            self.going_on.tick(self.record, now)
            await self._heed_tab()
        elif self.record.status == "ended":
            await self._finalize()
        elif self.seats and now - (self.record.ended_at or now) > LINGER_MS:
            self.seats.close_both(Close.ENDED)

    def _show(self, now: int) -> None:
        """The live figures, when the second of the call turns."""
        started = self.record.started_at
        if started is None or (now - started) // 1000 == self._second:
            return
        self._second = (now - started) // 1000
        self._send_figures(now)

    def _send_figures(self, now: int) -> None:
        for role in ROLES:
            self.seats.send(role, wire.Meter(**self.call.figures(role, now)))

    async def _keep_relay(self) -> None:
        """Have the relay go on; not when Redis has been away for so long that nobody can say whose the call is."""
        boot = self._host.node.clock.boot_ms()
        if self._tab is None or not self.record.open or boot - self._tab.acked_at >= OUTAGE_MAX_MS:
            return
        if boot - self._configured_at >= 1000:
            self._configured_at = boot
            await self._configure()

    def _put_rows(self) -> None:
        """Hand what the relay has reported to the node's flusher, which sees to it from here."""
        if self._tab is None:
            return
        rows = self.call.rows()
        self._tab.put(rows, self._host.node.clock.boot_ms())
        self.call.flushed(rows)

    async def _heed_tab(self) -> None:
        """What the flusher found out: the session is another's, or Redis lost something and is told again."""
        if self._tab is None:
            return
        if self._tab.fault is not None:
            raise refusal(self._tab.fault)
        if self._tab.losses > self._losses_seen:
            await self._refresh()
            self._losses_seen = self._tab.losses

    async def _settle_usage(self) -> None:
        """All that was metered is in the ledger when this returns."""
        if self._tab is not None:
            self._put_rows()
            await self._host.flusher.settle(self._tab)

    # The end

    async def _end(self, end: End) -> None:
        """Cut first, then say so: nothing is forwarded after the instant that is billed."""
        if self._over is not None:
            return
        if end.reason not in BY_LIMIT:
            # By the clock that its usage is in: Redis's may have been set back since, and would cut that off.
            end = replace(end, at=max(end.at, self._host.node.clock.boot_ms() + self.call.offset_ms))
        await self._cut(end)
        try:
            await self._change(lambda record: core.ended(record, end.reason, end.at))
        except StoreUnavailable:
            # The figures follow when the bill is final; that it is over must not wait for that.
            self.seats.send_both(wire.Ended(reason=end.reason, summary=None))
            raise

    async def _cut(self, end: End) -> None:
        self._over = end
        report = await self._host.relay.release(self.session)
        now = self._host.now()
        if report is not None:
            for outcome in self.call.heard(report, now):
                if isinstance(outcome, Together):
                    self._begun(outcome.at)
        with suppress(StoreUnavailable):
            await self._count_others()
        if self.record.open:
            self.call.record = core.ended(self.record, end.reason, end.at).record
        self._send_figures(now)

    async def _finalize(self) -> None:
        """Write the last rows, freeze the bill, tell both. Repeated by the next tick if Redis is away."""
        lease = self.lease
        if lease is None:
            return
        await self._settle_usage()
        if (over := self._over) is not None:
            # Redis was away when it ended, or lost that with its last second.
            await self._change(lambda record: core.ended(record, over.reason, over.at))
        if self._tab is not None and self._tab.losses:
            await self._change(core.restated)
        self.call.record = await self._host.sessions.records.finalize(self.session, lease.fence(), self.call.earlier)
        self.docs = await self._host.sessions.records.read(self.session)
        self.facts.finalized(self.record, lease.epoch)
        await self._tell_end()

    async def _tell_end(self, only: Role | None = None) -> None:
        self.docs = await self._host.sessions.records.read(self.session)
        for role in [only] if only else ROLES:
            self.seats.send(role, telling.ended(self.docs, role, self.record.end_reason or ""))

    # Sending

    async def _carry_out(self, outputs: Iterable[Output]) -> None:
        """In their order: the relay knows a leg's credentials before its browser does."""
        for output in outputs:
            match output:
                case Send(role, message):
                    self.seats.send(role, message)
                case CloseSeat(role, code):
                    self.seats.close(role, code)
                case LegsChanged():
                    await self._configure()
                    await self._host.keep_room(self.session, self.room)
