"""Parley's relay, with callers that join by real ICE checks and go on checking as browsers do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

from gateway import __version__
from loadtests.generator import Generator
from loadtests.peers.rig import CONTROL_CORE, MEASURED_CORE, OTHER_CORE, Rig
from loadtests.processes import Child

NAME: Final = "Parley"
CHECKS_MS: Final = 2_500
"""As Chromium checks a stable pair; a leg is absent after 7 s without a sign of life."""


def open_ours(sessions: int) -> Ours:
    """Both directions of each session, gates open. Raises RuntimeError when a caller does not get in."""
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(
            Child.module("loadtests.peers.node", CONTROL_CORE, str(MEASURED_CORE), str(CONTROL_CORE))
        )
        about = node.ask(do="about")
        generator = stack.enter_context(Generator(OTHER_CORE))
        rig = Ours(NAME, f"{__version__}, {about['about']}", tuple(about["pids"]), generator, sessions, sessions)
        rig.node = node
        rig.let_in(sessions)
        rig.open_gates()
        rig.stack = stack.pop_all()
    return rig


class Ours(Rig):
    """Also: idle callers, memory, and signaling at full tilt in the control process."""

    node: Child

    def let_in(self, sessions: int) -> None:
        """So many further calls, both callers of each selected; their flows are made by `open_gates`."""
        calls = self.node.ask(do="calls", count=sessions)["calls"]
        ends = self.generator.open(2 * sessions)
        ports = [call["port"] for call in calls for _ in range(2)]
        self.generator.connect((socket, "127.0.0.1", port) for (socket, _), port in zip(ends, ports, strict=True))
        self.generator.ice(_callers([socket for socket, _ in ends], calls))
        joined, expected = self.generator.join(), 2 * self.node.ask(do="settle")["calls"]
        if joined < expected:
            raise RuntimeError(f"{joined} of {expected} callers got in")
        self.generator.checks(CHECKS_MS)

    def open_gates(self) -> None:
        """Media both ways on every call made so far, so that each gate opens."""
        pairs = [(2 * call, 2 * call + 1) for call in range(self.forward)]
        self.generator.flows((one, two, b"") for one, two in pairs)
        self.generator.flows((two, one, b"") for one, two in pairs)
        self.generator.prime()
        arrived = self.generator.prime()
        if arrived < 2 * self.forward:
            raise RuntimeError(f"{arrived} of {2 * self.forward} flows pass")

    def quieten(self) -> None:
        """Only the calls that have flows go on: callers check, control extends. The others fall silent."""
        self.generator.checks(CHECKS_MS, 2 * self.forward)
        self.node.ask(do="extend", count=self.forward)

    @contextlib.contextmanager
    def signaling(self) -> Iterator[None]:
        """Calls are set up and taken down by control all the while."""
        self.node.ask(do="signal", on=True)
        try:
            yield
        finally:
            self.node.ask(do="signal", on=False)

    def signaled(self) -> int:
        """Calls set up so far by `signaling`."""
        return int(self.node.ask(do="statistics")["signaled"])


def _callers(sockets: list[int], calls: list[dict[str, Any]]) -> Iterator[tuple[int, str, str, str, str]]:
    for place, socket in enumerate(sockets):
        ufrag, password, own_ufrag, own_password = calls[place // 2]["legs"][place % 2]
        yield socket, own_ufrag, own_password, ufrag, password
