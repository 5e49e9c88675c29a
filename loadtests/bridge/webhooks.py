"""Webhooks: signed events to a receiver that answers at once, beside one that takes connections and never answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import uvloop

from gateway.ids import new_id
from gateway.journal import Event, Journal
from loadtests.bench import Bench
from loadtests.bridge.orders import some_at_once
from loadtests.bridge.stage import Stage, Watch, at_rest, stage
from loadtests.figures import Figure, Sample, paired

RATE: Final = "events a second by one bridge to a fast receiver, a dead one beside it"
ALONE: Final = "events a second by one bridge to a fast receiver alone"
WRONG: Final = "events lost, or sent before an earlier one of their session"
PANELS: Final = ((RATE, "Events a second by one bridge, a dead receiver beside the fast one"),)
SESSIONS: Final = 200
EVENTS: Final = 15
ROUNDS: Final = 4
WITHIN_S: Final = 60.0
DATA: Final = {
    "status": "captured", "amount_held": 25_500, "amount_captured": 7_500, "amount_refunded": 0, "amount_total": 7_500,
    "currency": "usd", "attempt": 1, "card": {"brand": "visa", "last4": "4242"}, "hold_until": 1_800_000_000_000,
    "payment_intent": "pi_000000000000000000000000", "charge": "ch_000000000000000000000000", "transfers": [],
}  # fmt: skip

Arrival = tuple[float, str, str, int]


def run(bench: Bench) -> list[Figure]:
    """Under a minute, whatever the rounds are."""
    rounds = min(bench.rounds, ROUNDS)
    bench.plan(2 * rounds)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(bench, rounds))


async def _measure(bench: Bench, rounds: int) -> list[Figure]:
    rates: dict[str, list[Sample]] = {}
    lost = 0
    async with stage() as here:
        for name, dead in ((ALONE, False), (RATE, True)):
            with here.bridges(1, dead=dead) as bridges:
                for number in range(rounds):
                    bench.tell(f"webhooks: {'beside a dead receiver' if dead else 'alone'}, round {number + 1}")
                    await at_rest(bridges)
                    sample, wrong = await _deliver(here, Watch(bridges, here.sandbox))
                    rates.setdefault(name, []).append(sample)
                    lost += wrong
                    bench.done += 1
    return [
        Figure("webhooks", RATE, "events/s", paired(rates[RATE]), better="more", must=500),
        Figure("webhooks", ALONE, "events/s", paired(rates[ALONE]), better="more"),
        Figure("webhooks", WRONG, "events", paired([Sample(lost)]), must=0),
    ]


async def _deliver(here: Stage, watch: Watch) -> tuple[Sample, int]:
    """All events of some sessions, made at once: how many a second arrived, and how many not, or too early."""
    here.arrived()
    began, wanted = time.monotonic(), SESSIONS * EVENTS
    await some_at_once([_happened(here.journal) for _ in range(SESSIONS)])
    came: list[Arrival] = []
    while len(came) < wanted and time.monotonic() < began + WITHIN_S:
        await asyncio.sleep(0.1)
        came += [tuple(told) for told in here.arrived()["events"]]
    used, _, steal, foreign = watch.shares()
    took = max((told[0] for told in came), default=began + WITHIN_S) - began
    about = {"cpu_ms_an_event": used * 1000 / max(1, len(came))}
    return Sample(len(came) / took, steal, foreign, about), wanted - len(came) + too_early(came)


async def _happened(journal: Journal) -> None:
    body: dict[str, Any] = {"account": "acc_bench"}
    events = [Event("payment.captured", DATA) for _ in range(EVENTS)]
    await journal.commit(new_id("ses"), {"session": (0, body)}, events=events)


def too_early(came: Sequence[Arrival]) -> int:
    """Events that arrived before an earlier one of their session."""
    order: dict[str, list[int]] = {}
    for _, session, _, sequence in sorted(came):
        order.setdefault(session, []).append(sequence)
    return sum(later < before for sequences in order.values() for before, later in pairwise(sequences))
