"""One measurement of one rig: what a load cost its processes, what came through, how long it took."""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Final

from loadtests.bench import Bench, Entry
from loadtests.figures import Figure, Sample, paired
from loadtests.generator import Load, Outcome
from loadtests.machine import Core, cpu_ns
from loadtests.peers.rig import MEASURED_CORE, Missing, Opener, Rig

WINDOW: Final = 256
"""Packets under way in closed-loop runs: keeps every relay here busy, and none of their socket buffers overflows."""
LOSS_LIMIT: Final = 0.005
BEHIND: Final = 0.98
"""A paced run that sent less than this share of its packets says nothing about the rate it was meant to have."""
IDLE_S: Final = 0.5
IDLE_WINDOWS: Final = 4
STEPS: Final = (0.98, 0.94, 0.90, 0.85, 0.80, 0.70, 0.60)
_FIRST_PPS: Final = 100_000.0
_SHARED_MEMORY: Final = Path("/dev/shm")


def run(rig: Rig, load: Load) -> Sample:
    """The value is CPU microseconds for each packet delivered, idle use taken off; the rest is in `about`."""
    with _pool(rig, load):
        core, cpu, at = Core.read(MEASURED_CORE), cpu_ns(rig.pids), time.monotonic()
        outcome = rig.generator.run(load)
        cpu, lasted = cpu_ns(rig.pids) - cpu, time.monotonic() - at
        after = Core.read(MEASURED_CORE)
    own = cpu / 1e9 - rig.idle * lasted
    about = _about(outcome, load) | {"core_used": cpu / 1e9 / lasted, "idle": rig.idle}
    return Sample(own * 1e6 / max(1, outcome.delivered), after.steal_share(core), after.foreign_share(core, cpu), about)


def _about(outcome: Outcome, load: Load) -> dict[str, float]:
    behind = not load.window and outcome.sent < BEHIND * load.pps * load.seconds
    about: dict[str, float] = {
        "pps": outcome.in_time / outcome.seconds, "loss": outcome.loss, "delivered": outcome.delivered,
        "behind": float(behind),
    }  # fmt: skip
    if load.stamp:
        about |= {"p50_us": outcome.p50_us, "p99_us": outcome.p99_us, "p999_us": outcome.p999_us}
    return about


@contextlib.contextmanager
def _pool(rig: Rig, load: Load) -> Iterator[None]:
    """Packets for relays that end SRTP are sealed before the clock runs."""
    if rig.seal is None:
        yield
        return
    pps = rig.highest * 1.3 if load.window else load.pps * 1.15
    count = math.ceil(pps * load.seconds / rig.forward) + 2 * load.groups[0].burst
    with tempfile.TemporaryDirectory(dir=_SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None) as folder:
        path = Path(folder) / "packets"
        rig.generator.pool(path, count, rig.seal(count, load.groups[0].size, path))
        yield


def packets(rig: Rig, pps: float, burst: int = 8, *, stamp: bool = False) -> Callable[[float], Sample]:
    """Packets of 1100 octets one way, over all sessions, at a fixed rate."""
    return lambda seconds: run(rig, Load((rig.forwards(pps, burst),), seconds, stamp=stamp))


def saturated(rig: Rig, *, train: bool = False, size: int = 1100, burst: int = 8) -> Callable[[float], Sample]:
    """As fast as packets come back; the rig remembers the rate."""

    def measure(seconds: float) -> Sample:
        rig.highest = rig.highest or _first_rate(rig)
        group = rig.forwards(_FIRST_PPS, burst, size)
        sample = run(rig, Load((group,), seconds, window=WINDOW, train=train))
        rig.highest = sample.about["pps"]
        return sample

    return measure


def _first_rate(rig: Rig) -> float:
    rig.highest = _FIRST_PPS
    return run(rig, Load((rig.forwards(_FIRST_PPS),), 0.3, window=WINDOW)).about["pps"]


def holding(rig: Rig) -> Callable[[float], Sample]:
    """The highest paced rate at which less than 0.5 % is lost, from just under the closed loop's downwards.

    The value is packets a second that arrived. The search goes on a step above the one that held in the round before,
    so that two short runs are the rule.
    """
    held = 0

    def measure(seconds: float) -> Sample:
        nonlocal held
        sample, first = Sample(0.0), max(0, held - 1)
        for held in range(first, len(STEPS)):
            sample = run(rig, Load((rig.forwards(rig.highest * STEPS[held]),), seconds / 2))
            if sample.about["loss"] < LOSS_LIMIT:
                break
        return replace(sample, value=sample.about["pps"], about=sample.about | {"cpu_us": sample.value})

    return measure


def valued(samples: Sequence[Sample], key: str) -> list[Sample]:
    """The same samples with another of their numbers as value."""
    return [replace(sample, value=sample.about[key]) for sample in samples]


def opened(bench: Bench, stack: contextlib.ExitStack, name: str, opener: Opener, sessions: int) -> Rig | None:
    """The rig, or None with the reason noted; only what cannot run here may fail."""
    bench.tell(f"setting up {name} with {sessions} sessions")
    try:
        rig = stack.enter_context(opener(sessions))
    except Missing as reason:
        bench.missing[name] = str(reason)
        return None
    bench.notes[rig.name] = ", ".join([rig.version, *rig.notes])
    return rig


def settle(bench: Bench, rigs: Sequence[Rig]) -> dict[str, list[Sample]]:
    """Learn what each uses with its sessions up and no media; all of them at once. In milliseconds a second."""
    samples: dict[str, list[Sample]] = {rig.name: [] for rig in rigs}
    for _ in range(IDLE_WINDOWS):
        bench.tell("idle use")
        before, at = [cpu_ns(rig.pids) for rig in rigs], time.monotonic()
        time.sleep(IDLE_S)
        lasted = time.monotonic() - at
        for rig, start in zip(rigs, before, strict=True):
            samples[rig.name].append(Sample((cpu_ns(rig.pids) - start) / 1e6 / lasted))
    for rig in rigs:
        rig.idle = median(sample.value for sample in samples[rig.name][1:]) / 1000
    return samples


def idle_figures(title: str, samples: dict[str, list[Sample]]) -> list[Figure]:
    """What keeping the sessions costs; the first rig is ours."""
    ours, *peers = samples
    return [Figure("relay", title, "ms/s", paired(samples[ours], samples[peer]), peer) for peer in peers or ()]


def entries(rigs: Sequence[Rig], measuring: Callable[[Rig], Callable[[float], Sample]]) -> list[Entry]:
    return [(rig.name, measuring(rig)) for rig in rigs]
