"""Reads both sides for `gateway reconcile`, and sweeps what Stripe has and our records do not know.

The sweep runs in every bridge; one at a time holds it. What it finds is adopted, by a look at its session, or, where
no step of ours ever asked for it, canceled while it is still only a hold. Holds of sessions that have no record at all
may be another gateway's on the same account: they are canceled only where the operator says that there is none. It
looks back further than it must, and leaves alone what a bridge may be writing down at this moment.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias, cast

import structlog
from prometheus_client import Counter
from redis.exceptions import RedisError

from gateway.billing_bridge.differences import Difference
from gateway.billing_bridge.found import to_ask_for
from gateway.billing_bridge.index import Index
from gateway.billing_bridge.nudges import meetings_of, nudge
from gateway.billing_bridge.outcome import Done, Outcome
from gateway.billing_bridge.reconcile import KINDS, Theirs, compare, named_in
from gateway.billing_bridge.record import Payment
from gateway.billing_bridge.refunds import unseen
from gateway.clock import Clock
from gateway.errors import StoreUnavailable, StripeUnavailable
from gateway.ids import OWNERS
from gateway.journal import Journal
from gateway.payees.routes import MAIN

log = structlog.get_logger(__name__)

STRAYS = Counter("gateway_bridge_strays_total", "Objects at Stripe that no record knew, by what was done", ["action"])

SWEEP_EVERY_MS: Final = 600_000
# Objects this young may belong to a step that is being written down right now.
YOUNG_S: Final = 900
# Our clock and Stripe's may differ, and a bridge may have written its result late.
OVERLAP_S: Final = 3_600
# How long a case may go on after it was opened, and be decided without our hearing of it.
DISPUTED_S: Final = 120 * 86_400
FIRST_LOOK_BACK_S: Final = 7 * 86_400
POINT: Final = "gateway:stripe:swept"
# What a charge was settled as comes with its intent.
EXPAND: Final[Mapping[str, Sequence[str]]] = {"payment_intent": ("data.latest_charge.balance_transaction",)}
HELD: Final = frozenset({"requires_capture", "requires_action", "requires_confirmation", "requires_payment_method"})
# The documents that are written together, and leave together.
BOTH: Final = ("session", "payment")
# Both, the session with the orders of its refunds, as `order_of` reads them.
Record: TypeAlias = tuple[dict[str, Any], dict[str, Any]]
More: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[Iterable[Difference]]]


class Asks(Protocol):
    """`StripeClient`, or one that keeps to the account's limits."""

    async def send(self, operation: str, params: Mapping[str, Any], key: str | None = None) -> Outcome: ...


async def listed(stripe: Asks, kind: str, since_s: int, expand: Sequence[str] = ()) -> AsyncIterator[dict[str, Any]]:
    """Everything of a kind that Stripe made since then, newest first. Raises StripeUnavailable."""
    params: dict[str, Any] = {"created": {"gte": since_s}, "limit": 100}
    if expand:
        params["expand"] = list(expand)
    while True:
        outcome = await stripe.send(f"{kind}s.list", params)
        if not isinstance(outcome, Done):
            raise StripeUnavailable(f"Stripe does not list {kind}s now: {outcome}")
        page = outcome.object["data"]
        for thing in page:
            yield thing
        if not outcome.object.get("has_more") or not page:
            return
        params["starting_after"] = page[-1]["id"]


async def theirs(stripe: Asks, since_s: int) -> Theirs:
    return Theirs(
        *[{thing["id"]: thing async for thing in listed(stripe, kind, since_s, EXPAND.get(kind, ()))} for kind in KINDS]
    )


async def ours(journal: Journal, since_s: int = 0) -> tuple[list[Record], list[Difference]]:
    """Every session in Redis and those in the archive that were created since, oldest first; and what is there of those
    of which only a part is. Raises StoreUnavailable, ArchiveUnavailable."""
    found, halves = list[Record](), list[Difference]()
    sessions = set(await journal.archive.sessions(since_s * 1000) if journal.archive else ())
    try:
        async for key in journal.redis.scan_iter(match="*:ses:*", count=1000):
            _, _, session, name = key.decode().split(":", 3)
            if name in (*BOTH, "usage") and session.startswith(OWNERS):
                sessions.add(session)
        for session in sorted(sessions):
            docs = await journal.read(session, *BOTH, "refunds")
            refunds = docs["refunds"]
            if (record := docs["session"]) and (payment := docs["payment"]):
                found.append(_record(record.body, payment.body, refunds.body if refunds else None))
            else:
                here = [name for name in BOTH if docs[name]] or ["usage"]
                halves.append(Difference(session, ", ".join(here), "half a record", here, [*BOTH]))
    except RedisError as error:
        raise StoreUnavailable("The session store is away; try again.") from error
    return found, halves


async def reconciled(
    journal: Journal, accounts: Mapping[str, Asks], since_s: int, now: int = 0, more: More | None = None
) -> tuple[int, list[Difference]]:
    """How many sessions were compared, each with the platform account that pays it, and every difference. Stripe is
    asked first: what it made after that is no difference, and our records are then at least as new. Older sessions only
    say what is known: a refund of today may belong to one of last year. `now` (wall ms): what should be over by then is
    named too. `more` finds what else differs from a session's record."""
    listings = {name: await theirs(stripe, since_s) for name, stripe in accounts.items()}
    records, found = await ours(journal, since_s)
    there = {session["id"] for session, _ in records}
    records += await archived(journal, await _of_older(journal, listings.values()) - there)
    mine = {session["id"]: session for session, _ in records if session.get("created", 0) >= since_s * 1000}
    for session in mine.values():
        if (platform := session.get("platform", MAIN)) not in accounts:
            found.append(Difference(session["id"], "session", "no platform account", platform, None))
        found += await more(session) if more else ()
    for name, listing in listings.items():
        here = {thing["id"] for thing in listing.all()}
        own = [each for each in records if each[0].get("platform", MAIN) == name]
        found += [each for each in compare(own, listing, now) if each.session in mine or each.object in here]
    return len(mine), found


def _record(session: dict[str, Any], payment: dict[str, Any], refunds: dict[str, Any] | None) -> Record:
    return session | {"refunds": refunds["orders"] if refunds else []}, payment


async def _of_older(journal: Journal, listings: Iterable[Theirs]) -> set[str]:
    """The sessions that Stripe's objects belong to: by their metadata, or by the charge that they are about."""
    found, index = set[str](), Index(journal.redis)
    for listing in listings:
        for thing in listing.all():
            found.add(named_in(thing))
        for thing in (*listing.refund.values(), *listing.dispute.values()):
            found.add(named_in(thing) or await index.session_of(thing) or "")
    for owner in tuple(found):
        found.update(await meetings_of(journal, owner))
    return found - {""}


async def _paid_by(journal: Journal, owner: str) -> list[str]:
    """The session itself, or all that a booking's charge paid for."""
    return await meetings_of(journal, owner) or [owner]


async def archived(journal: Journal, sessions: Iterable[str]) -> list[Record]:
    """Those of the sessions that are in the archive: older ones whose objects are new."""
    found = []
    for session in sessions:
        kept = await journal.archived(session)
        if kept is not None and (payment := kept.doc("payment")) is not None:
            found.append(_record(kept.record, payment, kept.doc("refunds")))
    return found


class Sweep:
    """Shell, of one platform account. `run` until cancelled; `once` for tests and after a restore. `sole`: no other
    gateway uses the account."""

    def __init__(
        self, journal: Journal, stripe: Asks, clock: Clock, *, sole: bool = False, platform: str = MAIN
    ) -> None:
        self._journal, self._stripe, self._clock, self._sole = journal, stripe, clock, sole
        self._index = Index(journal.redis)
        self._point = POINT if platform == MAIN else f"{POINT}:{platform}"

    async def run(self) -> None:
        while True:
            try:
                if await self._journal.redis.set(f"{self._point}:turn", 1, nx=True, px=SWEEP_EVERY_MS):
                    await self.once()
            except (StoreUnavailable, StripeUnavailable, RedisError) as error:
                log.info("sweep.put_off", error=type(error).__name__)
            await asyncio.sleep(SWEEP_EVERY_MS / 1000)

    async def once(self) -> list[str]:
        """Look at all that Stripe made since the last good point; gives the ids of the strays that were seen to."""
        now_s = self._clock.wall_ms() // 1000
        last = cast(bytes | None, await self._journal.redis.get(self._point))
        since_s = int(last) - OVERLAP_S if last else now_s - FIRST_LOOK_BACK_S
        seen: list[str] = []
        for kind in ("payment_intent", "transfer", "refund"):
            async for thing in listed(self._stripe, kind, since_s):
                if thing["created"] > now_s - YOUNG_S:
                    continue
                if session := named_in(thing):
                    seen += await self._see_to(session, thing)
                elif kind == "refund":
                    seen += await self._adopt_refund(thing)
        seen += await self._disputes(now_s)
        await self._journal.redis.set(self._point, now_s)
        return seen

    async def _disputes(self, now_s: int) -> list[str]:
        """Cases whose event was lost: opened or decided, and not so in our records."""
        cases = defaultdict[str, list[dict[str, Any]]](list)
        async for case in listed(self._stripe, "dispute", now_s - DISPUTED_S):
            session = await self._index.session_of(case) if case["created"] <= now_s - YOUNG_S else None
            for one in await _paid_by(self._journal, session) if session else ():
                cases[one].append(case)
        seen: list[str] = []
        for session, against in cases.items():
            doc = (await self._journal.read(session, "payment"))["payment"]
            if doc is not None and (new := unseen(Payment.from_dict(doc.body), against)):
                await nudge(self._journal, session, "disputes", {"type": "dispute.listed"})
                seen += [ident for case in new for ident in self._note("adopted", session, case)]
        return seen

    async def _see_to(self, session: str, thing: dict[str, Any]) -> list[str]:
        doc = (await self._journal.read(session, "payment"))["payment"]
        payment = Payment.from_dict(doc.body) if doc else None
        if payment is not None and _known(payment, thing["id"]):
            return []
        wanted = payment is not None and _asked_for(payment, thing)
        if thing["object"] == "payment_intent" and not wanted and (self._sole or payment is not None):
            return await self._cancel(thing)
        if payment is None:
            return [] if thing.get("status") == "canceled" else self._note("orphan", session, thing)
        topic = to_ask_for(payment, session, thing)
        if not wanted and topic is None:
            return self._note("orphan", session, thing)
        await nudge(self._journal, session, None if wanted else topic, {"type": f"{thing['object']}.listed"})
        return self._note("adopted", session, thing)

    async def _adopt_refund(self, thing: dict[str, Any]) -> list[str]:
        """One that somebody made at Stripe itself, of a charge of ours, should its event have been lost."""
        session, seen = await self._index.session_of(thing), list[str]()
        for one in await _paid_by(self._journal, session) if session else ():
            doc = (await self._journal.read(one, "payment"))["payment"]
            if doc is not None and not _known(Payment.from_dict(doc.body), thing["id"]):
                await nudge(self._journal, one, "refunds", {"type": "refund.listed"})
                seen += self._note("adopted", one, thing)
        return seen

    async def _cancel(self, thing: dict[str, Any]) -> list[str]:
        """A hold that nobody of ours asked for. Money already taken stays for people to look at."""
        if thing["status"] not in HELD:
            return [] if thing["status"] == "canceled" else self._note("orphan", thing["metadata"]["session"], thing)
        params = {"payment_intent": thing["id"], "cancellation_reason": "abandoned"}
        outcome = await self._stripe.send("payment_intents.cancel", params, f"sweep:{thing['id']}:cancel")
        return self._note("canceled" if isinstance(outcome, Done) else "put_off", thing["metadata"]["session"], thing)

    def _note(self, action: str, session: str, thing: Mapping[str, Any]) -> list[str]:
        STRAYS.labels(action).inc()
        log.warning("sweep.stray", action=action, session=session, object=thing["object"], id=thing["id"])
        return [thing["id"]]


def _known(payment: Payment, ident: str) -> bool:
    ids = {(step.result or {}).get("id") for step in payment.steps}
    return ident in ids | {transfer.stripe_id for transfer in payment.transfers} | {
        r.stripe_id for r in payment.refunds
    }


def _asked_for(payment: Payment, thing: dict[str, Any]) -> bool:
    """Whether a step of ours stands open that may have made it: then asking about that step adopts it."""
    named = thing["metadata"]
    step = payment.find(str(named.get("step")), int(named.get("attempt", 0)))
    return step is not None and step.open
