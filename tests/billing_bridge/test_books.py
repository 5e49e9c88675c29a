"""Our own records against each other: each figure that stands in two of them, changed in one, is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.billing_bridge.books import DAY_MS, HOUR_MS
from gateway.billing_bridge.differences import TODO, Difference
from gateway.billing_bridge.reconcile import compare
from gateway.billing_bridge.record import Payment
from tests.billing_bridge.settling import (
    NOW,
    Settling,
    at_stripe,
    differences,
    finalize,
    live,
    order_refund,
    session_doc,
)
from tests.billing_bridge.test_bookings import FEE, World, run
from tests.billing_bridge.test_reconcile import lived

LATER = NOW + 60_000 + DAY_MS + 1


def expert(payment: Payment, **changes: Any) -> Payment:
    return payment.with_transfer(replace(payment.transfer_to("expert"), **changes))


CHANGES: dict[str, tuple[Callable[[Payment], Payment], str]] = {
    "captured": (lambda p: replace(p, amount_captured=4_499), "captured is not the bill"),
    "refunded": (lambda p: replace(p, amount_refunded=1_499), "refunds do not sum"),
    "all and more": (lambda p: replace(p, amount_refunded=4_501), "refunded above captured"),
    "a refund": (lambda p: p.with_refund(replace(p.refunds[0], amount=1_499)), "refund order"),
    "no refund": (lambda p: replace(p, refunds=(), amount_refunded=0), "refund order"),
    "too much": (lambda p: expert(p, amount_reversed=1_349), "share"),
    "too little": (lambda p: expert(p, amount_reversed=1_351), "share"),
    "nothing": (lambda p: replace(p, transfers=p.transfers[1:]), "share"),
    "more than all": (lambda p: expert(p, amount=4_500), "shares above the settled amount"),
    "let off": (lambda p: replace(p, status="released", amount_captured=0), "billed and not charged"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_a_payment_record_is_named(change: str) -> None:
    changed, what = CHANGES[change]
    settling = lived()
    assert what in differences(settling, payment=changed(settling.payment))


def test_laws_5_and_6_every_change_of_a_bill_is_named() -> None:
    settling = lived()
    settling.session["bill"] |= {"amount_expert": 1}
    assert differences(settling) == ["shares do not sum"]
    settling.session["bill"] = None
    assert "captured without a bill" in differences(settling)


def test_a_refund_that_was_ordered_and_not_taken_up_is_named() -> None:
    settling = lived()
    order_refund(settling.session, 500)
    assert differences(settling) == ["refund order"]


def test_what_was_waived_or_refused_as_too_small_is_no_difference() -> None:
    waived = Settling(session_doc(waived_after=NOW))
    waived.run()
    live(waived.session)
    finalize(waived.session, 4500)
    waived.run()
    assert (waived.payment.status, differences(waived)) == ("none", [])
    small = Settling(session_doc())
    small.account.minimum = 5_000
    small.run()
    finalize(small.session, 4500)
    assert (small.run().status, differences(small)) == ("released", [])


# Bookings


def of(world: World) -> list[str]:
    return differences(world.booking, *world.meetings)


def test_a_meeting_that_has_not_its_part_of_the_charge_is_named() -> None:
    world = World()
    run(world)
    assert of(world) == []
    first = world.meetings[0]
    first.disk = Settling(first.session).disk
    assert of(world) == ["no part of the charge", "parts do not sum"]
    world.booking.session["meetings"] = [*world.booking.session["meetings"][1:], "ses_in_no_record"]
    assert of(world) == [], "of those that are not at hand nothing is known"


def test_what_stays_of_a_meeting_above_its_bill_is_named() -> None:
    world = World()
    run(world)
    world.end(0, FEE)
    run(world)
    world.end(0, 1_000)
    assert "kept above the bill" in of(world)


# What nobody looks after


def late(settling: Settling, now: int) -> list[Difference]:
    return compare([(settling.session, settling.payment.to_dict())], at_stripe(settling.account), now)


def test_money_that_is_on_its_way_for_a_day_is_named_with_stripes_word() -> None:
    settling = Settling(session_doc())
    settling.run()
    finalize(settling.session, 4500)
    settling.account.refusing = {"transfers.create": "balance_insufficient"}
    settling.look()
    assert late(settling, LATER - 1) == []
    [found] = late(settling, LATER)
    assert (found.what, found.theirs) == ("not settled", "settled")
    assert "transfer_expert failed balance_insufficient" in found.ours
    settling.account.refusing = {}
    settling.run()
    assert late(settling, LATER) == []


def test_law5_a_hold_that_nobody_captures_or_releases_is_named() -> None:
    settling = Settling(session_doc())
    settling.run()
    finalize(settling.session, 4500)
    assert [(each.what, each.ours) for each in late(settling, LATER)] == [("not settled", "held")]


@pytest.mark.parametrize(
    ("session", "what", "by"),
    [
        ({"status": "created", "expires_at": NOW}, "not ended", NOW),
        ({"status": "live", "started_at": NOW, "expires_at": NOW}, "not ended", NOW + 1_800_000),
        ({"status": "ended", "ended_at": NOW}, "not billed", NOW),
    ],
)
def test_a_session_that_no_node_looks_after_is_named(session: dict[str, Any], what: str, by: int) -> None:
    settling = Settling(session_doc())
    settling.run()
    settling.session |= session
    assert late(settling, by + HOUR_MS) == []
    assert [each.what for each in late(settling, by + HOUR_MS + 1)] == [what]


def test_a_booking_whose_charge_never_reached_its_meetings_is_named() -> None:
    world = World(1)
    booking = world.booking
    booking.session["created"] = NOW
    booking.rush([None, None, "crash_before"], looks=1)
    assert (booking.payment.status, booking.payment.settled) == ("captured", False)
    [found] = late(booking, NOW + DAY_MS + 1)
    assert (found.what, found.ours) == ("not settled", "captured, share_out sent")
    booking.run()
    assert late(booking, NOW + DAY_MS + 1) == []


def test_a_bill_that_is_due_waits_for_its_client() -> None:
    settling = Settling(session_doc(funding={"attempt": 1, "payment_method": "pm_declined", "amount": 7500}))
    settling.run()
    finalize(settling.session, 4500)
    assert settling.run().status == "due"
    assert late(settling, LATER) == []


def test_every_difference_says_what_to_do() -> None:
    assert all(todo.endswith((".", "?")) and len(todo) < 240 for todo in TODO.values())
    told = Difference("ses_1", "tr_1", "transfer amount", 10, 11)
    assert str(told) == f"ses_1 tr_1 transfer amount: ours 10, theirs 11. {told.todo}"
