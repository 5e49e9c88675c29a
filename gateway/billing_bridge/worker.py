"""The bridge's loop: claims sessions whose money needs a look; persists a step, calls Stripe, persists the result."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import redis.asyncio as aioredis
import structlog
from prometheus_client import Counter, Gauge, Histogram
from redis.exceptions import RedisError

from gateway.billing_bridge.accounts import watch
from gateway.billing_bridge.calls import OWN, call_of
from gateway.billing_bridge.debts import Debts
from gateway.billing_bridge.expiring import alarmed
from gateway.billing_bridge.index import Index, waiting_for
from gateway.billing_bridge.order import Order, order_of
from gateway.billing_bridge.outcome import Declined, Outcome, Refused, name_of
from gateway.billing_bridge.pace import Rank
from gateway.billing_bridge.parts import Parts
from gateway.billing_bridge.payment import begun, concluded, look_at, next_step, recovered
from gateway.billing_bridge.platform import Platform
from gateway.billing_bridge.pricing import FOREIGN_MARGIN_BPS, MINIMUM_MINOR, Terms
from gateway.billing_bridge.record import FINAL, Notice, Payment, Step
from gateway.billing_bridge.results import applied
from gateway.billing_bridge.stripe_client import StripeClient
from gateway.clock import Clock
from gateway.errors import Conflict, GatewayError, StoreUnavailable
from gateway.journal import NOW, Claim, Doc, Event, Journal
from gateway.keys import Line
from gateway.outbox.claims import Calls
from gateway.payees.earned import line_of
from gateway.payees.routes import MAIN

log = structlog.get_logger(__name__)

STEPS = Counter("gateway_bridge_steps_total", "Steps toward Stripe by their outcome", ["step", "outcome"])
OPEN = Gauge("gateway_bridge_open_steps", "Calls to Stripe that this process waits for now")
LAG = Histogram(
    "gateway_bridge_lag_seconds", "From the end of a session to its settlement",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600),
)  # fmt: skip
EXPIRING = Counter("gateway_bridge_holds_expiring_total", "Holds still there when half of their time was over")
# How long a bridge that lost a race on a session leaves it to the faster one: at first, and at most.
BACK_OFF_S: Final = 0.05
BACK_OFF_MOST_S: Final = 2.0
LOOKS = Counter("gateway_bridge_looks_total", "Looks at a session's money by how they ended", ["outcome"])


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """What the operator decides. `lease_ms` must outlast the slowest call to Stripe: another bridge looks after it.
    `concurrency` is how many calls a bridge makes at once, `sessions` how many sessions it has in hand: those that wait
    for their turn within `requests_per_second` and `requests_per_endpoint` (0: no limit) stand in order of urgency.
    `archives`: somebody takes settled sessions out of Redis, and is told of each.
    """

    settlement_currency: str = "usd"
    minimum_minor: Mapping[str, int] = field(default_factory=lambda: MINIMUM_MINOR)
    foreign_margin_bps: int = FOREIGN_MARGIN_BPS
    return_url: str = ""
    descriptor_prefix_length: int = 10
    concurrency: int = 32
    sessions: int = 2_048
    requests_per_second: int = 0
    requests_per_endpoint: int = 0
    poll_ms: int = 1_000
    lease_ms: int = 60_000
    archives: bool = False

    @property
    def terms(self) -> Terms:
        return Terms(
            self.settlement_currency, self.minimum_minor, self.foreign_margin_bps, self.return_url,
            self.descriptor_prefix_length,
        )  # fmt: skip

    def platform(self, redis: aioredis.Redis, stripe: StripeClient, name: str = MAIN) -> Platform:
        """The platform account of that name, as these settings have it."""
        return Platform(
            redis, stripe, self.terms, per_second=self.requests_per_second, per_endpoint=self.requests_per_endpoint,
            concurrency=self.concurrency, name=name,
        )  # fmt: skip


# When to look again (wall ms, None for never), and the version at which the payment was left.
Look = tuple[int | None, int]


@dataclass(frozen=True, slots=True)
class _Seen:
    """A session's records as they were read together; `order` is what they say about its money."""

    session: Mapping[str, Any]
    order: Order
    payment: Payment
    version: int
    expert_name: str
    nudges: int


class Bridge:
    """Any number of bridges may run; a session's steps are kept apart by its claim and by the record's version."""

    def __init__(
        self,
        journal: Journal,
        stripe: StripeClient,
        settings: BridgeSettings,
        clock: Clock,
        others: Mapping[str, Platform] | None = None,
    ) -> None:
        self._journal, self._settings, self._clock = journal, settings, clock
        self.platforms = {MAIN: settings.platform(journal.redis, stripe), **(others or {})}
        self._debts, self._parts = Debts(journal.redis, journal.trips), Parts(journal)
        self._index = Index(journal.redis)
        self._tasks: set[asyncio.Task[None]] = set()
        self._away = self._stopping = False

    async def run(self) -> None:
        """Work until cancelled; then calls to Stripe under way are awaited, and their results are written."""
        self._stopping = False
        calls = Calls(self._journal, "money")
        listener = asyncio.create_task(calls.listen())
        claiming: asyncio.Task[bool] | None = None
        try:
            while True:
                called = await calls.next(self._settings.poll_ms / 1000)
                while True:  # a claim cut off in the middle would sleep for its lease
                    claiming = asyncio.create_task(self._claim(called))
                    if not await asyncio.shield(claiming):
                        break
        finally:
            self._stopping = True
            for platform in self.platforms.values():
                platform.halt()
            listener.cancel()
            await asyncio.gather(listener, *filter(None, (claiming,)), return_exceptions=True)
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def settle_once(self, session: str) -> int | None:
        """Do all that can be done for a session's money now; gives when to look again (wall ms), None for never.

        Raises StoreUnavailable; what had been sent to Stripe by then is asked about at the next look.
        """
        return (await self._settle(session))[0]

    async def _settle(self, session: str) -> Look:
        patience = BACK_OFF_S
        while True:
            try:
                return await self._advance(session)
            except Conflict:
                # Another bridge was faster. Two that go on at once would overtake each other's every step.
                await asyncio.sleep(random.uniform(0, patience))
                patience = min(2 * patience, BACK_OFF_MOST_S)

    async def _claim(self, called: Collection[str] | None) -> bool:
        """Start work on due sessions; True if there may be more at once."""
        free = self._settings.sessions - len(self._tasks)
        if free <= 0:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            return True
        try:
            limit = -(-free // 16)
            claims = await self._journal.due("money", lease_ms=self._settings.lease_ms, limit=limit, of=called)
        except (StoreUnavailable, RedisError) as error:
            return self._store_away(error)
        self._store_back()
        for claim in claims:
            task = asyncio.create_task(self._work(claim))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return len(claims) >= limit

    async def _work(self, claim: Claim) -> None:
        try:
            again_at, version = await self._settle(claim.session)
            await self._journal.done(claim, again_at, ("payment", version))
            LOOKS.labels("done").inc()
        except (StoreUnavailable, RedisError):
            LOOKS.labels("store_away").inc()  # the claim comes back by itself
        except Exception:
            LOOKS.labels("bug").inc()
            log.exception("bridge.bug", session=claim.session)

    async def _advance(self, session: str) -> Look:
        """Step after step until nothing is due. Each result is written together with the intent that follows it."""
        seen = await self._read(session)
        if seen is None:
            return None, 0
        stored, payment, version = seen.payment, recovered(seen.payment), seen.version
        platform = self._platform(seen.session)
        notices: tuple[Notice, ...] = ()
        turn: str | None = None
        while True:
            payment, more = concluded(seen.order, payment, platform.terms)
            now = self._clock.wall_ms()
            payment, late = alarmed(payment, now)
            notices += (*more, *late)
            step = next_step(seen.order, payment, now, platform.terms, expert_name=seen.expert_name, nudges=seen.nudges)
            halted = self._stopping and step is not None
            waits = step is not None and not halted and not await self._may_go(platform, payment, step, turn)
            if step is not None and not halted and not waits:
                payment, step = begun(payment, step, now, seen.nudges)
            if payment != stored:
                sent = None if waits else step
                version = await self._commit(seen, stored, payment, version, notices, sent)
                stored, notices = payment, ()
            if halted:
                return now, version
            if step is None:
                return look_at(seen.order, payment, now, seen.nudges), version
            if waits:
                turn = await self._turn(platform, payment, step)
                if turn is None:
                    return self._clock.wall_ms(), version
            else:
                payment, notices = await self._do(platform, payment, step)
                turn = None
            seen = await self._again(seen, payment, session)

    async def _may_go(self, platform: Platform, payment: Payment, step: Step, turn: str | None) -> bool:
        """Whether Stripe's limits have room for the step, or its turn has come; our own records have no limits."""
        operation = call_of(step, self._clock.wall_ms()).operation
        if operation == turn or operation.startswith(OWN):
            return True
        return await platform.may_begin(operation, rank_of(payment, step))

    async def _turn(self, platform: Platform, payment: Payment, step: Step) -> str | None:
        """The operation whose turn has come; None after too long a time."""
        operation = call_of(step, self._clock.wall_ms()).operation
        return operation if await platform.turn(operation, rank_of(payment, step)) else None

    async def _do(self, platform: Platform, payment: Payment, step: Step) -> tuple[Payment, tuple[Notice, ...]]:
        call = call_of(step, self._clock.wall_ms())
        with OPEN.track_inprogress():
            outcome: Outcome
            if call.operation == "meetings.pay":
                outcome = await self._parts.send(call.params)
            elif call.operation.startswith("debts."):
                assert call.key is not None
                outcome = await self._debts.send(call.operation, call.params, call.key)
            else:
                outcome = await platform.send(call, rank_of(payment, step))
        STEPS.labels(step.step, name_of(outcome)).inc()
        if step.step == "refund" and isinstance(outcome, Declined | Refused):
            log.error("bridge.refund_refused", session=step.params["metadata"]["session"], code=outcome.code)
        return applied(payment, step, outcome, self._clock.wall_ms())

    async def _commit(
        self,
        seen: _Seen,
        stored: Payment,
        payment: Payment,
        version: int,
        notices: tuple[Notice, ...],
        step: Step | None,
    ) -> int:
        """Write the record. On disk before a step that acts goes out; unconfirmed, it raises and nothing is sent."""
        unwatched = seen.session["status"] == "finalized" or seen.session["kind"] == "booking"
        due = {} if unwatched or payment.status == stored.status else {"watch": NOW}
        if _for_mail(seen.session, stored, payment):
            due["mail"] = NOW
        if self._settings.archives and payment.settled and not stored.settled:
            due["archive"] = NOW
        if payment.settled and not stored.settled and seen.session.get("ended_at"):
            LAG.observe(max(0, self._clock.wall_ms() - seen.session["ended_at"]) / 1000)
        if payment.alarmed not in (0, stored.alarmed):
            EXPIRING.inc()
            log.warning("bridge.hold_expiring", session=seen.session["id"], hold_until=payment.hold_until)
        await self._index.write(seen.session["id"], stored, payment)
        for account in waiting_for(payment) - waiting_for(stored):
            await watch(self._journal, seen.session, account)
        versions = await self._journal.commit(
            seen.session["id"],
            {"payment": (version, payment.to_dict())},
            events=[Event(notice.type, notice.data) for notice in notices],
            due=due,
            lines=_lines(seen.session, stored, payment),
            durable=step is not None and step.state == "sent" and not step.reads,
        )
        await self._index.forget(seen.session["id"], stored, payment)
        return versions["payment"]

    async def _read(self, session: str) -> _Seen | None:
        docs = await self._journal.read(session, "session", "payment", "people", "stripe", "refunds")
        record, payment = docs["session"], docs["payment"]
        if record is None or payment is None:
            return None
        name = ((docs["people"].body.get("expert") or {}).get("name") or "") if docs["people"] else ""
        stored = Payment.from_dict(payment.body)
        order = await self._order(record, stored, docs["stripe"], docs["refunds"])
        return _Seen(record.body, order, stored, payment.version, name, _nudges(docs["stripe"]))

    async def _again(self, seen: _Seen, payment: Payment, session: str) -> _Seen:
        """The session as it is after a call: it may have ended or been waived meanwhile. The payment is ours."""
        docs = await self._journal.read(session, "session", "stripe", "refunds")
        record = docs["session"]
        assert record is not None, "a session's record is never deleted while its money is open"
        order = await self._order(record, payment, docs["stripe"], docs["refunds"])
        return _Seen(record.body, order, seen.payment, seen.version, seen.expert_name, _nudges(docs["stripe"]))

    async def _order(self, record: Doc, payment: Payment, stripe: Doc | None, refunds: Doc | None) -> Order:
        """The session's record, with what else decides about its money laid beside it: the refunds' orders, Stripe's
        news, and what the payees owe in the currency in which this charge was settled."""
        counts = stripe.body if stripe else {}
        news = {topic: counts.get(topic, 0) for topic in ("disputes", "refunds", "accounts", "lost")}
        order = order_of(record.body | {"news": news, "refunds": refunds.body["orders"] if refunds else []})
        if record.body["status"] != "finalized" or payment.settlement is None:
            return order
        payees = {account for account in (order.expert_account, order.ambassador_account) if account}
        owed = await self._debts.owed(payees, payment.settlement.currency)
        return replace(order, debts=owed)

    def _platform(self, session: Mapping[str, Any]) -> Platform:
        """The platform account that a session is paid by. Raises GatewayError when it is not configured any more."""
        name = session.get("platform") or MAIN
        if name not in self.platforms:
            raise GatewayError(f"[stripe.platforms.{name}] is gone from the settings, and {session['id']} needs it.")
        return self.platforms[name]

    def _store_away(self, error: Exception) -> bool:
        if not self._away:
            log.warning("bridge.store_away", error=type(error).__name__)
        self._away = True
        return False

    def _store_back(self) -> None:
        if self._away:
            log.info("bridge.store_back")
        self._away = False


def rank_of(payment: Payment, step: Step) -> Rank:
    """How urgent a request is: holds of waiting callers, then captures by the time at which their hold is lost, then
    what gives money on or back, then what only asks."""
    if step.step in ("card", "hold") or (step.step == "check" and payment.status in ("pending", "action_required")):
        return 0, 0
    if step.step == "capture":
        return 1, payment.hold_until or 0
    return (3 if step.reads else 2), 0


def _nudges(doc: Doc | None) -> int:
    return int(doc.body["count"]) if doc else 0


def _lines(session: Mapping[str, Any], before: Payment, after: Payment) -> tuple[Line, ...]:
    """What the list of the expert's earnings shows of it from now on (R18)."""
    line = None if after.transfers == before.transfers else line_of(session, after.to_dict())
    return () if line is None else (line,)


def _for_mail(session: Mapping[str, Any], before: Payment, after: Payment) -> bool:
    """Whether a receipt may now be written, or has to say more: the money's end, how it settled, that all is paid."""
    if session["status"] != "finalized" or after.status not in FINAL - {"failed"}:
        return False
    told = ("status", "amount_total", "amount_refunded", "settlement", "transfers", "settled")
    return any(getattr(before, name) != getattr(after, name) for name in told)
