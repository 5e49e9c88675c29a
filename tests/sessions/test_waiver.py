"""R15: the fee may be waived until the charge is sent, and of waiver and charge exactly one comes about."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import session as core
from gateway.bookings.meetings import Meeting
from gateway.errors import Conflict
from gateway.sessions import waiver
from tests.billing_bridge.account import Account
from tests.billing_bridge.settling import Settling, finalize, live, recharge, session_doc
from tests.orders import NOW, record

FAULTS = (None, "busy", "lost_before", "lost_after", "in_flight", "error", "crash_before", "crash_after")


def waive(world: Settling) -> bool:
    """As `Sessions.waive` does: with the payment's record as it is on disk, which is written with it."""
    try:
        waiver.check(world.payment.to_dict())
    except Conflict:
        return False
    world.session["waived_after"] = NOW
    return True


@pytest.mark.parametrize(
    ("step", "state", "sent"),
    [
        ("capture", "sent", True), ("capture", "unknown", True), ("capture", "intent", True), ("capture", "done", True),
        ("capture", "failed", False), ("hold", "done", False), ("release", "sent", False),
    ],
)  # fmt: skip
def test_r15_the_charge_is_sent_once_its_step_is_written(step: str, state: str, sent: bool) -> None:
    payment = {"status": "held", "steps": [{"step": step, "state": state, "params": {}}]}
    assert waiver.charge_sent(payment) is sent


def test_r15_a_bill_that_is_paid_at_once_is_sent_with_its_hold() -> None:
    hold = {"step": "hold", "state": "sent", "params": {"capture_method": "automatic"}}
    assert waiver.charge_sent({"status": "pending", "steps": [hold]})
    assert not waiver.charge_sent({"status": "pending", "steps": [hold | {"state": "failed"}]})


def test_r15_a_charge_that_stripe_refused_for_a_while_is_sent_again_and_stays_sent() -> None:
    world = Settling(session_doc())
    world.run()
    live(world.session)
    world.account.refusing["payment_intents.capture"] = "some_refusal"
    finalize(world.session, 4500)
    for _ in range(3):
        world.look()
    assert world.payment.status == "capturing"
    assert not waive(world)
    world.account.refusing.clear()
    assert world.run().amount_captured == 4500


def test_r15_what_was_charged_cannot_be_waived_but_a_meetings_fee_can() -> None:
    assert waiver.charge_sent({"status": "captured", "steps": []})
    assert not waiver.charge_sent({"status": "captured", "steps": [], "part": {"number": 1, "count": 2}})


def test_r15_after_the_final_bill_the_bill_stays_and_what_it_asks_is_let_off() -> None:
    over = core.ended(core.together(core.funded(record()).record, NOW).record, "client_left", NOW + 1).record
    final = core.finalized(over, {"amount_total": 100}).record
    off = core.waived(final, NOW + 5).record
    assert (off.waived, off.waived_after, off.bill, off.limit_ms) == (False, NOW + 5, final.bill, final.limit_ms)
    assert off.let_off
    assert not core.waived(off, NOW + 6).changed
    booked = core.replace(final, meeting=Meeting("bkg_1", 1))
    with pytest.raises(Conflict, match="refund"):
        core.waived(booked, NOW)


def test_r15_waived_after_the_final_bill_the_hold_is_released() -> None:
    world = Settling(session_doc())
    world.run()
    finalize(world.session, 5_000)
    assert waive(world)
    payment = world.run()
    assert (payment.status, payment.amount_total, payment.amount_waived, payment.settled) == (
        "released",
        0,
        5_000,
        True,
    )
    assert world.account.captures == 0


def test_r15_a_bill_that_is_due_may_be_waived_until_another_card_is_charged() -> None:
    account = Account()
    world = Settling(session_doc(), account)
    world.run()
    account.intents["pi_1"]["status"] = "canceled"
    finalize(world.session, 5_000)
    assert world.run().status == "due"
    assert waive(world)
    payment = world.run()
    assert (payment.status, payment.amount_total, payment.settled) == ("released", 0, True)
    assert world.told[-2:] == ["payment.released", "session.settled"]
    recharge(world.session, "pm_card_visa")
    assert (world.run().status, account.captures) == ("released", 0)


def test_r15_a_card_that_its_client_left_at_the_bank_was_not_charged_and_its_bill_may_be_waived() -> None:
    world = Settling(session_doc())
    world.run()
    world.account.intents["pi_1"]["status"] = "canceled"
    finalize(world.session, 5_000)
    world.run()
    recharge(world.session, "pm_action")
    world.run()
    assert not waive(world), "it may be charged at any moment"
    world.now += 3_600_001
    world.look()
    assert world.run().status == "due"
    assert waive(world)
    assert (world.run().status, world.payment.settled, world.account.captures) == ("released", True, 0)


@settings(max_examples=150, deadline=None)
@given(
    before=st.integers(0, 6), after=st.integers(0, 6), total=st.sampled_from([0, 40, 5_000, 7_500]),
    faults=st.lists(st.sampled_from(FAULTS), max_size=10), lost=st.booleans(),
)  # fmt: skip
def test_law5_of_waiver_and_charge_exactly_one_comes_about(
    before: int, after: int, total: int, faults: list[str | None], lost: bool
) -> None:
    account = Account()
    world = Settling(session_doc(), account)
    world.rush(faults, before)
    live(world.session)
    finalize(world.session, total)
    if lost and "pi_1" in account.intents and account.intents["pi_1"]["status"] == "requires_capture":
        account.intents["pi_1"]["status"] = "canceled"
    world.rush(faults[::-1], after)
    waived = waive(world)
    payment = world.run(faults)
    assert account.captures <= 1
    assert account.unfinished() == []
    if waived:
        assert (account.captures, payment.amount_captured) == (0, 0)
        assert payment.status in ("released", "failed", "none")
        assert payment.settled
