"""The C generator as Python sees it: sockets, callers, flows, and what a run delivered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from loadtests.native import program
from loadtests.processes import Child

_AT_ONCE: Final = 200
"""Commands written before their answers are read; more could fill both pipes."""


@dataclass(frozen=True, slots=True)
class Group:
    """Flows `first` to `first + count - 1`, in turn: `pps` packets a second in all, in bursts of `burst`."""

    first: int
    count: int
    pps: float
    burst: int = 8
    size: int = 1100

    def argument(self) -> str:
        return f"group={self.first},{self.count},{self.pps:.3f},{self.burst},{self.size}"


@dataclass(frozen=True, slots=True)
class Load:
    """What the generator is to do. `window`: packets under way at most, as fast as they come back, instead of `pps`.

    `train`: a burst goes to the kernel as one train (UDP_SEGMENT); it arrives as a receiver with UDP_GRO would get it
    from a network card that puts trains together, and singly at any other. `stamp`: measure delays.
    """

    groups: tuple[Group, ...]
    seconds: float
    window: int = 0
    train: bool = False
    stamp: bool = False

    @property
    def pps(self) -> float:
        return sum(group.pps for group in self.groups)

    def at(self, pps: float) -> Load:
        """The same mix at another rate."""
        factor = pps / self.pps
        return replace(self, groups=tuple(replace(group, pps=group.pps * factor) for group in self.groups))

    def line(self) -> str:
        words = [f"run seconds={self.seconds:.3f}"]
        words += [f"window={self.window}"] if self.window else []
        words += ["gso=1"] if self.train else []
        words += ["stamp=1"] if self.stamp else []
        return " ".join([*words, *(group.argument() for group in self.groups)])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did. `in_time`: delivered before the sending ended, the rest within 0.3 s after it. Delays in µs."""

    seconds: float
    sent: int
    delivered: int
    in_time: int
    octets: int
    refused: int
    stalls: int
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float

    @property
    def loss(self) -> float:
        return 1 - self.delivered / self.sent if self.sent else 1.0


class Generator:
    """One process of `blast.c`; sockets and flows are numbers in it. Ends with the `with` block."""

    def __init__(self, core: int, *, pass_fds: Sequence[int] = (), address: str = "127.0.0.1") -> None:
        self.address = address
        self.child = Child([str(program("blast"))], core, talks=True, pass_fds=pass_fds)

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.close()

    def many(self, commands: Iterable[str]) -> list[list[str]]:
        """The words of each answer after `ok`. Raises RuntimeError when one is an error."""
        answers: list[list[str]] = []
        waiting = list(commands)
        for start in range(0, len(waiting), _AT_ONCE):
            some = waiting[start : start + _AT_ONCE]
            self.child.write("\n".join(some))
            for command in some:
                first, *words = self.child.read().split()
                if first != "ok":
                    raise RuntimeError(f"generator: {command.split()[0]}: {' '.join([first, *words])}")
                answers.append(words)
        return answers

    def open(self, count: int) -> list[tuple[int, int]]:
        """(socket, port) of so many new sockets."""
        return [(int(words[0]), int(words[1])) for words in self.many([f"open {self.address}"] * count)]

    def adopt(self, fds: Sequence[int]) -> list[int]:
        """Sockets of inherited file descriptors."""
        return [int(words[0]) for words in self.many(f"adopt {fd}" for fd in fds)]

    def connect(self, towards: Iterable[tuple[int, str, int]]) -> None:
        self.many(f"to {socket} {address} {port}" for socket, address, port in towards)

    def ice(self, callers: Iterable[tuple[int, str, str, str, str]]) -> None:
        """(socket, own ufrag, own password, the relay's ufrag, the relay's password)."""
        self.many(f"ice {' '.join(str(word) for word in caller)}" for caller in callers)

    def checks(self, every_ms: int, count: int = 1_000_000) -> None:
        """The first `count` ICE sockets check from now on; the others fall silent, also when they are challenged."""
        self.many([f"checks {every_ms} {count}"])

    def join(self, limit_ms: int = 20_000) -> int:
        """Callers whose checks were answered and who were challenged, at the end."""
        return int(self.many([f"join {limit_ms}"])[0][0])

    def flows(self, pairs: Iterable[tuple[int, int, bytes]]) -> list[int]:
        """(from, to, what precedes each packet)."""
        return [int(words[0]) for words in self.many(f"flow {one} {two} {pre.hex()}" for one, two, pre in pairs)]

    def prime(self) -> int:
        """One packet on each flow; how many arrived."""
        return int(self.many(["prime"])[0][0])

    def pool(self, path: Path, count: int, length: int) -> None:
        """Ready-made packets for the next run."""
        self.many([f"pool {path} {count} {length}"])

    def run(self, load: Load) -> Outcome:
        self.child.write(load.line())
        answer = self.child.read()
        if not answer.startswith("{"):
            raise RuntimeError(f"generator: {answer}")
        return Outcome(**json.loads(answer))
