"""A Valkey, Stripe's sandbox, a mail server and receivers, each in a process of its own, and bridges that an operator
would start: `gateway bridge --config FILE`. The bridges have the measured core; everything else shares another."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import redis.asyncio as aioredis

from gateway.journal import Journal
from loadtests.machine import Core, cpu_ns
from loadtests.meter import server
from loadtests.peers.rig import MEASURED_CORE, OTHER_CORE
from loadtests.processes import FIRST, Child

LATENCY_MS: Final = 20
SECRET: Final = "whsec_" + "A" * 43 + "="
BUSY: Final = 0.9
"""Share of its time above which the sandbox, and not the bridge, may be what limits."""


@dataclass
class Stage:
    folder: Path
    redis: aioredis.Redis
    redis_url: str
    stripe_url: str
    ports: dict[str, int]
    sandbox: Child
    ends: Child

    @property
    def journal(self) -> Journal:
        return Journal(self.redis)

    @contextmanager
    def bridges(self, count: int, *, within_limits: bool = False, dead: bool = False) -> Iterator[list[Child]]:
        """So many bridges; `within_limits`: those of Stripe's live mode; `dead`: a dead receiver beside the fast."""
        config = self.folder / "bridge.toml"
        config.write_text(self._config((100, 25) if within_limits else (0, 0), ["fast"] + ["dead"] * dead))
        with contextlib.ExitStack() as stack:
            command = [sys.executable, "-m", "gateway", "bridge", "--config", str(config)]
            yield [stack.enter_context(Child(command, MEASURED_CORE)) for _ in range(count)]

    def _config(self, limits: tuple[int, int], receivers: list[str]) -> str:
        endpoints = "".join(
            f'[[webhooks.endpoints]]\nurl = "http://127.0.0.1:{self.ports[name]}/"\nsecret = "{SECRET}"\n'
            for name in receivers
        )
        return f"""
[server]
private_port = 0
[media]
advertise = ["127.0.0.1"]
[redis]
url = "{self.redis_url}"
[stripe]
api_key = "sk_test_bench"
api_base = "{self.stripe_url}"
webhook_secret = "whsec_bench000000000000000000000"
sole_gateway = true
requests_per_second = {limits[0]}
requests_per_endpoint = {limits[1]}
[mail]
port = {self.ports["mail"]}
starttls = false
[secrets]
signing_key = "{"k" * 32}"
[log]
level = "warning"
[webhooks]
allow_private = true
{endpoints}"""

    def arrived(self) -> dict[str, Any]:
        """What arrived since the last time: events and mails, as `ends` tells them."""
        return self.ends.ask()

    async def limits(self, per_second: int, per_endpoint: int) -> None:
        """Those that the sandbox enforces; 0 is none."""
        body = {"per_second": per_second, "per_endpoint": per_endpoint}
        async with aiohttp.ClientSession() as http, http.post(f"{self.stripe_url}/sandbox/limits", json=body) as answer:
            answer.raise_for_status()


@dataclass
class Watch:
    """What bridges and sandbox used since it was made."""

    bridges: list[Child]
    sandbox: Child

    def __post_init__(self) -> None:
        self._core = Core.read(MEASURED_CORE)
        self._other = Core.read(OTHER_CORE)
        self._used, self._sandbox = self._now()

    def _now(self) -> tuple[int, int]:
        return cpu_ns(child.pid for child in self.bridges), cpu_ns([self.sandbox.pid])

    def shares(self) -> tuple[float, float, float, float]:
        """Seconds of CPU of the bridges, then shares: the sandbox's of a core, steal, foreign."""
        used, sandbox = self._now()
        used, sandbox = used - self._used, sandbox - self._sandbox
        took = Core.read(MEASURED_CORE).at - self._core.at
        core = Core.read(MEASURED_CORE)
        return used / 1e9, sandbox / took, core.steal_share(self._core), core.foreign_share(self._core, used)


async def at_rest(bridges: list[Child]) -> None:
    """Until they have started: each uses less than a tenth of a core, or half a minute has passed."""
    pids = [child.pid for child in bridges]
    async with asyncio.timeout(30):
        await asyncio.sleep(1)
        while True:
            before = cpu_ns(pids)
            await asyncio.sleep(0.5)
            if cpu_ns(pids) - before < 0.05e9 * len(pids):
                return


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """All but the bridges."""
    async with server(OTHER_CORE) as valkey:
        with (
            Child.module("loadtests.bridge.sandbox", OTHER_CORE, str(LATENCY_MS), nice=FIRST) as sandbox,
            Child.module("loadtests.bridge.ends", OTHER_CORE, nice=FIRST) as ends,
        ):
            url, ports = json.loads(sandbox.read())["url"], json.loads(ends.read())
            yield Stage(Path(valkey.folder), valkey.redis, valkey.url, url, ports, sandbox, ends)
