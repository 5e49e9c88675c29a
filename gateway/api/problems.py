"""Problem types (RFC 9457): every code that an answer may carry, and how an error becomes an answer.

A code is a promise: it keeps its meaning, and clients branch on it. Titles and details are for people.
The registry is the source of the table in docs/api.md and of /v1/docs; a test holds it against what is raised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.errors import GatewayError

MEDIA_TYPE = "application/problem+json"
# Members that a problem defines itself; extras of an error may not overwrite them.
RESERVED = frozenset({"type", "title", "status", "detail", "instance", "code", "param", "request_id"})


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of refusal: its HTTP status, which belongs to the code, and what the caller can do about it."""

    code: str
    status: int
    title: str
    remedy: str


def _registry(*problems: Problem) -> dict[str, Problem]:
    registry = {problem.code: problem for problem in problems}
    assert len(registry) == len(problems), "a code has one meaning"
    return registry


REQUEST = (
    Problem("invalid_json", 400, "The body is not JSON", "Send one JSON object, in UTF-8, without duplicate keys."),
    Problem(
        "invalid_request", 400, "The request is not valid", "Read `detail`; `param` names the field if there is one."
    ),
    Problem("missing_field", 400, "A required field is missing", "Send the field that `param` names."),
    Problem(
        "unknown_field", 400, "A field is not known", "Remove the field that `param` names, or correct its spelling."
    ),
    Problem("invalid_field", 400, "A field has a wrong type or value", "Correct the field that `param` names."),
    Problem("missing_parameter", 400, "A required query parameter is missing", "Add the parameter that `param` names."),
    Problem("unknown_parameter", 400, "A query parameter is not known", "Remove the parameter that `param` names."),
    Problem(
        "invalid_parameter", 400, "A query parameter has a wrong value", "Correct the parameter that `param` names."
    ),
    Problem("unsupported_media_type", 415, "The body is not sent as JSON", "Send `Content-Type: application/json`."),
    Problem("body_too_large", 413, "The body is too large", "Stay within 64 KiB."),
    Problem(
        "not_found",
        404,
        "There is nothing here",
        "Check the path. Objects of other accounts and of the other mode look absent.",
    ),
    Problem("session_not_found", 404, "There is no such session", "Check the id, the account and the mode of the key."),
    Problem("booking_not_found", 404, "There is no such booking", "Check the id, the account and the mode of the key."),
    Problem("meeting_not_found", 404, "The booking has no such meeting", "Meetings are numbered from 1."),
    Problem("endpoint_not_found", 404, "There is no such webhook endpoint", "List the endpoints."),
    Problem("event_not_found", 404, "There is no such event", "List the session's events; their ids are there."),
    Problem("method_not_allowed", 405, "The path does not take this method", "The header `Allow` lists what it takes."),
    Problem(
        "card_number_refused",
        400,
        "A field looks like a card number",
        "Card numbers must never reach this API: send Stripe's id of the payment method. Nothing was stored or logged.",
    ),
)

ACCESS = (
    Problem("unauthorized", 401, "No valid API key", "Send `Authorization: Bearer pg_test_…` or `pg_live_…`."),
    Problem("forbidden", 403, "Not allowed", "Use a key that may do this."),
    Problem("insufficient_scope", 403, "The API key lacks a scope", "Use a key with the scope that `required` names."),
    Problem(
        "too_many_requests", 429, "Too many requests", "Wait for the seconds in `Retry-After`, then go on more slowly."
    ),
)

IDEMPOTENCY = (
    Problem(
        "idempotency_key_required",
        400,
        "This call can move money and needs an Idempotency-Key",
        "Send a fresh random key for each intended action, and the same key when you retry it.",
    ),
    Problem(
        "idempotency_key_invalid", 400, "The Idempotency-Key is not usable", "Use 1 to 255 printable ASCII characters."
    ),
    Problem(
        "idempotency_key_reused",
        422,
        "The Idempotency-Key was used with other parameters",
        "Send a fresh key for a new action; a retry repeats the same body on the same path.",
    ),
    Problem(
        "idempotency_key_in_use",
        409,
        "The first request with this Idempotency-Key is still under way",
        "Retry after the seconds in `Retry-After`; you will then get the first one's result.",
    ),
)

TERMS = (
    Problem(
        "unknown_currency", 400, "The currency is not supported", "Use one of usd, gbp, eur, cad, chf, in lower case."
    ),
    Problem(
        "rate_out_of_range",
        400,
        "The rate is outside the configured range",
        "`minimum` and `maximum` tell the range, in minor units a minute.",
    ),
    Problem(
        "rate_required", 400, "A metered session needs a rate", "Send `rate`, or choose the kind `pro_bono` or `free`."
    ),
    Problem(
        "booked_through_bookings",
        400,
        "Booked sessions are created by a booking",
        "Book the meetings; their sessions come with the booking.",
    ),
    Problem("booked_minutes_invalid", 400, "A meeting cannot last that long", "Use 15, 30, 45, 60, 75 or 90 minutes."),
    Problem(
        "meeting_time_invalid",
        400,
        "A meeting cannot be at that time",
        "Meetings lie ahead, within 180 days, and do not overlap.",
    ),
    Problem(
        "pro_bono_too_long",
        400,
        "A session without a fee is too long",
        "Such a session is one meeting of at most 15 minutes.",
    ),
    Problem(
        "expert_not_eligible",
        400,
        "The expert may not be paid yet",
        'Paid sessions need a rating of 3.5 or more. Send `if_not_eligible: "free"` to hold a free session instead.',
    ),
    Problem(
        "expert_not_payable",
        400,
        "The expert's account cannot receive the money",
        "`reason` tells why, and `GET /v1/experts/{expert}/payability` the whole answer before a card is taken. The "
        "account must be in a country that a platform account reaches, and able to receive transfers.",
    ),
    Problem(
        "payment_method_required",
        400,
        "A paid session needs a card to hold",
        "Send `client.payment_method` with `client.stripe_customer`.",
    ),
    Problem(
        "stripe_customer_required",
        400,
        "A card needs its Stripe customer",
        "Send the customer that the payment method belongs to.",
    ),
    Problem("ring_unavailable", 400, "Ringing is still to come", "Create the session with `ring: false`."),
    Problem(
        "hold_not_possible", 400, "The hold cannot be placed in this way", "A session that rings holds the card now."
    ),
    Problem(
        "expires_at_out_of_range",
        400,
        "The session cannot stay open that long",
        'Up to 24 hours from now, or up to 30 days with `hold: "join"`.',
    ),
)

STATE = (
    Problem(
        "person_in_use",
        409,
        "Sessions of this person are still to be held or paid",
        "End those in `sessions`, or wait until they are settled, and ask again.",
    ),
    Problem("conflict", 409, "The state does not allow this", "Read the object again, and decide anew."),
    Problem(
        "reference_in_use", 409, "An unfinished session has this reference", "Use that session: `session` names it."
    ),
    Problem(
        "expert_busy", 409, "The expert is in another session", "Offer a message, an appointment or another expert."
    ),
    Problem("expert_offline", 409, "The expert is offline", "Offer a message, an appointment or another expert."),
    Problem("meeting_state", 409, "The meeting has begun, or is over", "Read the booking; refund the session instead."),
    Problem("meeting_not_open", 409, "The meeting is not open yet", "It opens ten minutes before its time."),
    Problem("endpoint_disabled", 409, "The endpoint is disabled", "It answered 410. Enable it, then send again."),
    Problem("endpoint_configured", 409, "The endpoint is set in the configuration", "Change it there."),
    Problem("session_ended", 409, "The session has ended", "Create a new session."),
    Problem("session_state", 409, "The session's state does not allow this", "Read the session; its `status` tells."),
    Problem("too_many_cards", 409, "Too many cards were tried", "Ask the client to pay where the session was booked."),
    Problem("payment_state", 409, "The payment's state does not allow this", "Read `payment.status` of the session."),
    Problem("refund_too_large", 409, "There is not that much left to refund", "`left` tells what is, in minor units."),
    Problem("unprocessable", 422, "The request cannot be carried out", "Read `detail`."),
)

LINKS = (
    Problem("link_invalid", 404, "The link opens nothing", "Ask for a new link."),
    Problem("token_invalid", 401, "The token opens nothing", "Get a fresh one from `POST /v1/sessions/{id}/tokens`."),
    Problem("token_expired", 401, "The token has expired", "Get a fresh one from `POST /v1/sessions/{id}/tokens`."),
    Problem("link_expired", 410, "The link has expired", "Ask for a new link."),
    Problem(
        "token_used", 401, "The token has been used", "A join token is for the first connect; reconnect by `resume`."
    ),
    Problem("resume_invalid", 401, "The resume secret opens nothing", "Open the link again."),
    Problem("mail_not_found", 404, "There is no such mail", "`gateway deliveries SESSION` lists the mails."),
    Problem("receipt_not_found", 404, "There is no such receipt", "Open the link as it stands in the mail."),
    Problem("bad_signature", 400, "The signature of the event is not Stripe's", "Check the endpoint's signing secret."),
)

OURS = (
    Problem(
        "unavailable",
        503,
        "Something that is needed is away",
        "Retry with the same Idempotency-Key; back off between attempts.",
    ),
    Problem(
        "store_unavailable",
        503,
        "The store is away or did not confirm the write",
        "Retry with the same Idempotency-Key.",
    ),
    Problem("relay_unavailable", 503, "No relay can take the call", "Retry in a moment."),
    Problem("archive_unavailable", 503, "The archive is away", "Retry in a moment."),
    Problem("archive_damaged", 500, "The session's line in the archive was changed", "Quote `request_id` to us."),
    Problem("stripe_unavailable", 503, "Stripe is away or slowed us down", "Retry with the same Idempotency-Key."),
    Problem(
        "internal_error",
        500,
        "An error of ours",
        "Retry with the same Idempotency-Key; if it stays, quote `request_id` to us.",
    ),
)

INSIDE = (
    Problem("version_conflict", 409, "Someone else changed the object at the same moment", "Retry the request."),
    Problem("fenced", 409, "Another node has taken the session over", "Retry the request."),
    Problem("held", 409, "Another node has the session", "Retry the request."),
    Problem("final", 409, "The bill is final", "Read the session."),
    Problem("ufrag_in_use", 409, "Two calls have the same ICE credentials", "Retry in a moment."),
    Problem(
        "media_port_unavailable", 503, "The relay could not open its port", "Check the port and who else listens on it."
    ),
)

GROUPS: dict[str, tuple[Problem, ...]] = {
    "Requests": REQUEST,
    "Access": ACCESS,
    "Idempotency": IDEMPOTENCY,
    "Terms of a session": TERMS,
    "State": STATE,
    "Links and callbacks": LINKS,
    "Our side": OURS,
    "Between nodes": INSIDE,
}
PROBLEMS = _registry(*(problem for group in GROUPS.values() for problem in group))


def status_of(error: GatewayError) -> int:
    """The HTTP status of an error: the registry's for a code it lists, otherwise the error's own."""
    known = PROBLEMS.get(error.code)
    return known.status if known else error.status


def describe(error: GatewayError, *, instance: str, request_id: str, docs_url: str) -> dict[str, Any]:
    """The problem document of an error.

    `instance` is the path of the request, never its query; `docs_url` the absolute address of the readable
    page, of which each code is an anchor: `type` is dereferenceable (RFC 9457 section 3.1.1).
    What an error of ours (500) knows goes to the log only.
    """
    known = PROBLEMS.get(error.code)
    status = status_of(error)
    ours = status == 500
    document: dict[str, Any] = {
        "type": f"{docs_url}#{error.code}",
        "title": known.title if known else "The request was refused",
        "status": status,
        "detail": "The request failed on our side. Quote the request id." if ours else error.detail,
        "instance": instance,
        "code": error.code,
        "param": error.param,
        "request_id": request_id,
    }
    extras = {} if ours else {name: value for name, value in error.extra.items() if name not in RESERVED}
    return document | extras
