"""What a session takes in the relay's memory, ten seconds after it was set up."""

from __future__ import annotations

import contextlib
import time
from typing import Final

from loadtests.bench import Bench
from loadtests.figures import Figure, Sample, paired
from loadtests.machine import private_octets
from loadtests.peers.ours import Ours, open_ours

SESSIONS: Final = 1_000
RELAYS: Final = 3
WAIT_S: Final = 10.0


def measure(bench: Bench) -> list[Figure]:
    """Private memory of fresh relays with so many sessions more, both callers in, gates shut."""
    with contextlib.ExitStack() as stack:
        rigs = [stack.enter_context(open_ours(1)) for _ in range(RELAYS)]
        before = [_private(rig) for rig in rigs]
        for rig in rigs:
            bench.tell(f"memory: {SESSIONS} sessions")
            rig.let_in(SESSIONS)
        time.sleep(WAIT_S)
        samples = [Sample((_private(rig) - start) / SESSIONS / 1024) for rig, start in zip(rigs, before, strict=True)]
    title = f"memory of a session, {WAIT_S:.0f} s after set-up"
    return [Figure("relay", title, "KiB", paired(samples), must=20.0, aim=6.0)]


def _private(rig: Ours) -> int:
    return sum(private_octets(pid) for pid in rig.pids)
