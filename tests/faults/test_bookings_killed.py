"""R14 under `kill -9`: a booking's charge, its meetings' parts, what a cancel gives back and what it leaves to share,
a dispute. One booking each, whose part is killed at one point after the other."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from tests.faults.checks import checked_booking, told_and_agreed
from tests.faults.yard import Part, Point, Yard

pytestmark = pytest.mark.asyncio(loop_scope="package")

FEE: Final = 15 * 1500


def event(kind: str) -> str:
    """The write that tells of it, together with the record."""
    return f'"type": "{kind}"'


def step(name: str) -> str:
    """The write of a payment record that has the step."""
    return rf'\\"step\\":\\"{name}\\"'


BOOKING: Final = r'\\"kind\\":\\"booking\\"'
NEWS: Final = r'\\"disputes\\":'  # Stripe tells of one, and it is counted
# Each in the order in which a booking comes to them.
PAYING: Final[tuple[Point, ...]] = (
    ("bridge", step("hold"), "before"),
    ("bridge", step("hold"), "after"),
    ("bridge", event("payment.captured"), "before"),
    ("bridge", event("payment.captured"), "after"),
    ("bridge", event("booking.paid"), "before"),
    ("bridge", event("booking.paid"), "after"),
)
CANCELING: Final[tuple[Point, ...]] = (
    ("bridge", step("refund"), "before"),
    ("bridge", step("refund"), "after"),
    ("bridge", event("payment.refunded"), "before"),
    ("bridge", step("transfer_expert"), "after"),
    ("bridge", event("transfer.created"), "after"),
    ("bridge", step("transfer_ambassador"), "after"),
    ("bridge", event("session.settled"), "after"),
)
BY_THE_NODE: Final[tuple[Point, ...]] = (
    ("node", event("session.created"), "after"),
    ("node", BOOKING, "before"),
    ("node", BOOKING, "after"),
)
CALLING_OFF: Final[tuple[Point, ...]] = (
    ("node", event("session.ended"), "after"),
    ("node", event("booking.canceled"), "before"),
    ("node", event("session.finalized"), "after"),
)


def order(yard: Yard, *hours: float) -> dict[str, Any]:
    at = [{"starts_at": (datetime.now(UTC) + timedelta(hours=each)).isoformat()} for each in hours]
    return {"minutes": 15, "meetings": at, "ambassador": {"stripe_account": "acct_demo_ambassador", "share_bps": 5000}}


async def book(yard: Yard, *hours: float) -> dict[str, Any]:
    terms = await yard.terms(**order(yard, *hours))
    return dict(await yard.insist("POST", "/v1/bookings", terms))


async def cancel(yard: Yard, booking: str, **meeting: int) -> dict[str, Any]:
    return dict(await yard.insist("POST", f"/v1/bookings/{booking}/cancel", {"by": "client", **meeting}))


async def half_back(yard: Yard, booking: dict[str, Any]) -> None:
    """One meeting called off in time, one too late for all of it: refunded, and half of it shared."""
    late, early = await checked_booking(yard, booking["id"], mailed_again=True)
    assert (late["amount_total"], late["amount_refunded"]) == (FEE // 2, FEE // 2)
    assert (late["amount_expert"], late["amount_ambassador"]) == (10_125, 562)
    assert (early["amount_total"], early["amount_refunded"]) == (0, FEE)


async def test_law5_a_bridge_killed_at_every_step_of_a_booking_charges_shares_and_refunds_once(running: Yard) -> None:
    booking = await running.killed_at(PAYING, book(running, 3, 48))
    await running.killed_at(CANCELING, cancel(running, booking["id"], meeting=1))
    await cancel(running, booking["id"])
    await half_back(running, booking)


async def test_law5_a_node_killed_at_every_step_of_a_booking_makes_one_and_cancels_it_once(running: Yard) -> None:
    booking = await running.killed_at(BY_THE_NODE, book(running, 3, 48))
    await running.killed_at(CALLING_OFF, cancel(running, booking["id"]))
    await half_back(running, booking)


async def test_law5_valkey_killed_around_each_write_of_a_booking(running: Yard) -> None:
    points = (*BY_THE_NODE[:2], *PAYING[1:5])
    booking = await running.killed_at(points, book(running, 3, 48), victim="valkey")
    points = (CALLING_OFF[0], *CANCELING[1:6:2])
    await running.killed_at(points, cancel(running, booking["id"], meeting=1), victim="valkey")
    await cancel(running, booking["id"])
    await half_back(running, booking)


@pytest.mark.parametrize("part", ["bridge", "sandbox"])
async def test_law5_killed_after_stripe_charged_and_refunded_a_booking_and_nobody_knew(
    running: Yard, part: Part
) -> None:
    await running.fault("POST /v1/payment_intents", "timeout_after_commit", ms=60_000)
    doing = asyncio.create_task(book(running, 3, 48))
    await running.grown("payment_intents")
    await running.kill(part)
    await running.back(part)
    booking = await doing
    for match in ("POST /v1/refunds", "POST /v1/transfers"):
        await running.fault(match, "timeout_after_commit", ms=60_000)
    before = await running.sandbox()
    await cancel(running, booking["id"], meeting=1)
    for kind in ("refunds", "transfers"):
        await running.grown(kind, before)
        await running.kill(part)
        await running.back(part)
    await cancel(running, booking["id"])
    await half_back(running, booking)


async def test_law5_a_dispute_that_kills_the_node_and_the_bridge_takes_each_share_back_once(running: Yard) -> None:
    booking = await book(running, 3)
    await cancel(running, booking["id"])
    (final,) = await checked_booking(running, booking["id"])
    (intent,) = (await running.objects(booking["id"]))["payment_intents"]
    points: tuple[Point, ...] = (("node", NEWS, "before"), ("bridge", event("payment.disputed"), "before"))
    dispute = await running.killed_at(points, running.private("disputes", payment_intent=intent["id"]))
    await running.fault("POST /v1/transfers/*/reversals", "timeout_after_commit", ms=60_000)
    before = await running.sandbox()
    lost = running.private(f"disputes/{dispute['id']}", status="lost")
    await running.killed_at((("node", NEWS, "after"),), lost)
    await running.grown("reversed", before)
    await running.kill("bridge")
    await running.back("bridge")
    after = await running.until(final["id"], 30, settled=True, amount_total=FEE // 2)
    reversed_ = [t["amount"] - t["amount_reversed"] for t in (await running.objects(final["id"]))["transfers"]]
    assert reversed_ == [0, 0], after
    await told_and_agreed(running, final["id"], booking["id"])
