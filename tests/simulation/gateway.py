"""The gateway's processes: the real shells, with models of store, relay and Stripe in their hands, driven by the world.

What is not real here: the loops that feed the shells (their time-outs belong to an event loop), the room's signaling,
and the sender of webhooks, whose core (`delivery`) is real and whose lanes are one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from redis.exceptions import RedisError

from gateway.billing_bridge import payment as payments
from gateway.billing_bridge.audit import SWEEP_EVERY_MS, YOUNG_S, Sweep
from gateway.billing_bridge.pricing import Terms, minimum_charge
from gateway.billing_bridge.stripe_events import StripeEvents
from gateway.billing_bridge.worker import Bridge, BridgeSettings
from gateway.errors import StoreUnavailable
from gateway.journal import Claim
from gateway.money import CURRENCIES
from gateway.outbox.delivery import Delivery, attempted
from gateway.payees.routes import MAIN
from gateway.session import SessionRecord
from gateway.sessions.rules import Rules as SessionRules
from gateway.sessions.sessions import Sessions
from gateway.signaling.hosted import Hosted
from tests.simulation import quiet
from tests.simulation.node import BOOKING, SESSION, Node, NodeClock
from tests.simulation.orders import Orders, PayeesModel, PromptChanges
from tests.simulation.people import Market, Page, deliver
from tests.simulation.relay import FAR, Truth
from tests.simulation.script import RATES, Script
from tests.simulation.store import JournalModel, LedgerModel, Streams
from tests.simulation.stripe import StripeAccount, StripeWire
from tests.simulation.world import START, Process, Task, World, io, park, sleep

TERMS = Terms(return_url="https://pay.test/{session}")
MINIMUMS = {currency: minimum_charge(currency, TERMS) for currency in CURRENCIES}


class Processes:
    """All that runs for one session: two nodes, two bridges, the API, the door for Stripe's events, the sender."""

    def __init__(self, world: World, script: Script, *, through_json: bool = False) -> None:
        self.world, self.script = world, script
        quiet.DICE.seed(world.rng.getrandbits(32))
        self.streams = Streams(world.redis_ms, SESSION, self._woken, self._published)
        self.rules = self.streams.main
        if script.booking is not None:
            self.streams.payer = BOOKING
        self.journal = JournalModel(self.streams, through_json=through_json)
        self.ledger = LedgerModel(self.streams, lease_ms=max(5_000, 3 * script.tick_ms))
        self.stripe = StripeAccount(world)
        self.truth = Truth()
        self.idle: dict[str, list[Task]] = {"money": [], "watch": [], "outbox": []}
        self.checks: dict[str, int] = {}
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
        self.orders = Orders(self, self.sessions_with(NodeClock(world, -1)))

    def _stripe_terms(self) -> None:
        s, stripe = self.script, self.stripe
        stripe.cards = s.cards
        stripe.rate_milli = RATES[s.terms.currency]
        stripe.hold_ms, stripe.balance_late_ms = s.hold_ms, s.balance_late_ms
        stripe.short_of_balance, stripe.minimum = s.short_of_balance, s.minimum
        if s.debt:
            self.rules.values["owed:acct_exp"] = s.debt
        if s.empty:
            stripe.empty |= {"acct_exp", "acct_amb"}
        if s.locked is not None:
            stripe.locked = (START + s.locked[0], START + sum(s.locked))
        if s.restricted:
            stripe.restricted.add("acct_exp")
        self.events_in = StripeEvents(self.journal, (), NodeClock(self.world, 1))  # type: ignore[arg-type]
        stripe.deliver = partial(deliver, self.world, self._stripe_event, self._sweep_later)
        self.market.down_until = START + s.receiver_down_ms

    def sessions_with(self, clock: Any) -> Sessions:
        nothing: Any = None
        unable_at = self.script.unable_at
        payees: Any = None if unable_at is None else PayeesModel(self.world, unable_at)
        return Sessions(
            self.journal, self.ledger, nothing, clock, PromptChanges(),  # type: ignore[arg-type]
            rules=SessionRules(cap_ms=self.script.cap_ms, minimums={MAIN: MINIMUMS}), public_url="https://call.test",
            open_payment=payments.opened, payees=payees,
        )  # fmt: skip

    # --- queues

    def _woken(self, queue: str) -> None:
        if not self.idle.get(queue):
            return
        at = self.streams.due_at(queue)
        if at is not None:
            self._check_at(queue, at - self.world.skew + self.world.rng.getrandbits(3))

    def _check_at(self, queue: str, at: int) -> None:
        at = max(at, self.world.now)
        if at < self.checks.get(queue, FAR):
            self.checks[queue] = at
            self.world.at(at, self._checked, queue, at)

    def _checked(self, queue: str, at: int) -> None:
        if self.checks.get(queue) == at:
            del self.checks[queue]
            self.check(queue)

    def check(self, queue: str) -> None:
        """Whoever is idle takes what is due."""
        at, idle = self.streams.due_at(queue), self.idle[queue]
        if at is None or not idle:
            return
        if at > self.world.redis_ms():
            self._check_at(queue, at - self.world.skew)
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
        at = self.streams.due_at(queue)
        if at is not None:
            self._check_at(queue, at - self.world.skew)

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

    def _sweep_later(self) -> None:
        """Once it is old enough for the sweep, which looks each ten minutes, a bridge finds it."""
        self.world.at(self.world.now + YOUNG_S * 1000 + self.world.rng.randrange(1_000, SWEEP_EVERY_MS), self._sweep)

    def _sweep(self) -> None:
        """Until one ran to its end."""
        ended: list[Exception | None] = []

        def again() -> None:
            if ended != [None]:
                self._sweep()

        bridge = self.world.rng.choice(self.bridges)
        if bridge.alive:
            clock = NodeClock(self.world, self.script.skews[0])
            sweep = Sweep(self.journal, StripeWire(self.stripe), clock, sole=True)  # type: ignore[arg-type]
            bridge.spawn(sweep.once(), lambda _, error: ended.append(error))
        self.world.at(self.world.now + SWEEP_EVERY_MS, again)

    # --- webhooks out

    def _sender(self, process: Process) -> None:
        self.worker(process, "outbox", 60_000, self._send)

    async def _send(self, claim: Claim) -> None:
        session = claim.session
        values = self.streams[session].values
        known_to = len(await self.journal.events(session, 0))
        await sleep(self.world.rng.randrange(1_000))
        await io("write", self.streams.confirmed)  # nothing is told that a power loss could take back
        cursor, opens, dead = await io("read", lambda: values.get("deliveries", (0, {}, ())))
        opens = dict(opens)
        for sequence, delivery in sorted(opens.items()):
            if delivery.next_at <= self.world.redis_ms():
                event = (await self.journal.events(session, sequence - 1))[0]
                opens, dead = await self._attempt(event, delivery, opens, dead)
        while events := (await self.journal.events(session, cursor))[: max(0, known_to - cursor)]:
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

    @property
    def over(self) -> bool:
        """The bill is final."""
        return self.rules.final

    @property
    def record(self) -> SessionRecord | None:
        doc = self.rules.docs.get("session")
        return SessionRecord.from_dict(doc.body) if doc else None
