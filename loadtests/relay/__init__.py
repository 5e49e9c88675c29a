"""The relay's part of the run: what a forwarded packet costs, how many a core forwards, and how long it takes."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Final

from loadtests.bench import Bench
from loadtests.figures import Figure
from loadtests.peers.aiortc import open_aiortc
from loadtests.peers.coturn import open_coturn
from loadtests.peers.janus import open_janus
from loadtests.peers.ours import open_ours
from loadtests.peers.reflector import open_reflector
from loadtests.peers.rig import Opener, Rig
from loadtests.peers.rtpengine import open_rtpengine
from loadtests.relay import delay, growth, memory, saturated, steady, voice
from loadtests.relay.measuring import idle_figures, opened, settle

PANELS: Final = (
    (steady.BURSTS, "CPU per forwarded packet of 1100 bytes, 20,000 packets a second over 50 sessions"),
    (saturated.COST, "CPU per forwarded packet of 1100 bytes, at each relay's limit"),
    (saturated.RATE, "Packets of 1100 bytes a second through one core"),
)
"""Figures that the picture shows, and what it calls them."""
SESSIONS: Final = 50
AIORTC_SESSIONS: Final = 10
PLAIN: Final[tuple[tuple[str, Opener], ...]] = (
    ("C reflector", open_reflector),
    ("coturn", open_coturn),
    ("rtpengine", open_rtpengine),
)
WEBRTC: Final[tuple[tuple[str, Opener], ...]] = (
    ("Janus SHA1", partial(open_janus, profile="SHA1")),
    ("Janus GCM", partial(open_janus, profile="GCM")),
)
ASIDE_S: Final = 75.0
"""For setting up and waiting."""


def run(bench: Bench) -> list[Figure]:
    """All figures of issue and table; those of peers that are not here are left out."""
    bench.plan(bench.rounds * (steady.RUNS + saturated.RUNS + delay.RUNS + voice.RUNS + growth.RUNS), ASIDE_S)
    with contextlib.ExitStack() as stack:
        ours = opened(bench, stack, "Parley", open_ours, SESSIONS)
        assert ours is not None
        plain = [ours, *_present(bench, stack, PLAIN, SESSIONS)]
        figures = _with_webrtc(bench, plain)
        figures += _with_aiortc(bench, plain)
        figures += delay.measure(bench, [rig for rig in plain if rig.name in ("Parley", "C reflector")])
    return figures + voice.measure(bench) + growth.measure(bench) + memory.measure(bench)


def _present(
    bench: Bench, stack: contextlib.ExitStack, peers: tuple[tuple[str, Opener], ...], sessions: int
) -> list[Rig]:
    rigs = (opened(bench, stack, name, opener, sessions) for name, opener in peers)
    return [rig for rig in rigs if rig is not None]


def _with_webrtc(bench: Bench, plain: list[Rig]) -> list[Figure]:
    with contextlib.ExitStack() as stack:
        webrtc = _present(bench, stack, WEBRTC, SESSIONS)
        idle = settle(bench, [*plain, *webrtc])
        return steady.measure(bench, plain, webrtc) + idle_figures(f"CPU of {SESSIONS} sessions up, no media", idle)


def _with_aiortc(bench: Bench, plain: list[Rig]) -> list[Figure]:
    with contextlib.ExitStack() as stack:
        aiortc = opened(bench, stack, "aiortc", open_aiortc, AIORTC_SESSIONS)
        rigs = [*plain, aiortc] if aiortc is not None else plain
        settle(bench, rigs)
        return saturated.measure(bench, rigs)
