"""A gateway node, with the real host, session, flusher and sweeper: hosts the session if its pages come here."""

from __future__ import annotations

import types
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from gateway.errors import Conflict, GatewayError, InvalidRequest, StoreUnavailable
from gateway.meter.flusher import Flusher
from gateway.meter.sweeper import Sweeper
from gateway.meter.usage_file import Line
from gateway.sfu.port import LegConfig
from gateway.signaling import host as hosting
from gateway.signaling.call import Timers
from gateway.signaling.hosted import Hosted
from gateway.signaling.orphans import Orphans
from gateway.signaling.surroundings import Surroundings
from gateway.signaling.turn import Turn
from tests.simulation.people import Page
from tests.simulation.relay import RelayModel
from tests.simulation.world import START, Inbox, Process, World, io, sleep

if TYPE_CHECKING:
    from tests.simulation.gateway import Processes

SESSION, BOOKING = "ses_sim", "bkg_sim"
GRACE_MS, LONE_MS = 20_000, 30_000
SILENT_MS = 3_000
WORD: Any = object()  # the journal said that the session changed; the relay had nothing to say
HELLO: Any = types.SimpleNamespace(
    generation=None, media=None, consent=types.SimpleNamespace(text_version="1", locale="en", amount_max=10**8)
)


class NoRoom:
    """The room that pairs two peers, when no media has to be set up."""

    incarnation = 1
    legs = (LegConfig(), LegConfig())
    offerer = polite = True

    def join(self, *_: Any) -> Any:
        return _JOINED

    def _none(self, *_: Any) -> tuple[Any, ...]:
        return ()

    leave = lost = receive = presence = handle_timer = restart = _none


_JOINED = types.SimpleNamespace(before=(), after=())


class NoResume:
    async def issue(self, *_: Any) -> None: ...


class QuietHosted(Hosted):
    """A hosted session that says nothing of itself in the log, and what it displays to the laws."""

    def _canonical_line(self) -> None: ...

    shown_at = 0

    def _send_figures(self, now: int) -> None:
        self._host.node.processes.displayed(self, now)  # type: ignore[attr-defined]
        self.shown_at = now
        super()._send_figures(now)


class Host(hosting.Host):
    """The door, for its way to claim a session."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._with = surroundings
        self._orphans = Orphans(surroundings.ledger)  # none: here the relay dies with its node

    async def _room(self, session: str) -> Any:
        return NoRoom()


class Disk:
    """A node's usage file, which outlives the node's process: `gateway.meter.usage_file.UsageFile` without a disk."""

    def __init__(self) -> None:
        self._lines: list[Line] = []

    @property
    def size(self) -> int:
        return 100 * len(self._lines)

    def append(self, lines: Iterable[Line]) -> None:
        self._lines += lines

    def rewrite(self, lines: Iterable[Line]) -> None:
        self._lines = list(lines)

    def read(self) -> list[Line]:
        found: dict[tuple[str, int, str], Line] = {}
        for line in self._lines:
            mine = (line.session, line.epoch, line.owner)
            rows = {**found[mine].rows, **line.rows} if mine in found else line.rows
            found[mine] = Line(line.session, line.epoch, line.owner, line.since, line.sequence, rows)
        return list(found.values())


class NodeClock:
    """A process's idea of Redis's clock: read once a second, wrong by `error` ms."""

    __slots__ = ("_read_at", "_seen", "error", "world")

    def __init__(self, world: World, error: int) -> None:
        self.world, self.error = world, error
        self._seen, self._read_at = world.skew + error, world.now

    def _learn(self) -> int:
        if self.world.now - self._read_at >= 1_000:
            self._seen, self._read_at = self.world.skew + self.error, self.world.now
        return self._seen

    def boot_ms(self) -> int:
        return self.world.now - START

    def wall_ms(self) -> int:
        return self.world.now + self._learn()

    @property
    def offset_ms(self) -> int:
        return START + self._learn()


class Node:
    """A gateway node: hosts the session if its pages come here, sweeps otherwise."""

    def __init__(self, processes: Processes, name: str, error: int) -> None:
        self.processes, self.world, self.error = processes, processes.world, error
        self.starts = 0
        self.disk = Disk()
        self.process = Process(self.world, "node", name, self._start)
        self.process.on_death = self._died

    def _start(self, process: Process) -> None:
        p = self.processes
        self.starts += 1
        self.nonce = f"n_{process.name}{self.starts}"
        self.clock = NodeClock(self.world, self.error)
        self.relay = RelayModel(self.world, p.truth)
        self.hosted: QuietHosted | None = None
        self.inbox: Inbox | None = None
        self.waiting: list[Page] = []
        self.paused_until = 0
        sessions = p.sessions_with(self.clock)
        timers = Timers(LONE_MS, GRACE_MS)
        resume: Any = NoResume()
        file: Any = self.disk if self.world.faults.befalls_the_store else None
        self.flusher = Flusher(p.ledger, self.clock, flush_ms=p.script.tick_ms, file=file)  # type: ignore[arg-type]
        with_all: Any = (sessions, p.ledger, self.relay, self, timers, resume, self.flusher, Turn())
        self.host = Host(Surroundings(*with_all))
        books: Any = (p.journal, p.ledger, sessions.records, self.clock)
        how: Any = {"grace_ms": GRACE_MS, "gone": self.gone, "settling": self.settling}
        sweep = Sweeper(*books, owner=self.nonce, **how)
        p.worker(process, "watch", 15_000, sweep._safely)
        self.books_kept = False
        self._keep_books()

    def _died(self) -> None:
        self.processes.dead[self.nonce] = self.world.now
        if self.hosted is not None:
            self.processes.last_words(self)
        self.relay.die()
        for page in self.processes.pages:
            if page.node is self:
                page.node = None
                page.turn += 1
                self.world.at(self.world.now + 300 + self.world.rng.randrange(5_000), page.join)
        for page in self.waiting:
            self.world.at(self.world.now + 1_000, page.join)
        self.waiting = []

    def settling(self) -> bool:
        """Whether the store has come back so lately that owners had no time to renew their leases."""
        back = max(self.world.outage_until, self.process.cut_until)
        return self.world.now < back + self.processes.ledger.lease_ms

    async def gone(self, nonce: str) -> bool:
        """Whether another owner's heartbeat has stopped, or seems to."""
        found: bool = await io("read", lambda: self._silent(nonce))
        return found

    def _silent(self, nonce: str) -> bool:
        p = self.processes
        if nonce == self.nonce:
            return False
        return nonce in p.slandered or self.world.now - p.dead.get(nonce, self.world.now) > SILENT_MS

    # --- pages

    def enter(self, page: Page) -> None:
        if self.inbox is not None and self.hosted is not None:
            self.world.post(self.inbox, partial(self._seat, page))
            return
        self.waiting.append(page)
        if len(self.waiting) == 1:
            self.process.spawn(self._host(), self._hosted_no_more)

    async def _seat(self, page: Page) -> None:
        hosted = self.hosted
        assert hosted is not None
        try:
            if page.role == "client":
                await self.host._with.sessions.before_consent(hosted.record)
        except InvalidRequest:
            return page.refused(True)  # nobody can be charged for this expert
        try:
            await hosted.enter(page.role, HELLO, page, None, None)  # type: ignore[arg-type]
        except Conflict as error:
            page.refused(error.code == "session_ended")
            raise
        except GatewayError:
            page.refused(False)
            raise
        return page.seated(self)

    def left(self, page: Page) -> None:
        if self.inbox is not None and self.hosted is not None:
            self.world.post(self.inbox, partial(self.hosted.left, page.role, page))  # type: ignore[arg-type]

    def hang_up(self, page: Page) -> None:
        if self.inbox is not None and self.hosted is not None:
            self.world.post(self.inbox, partial(self.hosted._hang_up, page.role))  # type: ignore[arg-type]

    def leg(self, number: int, alive: bool) -> None:
        if self.process.alive and SESSION in self.relay.gates:
            self.relay.gates[SESSION].leg(number, alive)

    # --- the session's task

    async def _host(self) -> None:
        try:
            hosted: QuietHosted = await self.host._claim(SESSION)  # type: ignore[assignment]
        except Conflict as error:
            self._turn_away(error.code == "session_ended")
            return
        except GatewayError:
            self._turn_away(False)
            return
        self.hosted, self.inbox = hosted, Inbox()
        self._keep_books()
        self.world.say(f"{self.process.name} hosts, epoch {hosted.lease.epoch if hosted.lease else None}")
        for other in self.processes.nodes:
            if other is not self and other.process.alive:
                self.processes.last_words(other)
        self.relay.gate(SESSION).changed = self._poke
        for page in self.waiting:
            self.world.post(self.inbox, partial(self._seat, page))
        self.waiting = []
        await self._run(hosted, self.inbox)

    def _turn_away(self, ended: bool) -> None:
        waiting, self.waiting = self.waiting, []
        for page in waiting:
            page.refused(ended)

    def _hosted_no_more(self, _: Any, error: Exception | None) -> None:
        if error is not None:
            self.world.bugs.append(f"{self.process.name}: {error!r}")
        self.hosted = self.inbox = None
        self._turn_away(False)

    def _poke(self) -> None:
        if self.inbox is not None:
            self.world.post(self.inbox, self._nothing)

    def _word(self) -> None:
        if self.inbox is not None:
            self.world.post(self.inbox, WORD)

    def changed(self) -> None:
        """The journal published that the session changed; the task looks within its real quarter of a second."""
        if self.inbox is not None and not self.dirty:
            self.dirty = True
            self.world.at(self.world.now + 1 + self.world.rng.getrandbits(8), self._word)

    dirty = False

    async def _nothing(self) -> None: ...

    async def _run(self, hosted: QuietHosted, inbox: Inbox) -> None:
        """`Hosted.run` with the world's time."""
        world, tick_ms = self.world, self.processes.script.tick_ms
        reported_at = world.now
        while not (hosted._lost or hosted._going or hosted._deserted()):
            status = hosted.record.status
            if status == "finalized" and not hosted.seats and not self.processes.script.lingers:
                break  # nothing more can happen here, and the real one waits half a minute for it
            wait = tick_ms if hosted.record.started_at else 5_000
            wait = 31_000 if status == "finalized" else 500 if status == "ended" else wait
            work = await inbox.next(max(1, reported_at + wait - world.now))
            in_full = work is not WORD or world.now - reported_at >= wait
            reported_at = world.now if in_full else reported_at
            if world.now < self.paused_until:
                await sleep(self.paused_until - world.now)
            with suppress(StoreUnavailable, RedisError):
                await self._turn(hosted, work, in_full)
        await hosted._leave()
        await self._flush()

    async def _turn(self, hosted: QuietHosted, work: Any, in_full: bool) -> None:
        """`Hosted._turn` with the relay's report in its midst."""
        try:
            await hosted._keep_relay()
            if work is not None and work is not WORD:
                await work()
            if in_full:
                await self._report(hosted)
            await hosted._look(self)  # type: ignore[arg-type]
            await hosted._tick()
            if in_full:
                if self.flusher._file is None:
                    await self._flush()
                if hosted.call.running and hosted.shown_at != (now := self.clock.wall_ms()):
                    self.processes.displayed(hosted, now)
        except Conflict as error:
            await hosted._conflict(error)

    def is_set(self) -> bool:
        return self.dirty

    def clear(self) -> None:
        self.dirty = False

    async def _flush(self) -> None:
        """A turn of the flusher's loop."""
        due = [tab for tab in self.flusher._tabs if tab.due(self.clock.boot_ms())]
        if due:
            await self.flusher._flush(sorted(due, key=lambda tab: (tab.lease.epoch, tab.lease.owner)))

    def _keep_books(self) -> None:
        if self.flusher._file is not None and not self.books_kept and (self.hosted or self.flusher._tabs):
            self.books_kept = True
            self.process.spawn(self._books())

    async def _books(self) -> None:
        """The flusher's two loops, if the store will be away: what waits goes to the ledger, and until then to disk."""
        tick_ms = self.processes.script.tick_ms
        while self.hosted is not None or self.flusher._tabs:
            await sleep(tick_ms // 2)
            await self._flush()
            self.flusher._tabs -= {tab for tab in self.flusher._tabs if tab.closed and not tab.waiting}
            await self.flusher.file()
        self.books_kept = False

    async def _report(self, hosted: Hosted) -> None:
        gate = self.relay.gates.get(SESSION)
        if gate is None or not hosted.record.open:
            return
        if self.processes.lost_reports:
            self.processes.lost_reports -= 1
            return
        report = gate.report()
        hosted.metered(report)
        await hosted.heard(report)

    def drain(self) -> None:
        if self.inbox is not None and self.hosted is not None:
            self.world.post(self.inbox, self.hosted.give_up)
