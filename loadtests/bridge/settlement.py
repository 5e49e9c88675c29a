"""Settlement: from the final bill to the captured charge, the shares' transfers, both receipts and all events."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import uvloop

from gateway.billing_bridge.record import Payment
from loadtests.bench import Bench
from loadtests.bridge.orders import Orders
from loadtests.bridge.stage import BUSY, Stage, Watch, at_rest, stage
from loadtests.figures import Figure, Round, Sample, paired

# Each session waits for the disk four times, which comes once a second: of few at once that would be what is measured.
SESSIONS: Final = 900
LIFTED: Final = f"sessions settled a second, {SESSIONS} at once, one bridge, limits lifted"
COST: Final = "CPU of the bridge for a settled session"
TWO: Final = "settled a second within Stripe's limits, two transfers, two bridges"
ONE: Final = "settled a second within Stripe's limits, one transfer, two bridges"
ORDER: Final = "captures out of turn, by the time at which their holds are lost"
WRONG: Final = "sessions lost, done twice, or refused by Stripe (429)"
PANELS: Final = ((LIFTED, "Sessions settled a second by one bridge, Stripe at 20 ms a call"),)
ROUNDS: Final = 3
FEW: Final = 240
MANY: Final = 2_000
WITHIN_S: Final = 150.0
# Holds last for days. Each bridge keeps the order of what it has in hand, and two may be some seconds apart.
BURST_MS: Final = 3_000
OUT_OF_TURN_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Settled:
    """One run: `rate` a second, `wrong` as WRONG says, `overtaken` as ORDER says, CPU seconds of the bridges."""

    sample: Sample
    cpu: Sample
    wrong: int
    overtaken: int


def run(bench: Bench) -> list[Figure]:
    """About three and a half minutes, whatever the rounds are."""
    rounds = min(bench.rounds, ROUNDS)
    bench.plan(rounds + 2)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(bench, rounds))


async def _measure(bench: Bench, rounds: int) -> list[Figure]:
    quick = bench.rounds < ROUNDS
    async with stage() as here:
        lifted = []
        for number in range(rounds):
            bench.tell(f"settlement: limits lifted, round {number + 1} of {rounds}")
            lifted.append(await _settle(here, SESSIONS, transfers=2, bridges=1))
            bench.done += 1
        bench.tell("settlement: within Stripe's limits, two transfers")
        two = await _settle(here, 60 if quick else FEW, transfers=2, bridges=2, within_limits=True)
        bench.done += 1
        bench.tell("settlement: within Stripe's limits, one transfer")
        one = await _settle(here, 120 if quick else MANY, transfers=1, bridges=2, within_limits=True)
        bench.done += 1
    rate, cpu = paired([each.sample for each in lifted]), paired([each.cpu for each in lifted])
    wrong, after = sum(each.wrong for each in (*lifted, two, one)), one.overtaken
    return [
        Figure("settlement", LIFTED, "sessions/s", rate, better="more", must=60),
        Figure("settlement", COST, "ms", cpu),
        Figure("settlement", TWO, "sessions/s", _alone(two.sample), better="more", must=12),
        Figure("settlement", ONE, "sessions/s", _alone(one.sample), better="more", must=20),
        Figure("settlement", ORDER, f"of {MANY}", _alone(Sample(after)), must=0),
        Figure("settlement", WRONG, "sessions", _alone(Sample(wrong)), must=0),
    ]


def _alone(sample: Sample) -> tuple[Round, ...]:
    """A figure that takes so long that it is measured once."""
    return paired([sample])


async def _settle(here: Stage, count: int, *, transfers: int, bridges: int, within_limits: bool = False) -> Settled:
    """`count` sessions, whose money is held, end at once; what happened until all was done."""
    orders = await Orders.place(here.journal, here.stripe_url, count, transfers)
    with contextlib.ExitStack() as stack:
        # The bridges that are measured have placed the holds before, unless that would take them minutes.
        running = stack.enter_context(here.bridges(1 if within_limits else bridges))
        await _told_of(here, "payment.held", count)
        await orders.let_go_before(random.Random(count).sample(range(count), count))
        if within_limits:
            await here.limits(100, 25)
            stack.close()
            running = stack.enter_context(here.bridges(bridges, within_limits=True))
        await at_rest(running)
        watch, began = Watch(running, here.sandbox), time.monotonic()
        await orders.finish()
        came, mails = await _all(here, count)
        took = max(came.values(), default=math.inf) - began
        used, sandbox, steal, foreign = watch.shares()
    await here.limits(0, 0)
    payments = await orders.payments()
    about = {"sandbox_share": sandbox, "behind": float(sandbox > BUSY), "sessions": float(count)}
    return Settled(
        Sample(len(came) / took, steal, foreign, about), Sample(used * 1000 / count, steal, foreign),
        wrong(payments, count - len(came)) + abs(mails - 2 * count), overtaken(await captures(orders)),
    )  # fmt: skip


async def _told_of(here: Stage, kind: str, count: int) -> None:
    """Until so many events of this kind arrived: a bridge that goes leaves nothing half done."""
    async with asyncio.timeout(WITHIN_S):
        while count > 0:
            count -= sum(told[2] == kind for told in here.arrived()["events"])
            await asyncio.sleep(0.1)


async def _all(here: Stage, count: int) -> tuple[dict[str, float], int]:
    """When each session was done: settled, and both receipts sent, as their events arrived; and how many mails."""
    done: dict[str, float] = {}
    missing: dict[str, Counter[str]] = {}
    mails, until = 0, time.monotonic() + WITHIN_S
    while len(done) < count and time.monotonic() < until:
        await asyncio.sleep(0.2)
        told = here.arrived()
        mails += told["mails"]
        for at, session, kind, _ in told["events"]:
            seen = missing.setdefault(session, Counter())
            seen[kind] += 1
            if seen["session.settled"] and seen["receipt.sent"] == 2:
                done.setdefault(session, at)
    return done, mails


async def captures(orders: Orders) -> list[tuple[int, int]]:
    """Of each session when it was captured, and until when its hold lasted (wall ms)."""
    found = []
    for record, payment in zip(orders.records, await orders.payments(), strict=True):
        events = await orders.journal.events(record.id)
        at = [event["created"] for event in events if event["type"] == "payment.captured"]
        if at and payment.hold_until is not None:
            found.append((at[0], payment.hold_until))
    return found


def wrong(payments: Sequence[Payment], unfinished: int) -> int:
    """Sessions that were not settled, and steps that were sent more than once: after a 429, or by two bridges."""
    again = sum(any(step.tries > 1 for step in payment.steps) for payment in payments)
    twice = sum(payment.attempts("capture") > 1 for payment in payments)
    return unfinished + again + twice + sum(not payment.settled for payment in payments)


def overtaken(captured: Sequence[tuple[int, int]]) -> int:
    """Captures that came more than OUT_OF_TURN_MS later than in the order in which their holds are lost. Those of the
    first moments do not count: they went before the others were there."""
    first = min((at for at, _ in captured), default=0) + BURST_MS
    waited = [each for each in captured if each[0] >= first]
    turns = sorted(at for at, _ in waited)
    in_order = sorted(waited, key=lambda each: each[1])
    return sum(at - turn > OUT_OF_TURN_MS for turn, (at, _) in zip(turns, in_order, strict=True))
