"""How long packets stay in the relay at 70 % of what it can, while its control process does nothing but signaling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from loadtests.bench import Bench
from loadtests.figures import Figure, Sample, paired
from loadtests.peers.ours import Ours
from loadtests.peers.rig import Rig
from loadtests.relay.measuring import entries, packets, valued

RUNS: Final = 2
SHARE: Final = 0.7
QUANTILES: Final = (("p50", None, None), ("p99", 1.0, 0.3), ("p99.9", None, None))


def measure(bench: Bench, rigs: Sequence[Rig]) -> list[Figure]:
    """From the write of a burst to the kernel's stamp on each packet at its receiver; each rig at its own 70 %."""
    samples = bench.alternate("delay", entries(rigs, _loaded))
    ours, peer = rigs[0].name, rigs[1].name if len(rigs) > 1 else None
    figures = []
    for name, must, aim in QUANTILES:
        key = f"{name.replace('.', '')}_us"
        rounds = paired(_in_ms(samples[ours], key), _in_ms(samples[peer], key) if peer else None)
        title = f"delay at 70 % load while control is signaling, {name}"
        figures.append(Figure("relay", title, "ms", rounds, peer, must=must, aim=aim, comparison=True))
    return figures


def _in_ms(samples: Sequence[Sample], key: str) -> list[Sample]:
    return [Sample(one.value / 1000, one.steal, one.foreign, one.about) for one in valued(samples, key)]


def _loaded(rig: Rig) -> Callable[[float], Sample]:
    def measure(seconds: float) -> Sample:
        paced = packets(rig, SHARE * rig.highest, stamp=True)
        if not isinstance(rig, Ours):
            return paced(seconds)
        with rig.signaling():
            before = rig.signaled()
            sample = paced(seconds)
            sample.about["set_ups_per_s"] = (rig.signaled() - before) / seconds
            return sample

    return measure
