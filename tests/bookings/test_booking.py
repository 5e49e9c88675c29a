"""R14: a booking's record, its meetings, and how it stands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway import session as sessions
from gateway.bookings import booking as core
from gateway.bookings.booking import BookingRecord, NewBooking
from gateway.errors import Conflict
from gateway.ids import born_ms, new_id
from gateway.session import SessionRecord, Step
from tests.orders import NOW, order

HOUR = 3_600_000
BOOKING = new_id("bkg")
PAID = {"amount_captured": 13_500}


def booked(count: int = 3) -> tuple[BookingRecord, list[Step]]:
    terms = order()
    new = NewBooking(
        client=terms.client, expert=terms.expert, unit_amount=300, currency="usd", minutes=15,
        starts_at=tuple(NOW + n * HOUR for n in range(1, count + 1)), expires_at=NOW + HOUR, reference="r1",
    )  # fmt: skip
    return core.booked(new, id=BOOKING, account="acc", livemode=False, now=NOW, cap_ms=5_400_000)


def records(count: int = 3) -> list[SessionRecord]:
    return [step.record for step in booked(count)[1]]


def test_r14_the_fee_is_meetings_times_minutes_times_rate_and_charged_at_once() -> None:
    record, steps = booked()
    assert (record.fee, record.funding.amount, record.funding.recharge) == (4_500, 13_500, True)
    assert [step.record.amount_max for step in steps] == [4_500] * 3
    assert record.meetings == tuple(step.record.id for step in steps)
    assert {(s.record.kind, s.record.limit_ms, s.record.free_ms) for s in steps} == {("booked", 900_000, 0)}
    assert BookingRecord.from_dict(record.to_dict()) == record


def test_r14_a_repeated_booking_makes_the_same_meetings() -> None:
    record, _ = booked()
    assert booked()[0].meetings == record.meetings
    assert len(set(record.meetings)) == 3
    assert {born_ms(session) for session in record.meetings} == {born_ms(BOOKING)}


def test_r14_the_links_of_a_meeting_outlast_it() -> None:
    first = records()[0]
    assert first.meeting is not None
    assert (first.meeting.opens_at, first.begin_by) == (NOW + HOUR - 600_000, NOW + HOUR + 900_000)
    assert first.expires_at >= first.begin_by + first.limit_ms


def test_r14_how_a_booking_stands() -> None:
    record, meetings = booked()[0], records()
    assert core.status(record, {"amount_captured": 0}, meetings) == "unpaid"
    assert core.status(record, PAID, meetings) == "paid"
    off = [sessions.canceled(meeting, "client", NOW).record for meeting in meetings]
    assert core.status(record, PAID, [off[0], *meetings[1:]]) == "paid"
    assert core.status(record, PAID, off) == "canceled"
    held = sessions.ended(meetings[0], "client_left", NOW).record
    assert core.status(record, PAID, [held, *off[1:]]) == "over"


def test_law5_a_booking_without_meetings_left_is_never_charged() -> None:
    record, meetings = booked()[0], records()
    first = sessions.canceled(meetings[0], "client", NOW).record
    some = core.canceled(record, [first, *meetings[1:]])
    assert (some.called_off, some.canceled) == ((first.id,), False)
    all_ = core.canceled(record, [sessions.canceled(meeting, "client", NOW).record for meeting in meetings])
    assert all_.canceled
    with pytest.raises(Conflict, match="canceled"):
        core.other_card(all_, "pm_2", NOW)
    assert core.other_card(some, "pm_2", NOW).funding == replace(
        record.funding, attempt=2, payment_method="pm_2", requested_at=NOW
    )


def test_r14_what_a_cancellation_gives_back_is_a_part_of_what_was_paid() -> None:
    off = sessions.canceled(sessions.funded(records()[0]).record, "client", NOW).record
    assert (core.given_back(off, 4_500), core.given_back(off, 0)) == (2_250, 0)
