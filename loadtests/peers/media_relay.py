"""aiortc's MediaRelay: decodes and encodes what it passes on. Not measured by packets sent but by packets got."""

from __future__ import annotations

import contextlib
import time
from typing import Final

from loadtests import machine
from loadtests.peers.rig import MEASURED_CORE, OTHER_CORE
from loadtests.processes import Child

PATIENCE_S: Final = 20.0


class MediaRelayRun:
    """One session through MediaRelay, up as long as the `with` block."""

    def __enter__(self) -> MediaRelayRun:
        with contextlib.ExitStack() as stack:
            self.relay = stack.enter_context(Child.module("loadtests.peers.forwarder", MEASURED_CORE, "SHA1"))
            self.viewer = stack.enter_context(Child.module("loadtests.peers.viewer", OTHER_CORE))
            for which, done in (("publish", "published"), ("watch", "watched")):
                offer = self.viewer.ask(do=which)["sdp"]
                self.viewer.ask(do=done, sdp=self.relay.ask(do=which, sdp=offer)["sdp"])
            self._wait()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self.received() < 50:
            if time.monotonic() > deadline:
                raise RuntimeError(f"MediaRelay passes nothing: {self.relay.said()}")
            time.sleep(0.2)

    def received(self) -> int:
        """Packets that the watching side got so far."""
        return int(self.viewer.ask(do="received")["packets"])

    def measure(self, seconds: float) -> tuple[float, int, float]:
        """(CPU microseconds for each packet out, packets, share of stolen time)."""
        core, cpu, packets = machine.Core.read(MEASURED_CORE), machine.cpu_ns([self.relay.pid]), self.received()
        time.sleep(seconds)
        packets = self.received() - packets
        cpu = machine.cpu_ns([self.relay.pid]) - cpu
        return cpu / 1000 / max(1, packets), packets, machine.Core.read(MEASURED_CORE).steal_share(core)
