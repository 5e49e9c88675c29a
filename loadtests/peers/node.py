"""A gateway node's media side in a process of its own: control here, and the relay that is measured.

`python -m loadtests.peers.node RELAY_CORE CONTROL_CORE` talks by JSON lines. All that depends on how the relay is run
stands in `start` and in `worker`. Control does what it does in production: it extends each call every second and reads
all reports.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import uvloop

from gateway.clock import SystemClock
from gateway.sfu import udp
from gateway.sfu.memory import new_file
from gateway.sfu.port import CallConfig, Candidate, Credentials, LegConfig, RelayPort
from gateway.sfu.remote import RemoteRelay
from gateway.signaling import messages, sdp
from gateway.signaling.hosted import UNTIL_MS
from loadtests.processes import FIRST, Child, take_precedence

SLICES: Final = 50
EVERY: Final = 1_000_000
LIMIT_MS: Final = 3_600_000
RECORDED: Final = Path(__file__).parents[2] / "tests" / "data" / "sdp"


@dataclass(frozen=True, slots=True)
class Started:
    relay: RelayPort
    worker: Child
    about: str


async def start(relay_core: int, control_core: int, folder: Path) -> Started:
    """The relay as the gateway runs it: a worker on `relay_core`, and control here on the other."""
    path = folder / "control"
    worker = _start_worker(path, relay_core)
    os.sched_setaffinity(0, {control_core})
    return Started(await RemoteRelay.open([path]), worker, "one worker process")


def _start_worker(path: Path, core: int) -> Child:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    media, memory = udp.bind("127.0.0.1", 0), new_file()
    fds = [media.fileno(), listener.fileno(), memory]
    command = [sys.executable, "-m", "loadtests.peers.worker", *(str(fd) for fd in fds)]
    worker = Child(command, core, pass_fds=fds)
    for sock in (listener, media):
        sock.close()
    os.close(memory)
    return worker


def credentials() -> Credentials:
    return Credentials(secrets.token_hex(4), secrets.token_hex(12))


class Node:
    """Holds calls open and, when told to, sets up others as fast as it can."""

    def __init__(self, started: Started) -> None:
        self.relay = started.relay
        self.started = started
        self.calls: list[CallConfig] = []
        self.extended = EVERY
        self.clock = SystemClock()
        self.signaled = 0
        self._signaling: asyncio.Task[None] | None = None
        self._tasks = [asyncio.create_task(self._extend()), asyncio.create_task(self._read_reports())]

    async def add(self, count: int) -> list[dict[str, Any]]:
        """Of each new call: the relay's port, and for each leg ufrag and password of the relay, then of the caller."""
        answer: list[dict[str, Any]] = []
        for _ in range(count):
            local, remote = (credentials(), credentials()), (credentials(), credentials())
            legs = (LegConfig((local[0],), remote[0]), LegConfig((local[1],), remote[1]))
            call = CallConfig(secrets.token_hex(8), 1, legs, True, LIMIT_MS, 0)
            port = self._candidate(call.call).port
            await self._configure(call)
            pairs = zip(local, remote, strict=True)
            answer.append(
                {"port": port, "legs": [[ours.ufrag, ours.password, own.ufrag, own.password] for ours, own in pairs]}
            )
        return answer

    def _candidate(self, call: str) -> Candidate:
        return next(one for one in self.relay.candidates(call) if one.transport == "udp")

    async def _configure(self, call: CallConfig) -> None:
        self.calls.append(call)
        await self.relay.configure(replace(call, until=self.clock.boot_ms() + UNTIL_MS))

    async def _extend(self) -> None:
        # In slices, as the calls of a node have their seconds at different instants.
        while True:
            for place in range(SLICES):
                await asyncio.sleep(1 / SLICES)
                until = self.clock.boot_ms() + UNTIL_MS
                for call in self.calls[place : self.extended : SLICES]:
                    await self.relay.configure(replace(call, until=until))

    async def _read_reports(self) -> None:
        async for _ in self.relay.reports():
            pass

    async def signal(self, on: bool) -> None:
        """Start or stop set-ups at full tilt; control then takes what the generator leaves of their core."""
        if self._signaling is not None:
            self._signaling.cancel()
        take_precedence(0 if on else FIRST)
        self._signaling = asyncio.create_task(self._set_up_calls()) if on else None

    async def _set_up_calls(self) -> None:
        offer, answer = (_recorded(kind) for kind in ("offer", "answer"))
        while True:
            call = CallConfig(
                secrets.token_hex(8), 1, (LegConfig((credentials(),)), LegConfig((credentials(),))), True, LIMIT_MS, 0
            )
            for leg, (text, kind) in enumerate(((offer, "offer"), (answer, "answer"))):
                legs = (call.legs[0], self._described(call.call, call.legs[1], text, kind))
                call = replace(call, legs=legs if leg else legs[::-1], until=self.clock.boot_ms() + UNTIL_MS)
                await self.relay.configure(call)
                await asyncio.sleep(0)
            await self.relay.release(call.call)
            self.signaled += 1

    def _described(self, call: str, leg: LegConfig, text: str, kind: Any) -> LegConfig:
        """What a description costs the signaling side: read, validate, rewrite, write."""
        message = messages.parse(text)
        assert isinstance(message, messages.Description)
        sdp.validate(message.sdp, kind)
        rewritten = sdp.rewrite(message.sdp, leg.local[0], self.relay.candidates(call))
        message.model_copy(update={"sdp": rewritten}).model_dump_json()
        return replace(leg, remote=credentials())


def _recorded(kind: str) -> str:
    text = (RECORDED / f"chromium-audio-video-{kind}.sdp").read_bytes().decode()
    generation = {"mine": 1, "peer": 1, "transport": 1}
    return json.dumps({"type": "description", "kind": kind, "sdp": text, "generation": generation})


async def answer(node: Node, question: dict[str, Any]) -> dict[str, Any]:
    match question["do"]:
        case "about":
            return {"pids": [node.started.worker.pid], "about": node.started.about}
        case "calls":
            return {"calls": await node.add(question["count"])}
        case "settle":
            gc.collect()
            return {"calls": len(node.calls)}
        case "extend":
            node.extended = question["count"]
            return {}
        case "signal":
            await node.signal(question["on"])
            return {}
        case "statistics":
            about = await node.relay.statistics()
            return {
                "signaled": node.signaled,
                "legs": about.legs,
                "open_gates": about.open_gates,
                "drops": dict(about.drops),
            }
    return {"error": "unknown question"}


async def main(arguments: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-node-") as folder:
        started = await start(int(arguments[0]), int(arguments[1]), Path(folder))
        with started.worker:
            await _talk(Node(started))


async def _talk(node: Node) -> None:
    reader = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        print(json.dumps(await answer(node, json.loads(line))), flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvloop.run(main(sys.argv[1:]))
