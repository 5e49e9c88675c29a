from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.schemas import CreateSession, parse
from gateway.api.terms import Limits, eligible, order
from gateway.errors import InvalidRequest
from gateway.money import CURRENCIES
from gateway.session import NewSession
from tests.api.market import NOW
from tests.api.market import order as ordered

LIMITS = Limits()
FREE = {"rate": ..., "ambassador": ..., "client__payment_method": ..., "client__stripe_customer": ...}


def terms(limits: Limits = LIMITS, **changes: Any) -> NewSession:
    return order(parse(CreateSession, ordered(**changes)), limits, now=NOW)


def refused(limits: Limits = LIMITS, **changes: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        terms(limits, **changes)
    return caught.value


def test_the_order_carries_every_field_of_the_contract() -> None:
    new = terms(client__timezone="Europe/London", commission_bps=500, reference="r", media="voice", hold="join")
    assert (new.reference, new.kind, new.media, new.ring, new.hold) == ("r", "metered", "voice", False, "join")
    assert (new.client.id, new.client.name, new.client.email, new.client.locale) == (
        "c1",
        "Client",
        "client@example.com",
        "en",
    )
    assert (new.client.timezone, new.client.stripe_customer, new.client.payment_method) == (
        "Europe/London",
        "cus_4f2k",
        "pm_card_visa",
    )
    assert (new.expert.id, new.expert.stripe_account, new.expert.country, new.expert.rating_milli) == (
        "e1",
        "acct_demo",
        "DE",
        4600,
    )
    assert new.ambassador is not None
    assert (new.ambassador.stripe_account, new.ambassador.share_bps) == ("acct_demo_ambassador", 2000)
    assert (new.unit_amount, new.currency, new.free_minutes, new.max_minutes, new.commission_bps) == (
        300,
        "usd",
        5,
        90,
        500,
    )


@pytest.mark.parametrize("currency", sorted(CURRENCIES))
def test_r01_five_currencies(currency: str) -> None:
    assert terms(rate__currency=currency).currency == currency


@pytest.mark.parametrize("currency", ["jpy", "USD", "", "xxx"])
def test_r01_another_currency_is_refused(currency: str) -> None:
    assert (refused(rate__currency=currency).code, refused(rate__currency=currency).param) == (
        "unknown_currency",
        "rate.currency",
    )


@given(st.integers(0, 10_000))
def test_r01_the_rate_lies_in_the_configured_range(amount: int) -> None:
    limits = Limits(rate_min=50, rate_max=5000)
    if 50 <= amount <= 5000:
        assert terms(limits, rate__unit_amount=amount).unit_amount == amount
    else:
        error = refused(limits, rate__unit_amount=amount)
        assert (error.code, error.extra) == ("rate_out_of_range", {"minimum": 50, "maximum": 5000})


@pytest.mark.parametrize(("amount", "fits"), [(99, False), (100, True), (1500, True), (1501, False)])
def test_r01_by_default_one_to_fifteen(amount: int, fits: bool) -> None:
    if fits:
        assert terms(rate__unit_amount=amount).unit_amount == amount
    else:
        assert refused(rate__unit_amount=amount).code == "rate_out_of_range"


def test_r01_a_metered_session_needs_a_rate() -> None:
    assert refused(rate=...).code == "rate_required"


def test_r04_no_card_no_paid_session() -> None:
    error = refused(client__payment_method=...)
    assert (error.code, error.param) == ("payment_method_required", "client.payment_method")


def test_r04_a_hold_of_nothing_needs_no_card() -> None:
    new = terms(client__payment_method=..., free_minutes=30, max_minutes=30)
    assert new.client.payment_method is None


def test_a_card_needs_its_customer() -> None:
    assert refused(client__stripe_customer=...).code == "stripe_customer_required"


def test_r06_thirty_minutes_unless_said_and_never_over_ninety() -> None:
    assert terms(max_minutes=...).max_minutes == 30
    assert terms(Limits(default_minutes=20), max_minutes=...).max_minutes == 20
    assert (refused(max_minutes=91).code, refused(max_minutes=91).param) == ("invalid_field", "max_minutes")


@pytest.mark.parametrize("minutes", [1, 16, 31, 89, 105])
def test_r14_meetings_come_in_steps_of_fifteen(minutes: int) -> None:
    assert refused(kind="booked", max_minutes=minutes).code == "booked_minutes_invalid"


@pytest.mark.parametrize("minutes", [..., 15, 30, 45, 60, 75, 90])
def test_r14_booked_sessions_come_with_their_booking(minutes: Any) -> None:
    assert refused(kind="booked", max_minutes=minutes).code == "booked_through_bookings"


@pytest.mark.parametrize("kind", ["pro_bono", "free"])
def test_r15_without_a_fee_at_most_fifteen_minutes(kind: str) -> None:
    assert terms(kind=kind, max_minutes=15, **FREE).max_minutes == 15
    assert terms(kind=kind, max_minutes=..., **FREE).max_minutes == 15
    assert refused(kind=kind, max_minutes=16, **FREE).code == "pro_bono_too_long"


def test_r15_a_session_without_a_fee_needs_no_rate_account_country_or_rating() -> None:
    new = terms(
        kind="pro_bono", max_minutes=..., expert__rating=None, expert__country=..., expert__stripe_account=..., **FREE
    )
    assert (new.kind, new.unit_amount) == ("pro_bono", 0)


@pytest.mark.parametrize(
    ("rating", "paid"), [(None, False), (0, False), (3.49, False), (3.4999, False), (3.5, True), (5, True)]
)
def test_r16_paid_from_three_and_a_half(rating: float | None, paid: bool) -> None:
    assert eligible(rating) is paid
    if paid:
        assert terms(expert__rating=rating).kind == "metered"
    else:
        assert refused(expert__rating=rating).code == "expert_not_eligible"


def test_r16_a_price_is_dropped_only_when_the_request_says_so() -> None:
    new = terms(expert__rating=3.4, if_not_eligible="free", max_minutes=90)
    assert (new.kind, new.max_minutes) == ("free", 15)
    assert terms(expert__rating=4, if_not_eligible="free").kind == "metered"
    assert terms(expert__country="NZ", if_not_eligible="free").kind == "free"


@pytest.mark.parametrize("country", ["RU", "IN", "NZ", "ZZ"])
def test_r17_other_countries_are_refused_before_a_card_is_touched(country: str) -> None:
    error = refused(expert__country=country)
    assert (error.code, error.param) == ("expert_not_payable", "expert.country")


@pytest.mark.parametrize("name", ["country", "stripe_account"])
def test_r17_a_paid_expert_needs_an_account_and_its_country(name: str) -> None:
    error = refused(**{f"expert__{name}": ...})
    assert (error.code, error.param) == ("missing_field", f"expert.{name}")


def test_ringing_holds_the_card_now() -> None:
    assert refused(ring=True, hold="join").code == "hold_not_possible"


@pytest.mark.parametrize(
    ("expires_at", "hold", "life_ms"),
    [
        (..., "now", None),
        ("2026-11-21T21:00:00Z", "now", 3_600_000),
        ("2026-11-21T22:00:00+01:00", "now", 3_600_000),
        ("2026-11-22T20:00:00.000Z", "now", 86_400_000),
        ("2026-12-21T20:00:00Z", "join", 30 * 86_400_000),
    ],
)
def test_links_last_as_long_as_asked(expires_at: Any, hold: str, life_ms: int | None) -> None:
    changes = {} if expires_at is ... else {"expires_at": expires_at}
    assert terms(hold=hold, **changes).expires_in_ms == life_ms


@pytest.mark.parametrize(
    ("expires_at", "hold"),
    [
        ("2026-11-21T20:00:00Z", "now"),
        ("2026-11-22T20:00:01Z", "now"),
        ("2026-12-21T20:00:01Z", "join"),
        ("1999-01-01T00:00:00Z", "join"),
    ],
)
def test_links_do_not_outlast_the_hold(expires_at: str, hold: str) -> None:
    assert refused(expires_at=expires_at, hold=hold).code == "expires_at_out_of_range"


@pytest.mark.parametrize(("asked", "given_bps"), [(None, 1000), (0, 0), (2500, 2500)])
def test_r03_commission_is_the_configured_one_unless_said(asked: int | None, given_bps: int) -> None:
    assert terms(**({} if asked is None else {"commission_bps": asked})).commission_bps == given_bps
