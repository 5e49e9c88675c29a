"""Rigs whose callers are WebRTC ones: sets the callers' process up and gives its sockets to the generator."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import Any

from loadtests.generator import Generator
from loadtests.peers.rig import OTHER_CORE
from loadtests.processes import Child


class SealedCallers:
    """The callers' process as seen from here. Each `connected` leg is socket 0, 1, ... of the generator."""

    def __init__(self, stack: contextlib.ExitStack, address: str, profile: str) -> None:
        self._stack = stack
        self._here, there = socket.socketpair()
        stack.callback(self._here.close)
        module = [sys.executable, "-m", "loadtests.peers.callers", address, profile, str(there.fileno())]
        self._child = stack.enter_context(Child(module, OTHER_CORE, talks=True, pass_fds=[there.fileno()]))
        there.close()
        self._fds: list[int] = []
        self._legs: list[dict[str, Any]] = []
        stack.callback(self._close)

    def ask(self, **question: Any) -> dict[str, Any]:
        return self._child.ask(**question)

    def connected(self, **question: Any) -> None:
        """Ask what completes a leg, and take its socket."""
        self._legs.append(self.ask(**question))
        self._fds += socket.recv_fds(self._here, 1, 1)[1]

    def generator(self) -> Generator:
        """One that holds all sockets, sends to where the legs did, and answers their consent checks."""
        generator = self._stack.enter_context(Generator(OTHER_CORE, pass_fds=self._fds))
        numbers = generator.adopt(self._fds)
        generator.connect((number, *leg["remote"]) for number, leg in zip(numbers, self._legs, strict=True))
        generator.ice((number, *leg["credentials"]) for number, leg in zip(numbers, self._legs, strict=True))
        generator.checks(2_500)
        return generator

    def seal(self, count: int, size: int, path: Path, step: int = 1) -> int:
        """Packets of every `step`-th leg, as `Seal` says."""
        senders = list(range(0, len(self._legs), step))
        packets = {"senders": senders, "count": count, "size": size, "path": str(path)}
        return int(self.ask(do="seal", packets=packets)["length"])

    def _close(self) -> None:
        for fd in self._fds:
            os.close(fd)
