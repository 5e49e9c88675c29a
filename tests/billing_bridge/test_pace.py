"""Stripe's limits: kept over all bridges, never overtaken, the urgent first."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import redis.asyncio as aioredis

from gateway.billing_bridge.calls import Call
from gateway.billing_bridge.outcome import Busy, Done, Outcome
from gateway.billing_bridge.pace import Pace, Rank
from gateway.billing_bridge.platform import LAST, Unhurried
from gateway.billing_bridge.record import Payment, Step
from gateway.billing_bridge.worker import rank_of
from gateway.dev.sandbox.limits import Limits
from gateway.dev.sandbox.refusals import Refusal
from tests.billing_bridge.fixtures import AskStripe, Till, running
from tests.billing_bridge.test_worker import is_settled, status_is, until


async def test_without_limits_nobody_waits(redis: aioredis.Redis) -> None:
    pace = Pace(redis, 0, 0)
    assert all([await pace.at_once("transfers.create", (2, 0)) for _ in range(200)])
    assert await redis.keys("*") == []


async def test_no_more_go_at_once_than_a_bucket_holds_and_endpoints_do_not_share_it(redis: aioredis.Redis) -> None:
    pace, other = Pace(redis, 0, 20), Pace(redis, 0, 20)
    started = time.monotonic()
    went = [await each.at_once("transfers.create", (2, 0)) for each in (pace, other) * 20]
    assert 10 <= sum(went) <= 11 + 20 * (time.monotonic() - started)
    assert await pace.at_once("refunds.create", (2, 0))


async def test_the_most_urgent_goes_first_and_nobody_overtakes(redis: aioredis.Redis) -> None:
    pace = Pace(redis, 0, 20)
    while await pace.at_once("payment_intents.capture", (1, 0)):
        pass
    order: list[int] = []

    async def wait(before: int) -> None:
        assert await pace.turn("payment_intents.capture", (1, before), 10)
        order.append(before)

    waiting = [asyncio.create_task(wait(before)) for before in (5, 3, 9, 1, 7)]
    await asyncio.sleep(0)
    assert not await pace.at_once("payment_intents.capture", (1, 0)), "those who wait come first"
    await asyncio.gather(*waiting)
    assert order == sorted(order)


async def test_what_a_waiting_caller_lacks_no_transfer_takes(redis: aioredis.Redis) -> None:
    pace = Pace(redis, 4, 0)
    while await pace.at_once("payment_intents.create", (0, 0)):
        pass
    transfer = asyncio.create_task(pace.turn("transfers.create", (2, 0), 5))
    hold = asyncio.create_task(pace.turn("payment_intents.create", (0, 0), 5))
    await asyncio.wait([transfer, hold], return_when=asyncio.FIRST_COMPLETED)
    assert hold.done()
    assert not transfer.done()
    assert await transfer


async def test_who_runs_out_of_patience_or_is_sent_away_goes_nowhere(redis: aioredis.Redis) -> None:
    pace = Pace(redis, 0, 1)
    while await pace.at_once("transfers.create", (2, 0)):
        pass
    assert not await pace.turn("transfers.create", (2, 0), 0.01)
    waiting = asyncio.create_task(pace.turn("transfers.create", (2, 0), 10))
    await asyncio.sleep(0)
    pace.halt()
    assert not await waiting


async def test_nobody_begins_while_enough_have_begun_and_wait(redis: aioredis.Redis) -> None:
    room = {"transfers.create": 0, "refunds.create": 1}
    pace = Pace(redis, 100, 100, room=room.__getitem__)
    assert not await pace.at_once("transfers.create", (2, 0))
    assert not await pace.turn("transfers.create", (2, 0), 0.1)
    assert await pace.at_once("refunds.create", (2, 0)), "others are not held up"
    waiting = [asyncio.create_task(pace.turn("transfers.create", (2, n), 0.2)) for n in range(3)]
    room["transfers.create"] = 1
    assert any(await asyncio.gather(*waiting))


async def test_two_bridges_at_full_speed_stay_within_what_stripe_allows(redis: aioredis.Redis) -> None:
    limits, refused = Limits(60, 20), 0

    async def work(pace: Pace, endpoint: str) -> None:
        nonlocal refused
        for _ in range(15):
            assert await pace.turn(endpoint, (2, 0), 20)
            try:
                limits.take(endpoint, time.monotonic_ns() // 1_000_000)
            except Refusal:
                refused += 1

    paces = [Pace(redis, 60, 20) for _ in range(2)]
    await asyncio.gather(*(work(pace, f"e{n}") for pace in paces for n in range(2)))
    assert refused == 0


@pytest.mark.parametrize(
    ("step", "status", "rank"),
    [("hold", "pending", 0), ("check", "action_required", 0), ("capture", "held", 1), ("refund", "captured", 2),
     ("transfer_expert", "captured", 2), ("settlement", "captured", 3)],
)  # fmt: skip
def test_holds_come_before_captures_and_captures_before_transfers(step: str, status: str, rank: int) -> None:
    payment = Payment(status, "usd", hold_until=77)  # type: ignore[arg-type]
    assert rank_of(payment, Step(step, 1, "k", {})) == (rank, 77 if step == "capture" else 0)  # type: ignore[arg-type]


async def test_many_sessions_settle_within_the_limits_and_without_a_429(till: Till, ask: AskStripe) -> None:
    idents = [f"ses_{n}" for n in range(12)]
    sessions = [await till.open(ident) for ident in idents]
    for ident in idents:
        await till.settle(ident)
    await ask.post("limits", per_second=40, per_endpoint=12)
    limited = {"requests_per_second": 40, "requests_per_endpoint": 12}
    till.settings = type(till.settings)(**{**_fields(till.settings), **limited})
    for session in sessions:
        await till.finish(session, 4500)
    async with running(till.bridge), running(till.bridge):
        for ident in idents:
            await until(is_settled(till, ident), 20)
    for ident in idents:
        assert all(step.tries == 1 for step in (await till.payment(ident)).steps), "a 429 would have cost a try"


def _fields(settings: object) -> dict[str, object]:
    return {name: getattr(settings, name) for name in settings.__slots__}  # type: ignore[attr-defined]


async def test_captures_go_in_the_order_in_which_their_holds_are_lost(till: Till, ask: AskStripe) -> None:
    idents = [f"ses_{n}" for n in range(10)]
    sessions = [await till.open(ident) for ident in idents]
    for place, ident in enumerate(idents):
        await till.settle(ident)
        doc = (await till.journal.read(ident, "payment"))["payment"]
        assert doc is not None
        sooner = doc.body | {"hold_until": doc.body["hold_until"] - (place * 7 % 10) * 3_600_000}
        await till.journal.commit(ident, {"payment": (doc.version, sooner)}, due={"money": None})
    till.settings = type(till.settings)(**{**_fields(till.settings), "requests_per_endpoint": 2})
    for session in sessions:
        await till.finish(session, 4500)
    async with running(till.bridge):
        for ident in idents:
            await until(status_is(till, "captured", ident), 30)
    done = []
    for ident in idents:
        payment, events = await till.payment(ident), await till.journal.events(ident)
        at = next(event["created"] for event in events if event["type"] == "payment.captured")
        done.append((at, payment.hold_until))
    holds = [hold_until for _, hold_until in sorted(done)]
    late = holds[2:]  # a bucket's worth goes before the others are there
    assert late == sorted(late)


class Platformed:
    """Stripe's answers in turn, and what was asked of it in which rank."""

    def __init__(self, *answers: Outcome) -> None:
        self.answers, self.ranks = list(answers), list[Rank]()

    async def send(self, call: Call, rank: Rank) -> Outcome:
        self.ranks.append(rank)
        return self.answers.pop(0)


async def test_what_nobody_waits_for_goes_last_and_is_asked_again_while_stripe_is_busy() -> None:
    platform: Any = Platformed(Busy("rate_limit"), Busy("own_limit"), Done({"id": "1"}))
    assert await Unhurried(platform, (0, 0, 0)).send("refunds.list", {}) == Done({"id": "1"})
    assert set(platform.ranks) == {LAST}
    platform = Platformed(*[Busy("rate_limit")] * 4)
    assert await Unhurried(platform, (0, 0, 0)).send("refunds.list", {}) == Busy("rate_limit")
    assert platform.answers == []
