"""`python -m tests.meter.fleet URL NODES SESSIONS`: nodes that meter, forked so that each can be killed by its id.

Each owns some sessions and hands their usage over as the relay reports it, every 250 ms at a phase of its own, to a
real flusher over a real ledger. Their pids are printed, one a line; a session's id names its node's pid.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys

from redis.asyncio import Redis

from gateway.clock import SystemClock
from gateway.keys import Keys
from gateway.meter.flusher import Flusher
from gateway.meter.ledger import Ledger

REPORT_S = 0.25  # 6-media


async def _talk(flusher: Flusher, ledger: Ledger, session: str) -> None:
    clock, lease = SystemClock(), await ledger.acquire(session, f"n{os.getpid()}")
    tab, began = flusher.open(lease), clock.boot_ms()
    await asyncio.sleep(random.uniform(0, REPORT_S))
    while True:
        now = clock.boot_ms()
        tab.put({1: (lease.acquired_at, lease.acquired_at + now - began)}, now)
        await asyncio.sleep(REPORT_S)


async def _node(url: str, sessions: int) -> None:
    redis = Redis.from_url(url)
    ledger = Ledger(redis, Keys(4))
    flusher = Flusher(ledger, SystemClock())
    await asyncio.sleep(random.uniform(0, 0.5))
    talks = (_talk(flusher, ledger, f"ses_{os.getpid()}x{number}") for number in range(sessions))
    await asyncio.gather(flusher.run(), *talks)


def main(url: str, nodes: int, sessions: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel takes the dead away
    pids = []
    for _ in range(nodes):
        if (pid := os.fork()) == 0:
            try:
                asyncio.run(_node(url, sessions))
            finally:
                os._exit(1)
        pids.append(pid)
    print(*pids, sep="\n", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
