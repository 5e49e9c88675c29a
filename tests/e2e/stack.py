"""`gateway dev` as its users start it: a process of its own, reached by its ports alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.conftest import free_port
from tests.market import Market


@dataclass
class Dev(Market):
    """A running `gateway dev` and an honest marketplace's client of it."""

    process: asyncio.subprocess.Process
    data: Path
    private: str
    media_port: int

    async def kill(self) -> None:
        """`kill -9` of the whole process group."""
        os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()


@contextlib.asynccontextmanager
async def dev(
    data: Path, config: str = "", ports: tuple[int, int, int] | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Dev]:
    """Start on free ports of `host` and wait for `ready`."""
    port, private, media = ports or (free_port(), free_port(), free_port())
    arguments = ["--port", port, "--private-port", private, "--media-port", media, "--data", data, "--host", host]
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
                said["ready"], said["api key"], said["stripe"], said["mail"], http,
                process, data, f"http://{host}:{private}", media,
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
