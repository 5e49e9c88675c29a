"""20,000 packets a second over 50 sessions: what one costs while the relay is far from its limit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from loadtests.bench import Bench
from loadtests.figures import Figure, Sample, paired
from loadtests.peers.media_relay import MediaRelayRun
from loadtests.peers.rig import Rig
from loadtests.relay.measuring import entries, packets

PPS: Final = 20_000.0
RUNS: Final = 11
MEDIA_RELAY: Final = "MediaRelay"
MEDIA_RELAY_S: Final = 3.0
BURSTS: Final = "CPU per packet, 20,000/s, bursts of 8"
SINGLE: Final = "CPU per packet, 20,000/s, single packets"
BOUNDS: Final[dict[str, tuple[float, float | None]]] = {
    "C reflector": (1.5, 1.0), "coturn": (1.1, 0.8), "rtpengine": (1.1, 0.8),
    "Janus SHA1": (0.18, 0.1), "Janus GCM": (0.36, 0.2), MEDIA_RELAY: (0.002, None),
}  # fmt: skip
SINGLE_BOUNDS: Final[dict[str, tuple[float, float | None]]] = {"C reflector": (1.5, 1.0)}


def measure(bench: Bench, plain: Sequence[Rig], webrtc: Sequence[Rig]) -> list[Figure]:
    """Of every rig with bursts, of those without SRTP with single packets too; the first rig is ours."""
    in_bursts = entries([*plain, *webrtc], lambda rig: packets(rig, PPS))
    single = [(f"{rig.name}, single", packets(rig, PPS, burst=1)) for rig in plain]
    samples = bench.alternate("20,000/s", [*in_bursts, *single, (MEDIA_RELAY, _media_relay)])
    bench.notes[MEDIA_RELAY] = f"aiortc, decodes and encodes one 640x480 VP8 stream, measured for {MEDIA_RELAY_S:.0f} s"
    ours = plain[0].name
    figures = [_figure(BURSTS, name, samples, ours, name, BOUNDS) for name in samples if _is_peer(name, ours)]
    singles = ((f"{rig.name}, single", rig.name) for rig in plain[1:])
    figures += [_figure(SINGLE, key, samples, f"{ours}, single", peer, SINGLE_BOUNDS) for key, peer in singles]
    return figures


def _is_peer(name: str, ours: str) -> bool:
    return name != ours and not name.endswith(", single")


def _figure(
    title: str, key: str, samples: dict[str, list[Sample]], ours: str, peer: str,
    bounds: dict[str, tuple[float, float | None]],
) -> Figure:  # fmt: skip
    must, aim = bounds.get(peer, (None, None))
    return Figure("relay", title, "µs", paired(samples[ours], samples[key]), peer, must=must, aim=aim)


def _media_relay(seconds: float) -> Sample:
    """Afresh in every round: it works all the time, so it cannot be up while others are measured."""
    with MediaRelayRun() as relayed:
        time.sleep(1.0)
        cost, count, steal = relayed.measure(MEDIA_RELAY_S if seconds > 1 else seconds)
    return Sample(cost, steal, about={"delivered": count})
