"""The rules of the business that a new session must meet before anything is written; pure, one function per rule.

`order` turns a checked request into a `NewSession` or raises InvalidRequest with the code of the rule that it breaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.api.schemas import Ambassador as AmbassadorRequest
from gateway.api.schemas import Client, CreateSession, Expert, Rate, as_utc_ms
from gateway.errors import InvalidRequest
from gateway.money import CURRENCIES, hold_amount
from gateway.payees.routes import COUNTRIES
from gateway.session import CAP_MINUTES, FREE_LIMIT_MINUTES, Ambassador, Kind, NewClient, NewExpert, NewSession

PAID_RATING_MILLI: Final = 3500  # R16
MEETING_MINUTES: Final = frozenset(range(15, 91, 15))  # R14
MINUTE_MS: Final = 60_000
# Shorter, and the link could run out while the first mail with it is on its way.
SHORTEST_LIFE_MS: Final = MINUTE_MS
LONGEST_LIFE_MS: Final = {"now": 24 * 60 * MINUTE_MS, "join": 30 * 24 * 60 * MINUTE_MS}  # 5-money, Order of things


@dataclass(frozen=True, slots=True)
class Limits:
    """What the operator configures. Rates in minor units a minute: R1's "about 1 to 15 USD" in any currency."""

    rate_min: int = 100
    rate_max: int = 1500
    default_minutes: int = 30
    commission_bps: int = 1000


def order(request: CreateSession, limits: Limits, *, now: int) -> NewSession:
    """The session to open, at `now` (wall ms). Raises InvalidRequest."""
    _refuse_booked(request)
    _check_rate(request.rate, limits)
    kind = _kind(request)
    priced = kind == "metered"
    if priced and request.rate is None:
        raise InvalidRequest("A metered session needs a rate.", code="rate_required", param="rate")
    if priced:
        _check_payable(request.expert)
    minutes = _minutes(request, kind, limits)
    new = _assemble(request, kind, minutes, limits, now)
    check_card(request.client, needed=priced and _hold(new) > 0)
    return new


def _refuse_booked(request: CreateSession) -> None:
    if request.kind != "booked":
        return
    if request.max_minutes is not None and request.max_minutes not in MEETING_MINUTES:
        raise InvalidRequest(
            "A meeting lasts 15, 30, 45, 60, 75 or 90 minutes.", code="booked_minutes_invalid", param="max_minutes"
        )
    raise InvalidRequest(
        "Booked sessions come with their booking, which is paid at once.", code="booked_through_bookings", param="kind"
    )


def _check_rate(rate: Rate | None, limits: Limits) -> None:
    """A rate of 0 is no price, so only its currency is checked; `_kind` decides whether it may stand."""
    if rate is None:
        return
    if rate.currency not in CURRENCIES:
        known = ", ".join(sorted(CURRENCIES))
        raise InvalidRequest(f"The currency must be one of {known}.", code="unknown_currency", param="rate.currency")
    if rate.unit_amount and not limits.rate_min <= rate.unit_amount <= limits.rate_max:
        raise _rate_out_of_range(limits)


def _rate_out_of_range(limits: Limits) -> InvalidRequest:
    return InvalidRequest(
        f"The rate must be {limits.rate_min} to {limits.rate_max} minor units a minute.",
        code="rate_out_of_range",
        param="rate.unit_amount",
        minimum=limits.rate_min,
        maximum=limits.rate_max,
    )


def check_price(rate: Rate, payee: Expert, limits: Limits) -> None:
    """All that a price asks of the rate and of the expert (R1, R16, R17). Raises InvalidRequest."""
    _check_rate(rate, limits)
    if rate.unit_amount == 0:
        raise _rate_out_of_range(limits)
    if not eligible(payee.rating):
        raise _not_eligible()
    _check_payable(payee)


def _kind(request: CreateSession) -> Kind:
    """R16: a price for an expert who may not be paid is refused, or dropped because the request says so."""
    if request.kind != "metered":
        return request.kind
    country, rated = request.expert.country, eligible(request.expert.rating)
    if request.rate is None or (rated and (country is None or country in COUNTRIES)):
        return "metered"
    if request.if_not_eligible == "free":
        return "free"
    if not rated:
        raise _not_eligible()
    return "metered"


def _not_eligible() -> InvalidRequest:
    return InvalidRequest(
        "Paid sessions need an expert with a rating of 3.5 or more.", code="expert_not_eligible", param="expert.rating"
    )


def eligible(rating: float | None) -> bool:
    """Whether an expert with this rating at the session's creation may be paid (R16)."""
    return rating is not None and milli(rating) >= PAID_RATING_MILLI


def milli(rating: float) -> int:
    """A rating in thousandths; floored, so that 3.4999 does not become 3.5."""
    return int(round(rating * 1_000_000) // 1000)


def _check_payable(expert: Expert) -> None:
    """R17, as far as the request tells; what the account itself says is asked at Stripe (`payability`)."""
    if expert.country is None:
        raise InvalidRequest("A paid session needs the country.", code="missing_field", param="expert.country")
    if expert.country not in COUNTRIES:
        raise InvalidRequest(
            "An account in this country cannot receive the money.", code="expert_not_payable", param="expert.country",
            reason="country_not_supported", route="unsupported",
        )  # fmt: skip
    if expert.stripe_account is None:
        raise InvalidRequest("A paid session needs an account.", code="missing_field", param="expert.stripe_account")


def _minutes(request: CreateSession, kind: Kind, limits: Limits) -> int:
    """The limit (5-money, Time). Without a fee it is R15's, and a free stand-in for a paid session is cut to it."""
    unpaid = kind in ("free", "pro_bono")
    if request.max_minutes is None:
        return min(limits.default_minutes, FREE_LIMIT_MINUTES) if unpaid else limits.default_minutes
    if request.max_minutes > CAP_MINUTES:
        raise InvalidRequest(f"At most {CAP_MINUTES} minutes.", code="invalid_field", param="max_minutes")
    if request.kind in ("free", "pro_bono") and request.max_minutes > FREE_LIMIT_MINUTES:
        raise InvalidRequest(
            f"Without a fee, a session is one meeting of at most {FREE_LIMIT_MINUTES} minutes.",
            code="pro_bono_too_long",
            param="max_minutes",
        )
    return min(request.max_minutes, FREE_LIMIT_MINUTES) if unpaid else request.max_minutes


def _assemble(request: CreateSession, kind: Kind, minutes: int, limits: Limits, now: int) -> NewSession:
    rate = request.rate
    if kind == "metered" and rate is not None and rate.unit_amount == 0:
        raise _rate_out_of_range(limits)
    if request.ring and request.hold == "join":
        raise InvalidRequest("A session that rings holds the card now.", code="hold_not_possible", param="hold")
    if request.ring:
        raise InvalidRequest(
            "Ringing is still to come; create it with ring: false.", code="ring_unavailable", param="ring"
        )
    chosen = request.commission_bps
    return NewSession(
        client=client(request.client),
        expert=expert(request.expert),
        unit_amount=rate.unit_amount if rate else 0,
        currency=rate.currency if rate else "usd",
        reference=request.reference,
        kind=kind,
        media=request.media,
        ring=request.ring,
        hold=request.hold,
        ambassador=ambassador(request.ambassador),
        free_minutes=request.free_minutes,
        max_minutes=minutes,
        commission_bps=limits.commission_bps if chosen is None else chosen,
        expires_in_ms=_life(request, now),
        if_not_eligible=request.if_not_eligible,
    )


def client(given: Client) -> NewClient:
    return NewClient(**given.model_dump())


def expert(given: Expert) -> NewExpert:
    members = given.model_dump(exclude={"rating"})
    return NewExpert(**members, rating_milli=None if given.rating is None else milli(given.rating))


def ambassador(given: AmbassadorRequest | None) -> Ambassador | None:
    return None if given is None else Ambassador(**given.model_dump())


def _life(request: CreateSession, now: int) -> int | None:
    """How long the links open the session, in ms; None: the configured default."""
    if request.expires_at is None:
        return None
    life = as_utc_ms(request.expires_at) - now
    if not SHORTEST_LIFE_MS <= life <= LONGEST_LIFE_MS[request.hold]:
        raise InvalidRequest(
            "At least a minute from now, and within 24 hours; with `hold: join` within 30 days.",
            code="expires_at_out_of_range",
            param="expires_at",
        )
    return life


def _hold(new: NewSession) -> int:
    return hold_amount(new.unit_amount, new.max_minutes * MINUTE_MS, new.free_minutes * MINUTE_MS)


def check_card(client: Client, *, needed: bool) -> None:
    """No hold, no call (R4); the customer keeps the card for a continued session (5-money, Continue)."""
    if client.payment_method is None and needed:
        raise InvalidRequest(
            "A paid session needs a card to hold.", code="payment_method_required", param="client.payment_method"
        )
    if client.payment_method is not None and client.stripe_customer is None:
        raise InvalidRequest(
            "A card needs its Stripe customer.", code="stripe_customer_required", param="client.stripe_customer"
        )
