"""A whole core: what a packet costs when the relay never rests, and how many it forwards without losing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from loadtests.bench import Bench
from loadtests.figures import Figure, Sample, paired
from loadtests.peers.rig import Rig
from loadtests.relay.measuring import entries, holding, saturated, valued

RUNS: Final = 13
REFLECTOR: Final = "C reflector"
COST: Final = "CPU per packet, saturated"
TRAINS: Final = "CPU per packet, saturated, trains (UDP_SEGMENT)"
RATE: Final = "packets through one core, closed loop"
HELD: Final = "packets through one core, paced, loss under 0.5 %"
BOUNDS: Final = {REFLECTOR: (1.3, 0.8), "coturn": (0.8, 0.5), "rtpengine": (0.8, 0.5), "aiortc": (0.15, 0.08)}


def measure(bench: Bench, rigs: Sequence[Rig]) -> list[Figure]:
    """The first rig is ours."""
    plain = [rig for rig in rigs if rig.seal is None]
    trains = [rig for rig in plain if rig is rigs[0] or rig.name == REFLECTOR]
    in_trains = [(f"{rig.name}, trains", saturated(rig, train=True)) for rig in trains]
    samples = bench.alternate("saturated", [*in_trains, *entries(rigs, saturated)])
    held = bench.alternate("paced", entries(rigs, holding))
    return _figures([rig.name for rig in rigs], samples, held)


def _figures(names: Sequence[str], samples: dict[str, list[Sample]], held: dict[str, list[Sample]]) -> list[Figure]:
    ours, *peers = names
    figures = []
    for peer in peers:
        must, aim = BOUNDS[peer]
        figures.append(Figure("relay", COST, "µs", paired(samples[ours], samples[peer]), peer, must=must, aim=aim))
    if f"{REFLECTOR}, trains" in samples:
        rounds = paired(samples[f"{ours}, trains"], samples[f"{REFLECTOR}, trains"])
        figures.append(Figure("relay", TRAINS, "µs", rounds, REFLECTOR, must=1.3, aim=0.8))
    for peer in peers:
        rounds = paired(valued(samples[ours], "pps"), valued(samples[peer], "pps"))
        figures.append(Figure("relay", RATE, "1/s", rounds, peer, better="more"))
    figures += [Figure("relay", HELD, "1/s", paired(held[ours], held[peer]), peer, better="more") for peer in peers]
    return figures
