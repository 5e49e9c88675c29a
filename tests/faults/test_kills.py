"""`kill -9` of node, bridge, Valkey and sandbox at named points of a real session, and what is left of it: everything.

The points are reached without a hook in the gateway: the sandbox holds a call back, and the record says how far it is.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from gateway.meter.ledger import Ledger
from tests.faults.checks import checked
from tests.faults.yard import Part, Point, Yard

pytestmark = pytest.mark.asyncio(loop_scope="package")

HELD_BACK_MS = 500
POINTS = {
    "capture": "POST /v1/payment_intents/*/capture",
    "transfer_expert": "POST /v1/transfers",
}


def done(step: str) -> Any:
    """Whether Stripe has done a step."""
    if step == "capture":
        return lambda there: any(intent["status"] == "succeeded" for intent in there["payment_intents"])
    return lambda there: bool(there["transfers"])


@pytest.mark.parametrize(
    ("part", "step"),
    [("bridge", "capture"), ("bridge", "transfer_expert"), ("sandbox", "capture"), ("sandbox", "transfer_expert"),
     ("valkey", "capture")],
)  # fmt: skip
async def test_law5_killed_while_a_call_to_stripe_is_under_way(running: Yard, part: Part, step: str) -> None:
    await running.fault(POINTS[step], "slow", ms=HELD_BACK_MS)
    session = await running.over()
    await running.sent(session, step)
    await running.kill(part)
    await running.back(part)
    await checked(running, session, mailed_again=part != "sandbox")


@pytest.mark.parametrize(
    ("part", "step"), [("bridge", "capture"), ("bridge", "transfer_expert"), ("sandbox", "capture")]
)
async def test_law5_killed_after_stripe_did_it_and_before_anybody_knew(running: Yard, part: Part, step: str) -> None:
    await running.fault(POINTS[step], "timeout_after_commit", ms=60_000)
    session = await running.over()
    await running.done_at_stripe(session, done(step))
    await running.kill(part)
    await running.back(part)
    await checked(running, session, mailed_again=part != "sandbox")


@pytest.mark.parametrize("part", ["bridge", "node"])
async def test_law5_killed_while_the_hold_is_placed_and_the_order_repeated_holds_once(
    running: Yard, part: Part
) -> None:
    await running.fault("POST /v1/payment_intents", "slow", ms=HELD_BACK_MS)
    terms = await running.terms(rate={"unit_amount": 6000, "currency": "usd"})
    headers = {"Authorization": f"Bearer {running.key}", "Idempotency-Key": f"order-{part}"}

    async def order() -> dict[str, Any]:
        async with running.http.post(f"{running.url}/v1/sessions", json=terms, headers=headers) as answer:
            return dict(await answer.json())

    ordering = asyncio.create_task(order())
    async with asyncio.timeout(10):
        while not (found := (await running.get("/v1/sessions?reference=" + terms["reference"]))["data"]):
            await asyncio.sleep(0.02)
    session = found[0]["id"]
    await running.sent(session, "hold")
    await running.kill(part)
    await running.back(part)
    await asyncio.gather(ordering, return_exceptions=True)
    assert (await order())["id"] == session
    held = await running.until(session, status="ready")
    assert held["payment"]["status"] == "held"
    there = (await running.objects(session))["payment_intents"]
    assert [intent["status"] for intent in there] == ["requires_capture"]
    await running.post(f"/v1/sessions/{session}/end", {"reason": "canceled"})
    await running.until(session, settled=True)
    assert [intent["status"] for intent in (await running.objects(session))["payment_intents"]] == ["canceled"]


@pytest.mark.parametrize("part", ["bridge", "valkey"])
async def test_law8_killed_while_mails_and_events_wait_to_be_answered(running: Yard, part: Part) -> None:
    running.answering.clear()
    try:
        session = await running.over()
        async with asyncio.timeout(15):
            while not any(session in str(mail["Message-ID"]) for mail in running.sink.mails):
                await asyncio.sleep(0.02)
        await running.kill(part)
    finally:
        running.answering.set()
    await running.back(part)
    await checked(running, session, mailed_again=True)


async def test_law3_a_node_killed_in_a_call_bills_no_more_than_was_talked(running: Yard) -> None:
    since = time.monotonic()
    session, client, expert = await running.talk(seconds=2.0)
    await running.kill("node")
    lasted = time.monotonic() - since
    for caller in (client, expert):
        await caller.close()
    await running.back("node")
    await running.watched(session["id"])
    final = await checked(running, session["id"])
    assert final["end_reason"] == "node_lost"
    assert 1 <= final["billable_seconds"] <= lasted


async def test_law3_a_node_killed_at_the_end_of_a_call_and_again_at_its_bill(running: Yard) -> None:
    session, client, expert = await running.talk(seconds=2.5)
    points: tuple[Point, ...] = (
        ("node", '"type": "session.ended"', "after"),
        ("node", '"type": "session.finalized"', "before"),
    )
    left = time.time() * 1000
    await running.killed_at(points, client.say("leave"))
    for caller in (client, expert):
        await caller.close()
    found = await checked(running, session["id"])
    assert found["end_reason"] == "client_left"
    usage = await Ledger(running.redis, running.journal.keys).usage(session["id"])
    assert left - 1_000 <= max(row.end for row in usage.rows) <= left + 500


async def test_law3_valkey_killed_in_a_call_that_is_hung_up_meanwhile(running: Yard) -> None:
    since = time.monotonic()
    session, client, _ = await running.talk()
    await running.kill("valkey")
    await client.say("leave")
    lasted = time.monotonic() - since
    await running.back("valkey")
    final = await checked(running, session["id"], mailed_again=True)
    assert final["end_reason"] == "client_left"
    assert final["billable_seconds"] <= lasted
