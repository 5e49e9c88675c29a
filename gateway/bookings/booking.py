"""A booking: one charge for a number of meetings, and the record that the bridge takes its order from (R14). Pure.

The meetings are sessions of their own. They are written before their booking, so that one that is charged has them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

from gateway import session as core
from gateway.bookings.meetings import BEGINS_WITHIN_MS, Meeting, Policy, back_bps
from gateway.errors import Conflict
from gateway.ids import derived_id
from gateway.money import BPS, round_half_up
from gateway.payees.routes import MAIN
from gateway.session import Ambassador, Funding, Media, NewClient, NewExpert, NewSession, SessionRecord, Step

# Two transfers each, and Stripe lists a hundred of a group at once.
MOST_MEETINGS: Final = 40
# How long after the time of a meeting its links still work.
AFTER_MS: Final = BEGINS_WITHIN_MS + 90 * 60_000

Status = Literal["unpaid", "paid", "canceled", "over"]


@dataclass(frozen=True, slots=True)
class NewBooking:
    """What the marketplace orders, already checked by the edge. `starts_at`: wall ms of each meeting; None for one
    that may be held at any time until `expires_at`."""

    client: NewClient
    expert: NewExpert
    unit_amount: int
    currency: str
    minutes: int
    starts_at: tuple[int | None, ...]
    expires_at: int
    reference: str | None = None
    media: Media = "video"
    ambassador: Ambassador | None = None
    commission_bps: int = 1000
    policy: Policy = field(default_factory=Policy)
    platform: str = MAIN

    @property
    def fee(self) -> int:
        """Of one meeting, in minor units."""
        return self.unit_amount * self.minutes


@dataclass(frozen=True, slots=True)
class BookingRecord:
    """The record as it is kept, and as the bridge reads it: times wall ms, amounts minor units."""

    id: str
    account: str
    livemode: bool
    created: int
    reference: str | None
    media: Media
    minutes: int
    unit_amount: int
    currency: str
    commission_bps: int
    client: dict[str, Any]
    expert: dict[str, Any]
    meetings: tuple[str, ...]
    funding: Funding
    called_off: tuple[str, ...] = ()
    canceled: bool = False
    platform: str = MAIN
    status: Literal["booked"] = "booked"
    kind: Literal["booking"] = "booking"
    schema: int = 1

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> BookingRecord:
        return cls(
            **{
                **body,
                "meetings": tuple(body["meetings"]),
                "called_off": tuple(body["called_off"]),
                "funding": Funding(**body["funding"]),
            }
        )

    @property
    def fee(self) -> int:
        return self.unit_amount * self.minutes


def booked(new: NewBooking, *, id: str, account: str, livemode: bool, now: int, cap_ms: int) -> tuple[
    BookingRecord, list[Step]
]:  # fmt: skip
    """The booking and the openings of its meetings, whose ids follow from its own: repeated, it makes the same."""
    steps = [
        core.opened(
            _meeting(new, id, number, starts_at, now), id=derived_id("ses", id, number), account=account,
            livemode=livemode, now=now, cap_ms=cap_ms, expires_ms=0,
        )
        for number, starts_at in enumerate(new.starts_at, 1)
    ]  # fmt: skip
    first = steps[0].record
    record = BookingRecord(
        id=id, account=account, livemode=livemode, created=now, reference=new.reference, media=new.media,
        minutes=new.minutes, unit_amount=new.unit_amount, currency=new.currency, commission_bps=new.commission_bps,
        client=first.client, expert=first.expert, meetings=tuple(step.record.id for step in steps),
        funding=Funding(1, new.client.payment_method, new.fee * len(steps), now, recharge=True), platform=new.platform,
    )  # fmt: skip
    return record, steps


def _meeting(new: NewBooking, booking: str, number: int, starts_at: int | None, now: int) -> NewSession:
    ends = new.expires_at if starts_at is None else starts_at + AFTER_MS
    return NewSession(
        client=new.client, expert=new.expert, unit_amount=new.unit_amount, currency=new.currency,
        reference=new.reference, kind="booked", media=new.media, ambassador=new.ambassador, max_minutes=new.minutes,
        commission_bps=new.commission_bps, expires_in_ms=ends - now,
        meeting=Meeting(booking, number, starts_at, new.policy), platform=new.platform,
    )  # fmt: skip


def canceled(record: BookingRecord, meetings: Sequence[SessionRecord]) -> BookingRecord:
    """With the meetings that were called off by now. If none is left, what is not charged yet never will be."""
    off = tuple(meeting.id for meeting in meetings if called_off(meeting))
    return replace(record, called_off=off, canceled=not any(meeting.open for meeting in meetings))


def called_off(meeting: SessionRecord) -> bool:
    """Canceled through its booking, before it began."""
    return meeting.meeting is not None and meeting.meeting.canceled_by is not None


def other_card(record: BookingRecord, payment_method: str, now: int, request: str | None = None) -> BookingRecord:
    """Raises Conflict `payment_state`."""
    if record.canceled:
        raise Conflict("The booking was canceled.", code="payment_state")
    funding = replace(
        record.funding, attempt=record.funding.attempt + 1, payment_method=payment_method, requested_at=now,
        request=request,
    )  # fmt: skip
    return replace(record, funding=funding)


def status(record: BookingRecord, payment: Mapping[str, Any], meetings: Sequence[SessionRecord]) -> Status:
    """How a booking stands, by its payment and its meetings."""
    if not any(meeting.open for meeting in meetings):
        all_off = all(meeting.end_reason == "canceled" for meeting in meetings)
        return "canceled" if all_off else "over"
    return "paid" if payment["amount_captured"] else "unpaid"


def given_back(meeting: SessionRecord, amount_paid: int) -> int:
    """What the terms give back of what was paid for a meeting that was called off, in minor units."""
    assert meeting.meeting is not None
    bps = back_bps(meeting.meeting, meeting.end_reason, meeting.ended_at or meeting.created)
    return round_half_up(amount_paid * bps, BPS)
