"""What can be done with sessions: create, pay, end, enter. REST and the rooms call these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final

from gateway import session as core
from gateway.changes import Changes
from gateway.clock import Clock
from gateway.errors import Conflict, GatewayError, InvalidRequest, NotFound
from gateway.ids import new_id
from gateway.journal import NOW, Event, Journal
from gateway.meter.ledger import Ledger
from gateway.meter.record import bill
from gateway.payees.payability import Payees
from gateway.session import NewSession, Role, SessionRecord, Step
from gateway.sessions import asked, refunds, waiver
from gateway.sessions.directory import Directory, Wanted
from gateway.sessions.doors import Doors, Entry
from gateway.sessions.eligibility import Eligibility
from gateway.sessions.free_grants import FreeGrants
from gateway.sessions.orders import again, people_of
from gateway.sessions.records import ATTEMPTS, PAYABLE, RECHARGEABLE, Records, check_payable, unknown
from gateway.sessions.rules import Rules
from gateway.sessions.shown import Docs, arithmetic, entrance
from gateway.tokens import Tokens

# The card's network may take seconds; longer than this the answer says `pending` and the webhook tells the rest.
HOLD_WAIT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Created:
    docs: Docs
    client: Entry
    expert: Entry


class Sessions:
    """The use cases. `open_payment` makes a session's first payment record; it comes from the bridge, which this
    package may not know. `payees` asks whether an expert can be paid (R17); without it nobody asks."""

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
        payees: Payees | None = None,
        pay_url: str = "",
    ) -> None:
        self.journal, self.ledger, self.clock, self.changes = journal, ledger, clock, changes
        self.rules, self._open_payment, self.eligibility = rules, open_payment, Eligibility(payees)
        self.doors = Doors(journal.redis, tokens, clock, public_url, pay_url)
        self.directory = Directory(journal, clock)
        self._free = FreeGrants(journal, rules.free_window_ms)
        self.records = Records(journal, ledger, clock, rules, self.doors, self._free)

    async def create(self, terms: NewSession, *, account: str, livemode: bool, session_id: str) -> Created:
        """A new session and the order to hold the money, in one durable step; then waits for the first word of the
        card. Again with the same id (a repeated request after a crash) gives the session that is there.

        Raises Conflict `reference_in_use` with the other session's id, and what `Eligibility.of_order` raises.
        """
        if (await self.journal.read(session_id, "session"))["session"] is None:
            terms = await self.eligibility.of_order(terms, account=account, livemode=livemode)
            await self.directory.claim_reference(account, terms.reference, session_id, terms.continues)
            now = self.clock.wall_ms()
            granted_ms = await self._free.of_order(
                terms, account=account, livemode=livemode, session=session_id, now=now
            )
            step = core.opened(
                terms, id=session_id, account=account, livemode=livemode, now=now, cap_ms=self.rules.cap_ms,
                expires_ms=self.rules.expires_ms, granted_ms=granted_ms,
                minimum=self.rules.minimum(terms.currency, terms.platform),
            )  # fmt: skip
            await self.place(step, people_of(terms))
        docs = await self._first_word(session_id)
        return Created(docs, self.doors.entry(docs.record, "client"), self.doors.entry(docs.record, "expert"))

    async def place(self, step: Step, people: dict[str, Any]) -> None:
        """Put a new session where it can be found; without effect if it is there."""
        await self.directory.enter(step.record)
        with suppress(_AlreadyThere):
            await self._open(step, people, step.record.created)

    async def _open(self, step: Step, people: dict[str, Any], now: int) -> None:
        record = step.record
        body = record.to_dict()
        try:
            await self.journal.commit(
                record.id,
                {"session": (0, body), "payment": (0, self._open_payment(body, now)), "people": (0, people)},
                events=[Event(kind, data) for kind, data in step.events],
                due={"money": NOW, "watch": record.begin_by},
                durable=True,
            )
        except Conflict as error:
            raise _AlreadyThere from error

    async def _first_word(self, session: str) -> Docs:
        """The session once its payment is no longer pending, or after ten seconds."""
        docs = await self.changes.until(
            session, partial(self.records.read, session), lambda docs: docs.payment["status"] != "pending", HOLD_WAIT_S
        )
        return docs if docs.payment["status"] == "pending" else await self.records.apply_payment(session)

    async def get(self, account: str, session: str) -> Docs:
        """Raises NotFound, also for another account's session."""
        docs = await self.records.read(session)
        if docs.session["account"] != account:
            raise unknown(session)
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
        wanted = Wanted(account, livemode, status, expert, client, reference)
        if starting_after is not None:
            await self.get(account, starting_after)
        found: list[Docs] = []
        async for session in self.directory.newest(wanted, starting_after):
            with suppress(NotFound):
                docs = await self.get(account, session)
                if wanted.fits(docs.session):
                    found.append(docs)
            if len(found) > limit:
                return found[:limit], True
        return found, False

    async def end(self, account: str, session: str, reason: str | None = None) -> Docs:
        """Ends it for both, now, and on disk when it returns; idempotent."""
        docs = await self.get(account, session)
        if docs.record.open:
            at = self.clock.wall_ms()
            why: core.EndReason = "canceled" if reason == "canceled" else "ended_by_api"
            await self.records.apply(session, lambda record: core.ended(record, why, at, note=reason), durable=True)
        return await self.get(account, session)

    async def tokens_for(self, account: str, session: str, role: Role) -> Entry:
        record = (await self.get(account, session)).record
        if not record.open:
            raise Conflict("The session has ended.", code="session_ended")
        return self.doors.entry(record, role)

    async def pay(
        self, account: str, session: str, payment_method: str, after: int | None = None, *, request: str | None = None
    ) -> Docs:
        """Another card, after one was declined or abandoned, or for a bill that is due; waits for its first word.

        `after`: only if no card was tried since that attempt, so that a request sent twice tries one card; so does a
        `request` that is repeated after it was cut off. Raises Conflict `payment_state`, `session_state`, and before
        the call what `Eligibility.check` raises.
        """
        docs = await self.get(account, session)
        if request is not None and docs.record.funding is not None and docs.record.funding.request == request:
            return await self._first_word(session)
        over = docs.record.status == "finalized"
        check_payable(docs.payment, RECHARGEABLE if over else PAYABLE)
        if not over and docs.payment["status"] != "awaiting_join" and not await self._still_priced(docs.record):
            return await self._first_word(session)
        order, now = core.recharged if over else core.other_card, self.clock.wall_ms()

        def tried(record: SessionRecord) -> Step:
            fresh = after is None or (record.funding is not None and record.funding.attempt == after)
            return order(record, payment_method, now, request) if fresh else core.unchanged(record)

        # With `hold: "join"` the next card waits for the client, as the first one did.
        pending = docs.payment["status"] != "awaiting_join"
        await self.records.apply(session, tried, durable=True, pending=pending)
        return await self._first_word(session)

    async def before_consent(self, record: SessionRecord) -> None:
        """The client is about to agree to a hold that was put off (`hold: "join"`): whether the expert may still be
        paid is asked anew (R16, R17). At a booked meeting, whose money is there, what is known is only renewed: it
        tells the marketplace, and the share will wait.

        Raises InvalidRequest `expert_not_payable`, StripeUnavailable: the card must not be asked."""
        if not record.open or record.started_at is not None:
            return
        if record.meeting is not None:
            await self.eligibility.refresh(record)
        elif core.lacks_consent(record):
            await self._still_priced(record)

    async def _still_priced(self, record: SessionRecord) -> bool:
        """False: it is free now, as its order says of an expert who may not be paid. Raises what `Eligibility.check`
        raises."""
        try:
            await self.eligibility.check(record)
        except InvalidRequest as error:
            if record.if_not_eligible == "refuse":
                raise
            reason = str(error.extra["reason"])
            await self.records.apply(record.id, lambda now: core.made_free(now, reason), durable=True, pending=True)
            return False
        return True

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
        def said(docs: Docs) -> bool:
            known = docs.payment.get("refunds", ())
            return any(refund["id"] == ident and refund["status"] != "ordered" for refund in known)

        return await self.changes.until(session, partial(self.records.read, session), said, HOLD_WAIT_S)

    async def waive(self, account: str, session: str) -> Docs:
        """Nothing will be charged; the hold is released at once (5-money, Waiver). Raises Conflict `payment_state` once
        the charge is sent, and for a booked meeting `session_state` once its bill is final."""
        await self.get(account, session)
        now = self.clock.wall_ms()
        await self.records.apply(session, lambda record: core.waived(record, now), durable=True, witness=waiver.check)
        return await self.get(account, session)

    async def usage(self, account: str, session: str) -> dict[str, Any]:
        """The ledger row by row, the union, and the bill with its arithmetic."""
        record = (await self.get(account, session)).record
        ledger = await self.ledger.usage(session)
        live = bill(record, ledger.intervals, minimum=self.rules.minimum(record.currency, record.platform))
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
        """R6: the session after this one, on the same terms; its hold is taken at once, also while this one runs.

        Again gives the one that is there: its id is written down before it is made. Nobody enters: it expires.
        """
        record = await self.records.apply(session, lambda record: core.continued(record, new_id("ses")))
        assert record.continued_by is not None
        people = (await self.records.read(session)).people
        created = await self.create(
            again(record, people, self.clock.wall_ms(), await self._card_of(record)), account=record.account,
            livemode=record.livemode, session_id=record.continued_by,
        )  # fmt: skip
        await self.records.carry_over(record)
        return created

    async def _card_of(self, record: SessionRecord) -> str | None:
        """The card that a session is paid with; a meeting's is its booking's."""
        funding: Any = asdict(record.funding) if record.funding else None
        if record.meeting is not None:
            booking = (await self.journal.read(record.meeting.booking, "session"))["session"]
            funding = booking.body["funding"] if booking else None
        return funding["payment_method"] if funding else None

    async def events(self, account: str, session: str, after: int) -> Sequence[dict[str, Any]]:
        await self.get(account, session)
        return await self.journal.events(session, after)

    async def enter(self, secret: str) -> dict[str, Any]:
        """What the page shows before joining, and a token to join with. Takes a link's secret or a join token.

        Raises Unauthorized `link_expired` or `link_invalid`.
        """
        grant, token = await self.doors.opened(secret)
        docs = await self._with_its_booking(await self.records.read(grant.session))
        return {
            **entrance(docs, grant.role),
            "token": token if docs.record.open else None,
            "signal": self.doors.signal_url,
            "pay_url": docs.pay_url if grant.role == "client" and docs.record.open else None,
        }

    async def _with_its_booking(self, docs: Docs) -> Docs:
        """A meeting whose booking has to be paid yet, with that payment for its own."""
        meeting = docs.record.meeting
        if meeting is None or not docs.record.open or docs.payment["status"] != "pending":
            return docs
        payment = (await self.journal.read(meeting.booking, "payment"))["payment"]
        if payment is None or asked.state_of_booking(payment.body, wanted=True) not in asked.WAITING:
            return docs
        return replace(docs, payment=payment.body, pay_url=self.doors.pay_link(meeting.booking))


class _AlreadyThere(Exception):
    """The session of a repeated request exists."""
