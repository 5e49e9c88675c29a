"""Bookings at the API: what requests may say, the rules that they must meet (R14, R16, R17), and the answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from gateway.api import terms
from gateway.api.answers import Answer, PaymentView, RateView, Reaching, Time, moment
from gateway.api.context import Booked, Docs, Entry
from gateway.api.schemas import (
    Ambassador,
    BasisPoints,
    Client,
    Expert,
    Id,
    Limit,
    PaymentMethod,
    Query,
    Rate,
    Reference,
    Request,
    as_utc_ms,
)
from gateway.api.views import payment_view, stamp, time
from gateway.bookings.booking import MOST_MEETINGS, NewBooking, Status
from gateway.bookings.meetings import CanceledBy, Meeting, Policy
from gateway.errors import InvalidRequest
from gateway.session import EndReason, Media, Role
from gateway.session import Status as SessionStatus

HOUR_MS = 3_600_000
DEFAULT_LIFE_MS = 30 * 24 * HOUR_MS
LONGEST_AHEAD_MS = 180 * 24 * HOUR_MS


class NewMeeting(Request):
    starts_at: AwareDatetime = Field(description="RFC 3339; it opens ten minutes before, and must begin within 15")


class Terms(Request):
    """What goes back of a meeting's fee. Left out, the usual: 24 hours before all of it, later half, and nothing for
    a client who does not come."""

    cancel_notice_hours: int = Field(default=24, ge=0, le=720, description="Canceled so long before or earlier: early")
    early_cancel_refund_bps: BasisPoints = Field(default=10_000, description="When the client cancels early")
    late_cancel_refund_bps: BasisPoints = Field(default=5_000, description="When the client cancels later")
    client_absent_refund_bps: BasisPoints = Field(default=0, description="When the client does not come")


class CreateBooking(Request):
    """`POST /v1/bookings`. One of `meetings` (appointments) and `count` (to be held at any time)."""

    reference: Reference | None = Field(default=None, description="Yours; unique among what is unfinished")
    media: Media = "video"
    client: Client
    expert: Expert
    ambassador: Ambassador | None = None
    rate: Rate
    minutes: int = Field(description="Of each meeting: 15, 30, 45, 60, 75 or 90")
    meetings: Annotated[list[NewMeeting], Field(min_length=1, max_length=MOST_MEETINGS)] | None = Field(
        default=None, description="In any order; the answer numbers them by time, earliest first"
    )
    count: int | None = Field(default=None, ge=1, le=MOST_MEETINGS)
    policy: Terms = Field(default_factory=Terms)
    commission_bps: BasisPoints | None = Field(default=None, description="Of the fee; the configured 1000 if unsaid")
    expires_at: AwareDatetime | None = Field(
        default=None, description="With `count`: until when the meetings may begin. 30 days if unsaid, at most 180"
    )


class CancelBooking(Request):
    meeting: int | None = Field(
        default=None,
        ge=1,
        description="Its `number` in the booking's answer: by time, not as sent. Left out, all that have not begun",
    )
    by: CanceledBy = Field(description="Who calls it off; the terms of the booking ask for it")


class BookingPayment(Request):
    payment_method: PaymentMethod


class BookingFilter(Query):
    status: Status | None = None
    expert: Id | None = Field(default=None, description="The expert's id, as you gave it")
    client: Id | None = Field(default=None, description="The client's id, as you gave it")
    reference: Annotated[str, Field(max_length=200)] | None = None
    limit: Limit = 10
    starting_after: Annotated[str, Field(pattern=r"^bkg_[a-z0-9]{1,40}$")] | None = Field(
        default=None, description="The last id of the page before"
    )


class CancelQuery(Query):
    preview: bool = Field(default=False, description="Only tell what would be given back")

    @property
    def previews(self) -> bool:
        return self.preview


def order(request: CreateBooking, limits: terms.Limits, *, now: int) -> NewBooking:
    """The booking to make, at `now` (wall ms). Raises InvalidRequest with the code of the rule that it breaks."""
    if request.minutes not in terms.MEETING_MINUTES:
        raise InvalidRequest(
            "A meeting lasts 15, 30, 45, 60, 75 or 90 minutes.", code="booked_minutes_invalid", param="minutes"
        )
    terms.check_price(request.rate, request.expert, limits)
    if request.client.payment_method is None:
        raise InvalidRequest(
            "A booking is paid at once.", code="payment_method_required", param="client.payment_method"
        )
    terms.check_card(request.client, needed=True)
    chosen = request.commission_bps
    return NewBooking(
        client=terms.client(request.client), expert=terms.expert(request.expert),
        unit_amount=request.rate.unit_amount, currency=request.rate.currency, minutes=request.minutes,
        starts_at=_times(request, now), expires_at=_expires_at(request, now), reference=request.reference,
        media=request.media, ambassador=terms.ambassador(request.ambassador),
        commission_bps=limits.commission_bps if chosen is None else chosen, policy=_policy(request.policy),
    )  # fmt: skip


def _times(request: CreateBooking, now: int) -> tuple[int | None, ...]:
    if (request.meetings is None) is (request.count is None):
        raise InvalidRequest("Send either `meetings` or `count`.", code="invalid_field", param="meetings")
    if request.meetings is None:
        return (None,) * (request.count or 0)
    times = tuple(sorted(as_utc_ms(meeting.starts_at) for meeting in request.meetings))
    apart = request.minutes * 60_000
    if times[0] <= now or times[-1] > now + LONGEST_AHEAD_MS:
        raise InvalidRequest("A meeting lies ahead, within 180 days.", code="meeting_time_invalid", param="meetings")
    if any(later - earlier < apart for earlier, later in pairwise(times)):
        raise InvalidRequest("The meetings overlap.", code="meeting_time_invalid", param="meetings")
    return times


def _expires_at(request: CreateBooking, now: int) -> int:
    expires_at = now + DEFAULT_LIFE_MS if request.expires_at is None else as_utc_ms(request.expires_at)
    if request.expires_at is not None and request.meetings is not None:
        raise InvalidRequest("Appointments expire by themselves.", code="invalid_field", param="expires_at")
    if not now + HOUR_MS <= expires_at <= now + LONGEST_AHEAD_MS:
        raise InvalidRequest(
            "At least an hour from now, and within 180 days.", code="expires_at_out_of_range", param="expires_at"
        )
    return expires_at


def _policy(given: Terms) -> Policy:
    return Policy(
        notice_ms=given.cancel_notice_hours * HOUR_MS, early_bps=given.early_cancel_refund_bps,
        late_bps=given.late_cancel_refund_bps, client_absent_bps=given.client_absent_refund_bps,
    )  # fmt: skip


class TermsView(Answer):
    cancel_notice_hours: int
    early_cancel_refund_bps: int
    late_cancel_refund_bps: int
    client_absent_refund_bps: int


class MeetingView(Answer):
    number: int = Field(description="From 1, by time, earliest first, however they were sent; cancel by this one")
    session: str
    starts_at: Time | None = moment()
    opens_at: Time | None = moment("2026-11-21T19:50:00.000Z")
    begin_by: Time | None = moment("2026-11-21T20:15:00.000Z")
    status: SessionStatus
    end_reason: EndReason | None
    canceled_by: CanceledBy | None
    amount: int = Field(description="Its fee")
    amount_total: int | None = Field(description="What stays of it; null until it is finalized")
    amount_refunded: int
    client_url: str | None = Field(description="The client's own link; null once the meeting is over")
    expert_url: str | None


class Booking(Answer):
    id: str = Field(examples=["bkg_01k9m0h3f8q2v7x4r6s5t1w2y3"])
    object: Literal["booking"] = "booking"
    livemode: bool
    created: Time = moment()
    reference: str | None
    status: Status = Field(description="`over`: no meeting is left to be held")
    minutes: int
    rate: RateView
    currency: str
    commission_bps: int
    amount: int = Field(description="Meetings × minutes × rate, charged at once")
    amount_refunded: int
    payment: PaymentView
    policy: TermsView
    meetings: list[MeetingView]


class BookingList(Reaching):
    object: Literal["list"] = "list"
    data: list[Booking]
    has_more: bool


class CanceledMeeting(Answer):
    session: str
    amount_refund: int


class Cancellation(Answer):
    """What is given back of each meeting that this request called off, or would; the money follows by itself. What was
    called off before is not among it: `booking.meetings` tells by whom."""

    object: Literal["cancellation"] = "cancellation"
    preview: bool
    by: CanceledBy = Field(description="As it was asked for")
    amount_refund: int = Field(description="All of `refunds`; 0 if nothing was called off by this request")
    currency: str
    refunds: list[CanceledMeeting]
    booking: Booking


def booking(found: Booked) -> Booking:
    record = found.booking
    return Booking(
        id=record.id, livemode=record.livemode, created=stamp(record.created), reference=record.reference,
        status=found.status, minutes=record.minutes,
        rate=RateView(unit_amount=record.unit_amount, currency=record.currency), currency=record.currency,
        commission_bps=record.commission_bps, amount=record.funding.amount,
        amount_refunded=_refunded(found),
        payment=payment_view(_charge(found), found.pay_url),
        policy=_terms(Meeting.from_dict(found.meetings[0].session["meeting"])),
        meetings=[_meeting(docs, found.ways.get(docs.session["id"], {})) for docs in found.meetings],
    )  # fmt: skip


def _refunded(found: Booked) -> int:
    return sum(docs.payment.get("amount_refunded", 0) for docs in found.meetings)


def _charge(found: Booked) -> Mapping[str, Any]:
    """The booking's one charge, with what its meetings have given back of it."""
    charge, back = found.payment, _refunded(found)
    if not back or charge["status"] != "captured":
        return charge
    whole = back >= charge["amount_captured"]
    return {**charge, "amount_refunded": back, "status": "refunded" if whole else "partially_refunded"}


def page(found: Sequence[Booked], has_more: bool, complete_since: int | None) -> BookingList:
    """`complete_since`: wall ms."""
    data = [booking(each) for each in found]
    return BookingList(data=data, has_more=has_more, complete_since=time(complete_since))


def _terms(meeting: Meeting) -> TermsView:
    policy = meeting.policy
    return TermsView(
        cancel_notice_hours=policy.notice_ms // HOUR_MS, early_cancel_refund_bps=policy.early_bps,
        late_cancel_refund_bps=policy.late_bps, client_absent_refund_bps=policy.client_absent_bps,
    )  # fmt: skip


def _meeting(docs: Docs, ways: Mapping[Role, Entry]) -> MeetingView:
    record, meeting = docs.session, Meeting.from_dict(docs.session["meeting"])
    appointed = meeting.starts_at is not None
    return MeetingView(
        number=meeting.number, session=record["id"], starts_at=time(meeting.starts_at),
        opens_at=time(meeting.opens_at) if appointed else None, begin_by=time(meeting.begin_by),
        status=record["status"], end_reason=record["end_reason"], canceled_by=meeting.canceled_by,
        amount=record["amount_max"], amount_total=(record.get("bill") or {}).get("amount_total"),
        amount_refunded=docs.payment.get("amount_refunded", 0),
        client_url=ways["client"].url if ways else None, expert_url=ways["expert"].url if ways else None,
    )  # fmt: skip


def cancellation(found: Booked, refunds: Mapping[str, int], by: CanceledBy, *, preview: bool) -> Cancellation:
    return Cancellation(
        preview=preview, by=by, amount_refund=sum(refunds.values()), currency=found.booking.currency,
        refunds=[CanceledMeeting(session=session, amount_refund=amount) for session, amount in refunds.items()],
        booking=booking(found),
    )  # fmt: skip
