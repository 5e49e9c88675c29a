"""The whole product in this process, on free ports, with timers short enough for a test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.dev.stack import DevOptions, Running, stack
from tests.conftest import free_port
from tests.integration.caller import Caller
from tests.market import Market

# A second costs 1.00, so that every second shows in the bill.
CONFIG = """
[session]
rate_max_minor = 6000
grace_seconds = 2
lone_seconds = 1
"""


@dataclass
class Stand(Market):
    """A running stack, an honest marketplace's client of it, and its callers."""

    running: Running
    callers: list[Caller]

    async def paid(self, **changes: Any) -> dict[str, Any]:
        """A session whose every second costs 1.00 USD."""
        return await self.order(**{"rate": {"unit_amount": 6000, "currency": "usd"}} | changes)

    def caller(self, session: dict[str, Any], role: str, **kind: bool) -> Caller:
        """A page on that side's link; `video` and `bound` as `Caller` takes them."""
        _, _, secret = session["participants"][role]["url"].partition("#")
        caller = Caller(self.http, self.url, secret, **kind)
        self.callers.append(caller)
        return caller

    async def pair(self, session: dict[str, Any], **kind: bool) -> tuple[Caller, Caller]:
        """Both joined, and in a live call."""
        client, expert = self.caller(session, "client", **kind), self.caller(session, "expert", **kind)
        for caller in (client, expert):
            assert (await caller.join())["type"] == "welcome"
        for caller in (client, expert):
            await caller.until("status", status="live")
        return client, expert

    async def intents(self, session: str) -> list[dict[str, Any]]:
        found = (await self.sandbox())["payment_intents"]
        return [intent for intent in found if intent["metadata"]["session"] == session]

    async def private(self, path: str, **body: Any) -> Any:
        """The sandbox's own door: what people and banks do."""
        async with self.http.post(f"{self.stripe}/sandbox/{path}", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def mail_texts(self, session: str) -> dict[str, str]:
        """What each side was sent, by role."""
        texts = {}
        for receipt in await self.receipts(session):
            mail = next(m for m in await self.mails() if receipt["number"] in str(m))
            async with self.http.get(f"{self.mail}/{mail['id']}") as answer:
                texts[receipt["role"]] = await answer.text()
        return texts


@dataclass
class Site:
    """A data directory and ports that several runs share."""

    options: DevOptions
    http: aiohttp.ClientSession
    callers: list[Caller] = field(default_factory=list)

    @asynccontextmanager
    async def run(self, config: str = "") -> AsyncIterator[Stand]:
        """Start the stack; what of `config` differs from the folder's own."""
        assert self.options.config is not None
        self.options.config.write_text(_merged(config))
        async with stack(self.options, lambda _: None) as running:
            url = f"http://127.0.0.1:{self.options.port}"
            yield Stand(
                url, running.keys.api_key, running.stripe_url, running.mail_url, self.http, running, self.callers
            )


def _merged(config: str) -> str:
    changed = {line.partition("=")[0].strip() for line in config.splitlines()}
    kept = [line for line in CONFIG.splitlines() if line.partition("=")[0].strip() not in changed]
    return "\n".join([*kept, config])


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    for name in [name for name in os.environ if name.startswith("GATEWAY_") or name == "REDIS_URL"]:
        monkeypatch.delenv(name)
    # aioice leaves the loopback address out, which is the only one a test may use.
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    options = DevOptions(
        port=free_port(), private_port=free_port(), media_port=free_port(),
        data=tmp_path / "data", config=tmp_path / "test.toml",
    )  # fmt: skip
    async with aiohttp.ClientSession() as http:
        site = Site(options, http)
        yield site
        for caller in site.callers:
            await caller.close()


@pytest.fixture
async def stand(site: Site) -> AsyncIterator[Stand]:
    async with site.run() as running:
        yield running
