"""6-media: a process's crash loses at most a second of usage, whenever it comes; measured over many instants."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest
from redis.asyncio import Redis

from gateway.keys import Keys
from gateway.meter.ledger import Ledger
from tests.meter.life import Valkey

NODES, SESSIONS = 24, 4


@pytest.mark.alone
@pytest.mark.timeout(60)
async def test_law3_a_killed_node_loses_at_most_a_second_whenever_it_is_killed(
    tmp_path: Path,
) -> None:
    (tmp_path / "valkey").mkdir()
    valkey = Valkey(tmp_path / "valkey")
    await valkey.start()
    fleet = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.meter.fleet", valkey.url, str(NODES), str(SESSIONS),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert fleet.stdout is not None
    assert fleet.stdin is not None
    try:
        pids = [int(await fleet.stdout.readline()) for _ in range(NODES)]
        sessions = {pid: [f"ses_{pid}x{number}" for number in range(SESSIONS)] for pid in pids}
        async with Redis.from_url(valkey.url) as redis:
            ledger = Ledger(redis, Keys(4))
            for session in chain(*sessions.values()):
                while not (await ledger.usage(session)).rows:
                    await asyncio.sleep(0.05)
        killed = {}
        for pid in pids:
            await asyncio.sleep(random.uniform(0, 0.1))
            killed[pid] = time.time() * 1000
            os.kill(pid, signal.SIGKILL)
        async with Redis.from_url(valkey.url) as redis:
            ledger = Ledger(redis, Keys(4))
            lost = [
                killed[pid] - (await ledger.usage(session)).rows[-1].end for pid in pids for session in sessions[pid]
            ]
    finally:
        fleet.stdin.close()
        await fleet.wait()
        await valkey.kill()
    lost.sort()
    print(f"lost by a crash, of {len(lost)}: median {lost[len(lost) // 2]:.0f} ms, most {lost[-1]:.0f} ms")
    assert lost[-1] <= 1_000
    assert lost[0] >= 0, "nothing is billed that was not talked"
