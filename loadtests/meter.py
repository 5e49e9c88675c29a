"""What the meter costs: usage of many live sessions into one Valkey, by the node's own code.

`saturated`: session-seconds a second, everything on: the ledger's client on one core, the append-only file synced each
second. `cost`: CPU of node and Valkey for a session-second at the real pace, two flushes a second each. A flush of a
session is `flush_ms` of its time, so 20,000 sessions are 40,000 rows a second.

Valkey has a core of its own, as in production.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import redis.asyncio as aioredis
import uvloop
from redis.exceptions import RedisError

from gateway.dev.valkey import binary
from gateway.keys import Keys
from gateway.meter.ledger import Lease, Ledger, Write
from loadtests.bench import Bench
from loadtests.figures import Figure, Sample, paired
from loadtests.machine import Core, cpu_ns
from loadtests.peers.rig import MEASURED_CORE, OTHER_CORE

RATE: Final = "session-seconds flushed a second, 20,000 sessions"
FLAT: Final = "CPU for a session-second at 20,000 sessions, by that at 100"
PANELS: Final = ((RATE, "Session-seconds flushed a second by one core of a node into one Valkey"),)
ROUNDS: Final = 3
SIZES: Final = (100, 1_000, 5_000, 20_000)
FLUSH_MS: Final = 500
MUST_SESSION_SECONDS: Final = 20_000
# Flat, but for what larger tables cost in the processor's caches.
FLAT_MUST: Final = 1.15
PACED_S: Final = 4.0
SATURATED_S: Final = 4.0


@dataclass(frozen=True, slots=True)
class Server:
    """A Valkey of our own."""

    redis: aioredis.Redis
    url: str
    folder: str
    pid: int

    def cpu_s(self) -> float:
        return cpu_ns([self.pid]) / 1e9


@asynccontextmanager
async def server(core: int | None = None) -> AsyncIterator[Server]:
    """On a socket in a folder of its own, with the file synced each second as in production."""
    with tempfile.TemporaryDirectory() as folder:
        socket = f"{folder}/valkey.sock"
        options = {"port": "0", "unixsocket": socket, "dir": folder, "appendonly": "yes", "appendfsync": "everysec",
                   "save": "", "loglevel": "warning", "maxmemory-policy": "noeviction"}  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        process = subprocess.Popen([binary(), *words], stdout=subprocess.DEVNULL)
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        client = aioredis.Redis.from_url(f"unix://{socket}")
        try:
            for _ in range(200):
                with suppress(RedisError, OSError):
                    await client.ping()
                    break
                await asyncio.sleep(0.05)
            yield Server(client, f"unix://{socket}", folder, process.pid)
        finally:
            await client.aclose()
            process.terminate()
            process.wait(10)


class Calls:
    """`size` sessions that this node owns, each in one interval that grows."""

    def __init__(self, ledger: Ledger, leases: Sequence[Lease]) -> None:
        self._ledger, self._leases, self._sequence = ledger, leases, 0

    @classmethod
    async def begin(cls, redis: aioredis.Redis, size: int) -> Calls:
        ledger = Ledger(redis, Keys())
        leases = []
        for start in range(0, size, 50):
            ids = [f"ses_{number:026}" for number in range(start, min(size, start + 50))]
            leases += await asyncio.gather(*(ledger.acquire(session, "node") for session in ids))
        return cls(ledger, leases)

    async def flush(self) -> None:
        """Every session's row once, as the flusher does it."""
        self._sequence += 1
        end = int(time.time() * 1000) - 5
        answers = await self._ledger.write(
            [Write(lease, {1: (lease.acquired_at, end)}, self._sequence) for lease in self._leases]
        )
        refused = {answer.code for answer in answers} - {"ok"}
        assert not refused, refused


async def saturated(size: int) -> Sample:
    """Session-seconds a second with one flush after the other; beside it, how many a second of each side's CPU."""
    async with server(OTHER_CORE) as valkey:
        calls, rounds = await Calls.begin(valkey.redis, size), 0
        await calls.flush()
        core = Core.read(MEASURED_CORE)
        node, store, began = time.process_time(), valkey.cpu_s(), time.perf_counter()
        while (took := time.perf_counter() - began) < SATURATED_S:
            await calls.flush()
            rounds += 1
        seconds = size * rounds * FLUSH_MS / 1000
        node, store = time.process_time() - node, valkey.cpu_s() - store
        about = {"a_node_cpu_s": seconds / node, "a_valkey_cpu_s": seconds / store}
        return Sample(seconds / took, *shares(core, node), about)


async def paced(size: int) -> Sample:
    """CPU µs of node and Valkey for a session-second at the real pace."""
    async with server(OTHER_CORE) as valkey:
        calls, rounds, slowest = await Calls.begin(valkey.redis, size), 0, 0.0
        await calls.flush()
        core = Core.read(MEASURED_CORE)
        node, store, began = time.process_time(), valkey.cpu_s(), time.perf_counter()
        while time.perf_counter() - began < PACED_S:
            started = time.perf_counter()
            await calls.flush()
            took = time.perf_counter() - started
            rounds, slowest = rounds + 1, max(slowest, took)
            await asyncio.sleep(max(0.0, FLUSH_MS / 1000 - took))
        seconds = size * rounds * FLUSH_MS / 1000
        node, store = time.process_time() - node, valkey.cpu_s() - store
        about = {"node": node * 1e6 / seconds, "valkey": store * 1e6 / seconds, "slowest_flush_ms": slowest * 1000}
        return Sample((node + store) * 1e6 / seconds, *shares(core, node), about)


def shares(before: Core, own_s: float) -> tuple[float, float]:
    """Of the node's core since `before`: the hypervisor's part, and other processes'."""
    now = Core.read(MEASURED_CORE)
    return now.steal_share(before), now.foreign_share(before, int(own_s * 1e9))


def run(bench: Bench) -> list[Figure]:
    """Half a minute and more, whatever the rounds are."""
    rounds, largest = min(bench.rounds, ROUNDS), SIZES[-1]
    bench.plan(rounds * (1 + len(SIZES)))

    def measured(title: str, measure: Callable[[int], Coroutine[Any, Any, Sample]], size: int) -> Sample:
        bench.tell(f"meter: {title}, {size} sessions")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            sample = runner.run(measure(size))
        bench.done += 1
        return sample

    with on_core(MEASURED_CORE):
        rates = [measured("saturated", saturated, largest) for _ in range(rounds)]
        costs: dict[int, list[Sample]] = {size: [] for size in SIZES}
        for number in range(rounds):
            for size in SIZES if number % 2 == 0 else reversed(SIZES):
                costs[size].append(measured("at the real pace", paced, size))
    figures = [Figure("meter", RATE, "session-seconds/s", paired(rates), better="more", must=MUST_SESSION_SECONDS)]
    figures += [
        Figure("meter", f"CPU for a session-second, {size} sessions", "µs", paired(costs[size])) for size in SIZES
    ]
    flat = [Sample(most.value / least.value) for most, least in zip(costs[largest], costs[SIZES[0]], strict=True)]
    return [*figures, Figure("meter", FLAT, "times", paired(flat), must=FLAT_MUST)]


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """This process on that core meanwhile: it is the node that is measured."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
