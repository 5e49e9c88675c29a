"""The endpoints of bookings (R14)."""

from __future__ import annotations

import re
from typing import Final

from gateway.api import bookings
from gateway.api.context import Bookings
from gateway.api.endpoint import Call, Endpoint
from gateway.errors import NotFound
from gateway.sessions.directory import Wanted

BOOKING_ID: Final = re.compile(r"bkg_[0-9a-z]{1,40}")


async def create(call: Call) -> bookings.Booking:
    """The booking takes its id from the request's subject, so that a repeated request finds its own."""
    order = bookings.order(call.body, call.context.limits, now=call.context.clock.wall_ms())
    ident = call.subject.replace("ses_", "bkg_", 1)
    return bookings.booking(
        await _desk(call).create(order, account=call.account, livemode=call.livemode, booking_id=ident)
    )


async def retrieve(call: Call) -> bookings.Booking:
    return bookings.booking(await _desk(call).get(call.account, call.livemode, _named(call)))


async def find(call: Call) -> bookings.BookingList:
    query: bookings.BookingFilter = call.query
    wanted = Wanted(
        call.account, call.livemode, expert=query.expert, client=query.client, reference=query.reference, bookings=True
    )
    found, more = await _desk(call).list(
        wanted, status=query.status, limit=query.limit, starting_after=query.starting_after
    )
    return bookings.page(found, more, call.context.complete_since)


async def pay(call: Call) -> bookings.Booking:
    paid = await _desk(call).pay(
        call.account, call.livemode, _named(call), call.body.payment_method, request=call.subject
    )
    return bookings.booking(paid)


async def cancel(call: Call) -> bookings.Cancellation:
    wanted = (call.account, call.livemode, _named(call), call.body.meeting, call.body.by)
    if call.query.preview:
        found, refunds = await _desk(call).preview(*wanted)
    else:
        found, refunds = await _desk(call).cancel(*wanted, request=call.subject)
    return bookings.cancellation(found, refunds, call.body.by, preview=call.query.preview)


async def remove(call: Call) -> bookings.Cancellation:
    found, refunds = await _desk(call).cancel(
        call.account, call.livemode, _named(call), None, "platform", request=call.subject
    )
    return bookings.cancellation(found, refunds, "platform", preview=False)


def _named(call: Call) -> str:
    given = call.request.match_info["booking"]
    if not BOOKING_ID.fullmatch(given):
        raise NotFound("There is no such booking.", code="booking_not_found", param="booking")
    return given


def _desk(call: Call) -> Bookings:
    if call.context.bookings is None:
        raise NotFound("This gateway takes no bookings.")
    return call.context.bookings


BOOKING_ENDPOINTS: Final = (
    Endpoint(
        "POST",
        "/v1/bookings",
        "createBooking",
        "Bookings",
        "Book meetings",
        "Any number of meetings of the same length, up to 40, paid at once: meetings × minutes × rate. Meetings are "
        "numbered from 1 by their times, earliest first, in whatever order they were sent: take `number` from the "
        "answer. Each meeting is "
        "a session of its own, with links that open ten minutes before its time; it runs its full minutes from the "
        "moment both are together, and must begin within 15 minutes. Waits up to ten seconds for the card. A declined "
        "card is no refusal: the answer is 201 with `payment.status` `failed`, and another card can be tried; a "
        "meeting that is not paid when its time comes ends as `payment_failed`. Each meeting's shares are transferred "
        "when it is finalized.",
        create,
        bookings.Booking,
        scope="sessions",
        body=bookings.CreateBooking,
        status=201,
        idempotent="required",
        problems=(
            "unknown_currency",
            "rate_out_of_range",
            "booked_minutes_invalid",
            "meeting_time_invalid",
            "expert_not_eligible",
            "expert_not_payable",
            "stripe_unavailable",
            "payment_method_required",
            "stripe_customer_required",
            "expires_at_out_of_range",
            "reference_in_use",
        ),
    ),
    Endpoint(
        "GET",
        "/v1/bookings",
        "listBookings",
        "Bookings",
        "List bookings",
        "Newest first, in pages: pass the last id as `starting_after` while `has_more` is true.",
        find,
        bookings.BookingList,
        scope="read",
        query=bookings.BookingFilter,
        problems=("booking_not_found",),
    ),
    Endpoint(
        "GET",
        "/v1/bookings/{booking}",
        "getBooking",
        "Bookings",
        "Read a booking",
        "How it stands, with its meetings in order; each meeting's session tells the rest.",
        retrieve,
        bookings.Booking,
        scope="read",
        problems=("booking_not_found",),
    ),
    Endpoint(
        "POST",
        "/v1/bookings/{booking}/payment",
        "payBookingWithAnotherCard",
        "Bookings",
        "Try another card",
        "After `failed` or an abandoned `action_required`. The card is charged at once.",
        pay,
        bookings.Booking,
        scope="money",
        body=bookings.BookingPayment,
        idempotent="required",
        problems=("booking_not_found", "payment_state", "expert_not_payable", "stripe_unavailable"),
    ),
    Endpoint(
        "POST",
        "/v1/bookings/{booking}/cancel",
        "cancelBooking",
        "Bookings",
        "Call off meetings",
        "One meeting, or all that have not begun. `meeting` is the `number` that the booking's answer gives it: by "
        "time, earliest first, and not by the order in which the meetings were sent; see with `preview=true` which "
        "session it is. Called off by the client 24 hours before or earlier, all is given "
        "back; later, half; by the expert or the platform, all. The booking's own `policy` says otherwise where it "
        "does. With `preview=true` nothing is done, and the answer tells what would be given back. The client cannot "
        "call off a meeting whose time has come: then the rule for absence holds. A meeting that was called off before "
        "stays as it was, whoever calls it off now: it is not among `refunds`, and `amount_refund` is 0.",
        cancel,
        bookings.Cancellation,
        scope="money",
        body=bookings.CancelBooking,
        query=bookings.CancelQuery,
        idempotent="required unless preview",
        problems=("booking_not_found", "meeting_not_found", "meeting_state"),
    ),
    Endpoint(
        "DELETE",
        "/v1/bookings/{booking}",
        "deleteBooking",
        "Bookings",
        "Call off a whole booking",
        "The platform calls off all meetings that have not begun: their fees are given back.",
        remove,
        bookings.Cancellation,
        scope="money",
        problems=("booking_not_found",),
    ),
)
