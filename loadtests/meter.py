"""What the meter costs: usage of many live sessions into one Valkey, by the node's own code.

`saturated`: session-seconds a second, everything on: the ledger's client on one core, the append-only file synced each
second. `cost`: CPU of node and Valkey for a session-second at the real pace, two flushes a second each. A flush of a
session is `flush_ms` of its time, so 20,000 sessions are 40,000 rows a second.

`python -m loadtests.meter` prints the rows; `measure()` returns them.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis.asyncio as aioredis
import uvloop
from redis.exceptions import RedisError

from gateway.dev.valkey import binary
from gateway.keys import Keys
from gateway.meter.ledger import Lease, Ledger, Write

SIZES: Final = (100, 1_000, 5_000, 20_000)
FLUSH_MS: Final = 500
MUST_SESSION_SECONDS: Final = 20_000
PACED_S: Final = 4.0
SATURATED_S: Final = 4.0
TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Server:
    """A Valkey of our own."""

    redis: aioredis.Redis
    pid: int

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


@asynccontextmanager
async def server() -> AsyncIterator[Server]:
    """On a socket in a folder of its own, with the file synced each second as in production."""
    with tempfile.TemporaryDirectory() as folder:
        socket = f"{folder}/valkey.sock"
        options = {"port": "0", "unixsocket": socket, "dir": folder, "appendonly": "yes", "appendfsync": "everysec",
                   "save": "", "loglevel": "warning", "maxmemory-policy": "noeviction"}  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        process = subprocess.Popen([binary(), *words], stdout=subprocess.DEVNULL)
        client = aioredis.Redis.from_url(f"unix://{socket}")
        try:
            for _ in range(200):
                with suppress(RedisError, OSError):
                    await client.ping()
                    break
                await asyncio.sleep(0.05)
            yield Server(client, process.pid)
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


async def saturated(size: int) -> dict[str, float]:
    """Session-seconds with one flush after the other: a second of the clock, and a second of each side's CPU (which is
    what a core would do that nobody else uses)."""
    async with server() as valkey:
        calls, rounds = await Calls.begin(valkey.redis, size), 0
        await calls.flush()
        node, store, began = time.process_time(), valkey.cpu_s(), time.perf_counter()
        while (took := time.perf_counter() - began) < SATURATED_S:
            await calls.flush()
            rounds += 1
        seconds = size * rounds * FLUSH_MS / 1000
        node, store = time.process_time() - node, valkey.cpu_s() - store
        return {"clock": seconds / took, "node": seconds / node, "valkey": seconds / store}


async def paced(size: int) -> dict[str, float]:
    """CPU µs of node and Valkey for a session-second, and how long a flush of all took, at the real pace."""
    async with server() as valkey:
        calls, rounds, slowest = await Calls.begin(valkey.redis, size), 0, 0.0
        await calls.flush()
        node, store, began = time.process_time(), valkey.cpu_s(), time.perf_counter()
        while time.perf_counter() - began < PACED_S:
            started = time.perf_counter()
            await calls.flush()
            took = time.perf_counter() - started
            rounds, slowest = rounds + 1, max(slowest, took)
            await asyncio.sleep(max(0.0, FLUSH_MS / 1000 - took))
        seconds = size * rounds * FLUSH_MS / 1000
        node, store = time.process_time() - node, valkey.cpu_s() - store
        return {"node": node * 1e6 / seconds, "valkey": store * 1e6 / seconds, "flush": slowest * 1000}


async def _measure(sizes: Sequence[int]) -> list[dict[str, Any]]:
    largest = sizes[-1]
    rate = await saturated(largest)
    rows: list[dict[str, Any]] = [
        {
            "figure": f"meter flush, {largest} sessions",
            "unit": "session-seconds/s",
            "ours": round(rate["clock"]),
            "per_node_cpu_s": round(rate["node"]),
            "per_valkey_cpu_s": round(rate["valkey"]),
            "must": MUST_SESSION_SECONDS,
            "better": "more",
        }
    ]
    costs: dict[int, float] = {}
    for size in sizes:
        found = await paced(size)
        costs[size] = found["node"] + found["valkey"]
        rows.append(
            {"figure": f"cost of a session-second, {size} sessions", "unit": "µs CPU", "ours": round(costs[size], 1),
             "node": round(found["node"], 1), "valkey": round(found["valkey"], 1),
             "slowest_flush_ms": round(found["flush"], 1), "better": "less"}
        )  # fmt: skip
    flat = costs[largest] / costs[sizes[0]]
    rows.append(
        {"figure": f"cost at {largest} sessions by cost at {sizes[0]}", "unit": "ratio", "ours": round(flat, 2),
         "must": 1.0, "better": "less"}
    )  # fmt: skip
    return rows


def measure(sizes: Sequence[int] = SIZES) -> list[dict[str, Any]]:
    """Rows {figure, unit, ours, must?, better, …}; takes about half a minute, two processes, one core each."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(sizes))


def main() -> None:
    for row in measure():
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
