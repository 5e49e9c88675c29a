"""Voice only: one side talks (50 packets a second), the other listens (comfort noise, 2.5 a second), all small."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from loadtests.bench import Bench
from loadtests.figures import Figure, Sample, paired
from loadtests.generator import Load
from loadtests.peers.ours import open_ours
from loadtests.peers.reflector import open_reflector
from loadtests.peers.rig import Rig
from loadtests.relay.measuring import entries, idle_figures, opened, run, saturated, settle, valued

MIXES: Final = (50, 500, 2_000)
RUNS: Final = 2 * len(MIXES) + 2
TALKING_PPS: Final = 50.0
LISTENING_PPS: Final = 2.5
TALKING_OCTETS: Final = 122
"""Opus at 32 kbit/s in packets of 20 ms: 80, RTP header with extensions 32, SRTP tag 10."""
LISTENING_OCTETS: Final = 50


def measure(bench: Bench) -> list[Figure]:
    figures: list[Figure] = []
    for sessions in MIXES:
        with contextlib.ExitStack() as stack:
            found = (opened(bench, stack, name, opener, sessions) for name, opener in _OPENERS)
            rigs = [rig for rig in found if rig is not None]
            idle = settle(bench, rigs)
            samples = bench.alternate(f"voice, {sessions} sessions", entries(rigs, _mix))
            figures += _figures(f"voice, {sessions:,} sessions", [rig.name for rig in rigs], samples)
            figures += idle_figures(f"CPU of {sessions:,} sessions up, no media", idle) if sessions > MIXES[0] else []
            if sessions == 500:
                most = entries(rigs, lambda rig: saturated(rig, size=TALKING_OCTETS, burst=1))
                figures += _highest([rig.name for rig in rigs], bench.alternate("voice, saturated", most))
    return figures


_OPENERS: Final = (("Parley", open_ours), ("C reflector", open_reflector))


def _mix(rig: Rig) -> Callable[[float], Sample]:
    groups = (
        rig.forwards(TALKING_PPS * rig.forward, 1, TALKING_OCTETS),
        rig.backwards(LISTENING_PPS * rig.backward, 1, LISTENING_OCTETS),
    )
    return lambda seconds: run(rig, Load(groups, seconds, stamp=True))


def _figures(title: str, names: list[str], samples: dict[str, list[Sample]]) -> list[Figure]:
    ours, peer = names[0], names[1] if len(names) > 1 else None
    theirs = samples[peer] if peer else None
    figures = [Figure("relay", f"CPU per packet, {title}", "µs", paired(samples[ours], theirs), peer)]
    rounds = paired(valued(samples[ours], "p99_us"), valued(theirs, "p99_us") if theirs else None)
    return [*figures, Figure("relay", f"delay p99, {title}", "µs", rounds, peer, comparison=True)]


def _highest(names: list[str], samples: dict[str, list[Sample]]) -> list[Figure]:
    ours, peer = names[0], names[1] if len(names) > 1 else None
    theirs = samples[peer] if peer else None
    rounds = paired(valued(samples[ours], "pps"), valued(theirs, "pps") if theirs else None)
    return [
        Figure("relay", "CPU per packet, voice, saturated", "µs", paired(samples[ours], theirs), peer),
        Figure("relay", "voice packets through one core, closed loop", "1/s", rounds, peer, better="more"),
    ]
