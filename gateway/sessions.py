"""What can be done with sessions: create, pay, end, enter. REST and the rooms call these; each is one small change of
the record, read again and repeated when someone else was faster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import structlog
from redis.exceptions import RedisError

from gateway import refunds
from gateway import session as core
from gateway.clock import Clock
from gateway.errors import Conflict, GatewayError, NotFound, StoreUnavailable, Unauthorized
from gateway.ids import born_ms, new_id
from gateway.journal import NOW, Doc, Event, Fence, Journal
from gateway.meter.chain import sealed
from gateway.meter.ledger import Ledger
from gateway.meter.record import bill
from gateway.session import Ambassador, NewClient, NewExpert, NewSession, Role, SessionRecord, Step, other
from gateway.tokens import JOIN_TOKEN_S, Grant, Tokens

log = structlog.get_logger(__name__)

# The card's network may take seconds; longer than this the answer says `pending` and the webhook tells the rest.
HOLD_WAIT_S: Final = 10.0
# Longer than a creation takes; after it a reference that belongs to no session is free.
MAKING_MS: Final = 30_000
# More lost races than this on one session mean a writer in a loop, not contention.
ATTEMPTS: Final = 50
DOCS: Final = ("session", "payment", "people", "receipts")
PAID: Final = frozenset({"captured", "partially_refunded", "refunded", "disputed"})
FUNDED: Final = frozenset({"none", "held"}) | PAID
TERMS_VERSION: Final = "1"
SPENT: Final = "gateway:spent:"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator set for all sessions: durations in ms, minimum charges by currency in minor units."""

    cap_ms: int = 90 * 60_000
    expires_ms: int = 24 * 3_600_000
    minimums: Mapping[str, int] | None = None

    def minimum(self, currency: str) -> int:
        return (self.minimums or {}).get(currency, 0)


@dataclass(frozen=True, slots=True)
class Docs:
    """All records of a session as they were read together."""

    session: dict[str, Any]
    payment: dict[str, Any]
    people: dict[str, Any]
    receipts: dict[str, Any] | None

    @property
    def record(self) -> SessionRecord:
        return SessionRecord.from_dict(self.session)


@dataclass(frozen=True, slots=True)
class Entry:
    """How one side gets in: a join token (ten minutes) and a link whose secret lasts as long as the session."""

    role: Role
    token: str
    url: str


@dataclass(frozen=True, slots=True)
class Created:
    docs: Docs
    client: Entry
    expert: Entry


class Changes:
    """Wakes whoever waits for a session to change; one subscription for the whole process."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: dict[str, set[asyncio.Event]] = {}

    async def run(self) -> None:
        """Listen until cancelled; while Redis is away waiters live by their own time-outs."""
        while True:
            with suppress(StoreUnavailable, RedisError):
                async for session in self._journal.changes():
                    for event in self._waiting.get(session, ()):
                        event.set()
            await asyncio.sleep(0.5)

    @asynccontextmanager
    async def of(self, session: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever the session changes; clear it before reading."""
        event = asyncio.Event()
        self._waiting.setdefault(session, set()).add(event)
        try:
            yield event
        finally:
            self._waiting[session].discard(event)
            if not self._waiting[session]:
                del self._waiting[session]


class Sessions:
    """The use cases. `open_payment` makes a session's first payment record; it comes from the bridge, which this
    package may not know."""

    def __init__(
        self,
        journal: Journal,
        ledger: Ledger,
        tokens: Tokens,
        clock: Clock,
        changes: Changes,
        *,
        rules: Rules,
        public_url: str,
        open_payment: Callable[[dict[str, Any], int], dict[str, Any]],
    ) -> None:
        self.journal, self.ledger, self.tokens, self.clock, self.changes = journal, ledger, tokens, clock, changes
        self.rules, self._public_url, self._open_payment = rules, public_url.rstrip("/"), open_payment

    async def create(self, terms: NewSession, *, account: str, livemode: bool, session_id: str) -> Created:
        """A new session and the order to hold the money, in one durable step; then waits for the first word of the
        card. Again with the same id (a repeated request after a crash) gives the session that is there.

        Raises Conflict `reference_in_use` with the other session's id.
        """
        now = self.clock.wall_ms()
        step = core.opened(
            terms, id=session_id, account=account, livemode=livemode, now=now,
            cap_ms=self.rules.cap_ms, expires_ms=self.rules.expires_ms,
        )  # fmt: skip
        if (await self.journal.read(session_id, "session"))["session"] is None:
            await self._claim_reference(step.record)
            await self._index(step.record)
            with suppress(_AlreadyThere):
                await self._open(step, _people(terms), now)
        docs = await self._first_word(session_id)
        return Created(docs, self._entry(docs.record, "client"), self._entry(docs.record, "expert"))

    async def _open(self, step: Step, people: dict[str, Any], now: int) -> None:
        record = step.record
        body = record.to_dict()
        try:
            await self.journal.commit(
                record.id,
                {"session": (0, body), "payment": (0, self._open_payment(body, now)), "people": (0, people)},
                events=[Event(kind, data) for kind, data in step.events],
                due={"money": NOW, "watch": record.expires_at},
                durable=True,
            )
        except Conflict as error:
            raise _AlreadyThere from error

    async def _claim_reference(self, record: SessionRecord) -> None:
        if record.reference is None:
            return
        key = f"gateway:reference:{record.account}:{record.reference}"
        try:
            holder = cast("bytes | None", await self.journal.redis.set(key, record.id, nx=True, get=True))
            while holder is not None and holder.decode() != record.id:
                doc = (await self.journal.read(holder.decode(), "session"))["session"]
                if SessionRecord.from_dict(doc.body).open if doc is not None else self._being_made(holder.decode()):
                    raise Conflict(
                        f"The reference belongs to {holder.decode()}, which has not ended.",
                        code="reference_in_use", param="reference", session=holder.decode(),
                    )  # fmt: skip
                holder = await self._take_over(key, holder, record.id)
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error

    def _being_made(self, session: str) -> bool:
        """A reference is taken before its session is there; one that never came was lost in a crash."""
        with suppress(ValueError):
            return self.clock.wall_ms() - born_ms(session) < MAKING_MS
        return False

    async def _take_over(self, key: str, holder: bytes, session: str) -> bytes | None:
        """Compare-and-set of a reference whose session is over; None when it is ours."""
        script = "local v = redis.call('GET', KEYS[1]); if v == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]); "
        script += "return false end; return v"
        holder_now: bytes | None = await self.journal.redis.execute_command("EVAL", script, 1, key, holder, session)
        return holder_now

    async def _index(self, record: SessionRecord) -> None:
        """Entries for listing. They precede the session, so a crash between leaves an entry that reading skips."""
        try:
            pipe = self.journal.redis.pipeline(transaction=False)
            for key in _indexes(record):
                pipe.execute_command("ZADD", key, 0, record.id)
            await pipe.execute()
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error

    async def _first_word(self, session: str) -> Docs:
        """The session once its payment is no longer pending, or after ten seconds."""
        async with self.changes.of(session) as changed:
            until = asyncio.get_running_loop().time() + HOLD_WAIT_S
            while True:
                changed.clear()
                docs = await self._read(session)
                if docs.payment["status"] != "pending":
                    await self.apply_payment(session)
                    return await self._read(session)
                if not await _changed_before(until, changed):
                    return docs

    def _entry(self, record: SessionRecord, role: Role) -> Entry:
        secret = self.tokens.entry(record.id, role, expires_at=record.expires_at)
        token = self.tokens.join(record.id, role, now=self.clock.wall_ms())
        return Entry(role, token, f"{self._public_url}/call#{secret}")

    async def _read(self, session: str) -> Docs:
        docs = await self.journal.read(session, *DOCS)
        if docs["session"] is None or docs["payment"] is None or docs["people"] is None:
            raise NotFound(f"There is no session {session}.", code="session_not_found", param="id")
        receipts = docs["receipts"]
        return Docs(
            docs["session"].body, docs["payment"].body, docs["people"].body, receipts.body if receipts else None
        )

    async def get(self, account: str, session: str) -> Docs:
        """Raises NotFound, also for another account's session."""
        docs = await self._read(session)
        if docs.session["account"] != account:
            raise NotFound(f"There is no session {session}.", code="session_not_found", param="id")
        return docs

    async def list(
        self,
        account: str,
        *,
        livemode: bool,
        status: str | None,
        expert: str | None,
        client: str | None,
        reference: str | None,
        limit: int,
        starting_after: str | None,
    ) -> tuple[list[Docs], bool]:
        """A page of sessions, newest first, and whether there are more. Raises NotFound for an unknown cursor."""
        key = _narrowest(_index(account, livemode), expert, client, reference)
        if starting_after is not None:
            await self.get(account, starting_after)
        below = f"({starting_after}" if starting_after else "+"
        found: list[Docs] = []
        while True:
            ids = await self.journal.redis.execute_command("ZRANGE", key, below, "-", "BYLEX", "REV", "LIMIT", 0, 100)
            for session in ids:
                with suppress(NotFound):
                    docs = await self.get(account, session.decode())
                    if _matches(docs.session, status, expert, client, reference):
                        found.append(docs)
                if len(found) > limit:
                    return found[:limit], True
            if len(ids) < 100:
                return found, False
            below = f"({ids[-1].decode()}"

    async def end(self, account: str, session: str, reason: str | None = None) -> Docs:
        """Ends it for both, now; idempotent."""
        docs = await self.get(account, session)
        if docs.record.open:
            at = self.clock.wall_ms()
            why: core.EndReason = "canceled" if reason == "canceled" else "ended_by_api"
            await self.apply(session, lambda record: core.ended(record, why, at, note=reason))
        return await self.get(account, session)

    async def tokens_for(self, account: str, session: str, role: Role) -> Entry:
        record = (await self.get(account, session)).record
        if not record.open:
            raise Conflict("The session has ended.", code="session_ended")
        return self._entry(record, role)

    async def pay(self, account: str, session: str, payment_method: str) -> Docs:
        """Another card, after one was declined or abandoned, or for a bill that is due; waits for its first word."""
        docs = await self.get(account, session)
        if docs.payment["status"] in FUNDED:
            raise Conflict("The money is already held.", code="payment_state")
        now = self.clock.wall_ms()
        order = core.recharged if docs.record.status == "finalized" else core.other_card
        # With `hold: "join"` the next card waits for the client, as the first one did.
        pending = docs.payment["status"] != "awaiting_join"
        await self.apply(session, lambda record: order(record, payment_method, now), durable=True, pending=pending)
        return await self._first_word(session)

    async def refund(self, account: str, session: str, new: refunds.NewRefund) -> tuple[Docs, Mapping[str, Any]]:
        """Order a refund, and wait for its first word: at most ten seconds. The session, and the order as it is kept.
        Again with the same id orders nothing.

        Raises Conflict `payment_state`, `refund_too_large`.
        """
        await self.get(account, session)
        for _ in range(ATTEMPTS):
            docs = await self.journal.read(session, "payment", "refunds")
            payment, orders = docs["payment"], docs["refunds"]
            assert payment is not None
            had = orders.body if orders else None
            body = refunds.ordered(payment.body, had, new, self.clock.wall_ms())
            with suppress(Conflict):
                if body is not had:
                    put = {"refunds": (orders.version if orders else 0, body)}
                    await self.journal.commit(session, put, due={"money": NOW}, durable=True)
                return await self._refund_word(session, new.id), refunds.order_of(body, new.id)
        raise GatewayError(f"{session} changes faster than it can be refunded.")

    async def _refund_word(self, session: str, ident: str) -> Docs:
        async with self.changes.of(session) as changed:
            until = asyncio.get_running_loop().time() + HOLD_WAIT_S
            while True:
                changed.clear()
                docs = await self._read(session)
                known = [refund for refund in docs.payment.get("refunds", ()) if refund["id"] == ident]
                if (known and known[0]["status"] != "ordered") or not await _changed_before(until, changed):
                    return docs

    async def waive(self, account: str, session: str) -> Docs:
        """Nothing will be charged; the hold is released at once (5-money, Waiver)."""
        await self.get(account, session)
        now = self.clock.wall_ms()
        await self.apply(session, lambda record: core.waived(record, now), durable=True)
        return await self.get(account, session)

    async def usage(self, account: str, session: str) -> dict[str, Any]:
        """The ledger row by row, the union, and the bill with its arithmetic."""
        record = (await self.get(account, session)).record
        ledger = await self.ledger.usage(session)
        live = bill(record, ledger.intervals, minimum=self.rules.minimum(record.currency))
        return {
            "session": session,
            "final": record.bill is not None,
            "rows": [
                {"epoch": row.epoch, "number": row.number, "start": row.start, "end": row.end} for row in ledger.rows
            ],
            "free_seconds": record.free_ms // 1000,
            "limit_seconds": record.limit_ms // 1000,
            "unit_amount": record.unit_amount,
            "bill": record.bill or live.to_dict(),
            "arithmetic": arithmetic(record, record.bill or live.to_dict()),
        }

    async def successor(self, session: str) -> Created:
        """R6: a new session on the same terms, with what is left of the free part; its hold is taken at once."""
        docs = await self._read(session)
        record = docs.record
        created = await self.create(
            _again(record, docs.people), account=record.account, livemode=record.livemode, session_id=new_id("ses")
        )
        await self.apply(session, lambda old: core.continued(old, created.docs.record.id))
        return created

    async def events(self, account: str, session: str, after: int) -> Sequence[dict[str, Any]]:
        await self.get(account, session)
        return await self.journal.events(session, after)

    async def enter(self, secret: str) -> dict[str, Any]:
        """What the page shows before joining, and a token to join with. Takes a link's secret or a join token.

        A join token gives itself back, or none once it has served: the page that it seated comes back by its resume
        secret (law 7). Raises Unauthorized `link_expired` or `link_invalid`.
        """
        grant, is_token = self._grant(secret)
        docs = await self._read(grant.session)
        record = docs.record
        token = None
        if record.open and not is_token:
            token = self.tokens.join(record.id, grant.role, now=self.clock.wall_ms())
        elif record.open and not await self.is_spent(grant.id):
            token = secret
        return {
            "session": record.id,
            "role": grant.role,
            "token": token,
            "signal": self._public_url.replace("http", "ws", 1) + "/v1/signal",
            "status": record.status,
            "media": record.media,
            "locale": docs.people[grant.role]["locale"],
            "you": {"name": docs.people[grant.role]["name"]},
            "peer": {"name": docs.people[other(grant.role)]["name"]},
            "pricing": pricing(record, grant.role),
            "payment": payment_for(docs.payment, grant.role),
            "terms": terms(record, docs.payment, grant.role),
            "expires_at": record.expires_at,
            "end": None if record.open else {"reason": record.end_reason, "summary": summary(docs, grant.role)},
        }

    async def spend(self, token: str) -> None:
        """A join token has served; it opens nothing any more (it would have expired within ten minutes)."""
        await self.journal.redis.set(f"{SPENT}{token}", 1, ex=JOIN_TOKEN_S + 60)

    async def is_spent(self, token: str) -> bool:
        return bool(await self.journal.redis.exists(f"{SPENT}{token}"))

    def _grant(self, secret: str) -> tuple[Grant, bool]:
        """What a secret opens, and whether it is a join token."""
        now = self.clock.wall_ms()
        try:
            try:
                return self.tokens.open("entry", secret, now=now), False
            except Unauthorized as error:
                if error.code == "token_expired":
                    raise
                return self.tokens.open("join", secret, now=now), True
        except Unauthorized as error:
            code = "link_expired" if error.code == "token_expired" else "link_invalid"
            raise Unauthorized(error.detail, code=code) from error

    async def read(self, session: str) -> Docs:
        """A session for the gateway itself. Raises NotFound."""
        return await self._read(session)

    async def apply_payment(self, session: str) -> SessionRecord:
        """What the payment record says, done to the session: money held makes it ready; money lost ends it."""
        payment = (await self._read(session)).payment
        if payment["status"] in FUNDED:
            return await self.apply(session, core.funded)
        return (await self._read(session)).record

    async def apply(
        self,
        session: str,
        change: Callable[[SessionRecord], Step],
        *,
        fence: Fence | None = None,
        durable: bool = False,
        pending: bool = False,
        due: Mapping[str, int | None] | None = None,
    ) -> SessionRecord:
        """Read, change, commit; again when someone else committed meanwhile. The new record; the old if unchanged.

        `pending`: the payment is marked pending in the same step. Raises what `change` raises, Conflict `fenced`,
        StoreUnavailable.
        """
        for _ in range(ATTEMPTS):
            docs = await self.journal.read(session, "session", "payment")
            doc, payment = docs["session"], docs["payment"]
            if doc is None or payment is None:
                raise NotFound(f"There is no session {session}.", code="session_not_found", param="id")
            step = change(SessionRecord.from_dict(doc.body))
            if not step.changed:
                return step.record
            if pending and payment.body["status"] in FUNDED:
                raise Conflict("The money is already there.", code="payment_state")
            try:
                await self._put(session, doc, payment if pending else None, step, fence, durable, dict(due or {}))
            except Conflict as error:
                if error.code == "version_conflict":
                    continue
                raise
            return step.record
        raise GatewayError(f"{session} changes faster than it can be written.")

    async def _put(
        self, session: str, doc: Doc, payment: Doc | None, step: Step, fence: Fence | None, durable: bool,
        due: dict[str, int | None],
    ) -> None:  # fmt: skip
        """Any change may matter to money and to the watch; a look too many costs little, one too few a session."""
        put: dict[str, tuple[int, dict[str, Any]]] = {"session": (doc.version, step.record.to_dict())}
        if payment is not None:
            put["payment"] = (payment.version, {**payment.body, "status": "pending"})
        due.setdefault("money", NOW)
        if not step.record.open:
            due.setdefault("watch", NOW)
        events = [Event(kind, data) for kind, data in step.events]
        await self.journal.commit(session, put, events=events, due=due, fence=fence, durable=durable)

    async def finalize(self, session: str, fence: Fence) -> SessionRecord:
        """Freeze the bill over exactly the rows it is made from; idempotent, exactly one `session.finalized` (law 8).

        Raises Conflict `fenced` when another owner has the session.
        """
        for _ in range(ATTEMPTS):
            usage = await self.ledger.usage(session)
            doc = (await self.journal.read(session, "session"))["session"]
            if doc is None:
                raise NotFound(f"There is no session {session}.", code="session_not_found", param="id")
            record = SessionRecord.from_dict(doc.body)
            final = bill(record, usage.intervals, minimum=self.rules.minimum(record.currency)).to_dict()
            step = core.finalized(record, final, sealed(record, usage.sealed, final))
            if not step.changed:
                return record
            try:
                await self.journal.commit(
                    session,
                    {"session": (doc.version, step.record.to_dict())},
                    events=[Event(kind, data) for kind, data in step.events],
                    due={"money": NOW, "mail": NOW, "watch": None},
                    fence=replace(fence, usage=usage.version),
                    finalized=step.record.to_dict(),
                    durable=True,
                )
            except Conflict as error:
                if error.code == "version_conflict":
                    continue
                raise
            return step.record
        raise GatewayError(f"{session} changes faster than it can be finalized.")


async def _changed_before(until: float, changed: asyncio.Event) -> bool:
    """Wait for a change, but look again after half a second: wake-ups may be lost. False once `until` has passed."""
    left = until - asyncio.get_running_loop().time()
    if left <= 0:
        return False
    with suppress(TimeoutError):
        async with asyncio.timeout(min(left, 0.5)):
            await changed.wait()
    return True


class _AlreadyThere(Exception):
    """The session of a repeated request exists."""


def _people(terms: NewSession) -> dict[str, Any]:
    return {
        "schema": 1,
        **{
            role: {
                "name": party.name,
                "email": party.email,
                "locale": party.locale,
                "timezone": party.timezone,
            }
            for role, party in (("client", terms.client), ("expert", terms.expert))
        },
    }


def _again(record: SessionRecord, people: Mapping[str, Any]) -> NewSession:
    """The order that would open a session like this one."""
    left_ms = max(0, record.free_ms - (record.bill or {}).get("union_ms", 0))
    return NewSession(
        client=NewClient(
            record.client["id"], **people["client"], stripe_customer=record.client["stripe_customer"],
            payment_method=record.funding.payment_method if record.funding else None,
        ),
        expert=NewExpert(
            record.expert["id"], **people["expert"], stripe_account=record.expert["stripe_account"],
            country=record.expert["country"], rating_milli=record.expert["rating_milli"],
        ),
        unit_amount=record.unit_amount, currency=record.currency, reference=record.reference, kind=record.kind,
        media=record.media, ambassador=Ambassador(**record.ambassador) if record.ambassador else None,
        free_minutes=left_ms // 60_000, max_minutes=max(1, record.limit_ms // 60_000),
        commission_bps=record.commission_bps, continues=record.id,
    )  # fmt: skip


def _index(account: str, livemode: bool) -> str:
    """A sorted set of ids by themselves: they sort by time."""
    return f"gateway:index:{account}:{'live' if livemode else 'test'}"


def _indexes(record: SessionRecord) -> list[str]:
    base = _index(record.account, record.livemode)
    keys = [base, f"{base}:client:{record.client['id']}", f"{base}:expert:{record.expert['id']}"]
    return keys + ([f"{base}:reference:{record.reference}"] if record.reference else [])


def _narrowest(base: str, expert: str | None, client: str | None, reference: str | None) -> str:
    for name, value in (("reference", reference), ("client", client), ("expert", expert)):
        if value:
            return f"{base}:{name}:{value}"
    return base


def _matches(
    body: Mapping[str, Any], status: str | None, expert: str | None, client: str | None, reference: str | None
) -> bool:
    wanted = (
        (status, body["status"]),
        (expert, body["expert"]["id"]),
        (client, body["client"]["id"]),
        (reference, body["reference"]),
    )
    return all(value is None or value == found for value, found in wanted)


def pricing(record: SessionRecord, role: Role) -> dict[str, Any]:
    """What a side may know of the price; the expert also the commission, and not what is held on the client's card."""
    told: dict[str, Any] = {
        "currency": record.currency,
        "unit_amount": record.unit_amount if record.priced else 0,
        "free_seconds": record.free_ms // 1000,
        "limit_seconds": record.limit_ms // 1000,
        "amount_max": record.amount_max if record.priced else 0,
    }
    return told if role == "client" else {**told, "commission_bps": record.commission_bps}


def payment_for(payment: Mapping[str, Any], role: Role) -> dict[str, Any]:
    """The payment as a side may see it: the expert only whether the money is there."""
    if role == "expert":
        return {"status": payment["status"]}
    names = ("status", "amount_held", "card", "hold_until", "action_url", "decline_code", "client_secret", "attempt")
    return {name: payment.get(name) for name in names}


def terms(record: SessionRecord, payment: Mapping[str, Any], role: Role) -> dict[str, Any]:
    """The version of the consent text and the figures that go into it; the page words it in the caller's language."""
    return {
        "version": TERMS_VERSION,
        "free_seconds": record.free_ms // 1000,
        "amount_max": record.amount_max if record.priced and role == "client" else 0,
        "hold_until": payment.get("hold_until") if role == "client" else None,
    }


def summary(docs: Docs, role: Role, receipt_url: str | None = None) -> dict[str, Any]:
    """What a side is told when the session has ended; figures are None until the bill is final."""
    record = docs.record
    final = record.bill or {}
    told: dict[str, Any] = {
        "duration_seconds": final.get("union_ms", 0) // 1000,
        "billable_seconds": final.get("billable_seconds"),
        "free_seconds": final.get("free_seconds_used"),
        "amount_total": final.get("amount_total"),
        "amount_waived": final.get("amount_waived"),
        "waived_reason": final.get("waived_reason"),
        "currency": record.currency,
        "receipt_url": receipt_url or _receipt_url(docs, role),
        "continue": record.end_reason in ("limit_reached", "cap_reached") and record.continued_by is None,
    }
    return told if role == "client" else {**told, "amount_expert": final.get("amount_expert")}


def _receipt_url(docs: Docs, role: Role) -> str | None:
    receipt = (docs.receipts or {}).get(role)
    return f"/r/{receipt['secret']}" if receipt else None


def arithmetic(record: SessionRecord, final: Mapping[str, Any]) -> str:
    """The bill as one line that can be checked by hand; amounts in minor units."""
    return (
        f"⌊max(0, {final['union_ms']} ms − {record.free_ms} ms free) ÷ 1000⌋ = {final['billable_seconds']} s; "
        f"round({record.unit_amount} × {final['billable_seconds']} ÷ 60) = {final['amount_metered']}; "
        f"waived {final['amount_waived']}; total {final['amount_total']} = expert {final['amount_expert']} "
        f"+ platform {final['amount_platform']} + ambassador {final['amount_ambassador']} {record.currency}"
    )
