"""A session's records: read together, and changed one small step at a time; read again and repeated when someone else
was faster."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from gateway import session as core
from gateway.clock import Clock
from gateway.errors import Conflict, GatewayError, NotFound
from gateway.journal import NOW, Doc, Event, Fence, Journal
from gateway.meter.chain import sealed
from gateway.meter.intervals import Interval
from gateway.meter.ledger import Ledger
from gateway.meter.record import bill
from gateway.session import SessionRecord, Step
from gateway.sessions import asked
from gateway.sessions.asked import PAID
from gateway.sessions.doors import Doors
from gateway.sessions.free_grants import FreeGrants
from gateway.sessions.rules import Rules
from gateway.sessions.shown import DOCS, Docs

# More lost races than this on one session mean a writer in a loop, not contention.
ATTEMPTS: Final = 50
FUNDED: Final = frozenset({"none", "held"}) | PAID
# Nothing is held, or not yet: the card's bank let it go, or another card was named since.
UNFUNDED: Final = frozenset({"pending", "action_required", "failed"})
# A bill is charged to another card when its hold was lost, and while such a charge has not gone through.
RECHARGEABLE: Final = frozenset({"due", "pending", "action_required", "failed"})
PAYABLE: Final = RECHARGEABLE | {"awaiting_join"}


class Records:
    """Shell over journal and ledger."""

    def __init__(
        self, journal: Journal, ledger: Ledger, clock: Clock, rules: Rules, doors: Doors, free: FreeGrants
    ) -> None:
        self._journal, self._ledger, self._clock = journal, ledger, clock
        self._rules, self._doors, self._free = rules, doors, free

    async def read(self, session: str) -> Docs:
        """Raises NotFound, StoreUnavailable."""
        docs = await self._journal.read(session, *DOCS)
        if docs["session"] is None or docs["payment"] is None or docs["people"] is None:
            raise unknown(session)
        receipts = docs["receipts"]
        body, payment = docs["session"].body, docs["payment"].body
        waits = asked.state_of(body["status"], payment) in asked.WAITING
        return Docs(
            body, payment, docs["people"].body, receipts.body if receipts else None,
            self._doors.pay_link(session) if waits else None,
        )  # fmt: skip

    async def apply_payment(self, session: str) -> Docs:
        """What the payment record says, done to the session: money held makes it ready; lost, it shuts the gate. The
        records as they then are; one trip, since mostly nothing is to be done."""
        docs = await self.read(session)
        status = docs.payment["status"]
        change = core.funded if status in FUNDED else core.unfunded if status in UNFUNDED else core.unchanged
        if not change(docs.record).changed:
            return docs
        await self.apply(session, change)
        return await self.read(session)

    async def apply(
        self,
        session: str,
        change: Callable[[SessionRecord], Step],
        *,
        fence: Fence | None = None,
        durable: bool = False,
        pending: bool = False,
        witness: Callable[[Mapping[str, Any]], None] | None = None,
        due: Mapping[str, int | None] | None = None,
    ) -> SessionRecord:
        """Read, change, commit; again when someone else committed meanwhile. The new record; the old if unchanged.

        `pending`: the payment is marked pending in the same step. `witness` is shown the payment, which must stay as it
        is until the step is done. Raises what both raise, Conflict `fenced`, StoreUnavailable.
        """
        for _ in range(ATTEMPTS):
            docs = await self._journal.read(session, "session", "payment")
            doc, payment = docs["session"], docs["payment"]
            if doc is None or payment is None:
                raise unknown(session)
            step = change(SessionRecord.from_dict(doc.body))
            if not step.changed:
                return step.record
            if pending:
                check_payable(payment.body)
                payment = replace(payment, body={**payment.body, "status": "pending"})
            if witness is not None:
                witness(payment.body)
            beside = payment if pending or witness is not None else None
            try:
                await self._put(session, doc, beside, step, fence, durable, dict(due or {}))
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
            put["payment"] = (payment.version, payment.body)
        due.setdefault("money", NOW)
        if not step.record.open:
            due.setdefault("watch", NOW)
        events = [Event(kind, data) for kind, data in step.events]
        await self._journal.commit(session, put, events=events, due=due, fence=fence, durable=durable)

    async def finalize(self, session: str, fence: Fence, shown: Sequence[Interval] | None = None) -> SessionRecord:
        """Freeze the bill over exactly the rows it is made from; idempotent, exactly one `session.finalized` (law 8).
        `shown`: the intervals of former owners that were on display at the end; what they reported beyond is not billed
        (law 9). None: nobody is left to say, and what was reported late is not billed.

        Raises Conflict `fenced` when another owner has the session.
        """
        for _ in range(ATTEMPTS):
            usage = await self._ledger.usage(session)
            doc = (await self._journal.read(session, "session"))["session"]
            if doc is None:
                raise unknown(session)
            record = SessionRecord.from_dict(doc.body)
            if record.status == "finalized":
                return record
            unseen = usage.unclaimed if shown is None else usage.unseen(fence.epoch, shown)
            record = replace(record, unseen=unseen)
            final = bill(
                record, usage.intervals, minimum=self._rules.minimum(record.currency, record.platform)
            ).to_dict()
            step = core.finalized(record, final, sealed(record, usage.sealed, final))
            await self.carry_over(step.record)  # first, for nobody finalizes twice
            try:
                await self._journal.commit(
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

    async def carry_over(self, record: SessionRecord) -> None:
        """What is left of the free part goes to the session after this one."""
        if record.continued_by is not None:
            left_ms = await self._free.left_by(record, record.continued_by, self._clock.wall_ms())
            with suppress(NotFound):
                await self.apply(record.continued_by, lambda next_one: core.carried(next_one, left_ms))


def check_payable(payment: Mapping[str, Any], statuses: Collection[str] = PAYABLE) -> None:
    """Raises Conflict unless another card can do anything: not for money that is there, on its way, or let off."""
    if payment["status"] not in statuses:
        raise Conflict(f"A payment that is {payment['status']} takes no other card.", code="payment_state")


def unknown(session: str) -> NotFound:
    return NotFound(f"There is no session {session}.", code="session_not_found", param="id")
