"""Relay workers as a gateway runs them: a supervisor process of their own, reached over their control sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.clock import SystemClock
from gateway.sfu.port import CallConfig, RelayPort, Report
from gateway.sfu.remote import RemoteRelay
from gateway.supervisor import Plan, relay_workers
from tests.sfu.caller import Caller, UdpCaller
from tests.sfu.network import config, pair

CLOCK = SystemClock()


@dataclass
class Node:
    """A control's end, and the processes behind it."""

    relay: RemoteRelay
    paths: list[Path]
    supervisor: int

    @property
    def workers(self) -> list[int]:
        """Process ids, oldest first."""
        return children(self.supervisor)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.asynccontextmanager
async def node(
    *, hosts: tuple[str, ...] = ("127.0.0.1",), advertise: tuple[str, ...] = ("127.0.0.1",), workers: int = 1
) -> AsyncIterator[Node]:
    before = set(children(os.getpid()))
    async with relay_workers(Plan(hosts, 0, advertise, workers)) as paths:
        (supervisor,) = set(children(os.getpid())) - before
        relay = await RemoteRelay.open(paths)
        try:
            yield Node(relay, paths, supervisor)
        finally:
            await relay.close()


class Watch:
    """The newest report of each call, and waiting for one that fits."""

    def __init__(self, relay: RelayPort) -> None:
        self.newest: dict[str, Report] = {}
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._read(relay))

    async def _read(self, relay: RelayPort) -> None:
        async for report in relay.reports():
            async with self._changed:
                self.newest[report.call] = report
                self._changed.notify_all()

    async def until(self, fits: Callable[[Report], bool], call: str = "call", seconds: float = 10) -> Report:
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: call in self.newest and fits(self.newest[call]))
            return self.newest[call]

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


@contextlib.asynccontextmanager
async def watching(relay: RelayPort) -> AsyncIterator[Watch]:
    watch = Watch(relay)
    await asyncio.sleep(0)
    try:
        yield watch
    finally:
        await watch.stop()


def soon(**changes: object) -> CallConfig:
    return config(until=CLOCK.boot_ms() + 20_000, **changes)


@contextlib.asynccontextmanager
async def two_callers(
    relay: RelayPort, name: str = "call", bind: str = "127.0.0.1"
) -> AsyncIterator[tuple[UdpCaller, UdpCaller]]:
    """Both callers of a call, checking the relay's best candidate; they sit on `bind`."""
    best = relay.candidates(name)[0]
    callers = tuple(UdpCaller(Caller(*pair(f"{name}{leg}")), (best.address, best.port), bind) for leg in (0, 1))
    for caller in callers:
        await caller.open()
    try:
        yield callers  # type: ignore[misc]
    finally:
        for caller in callers:
            await caller.close()


async def connect(watch: Watch, call: str = "call") -> Report:
    return await watch.until(lambda report: report.legs[0].selected and report.legs[1].selected, call)


@contextlib.asynccontextmanager
async def talking(*callers: UdpCaller, interval: float = 0.01) -> AsyncIterator[None]:
    """Each sends a packet every `interval` seconds."""

    async def talk() -> None:
        while True:
            for caller in callers:
                caller.send(caller.caller.rtp())
            await asyncio.sleep(interval)

    task = asyncio.create_task(talk())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
