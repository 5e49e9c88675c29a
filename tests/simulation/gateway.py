"""The gateway's processes: the real shells, with models of store, relay and Stripe in their hands, driven by the world.

What is not real here: the loops that feed the shells (their time-outs belong to an event loop), the room's signaling,
and the sender of webhooks, whose core (`delivery`) is real and whose lanes are one after the other.
"""

from __future__ import annotations

import asyncio
import itertools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

from redis.exceptions import RedisError

from gateway import refunds
from gateway import session as core
from gateway import sessions as use_cases
from gateway.billing_bridge import payment as payments
from gateway.billing_bridge import stripe_events, worker
from gateway.billing_bridge.delivery import Delivery, attempted
from gateway.billing_bridge.pricing import Terms, minimum_charge
from gateway.billing_bridge.stripe_events import StripeEvents
from gateway.billing_bridge.worker import Bridge, BridgeSettings
from gateway.errors import Conflict, GatewayError, StoreUnavailable
from gateway.journal import NOW, Claim
from gateway.meter import flusher as flushing
from gateway.meter import sweeper
from gateway.meter.flusher import Flusher
from gateway.meter.sweeper import Sweeper
from gateway.money import CURRENCIES
from gateway.orders import people_of
from gateway.payees import MAIN
from gateway.session import SessionRecord
from gateway.sessions import Rules as SessionRules
from gateway.sessions import Sessions
from gateway.sfu.port import LegConfig
from gateway.signaling import facts, telling
from gateway.signaling import host as hosting
from gateway.signaling import hosted as hosted_module
from gateway.signaling.call import Timers
from gateway.signaling.hosted import Hosted
from gateway.signaling.orphans import Orphans
from gateway.signaling.surroundings import Surroundings
from gateway.signaling.turn import Turn
from tests.simulation.people import Market, Page, deliver
from tests.simulation.relay import RelayModel, Truth
from tests.simulation.script import RATES, Script
from tests.simulation.store import DebtsModel, IndexModel, JournalModel, LedgerModel, Rules
from tests.simulation.stripe import StripeAccount, StripeWire
from tests.simulation.world import START, Inbox, Process, Task, World, io, park, sleep

SESSION = "ses_sim"
GRACE_MS, LONE_MS = 20_000, 30_000
SILENT_MS = 3_000
TERMS = Terms(return_url="https://pay.test/{session}")
MINIMUMS = {currency: minimum_charge(currency, TERMS) for currency in CURRENCIES}
HELLO: Any = types.SimpleNamespace(
    generation=None, media=None, consent=types.SimpleNamespace(text_version="1", locale="en", amount_max=0)
)


class Null:
    """A log that keeps only what must never happen."""

    exceptions: list[str] = []  # noqa: RUF012 - shared on purpose

    def __getattr__(self, name: str) -> Callable[..., None]:
        return self._nothing

    def _nothing(self, *_: Any, **__: Any) -> None: ...

    def exception(self, text: str, **_: Any) -> None:
        import traceback

        self.exceptions.append(f"{text}: {traceback.format_exc(limit=-3)}")


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

    def _send_figures(self, now: int) -> None:
        self._host.node.processes.displayed(self, now)  # type: ignore[attr-defined]
        super()._send_figures(now)


class Host(hosting.Host):
    """The door, for its way to claim a session."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._with = surroundings
        self._orphans = Orphans(surroundings.ledger)  # none: here the relay dies with its node

    async def _room(self, session: str) -> Any:
        return NoRoom()


async def _sleep(seconds: float) -> None:
    await sleep(seconds * 1000)


@contextmanager
def simulated() -> Iterator[None]:
    """While it lasts, the shells log nothing, ids are counted, and their sleep is the world's."""
    numbers = itertools.count(1)
    quiet = Null()
    clockwork = types.SimpleNamespace(**(vars(asyncio) | {"sleep": _sleep}))
    dice = types.SimpleNamespace(uniform=lambda low, high: (low + high) / 2)
    greeting = types.SimpleNamespace(type="welcome")  # its words are not about money
    with mock.patch.multiple(hosted_module, log=quiet, asyncio=clockwork), \
         mock.patch.object(facts, "log", quiet), \
        mock.patch.multiple(flushing, log=quiet, asyncio=clockwork), \
         mock.patch.object(telling, "welcome", return_value=greeting), \
         mock.patch.multiple(hosting, log=quiet, Hosted=QuietHosted), \
         mock.patch.multiple(worker, log=quiet, Debts=DebtsModel, Index=IndexModel, asyncio=clockwork, random=dice), \
         mock.patch.object(sweeper, "log", quiet), \
         mock.patch.multiple(stripe_events, log=quiet, Index=IndexModel), \
         mock.patch("gateway.journal.new_id", lambda prefix: f"{prefix}_{next(numbers)}"):  # fmt: skip
        yield


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
        self.process = Process(self.world, "node", name, self._start)
        self.process.on_death = self._died

    def _start(self, process: Process) -> None:
        p = self.processes
        self.starts += 1
        self.nonce = f"n_{process.name}{self.starts}"
        self.clock = NodeClock(self.world, self.error)
        self.relay = RelayModel(self.world, p.truth)
        self.hosted: Hosted | None = None
        self.inbox: Inbox | None = None
        self.waiting: list[Page] = []
        self.paused_until = 0
        sessions = p.sessions_with(self.clock)
        timers = Timers(LONE_MS, GRACE_MS)
        resume: Any = NoResume()
        self.flusher = Flusher(p.ledger, self.clock, flush_ms=p.script.tick_ms)  # type: ignore[arg-type]
        with_all: Any = (sessions, p.ledger, self.relay, self, timers, resume, self.flusher, Turn())
        self.host = Host(Surroundings(*with_all))
        gone = self.gone
        sweep = Sweeper(p.journal, p.ledger, sessions, self.clock, owner=self.nonce, grace_ms=GRACE_MS, gone=gone)  # type: ignore[arg-type]
        p.worker(process, "watch", 15_000, sweep._safely)

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
            await hosted.enter(page.role, HELLO, page, None, None)  # type: ignore[arg-type]
        except Conflict as error:
            page.refused(error.code == "session_ended")
            raise
        except GatewayError:
            page.refused(False)
            raise
        page.seated(self)

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
            hosted: Hosted = await self.host._claim(SESSION)
        except Conflict as error:
            self._turn_away(error.code == "session_ended")
            return
        except GatewayError:
            self._turn_away(False)
            return
        self.hosted, self.inbox = hosted, Inbox()
        self.world.say(f"{self.process.name} hosts, epoch {hosted.lease.epoch if hosted.lease else None}")
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

    def changed(self) -> None:
        """The journal published that the session changed; the task looks within its real quarter of a second."""
        if self.inbox is not None and not self.dirty:
            self.dirty = True
            self.world.at(self.world.now + 1 + self.world.rng.getrandbits(7), self._poke)

    dirty = False

    async def _nothing(self) -> None: ...

    async def _run(self, hosted: Hosted, inbox: Inbox) -> None:
        """`Hosted.run` with the world's time."""
        world, tick_ms = self.world, self.processes.script.tick_ms
        while not (hosted._lost or hosted._going or hosted._deserted()):
            status = hosted.record.status
            wait = tick_ms if hosted.record.started_at else 3_000
            work = await inbox.next(31_000 if status == "finalized" else 500 if status == "ended" else wait)
            if world.now < self.paused_until:
                await sleep(self.paused_until - world.now)
            try:
                await hosted._keep_relay()
                if work is not None:
                    await work()
                await self._report(hosted)
                await hosted._look(self)  # type: ignore[arg-type]
                await hosted._tick()
                await self._flush()
                if hosted.call.running:
                    self.processes.displayed(hosted, self.clock.wall_ms())
            except (StoreUnavailable, RedisError):
                pass
            except Conflict as error:
                await hosted._conflict(error)
        await hosted._leave()
        await self._flush()

    def is_set(self) -> bool:
        return self.dirty

    def clear(self) -> None:
        self.dirty = False

    async def _flush(self) -> None:
        """A turn of the flusher's loop."""
        due = [tab for tab in self.flusher._tabs if tab.due(self.clock.boot_ms())]
        if due:
            await self.flusher._flush(due)

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


class Processes:
    """All that runs for one session: two nodes, two bridges, the API, the door for Stripe's events, the sender."""

    def __init__(self, world: World, script: Script, *, through_json: bool = False) -> None:
        self.world, self.script = world, script
        self.rules = Rules(world.redis_ms)
        self.rules.session = SESSION
        self.rules.woken = self._woken
        self.rules.published = self._published
        self.journal = JournalModel(self.rules, through_json=through_json)
        self.ledger = LedgerModel(self.rules, lease_ms=max(5_000, 3 * script.tick_ms))
        self.stripe = StripeAccount(world)
        self.truth = Truth()
        self.idle: dict[str, list[Task]] = {"money": [], "watch": [], "outbox": []}
        self.dead: dict[str, int] = {}
        self.slandered: set[str] = set()
        self.lost_wakeups = self.lost_reports = 0
        self.shown_at_most = self.stepped_ms = 0
        self.market = Market(self)
        self._stripe_terms()
        self.pages = [Page(self, "client"), Page(self, "expert")]
        self.nodes = [Node(self, f"node{n}", script.skews[n + 1]) for n in (0, 1)]
        self.api = Process(world, "api", "api", lambda process: None)
        self.api.start = lambda process: self.market.serve_again()
        self.bridges = [Process(world, "bridge", f"bridge{n}", self._bridge) for n in (0, 1)]
        self.hooks = Process(world, "hooks", "hooks", lambda process: None)
        self.sender = Process(world, "sender", "sender", self._sender)
        self.api_sessions = self.sessions_with(NodeClock(world, -1))

    def _stripe_terms(self) -> None:
        s, stripe = self.script, self.stripe
        stripe.cards = s.cards
        stripe.rate_milli = RATES[s.terms.currency]
        stripe.hold_ms, stripe.balance_late_ms = s.hold_ms, s.balance_late_ms
        stripe.short_of_balance = s.short_of_balance
        if s.empty:
            stripe.empty |= {"acct_exp", "acct_amb"}
        if s.restricted:
            stripe.restricted.add("acct_exp")
        self.events_in = StripeEvents(self.journal, (), NodeClock(self.world, 1))  # type: ignore[arg-type]
        stripe.deliver = partial(deliver, self.world, self._stripe_event)
        self.market.down_until = START + s.receiver_down_ms

    def sessions_with(self, clock: Any) -> Sessions:
        nothing: Any = None
        return Sessions(
            self.journal, self.ledger, nothing, clock, nothing,  # type: ignore[arg-type]
            rules=SessionRules(cap_ms=self.script.cap_ms, minimums={MAIN: MINIMUMS}), public_url="https://call.test",
            open_payment=payments.opened,
        )  # fmt: skip

    # --- queues

    def _woken(self, queue: str) -> None:
        at = self.rules.queues.get(queue)
        if queue in self.idle and at is not None:
            delay = self.world.rng.getrandbits(3)
            self.world.at(at - self.world.skew + delay, self.check, queue)

    def check(self, queue: str) -> None:
        """Whoever is idle takes what is due."""
        at, idle = self.rules.queues.get(queue), self.idle[queue]
        if at is None or not idle:
            return
        if at > self.world.redis_ms():
            self.world.at(at - self.world.skew, self.check, queue)
            return
        if self.world.rng.getrandbits(1):
            idle.reverse()
        while idle:
            task = idle.pop()
            if not task.dead:
                self.world.resume(task)
                return

    def worker(self, process: Process, queue: str, lease_ms: int, handle: Callable[[Claim], Any]) -> None:
        process.spawn(self._work(queue, lease_ms, handle))

    def _idle(self, queue: str, task: Task) -> None:
        self.idle[queue].append(task)
        self.world.at(self.world.now, self.check, queue)

    async def _work(self, queue: str, lease_ms: int, handle: Callable[[Claim], Any]) -> None:
        register = partial(self._idle, queue)
        while True:
            await park(register)
            try:
                for claim in await self.journal.due(queue, lease_ms=lease_ms):
                    await handle(claim)
            except (StoreUnavailable, RedisError):
                await sleep(1_000)

    def _published(self) -> None:
        if self.lost_wakeups:
            self.lost_wakeups -= 1  # the connection broke, and soon stands again
            self.world.at(self.world.now + self.world.rng.randrange(500, 3_000), self._wake)
            return
        self._wake()

    def _wake(self) -> None:
        for node in self.nodes:
            if node.inbox is not None:
                node.changed()

    # --- the bridge and its events

    def _bridge(self, process: Process) -> None:
        clock = NodeClock(self.world, self.script.skews[0])
        settings = BridgeSettings(return_url=TERMS.return_url, requests_per_second=0, requests_per_endpoint=0)
        bridge = Bridge(self.journal, StripeWire(self.stripe), settings, clock)  # type: ignore[arg-type]
        self.worker(process, "money", settings.lease_ms, bridge._work)

    def _stripe_event(self, event: dict[str, Any], attempt: int = 0) -> None:
        if attempt > 12:
            return
        acknowledged: list[bool] = []

        def answered(_: Any, error: Exception | None) -> None:
            acknowledged.append(error is None)
            if error is not None:
                self.world.at(self.world.now + (1_000 << attempt), self._stripe_event, event, attempt + 1)

        def overdue() -> None:
            if not acknowledged:
                self._stripe_event(event, attempt + 1)

        if not self.hooks.alive:
            self.world.at(self.world.now + (1_000 << attempt), self._stripe_event, event, attempt + 1)
            return
        self.hooks.spawn(self.events_in._take(event), answered)
        self.world.at(self.world.now + 100_000, overdue)

    # --- webhooks out

    def _sender(self, process: Process) -> None:
        self.worker(process, "outbox", 60_000, self._send)

    async def _send(self, claim: Claim) -> None:
        values = self.rules.values
        cursor, opens, dead = await io("read", lambda: values.get("deliveries", (0, {}, ())))
        opens = dict(opens)
        for sequence, delivery in sorted(opens.items()):
            if delivery.next_at <= self.world.redis_ms():
                event = (await self.journal.events(SESSION, sequence - 1))[0]
                opens, dead = await self._attempt(event, delivery, opens, dead)
        while events := await self.journal.events(SESSION, cursor):
            for event in events:
                opens, dead = await self._attempt(event, Delivery(), opens, dead)
                cursor = event["sequence"]
        state = (cursor, opens, dead)
        await io("write", lambda: values.__setitem__("deliveries", state))
        await self.journal.done(claim, min((d.next_at for d in opens.values()), default=None))

    async def _attempt(
        self, event: dict[str, Any], delivery: Delivery, opens: dict[int, Delivery], dead: tuple[int, ...]
    ) -> tuple[dict[int, Delivery], tuple[int, ...]]:
        answer = await io("post", lambda: self.market.post(event))
        if answer.hung:
            await sleep(15_000)
        after = attempted(delivery, answer, self.world.redis_ms(), self.world.rng.random())
        left = {sequence: d for sequence, d in opens.items() if sequence != event["sequence"]}
        if after.state == "open":
            left[event["sequence"]] = after
        return left, (*dead, event["sequence"]) if after.state == "dead" else dead

    # --- people

    def node_for(self, page: Page) -> Node | None:
        """Where the load balancer sends a page: where its peer is, else to the first that lives."""
        if page.sent_to is not None and page.sent_to.process.alive:
            return page.sent_to
        peer = self.pages[1 - page.number].node
        if peer is not None and peer.process.alive:
            return peer
        alive = [node for node in self.nodes if node.process.alive]
        hosting_now = [node for node in alive if node.hosted is not None and not node.hosted._lost]
        return (hosting_now or alive or [None])[0]

    def displayed(self, hosted: Hosted, now: int) -> None:
        """The figure that the gateway has for display now, so that the client could have seen it (law 9)."""
        cost = hosted.call.bill(now).amount_total
        self.shown_at_most = max(self.shown_at_most, cost)

    def last_words(self, node: Node) -> None:
        """A node dies: what it had for display in that instant."""
        hosted = node.hosted
        if hosted is not None and hosted.call.running and node.paused_until <= self.world.now:
            self.displayed(hosted, node.clock.wall_ms())

    # --- what the marketplace asks for

    async def create(self) -> None:
        """`Sessions.create` without the wait for the card's first word."""
        now = self.world.redis_ms()
        step = core.opened(
            self.script.terms, id=SESSION, account="acc_sim", livemode=False, now=now,
            cap_ms=self.script.cap_ms, expires_ms=86_400_000,
        )  # fmt: skip
        if (await self.journal.read(SESSION, "session"))["session"] is not None:
            return
        try:
            await self.api_sessions._open(step, people_of(self.script.terms), now)
        except use_cases._AlreadyThere:
            return

    async def other_card(self) -> None:
        """`Sessions.pay` without the wait."""
        docs = await self.api_sessions.get("acc_sim", SESSION)
        if docs.payment["status"] in use_cases.FUNDED and self.script.story != "two_cards":
            return
        now = self.world.redis_ms()
        await self.api_sessions.apply(
            SESSION, lambda record: core.other_card(record, "pm_2", now), durable=True, pending=True
        )

    async def waive(self) -> None:
        await self.api_sessions.waive("acc_sim", SESSION)

    async def refund(self, number: int, percent: int | None, bearer: Any) -> None:
        """`Sessions.refund` without the wait."""
        docs = await self.journal.read(SESSION, "payment", "refunds")
        paid, orders = docs["payment"], docs["refunds"]
        assert paid is not None
        if paid.body["status"] in ("held", "capturing") and self.world.now < START + 86_400_000:
            raise StoreUnavailable("The marketplace asks again once the money is there.")
        had = orders.body if orders else None
        amount = None if percent is None else max(1, paid.body["amount_captured"] * percent // 100)
        new = refunds.NewRefund(f"ref_{number}", amount, "requested_by_customer", bearer)
        body = refunds.ordered(paid.body, had, new, self.world.redis_ms())
        if body is not had:
            put = {"refunds": (orders.version if orders else 0, body)}
            await self.journal.commit(SESSION, put, due={"money": NOW}, durable=True)

    async def end(self) -> None:
        reason = "canceled" if self.script.story == "canceled" else None
        await self.api_sessions.end("acc_sim", SESSION, reason)

    @property
    def record(self) -> SessionRecord | None:
        doc = self.rules.docs.get("session")
        return SessionRecord.from_dict(doc.body) if doc else None
