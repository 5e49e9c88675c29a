"""Whether a packet costs more when many other callers are allocated: the same five sessions talk, the rest are there.

The others have joined, are selected and hold their addresses. What 5,000 of them cost by their checks and our
challenges is a figure of its own; while packets are counted they are quiet, because that cost is not the same beside
media (checks then need no wake-ups of their own) and could not be taken off rightly.
"""

from __future__ import annotations

import contextlib
import time
from typing import Final

from loadtests.bench import Bench
from loadtests.figures import Figure, Sample, paired
from loadtests.peers.ours import Ours, open_ours
from loadtests.relay.measuring import entries, packets, settle

LEGS: Final = (10, 1_000, 5_000)
TALKING: Final = 5
PPS: Final = 20_000.0
QUIET_S: Final = 16.0
"""A caller that falls silent is away after 7 s, and no longer challenged once the round under way has ended."""
RUNS: Final = len(LEGS)


def measure(bench: Bench) -> list[Figure]:
    with contextlib.ExitStack() as stack:
        rigs: list[Ours] = []
        for legs in LEGS:
            bench.tell(f"setting up Parley with {legs} legs")
            rig = stack.enter_context(open_ours(TALKING))
            rig.name = f"{legs} legs"
            rig.let_in(legs // 2 - TALKING)
            rigs.append(rig)
        checking = settle(bench, rigs)[rigs[-1].name]
        for rig in rigs:
            rig.quieten()
        time.sleep(QUIET_S)
        settle(bench, rigs)
        samples = bench.alternate("growth", entries(rigs, lambda rig: packets(rig, PPS)))
    few = samples[f"{LEGS[0]} legs"]
    figures = [_against(legs, samples[f"{legs} legs"], few) for legs in LEGS[1:]]
    title = f"CPU of {LEGS[-1]:,} idle legs, checking every 2.5 s"
    return [*figures, Figure("relay", title, "ms/s", paired(checking))]


def _against(legs: int, samples: list[Sample], few: list[Sample]) -> Figure:
    must, aim = (1.2, 1.0) if legs == LEGS[-1] else (None, None)
    title = f"CPU per packet with {legs:,} legs allocated against {LEGS[0]}"
    return Figure("relay", title, "µs", paired(samples, few), f"itself with {LEGS[0]} legs", must=must, aim=aim)
