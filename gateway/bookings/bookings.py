"""What can be done with bookings: book, read, pay with another card, cancel (R14). The meetings are `sessions`' own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from gateway import session as sessions_core
from gateway.bookings import booking as core
from gateway.bookings.booking import BookingRecord, NewBooking
from gateway.bookings.meetings import CanceledBy
from gateway.errors import Conflict, GatewayError, InvalidRequest, NotFound, StoreUnavailable
from gateway.journal import NOW, Event
from gateway.session import Role, SessionRecord
from gateway.sessions import asked
from gateway.sessions.directory import Wanted
from gateway.sessions.doors import Entry
from gateway.sessions.orders import people_of
from gateway.sessions.records import ATTEMPTS, FUNDED
from gateway.sessions.sessions import Sessions
from gateway.sessions.shown import Docs


@dataclass(frozen=True, slots=True)
class Booked:
    """A booking's records, its meetings' in order, and the ways into those that are still to be held. `pay_url`: its
    client's pay page, while something has to be done there."""

    booking: BookingRecord
    payment: dict[str, Any]
    meetings: tuple[Docs, ...]
    ways: Mapping[str, Mapping[Role, Entry]]
    pay_url: str | None = None

    @property
    def status(self) -> core.Status:
        return core.status(self.booking, self.payment, [docs.record for docs in self.meetings])


class Bookings:
    """The use cases."""

    def __init__(
        self, sessions: Sessions, *, open_payment: Callable[[dict[str, Any], int], dict[str, Any]], wait_s: float = 10.0
    ) -> None:
        self._sessions, self._open_payment, self._wait_s = sessions, open_payment, wait_s
        self._journal, self._records = sessions.journal, sessions.records

    async def create(self, new: NewBooking, *, account: str, livemode: bool, booking_id: str) -> Booked:
        """All meetings, then the booking with the order to charge it; waits for the card's first word, at most ten
        seconds. Again with the same id (a repeated request after a crash) gives the booking that is there.

        Raises Conflict `reference_in_use`, InvalidRequest `booked_minutes_invalid`, and as `Eligibility.platform` does.
        """
        if new.minutes * 60_000 > self._sessions.rules.cap_ms:
            raise InvalidRequest(
                "This gateway holds no sessions of that length.", code="booked_minutes_invalid", param="minutes"
            )
        if (await self._journal.read(booking_id, "session"))["session"] is None:
            platform = await self._sessions.eligibility.platform(
                new.expert, new.currency, account=account, livemode=livemode
            )
            new = replace(new, platform=platform)
            now = self._sessions.clock.wall_ms()
            record, steps = core.booked(
                new, id=booking_id, account=account, livemode=livemode, now=now, cap_ms=self._sessions.rules.cap_ms
            )
            await self._sessions.directory.claim_reference(account, new.reference, booking_id)
            await asyncio.gather(*(self._sessions.place(step, people_of(new)) for step in steps))
            await self._sessions.directory.enter(record)
            with suppress(Conflict):
                await self._put(record, now)
        return await self._first_word(booking_id)

    async def _put(self, record: BookingRecord, now: int) -> None:
        body = record.to_dict()
        payment = self._open_payment(body, now)
        put = {"session": (0, body), "payment": (0, payment)}
        await self._journal.commit(record.id, put, due={"money": NOW}, durable=True)

    async def _first_word(self, booking: str) -> Booked:
        """The booking once its card has answered and, if it was charged, once its meetings know."""
        found = await self._sessions.changes.until(booking, partial(self.read, booking), _answered, self._wait_s)
        for docs in found.meetings:
            await self._records.apply_payment(docs.record.id)
        return await self.read(booking)

    async def get(self, account: str, livemode: bool, booking: str) -> Booked:
        """Raises NotFound, also for another account's booking, or one of the other mode."""
        found = await self.read(booking)
        if (found.booking.account, found.booking.livemode) != (account, livemode):
            raise _unknown(booking)
        return found

    async def list(
        self, wanted: Wanted, *, status: core.Status | None, limit: int, starting_after: str | None
    ) -> tuple[list[Booked], bool]:
        """A page of bookings, newest first, and whether there are more. Raises NotFound for an unknown cursor."""
        if starting_after is not None:
            await self.get(wanted.account, wanted.livemode, starting_after)
        found: list[Booked] = []
        async for booking in self._sessions.directory.newest(wanted, starting_after):
            with suppress(NotFound):
                booked = await self.get(wanted.account, wanted.livemode, booking)
                if wanted.fits(booked.booking.to_dict()) and status in (None, booked.status):
                    found.append(booked)
            if len(found) > limit:
                return found[:limit], True
        return found, False

    async def read(self, booking: str) -> Booked:
        """A booking for the gateway itself. Raises NotFound."""
        docs = await self._journal.read(booking, "session", "payment")
        if docs["session"] is None or docs["payment"] is None:
            raise _unknown(booking)
        record = BookingRecord.from_dict(docs["session"].body)
        meetings = tuple(await asyncio.gather(*map(self._records.read, record.meetings)))
        ways = {each.record.id: self._ways(each.record) for each in meetings if each.record.open}
        payment, wanted = docs["payment"].body, any(each.record.open for each in meetings)
        waits = asked.state_of_booking(payment, wanted=wanted) in asked.WAITING
        return Booked(record, payment, meetings, ways, self._sessions.doors.pay_link(booking) if waits else None)

    def _ways(self, record: SessionRecord) -> dict[Role, Entry]:
        return {role: self._sessions.doors.entry(record, role) for role in sessions_core.ROLES}

    async def pay(
        self, account: str, livemode: bool, booking: str, payment_method: str, after: int | None = None, *,
        request: str | None = None,
    ) -> Booked:  # fmt: skip
        """Another card, charged at once. `after`: only if no card was tried since that attempt; a `request` that is
        repeated after it was cut off tries no card again.

        Raises Conflict `payment_state` when it is paid, canceled or over, and as `Eligibility.check` does."""
        found = await self.get(account, livemode, booking)
        if request is not None and found.booking.funding.request == request:
            return await self._first_word(booking)
        if not any(docs.record.open for docs in found.meetings):
            raise Conflict("No meeting of this booking is left.", code="payment_state")
        if found.payment["status"] in FUNDED:
            raise _is_paid()
        await self._sessions.eligibility.check(found.booking)
        now = self._sessions.clock.wall_ms()

        def tried(record: BookingRecord) -> BookingRecord:
            fresh = after is None or record.funding.attempt == after
            return core.other_card(record, payment_method, now, request) if fresh else record

        await self._change(booking, tried, pending=True)
        return await self._first_word(booking)

    async def preview(
        self, account: str, livemode: bool, booking: str, meeting: int | None, by: CanceledBy
    ) -> tuple[Booked, dict[str, int]]:
        """What canceling would give back now, by session, in minor units; nothing is done. Raises Conflict
        `meeting_state`, NotFound `meeting_not_found`, StoreUnavailable."""
        found = await self._decided(account, livemode, booking)
        now = self._sessions.clock.wall_ms()
        steps = [(docs, sessions_core.canceled(docs.record, by, now)) for docs in _chosen(found, meeting, by, now)]
        return found, {
            docs.record.id: core.given_back(step.record, _paid(docs)) for docs, step in steps if step.changed
        }

    async def cancel(
        self, account: str, livemode: bool, booking: str, meeting: int | None, by: CanceledBy, *, request: str
    ) -> tuple[Booked, dict[str, int]]:
        """Call off one meeting, or all that have not begun; each goes its own way to its refund. What this `request`
        called off, by session, also when it is repeated; what was called off before is not among it. Raises as
        `preview` does."""
        found = await self._decided(account, livemode, booking)
        now = self._sessions.clock.wall_ms()
        chosen = [docs.record.id for docs in _chosen(found, meeting, by, now)]
        off = await asyncio.gather(*(self._call_off(session, by, now, request) for session in chosen))
        if meeting is not None and not all(off):
            raise Conflict("The meeting has begun, or is over.", code="meeting_state", session=chosen[0])
        after = await self.read(booking)
        await self._tell(after)
        return after, {
            docs.record.id: core.given_back(docs.record, _paid(docs))
            for docs in after.meetings
            if docs.record.meeting is not None and docs.record.meeting.cancel_request == request
        }

    async def _decided(self, account: str, livemode: bool, booking: str) -> Booked:
        """The booking once its meetings know of the charge that was made for them: what goes back follows from that.
        Raises StoreUnavailable when that takes too long."""
        found = await self.get(account, livemode, booking)
        if _shares_out(found):
            found = await self._first_word(booking)
        if _shares_out(found):
            raise StoreUnavailable("The booking was charged a moment ago; try again.")
        return found

    async def _call_off(self, session: str, by: CanceledBy, now: int, request: str) -> bool:
        """False if it began a moment ago."""
        await self._records.apply_payment(session)  # whether it is paid decides what goes back
        try:
            await self._records.apply(
                session, lambda record: sessions_core.canceled(record, by, now, request=request), durable=True
            )
        except Conflict as error:
            if error.code != "meeting_state":
                raise
            return False
        return True

    async def _tell(self, after: Booked) -> None:
        """The booking's own record of what was called off, and the event of it; a repeated request heals a lost one."""
        records = [docs.record for docs in after.meetings]
        new = {record.id for record in records if core.called_off(record)} - set(after.booking.called_off)
        told = {
            "reference": after.booking.reference,
            "currency": after.booking.currency,
            "meetings": [
                {
                    "session": docs.record.id,
                    "canceled_by": docs.record.meeting and docs.record.meeting.canceled_by,
                    "amount_refund": core.given_back(docs.record, _paid(docs)),
                }
                for docs in after.meetings
                if docs.record.id in new
            ],
        }
        event = Event("booking.canceled", told) if new else None
        await self._change(after.booking.id, lambda record: core.canceled(record, records), event=event)

    async def _change(
        self, booking: str, change: Callable[[BookingRecord], BookingRecord], *, pending: bool = False,
        event: Event | None = None,
    ) -> None:  # fmt: skip
        """`pending`: the payment is marked so in the same step. Raises Conflict `payment_state` if it is paid."""
        for _ in range(ATTEMPTS):
            docs = await self._journal.read(booking, "session", "payment")
            doc, payment = docs["session"], docs["payment"]
            assert doc is not None
            assert payment is not None
            if pending and payment.body["status"] in FUNDED:
                raise _is_paid()
            before = BookingRecord.from_dict(doc.body)
            after = change(before)
            if after == before:
                return
            put: dict[str, tuple[int, dict[str, Any]]] = {"session": (doc.version, after.to_dict())}
            if pending:
                put["payment"] = (payment.version, {**payment.body, "status": "pending"})
            try:
                await self._journal.commit(
                    booking, put, events=[event] if event else [], due={"money": NOW}, durable=True
                )
            except Conflict as error:
                if error.code == "version_conflict":
                    continue
                raise
            return
        raise GatewayError(f"{booking} changes faster than it can be written.")


def _answered(found: Booked) -> bool:
    return found.payment["status"] != "pending" and not _shares_out(found)


def _chosen(found: Booked, meeting: int | None, by: CanceledBy, now: int) -> list[Docs]:
    """The meetings to call off: the one that is named, or all that can be. Raises NotFound, Conflict."""
    if meeting is None:
        return [docs for docs in found.meetings if _can_be_canceled(docs.record, by, now)]
    if not 1 <= meeting <= len(found.meetings):
        raise NotFound("There is no such meeting.", code="meeting_not_found", param="meeting")
    named = found.meetings[meeting - 1]
    sessions_core.canceled(named.record, by, now)
    return [named]


def _can_be_canceled(record: SessionRecord, by: CanceledBy, now: int) -> bool:
    with suppress(Conflict):
        return sessions_core.canceled(record, by, now).changed
    return False


def _shares_out(found: Booked) -> bool:
    """Whether it is charged, and its meetings do not all know yet."""
    return found.payment["amount_captured"] > 0 and not found.payment["settled"]


def _paid(docs: Docs) -> int:
    return int(docs.payment["amount_captured"])


def _is_paid() -> Conflict:
    return Conflict("The booking is paid.", code="payment_state")


def _unknown(booking: str) -> NotFound:
    return NotFound(f"There is no booking {booking}.", code="booking_not_found", param="booking")
