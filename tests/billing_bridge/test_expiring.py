"""The alarm at half of `capture_before`: once for each hold, never early, never for money that is not held."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing_bridge.expiring import alarmed, half_at
from gateway.billing_bridge.order import order_of
from gateway.billing_bridge.payment import look_at
from gateway.billing_bridge.record import Payment, Status, Step
from tests.billing_bridge.settling import NOW, Settling, finalize, live, session_doc

DAY = 86_400_000


def held(at: int = NOW, until: int | None = NOW + 7 * DAY, status: Status = "held") -> Payment:
    hold = Step("hold", 1, "k", {}, "done", {"id": "pi_1", "status": "requires_capture"}, at=at)
    return Payment(status, "usd", attempt=1, payment_intent="pi_1", hold_until=until, steps=(hold,))


@given(st.integers(0, 30 * DAY), st.integers(0, 30 * DAY))
def test_it_comes_at_half_of_the_time_and_not_a_millisecond_before(lasts: int, waited: int) -> None:
    payment = held(until=NOW + lasts)
    after, told = alarmed(payment, NOW + waited)
    assert bool(told) == (waited >= lasts // 2)
    assert (after == payment) == (not told)
    assert alarmed(after, NOW + waited + lasts) == ((after, ()) if told else alarmed(payment, NOW + waited + lasts))


@pytest.mark.parametrize("status", ["released", "captured", "due", "failed", "pending", "action_required", "disputed"])
def test_money_that_is_not_held_gives_no_alarm(status: Status) -> None:
    assert half_at(held(status=status)) is None
    assert half_at(held(until=None)) is None


def test_another_card_has_an_alarm_of_its_own() -> None:
    first, _ = alarmed(held(), NOW + 7 * DAY)
    other = Step("hold", 2, "k2", {}, "done", {"id": "pi_2", "status": "requires_capture"}, at=NOW + 4 * DAY)
    second = replace(first, attempt=2, hold_until=NOW + 8 * DAY, steps=(*first.steps, other))
    assert half_at(second) == NOW + 6 * DAY


def test_the_bridge_looks_again_when_it_is_time() -> None:
    assert look_at(order_of(session_doc()), held(), NOW) == NOW + 7 * DAY // 2


def test_a_hold_that_nobody_ends_gives_one_alarm_before_it_is_lost() -> None:
    work = Settling(session_doc())
    work.run()
    assert work.payment.status == "held"
    assert "payment.hold_expiring" not in work.told
    for _ in range(4):
        work.now = max(work.now, work.look() or 0)
    assert work.told.count("payment.hold_expiring") == 1


def test_a_session_that_ends_in_time_gives_none() -> None:
    work = Settling(session_doc())
    work.run()
    live(work.session)
    finalize(work.session, 4500)
    assert work.run().settled
    assert "payment.hold_expiring" not in work.told
