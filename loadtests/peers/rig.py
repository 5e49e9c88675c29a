"""A relay under test: its processes, the generator that holds its callers' sockets, and the flows through it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from loadtests.generator import Generator, Group
from loadtests.machine import cores

MEASURED_CORE, OTHER_CORE, CONTROL_CORE = cores()


class Missing(Exception):
    """The peer cannot run on this machine; the text says why."""


class Seal(Protocol):
    """Writes `count` ready-made packets for each flow to a file; their length. For relays that end SRTP."""

    def __call__(self, count: int, size: int, path: Path) -> int: ...


@dataclass
class Rig:
    """`forward` flows are numbered from 0, the same number of `backward` ones follows if there are any.

    `pids` are the processes whose time counts. `idle`: cores used with its sessions up and no
    media. `highest`: packets a second in its last closed-loop run, 0 before the first.
    """

    name: str
    version: str
    pids: tuple[int, ...]
    generator: Generator
    forward: int
    backward: int = 0
    seal: Seal | None = None
    idle: float = 0.0
    highest: float = 0.0
    notes: list[str] = field(default_factory=list)
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def forwards(self, pps: float, burst: int = 8, size: int = 1100) -> Group:
        return Group(0, self.forward, pps, burst, size)

    def backwards(self, pps: float, burst: int = 1, size: int = 1100) -> Group:
        assert self.backward, f"{self.name} has no flows back"
        return Group(self.forward, self.backward, pps, burst, size)


Opener = Callable[[int], Rig]
"""Sets a rig up with so many sessions. Raises Missing."""
