"""The embedded Valkey: durable, alone on its directory, and never left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from redis.asyncio import Redis

from gateway.dev.valkey import SOCKET_PATH_BYTES, EmbeddedValkey, ValkeyFailed

PARENT = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from gateway.dev.valkey import EmbeddedValkey

    async def main():
        valkey = EmbeddedValkey(Path(sys.argv[1]))
        await valkey.start()
        print(valkey.pid, flush=True)
        await asyncio.sleep(60)

    asyncio.run(main())
""")


def parent_of_a_valkey(data_dir: Path) -> tuple[subprocess.Popen[bytes], int]:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(data_dir)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


def running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while running(pid):
            await asyncio.sleep(0.01)


async def test_what_was_written_is_there_after_a_clean_stop(tmp_path: Path) -> None:
    for expected in (None, "1"):
        async with EmbeddedValkey(tmp_path) as valkey, Redis.from_url(valkey.url, decode_responses=True) as redis:
            assert await redis.get("key") == expected
            await redis.set("key", "1")


async def test_waitaof_confirms_a_write_on_disk(tmp_path: Path) -> None:
    async with EmbeddedValkey(tmp_path) as valkey, Redis.from_url(valkey.url) as redis:
        await redis.set("key", "1")
        assert await redis.execute_command("WAITAOF", 1, 0, 2000) == [1, 0]


async def test_nothing_is_evicted_and_nothing_listens_on_the_network(tmp_path: Path) -> None:
    async with EmbeddedValkey(tmp_path) as valkey, Redis.from_url(valkey.url, decode_responses=True) as redis:
        settings = await redis.config_get("*")
        assert settings["maxmemory-policy"] == "noeviction"
        assert settings["port"] == "0"
        assert settings["save"] == ""
        assert valkey.socket.stat().st_mode & 0o077 == 0


async def test_kill_9_of_the_parent_takes_the_valkey_along_and_loses_no_confirmed_write(tmp_path: Path) -> None:
    parent, pid = await asyncio.to_thread(parent_of_a_valkey, tmp_path)
    try:
        async with Redis.from_url(EmbeddedValkey(tmp_path).url) as redis:
            await redis.set("key", "1")
            assert await redis.execute_command("WAITAOF", 1, 0, 2000) == [1, 0]
    finally:
        parent.kill()
        await asyncio.to_thread(parent.communicate)
    async with EmbeddedValkey(tmp_path) as valkey, Redis.from_url(valkey.url, decode_responses=True) as redis:
        assert not running(pid)
        assert await redis.get("key") == "1"


async def test_a_second_start_waits_for_the_first_one_to_go(tmp_path: Path) -> None:
    first = EmbeddedValkey(tmp_path)
    await first.start()
    second = EmbeddedValkey(tmp_path)
    starting = asyncio.create_task(second.start())
    await asyncio.sleep(0.2)
    assert not starting.done()
    await first.stop()
    await starting
    async with Redis.from_url(second.url) as redis:
        assert await redis.ping()
    await second.stop()


async def test_a_directory_in_use_is_refused_with_the_process_that_uses_it(tmp_path: Path) -> None:
    async with EmbeddedValkey(tmp_path) as first:
        with pytest.raises(ValkeyFailed, match=f"in use.*process {first.pid}"):
            await EmbeddedValkey(tmp_path, lock_seconds=0.1).start()
        async with Redis.from_url(first.url) as redis:
            assert await redis.ping()


async def test_a_torn_last_write_is_cut_off(tmp_path: Path) -> None:
    async with EmbeddedValkey(tmp_path) as valkey, Redis.from_url(valkey.url) as redis:
        await redis.set("whole", "1")
    (log,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    with log.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$4\r\ntor")
    async with EmbeddedValkey(tmp_path) as valkey, Redis.from_url(valkey.url, decode_responses=True) as redis:
        assert await redis.keys() == ["whole"]


async def test_it_comes_back_on_the_same_socket_after_it_died(tmp_path: Path) -> None:
    async with EmbeddedValkey(tmp_path) as valkey:
        async with Redis.from_url(valkey.url) as redis:
            await redis.set("key", "1")
            await redis.execute_command("WAITAOF", 1, 0, 2000)
        first = valkey.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until_gone(first)
        async with asyncio.timeout(10):
            while valkey.pid == first or not valkey.socket.exists():
                await asyncio.sleep(0.01)
        async with Redis.from_url(valkey.url, decode_responses=True) as redis:
            assert await redis.get("key") == "1"


async def test_a_file_that_is_not_ours_is_an_error_with_the_last_words_of_the_log(tmp_path: Path) -> None:
    async with EmbeddedValkey(tmp_path):
        pass
    (manifest,) = (tmp_path / "appendonlydir").glob("*.manifest")
    manifest.write_text("nonsense\n")
    with pytest.raises(ValkeyFailed, match=r"did not start.*valkey\.log"):
        await EmbeddedValkey(tmp_path).start()


async def test_a_long_path_gets_a_private_socket_elsewhere(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    async with EmbeddedValkey(deep) as valkey, Redis.from_url(valkey.url) as redis:
        assert len(os.fsencode(valkey.socket)) <= SOCKET_PATH_BYTES
        assert valkey.socket.parent.stat().st_mode & 0o077 == 0
        assert await redis.ping()
    valkey.socket.parent.rmdir()
