"""`gateway dev` as its users start it: a process of its own, reached by its ports alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.conftest import free_port


@dataclass
class Dev:
    """A running `gateway dev` and an honest marketplace's client of it."""

    process: asyncio.subprocess.Process
    data: Path
    url: str
    key: str
    stripe: str
    mail: str
    private: str
    media_port: int
    http: aiohttp.ClientSession
    arguments: list[str] = field(default_factory=list)

    async def call(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {key or self.key}", "Idempotency-Key": secrets.token_hex(8)}
        async with self.http.request(method, self.url + path, json=body, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def get(self, path: str) -> Any:
        status, body = await self.call("GET", path)
        assert status == 200, body
        return body

    async def customer(self) -> str:
        """As a marketplace makes one: at Stripe, with its own key."""
        headers = {"Authorization": "Bearer sk_test_marketplace"}
        async with self.http.post(self.stripe + "/v1/customers", data={"name": "C"}, headers=headers) as answer:
            return str((await answer.json())["id"])

    async def order(self, card: str = "pm_card_visa", **changes: Any) -> dict[str, Any]:
        """A session at 15.00 USD a minute, so that a few seconds are worth charging."""
        body = {
            "reference": f"order-{secrets.token_hex(4)}",
            "client": {
                "id": "c1", "name": "Client", "email": "client@example.com", "locale": "en",
                "stripe_customer": await self.customer(), "payment_method": card,
            },
            "expert": {
                "id": "e1", "name": "Expert", "email": "expert@example.com", "locale": "en",
                "stripe_account": "acct_demo", "country": "US", "rating": 4.6,
            },
            "rate": {"unit_amount": 1500, "currency": "usd"},
        } | changes  # fmt: skip
        status, session = await self.call("POST", "/v1/sessions", body)
        assert status == 201, session
        return dict(session)

    async def settled(self, session: str, seconds: float = 20) -> dict[str, Any]:
        """The session once no money step is open and both mails are out."""
        async with asyncio.timeout(seconds):
            while True:
                found = await self.get(f"/v1/sessions/{session}")
                if found["settled"] and all(
                    receipt["mail"]["status"] == "sent"
                    for receipt in (await self.receipts(session)) or [{"mail": {"status": ""}}]
                ):
                    return dict(found)
                await asyncio.sleep(0.1)

    async def receipts(self, session: str) -> list[dict[str, Any]]:
        return list((await self.get(f"/v1/sessions/{session}/receipts"))["data"])

    async def mails(self) -> list[dict[str, Any]]:
        async with self.http.get(self.mail + ".json") as answer:
            body = await answer.json()
            return list(body["data"] if isinstance(body, dict) else body)

    async def sandbox(self) -> dict[str, Any]:
        async with self.http.get(self.stripe + "/sandbox/state") as answer:
            return dict(await answer.json())

    async def events(self, session: str) -> list[dict[str, Any]]:
        return list((await self.get(f"/v1/sessions/{session}/events"))["data"])

    async def kill(self) -> None:
        """`kill -9` of the whole process group."""
        os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()


@contextlib.asynccontextmanager
async def dev(data: Path, config: str = "", ports: tuple[int, int, int] | None = None) -> AsyncIterator[Dev]:
    """Start on free ports and wait for `ready`."""
    port, private, media = ports or (free_port(), free_port(), free_port())
    arguments = ["--port", port, "--private-port", private, "--media-port", media, "--data", data]
    data.mkdir(parents=True, exist_ok=True)
    if config:
        (data / "test.toml").write_text(config)
        arguments += ["--config", data / "test.toml"]
    log = (data / "stderr.log").open("ab")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "dev", *map(str, arguments),
        stdout=asyncio.subprocess.PIPE, stderr=log, start_new_session=True,
    )  # fmt: skip
    said = await _said(process)
    async with aiohttp.ClientSession() as http:
        try:
            yield Dev(
                process, data, said["ready"], said["api key"], said["stripe"], said["mail"],
                f"http://127.0.0.1:{private}", media, http,
            )  # fmt: skip
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(15):
                    await process.wait()
            log.close()


async def _said(process: asyncio.subprocess.Process) -> dict[str, str]:
    said: dict[str, str] = {}
    assert process.stdout is not None
    async with asyncio.timeout(30):
        while "ready" not in said:
            line = (await process.stdout.readline()).decode().strip()
            assert line, "gateway dev ended before it was ready"
            name, _, value = line.rpartition(" ")
            said[name] = value
    return said
