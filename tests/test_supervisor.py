"""The supervisor: children die and come back, signals reach them, nobody is left behind, sockets stay."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import textwrap
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path

import pytest

from gateway.supervisor import Plan
from tests.conftest import free_port
from tests.sfu.workers import children

# Answers each connection on its inherited socket with its process id; ends well on SIGTERM, and tells of SIGHUP.
CONTROL = textwrap.dedent("""
    import os, signal, sys
    from gateway.supervisor import inherited
    found = inherited()
    listener = found.listener("public")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGHUP, lambda *_: print("hup", flush=True))
    print(os.getpid(), *found.relay, flush=True)
    while True:
        guest, _ = listener.accept()
        guest.sendall(str(os.getpid()).encode())
        guest.close()
""")


class Node:
    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process, self.port = process, port
        self.control = 0
        self.paths: list[str] = []

    async def hear(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(10):
            return (await self.process.stdout.readline()).decode().strip()

    async def meet(self) -> None:
        """The control process says that it is there."""
        pid, *self.paths = (await self.hear()).split()
        self.control = int(pid)

    async def ask(self) -> int:
        """Process id of whoever answers on the public port."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        return int(answer)

    @property
    def workers(self) -> set[int]:
        return set(children(self.process.pid)) - {self.control}


@contextlib.asynccontextmanager
async def supervised(control: str = CONTROL, workers: int = 2, prefix: tuple[str, ...] = ()) -> AsyncIterator[Node]:
    port = free_port()
    plan = Plan(
        ("127.0.0.1",), 0, ("127.0.0.1",), workers, (sys.executable, "-c", control), {"public": ("127.0.0.1", port)}
    )
    process = await asyncio.create_subprocess_exec(
        *prefix, sys.executable, "-m", "gateway.supervisor", json.dumps(asdict(plan)),
        stdout=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        yield Node(process, port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


@pytest.fixture
async def running() -> AsyncIterator[Node]:
    async with supervised() as node:
        await node.meet()
        yield node


async def gone(*pids: int) -> None:
    async with asyncio.timeout(5):
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            await asyncio.sleep(0.01)


async def test_a_control_process_that_dies_is_started_again_on_the_same_sockets(running: Node) -> None:
    first, workers = running.control, running.workers
    assert await running.ask() == first
    assert len(workers) == 2
    # A process that had not settled yet would not be started again: its fault would be there for good.
    await asyncio.sleep(5.2)
    os.kill(first, signal.SIGKILL)
    await running.meet()
    assert running.control != first
    assert await running.ask() == running.control
    assert running.workers == workers
    assert not Path(f"/proc/{first}").exists()


async def test_workers_that_die_are_replaced_and_the_others_stay(running: Node) -> None:
    before = running.workers
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    await gone(victim)
    async with asyncio.timeout(5):
        while len(running.workers) < 2:
            await asyncio.sleep(0.01)
    assert before - {victim} < running.workers
    assert await running.ask() == running.control


async def test_sigterm_lets_control_leave_first_and_takes_everybody_along(running: Node) -> None:
    workers = running.workers
    folder = Path(running.paths[0]).parent
    running.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        assert await running.process.wait() == 0
    await gone(running.control, *workers)
    assert not folder.exists()


async def test_other_signals_are_passed_on(running: Node) -> None:
    running.process.send_signal(signal.SIGHUP)
    assert await running.hear() == "hup"


async def test_workers_do_not_outlive_a_supervisor_that_is_killed(running: Node) -> None:
    workers = running.workers
    running.process.kill()
    await gone(*workers)
    os.kill(running.control, signal.SIGKILL)


async def test_a_control_process_that_cannot_start_ends_the_node_with_its_code() -> None:
    async with supervised("raise SystemExit(78)") as node:
        async with asyncio.timeout(10):
            assert await node.process.wait() == 78


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("unshare") is None, reason="needs a PID namespace")
async def test_as_process_one_it_reaps_whatever_is_left_behind() -> None:
    # The control process's grandchild ends after its own parent, so it falls to process 1.
    leaving = CONTROL.replace(
        "while True:",
        "if os.fork() == 0:\n    os.fork() or __import__('time').sleep(0.2)\n    os._exit(0)\nos.wait()\nwhile True:",
        1,
    )
    async with supervised(leaving, workers=1, prefix=("unshare", "--pid", "--fork", "--kill-child")) as node:
        await node.meet()
        assert await node.ask() == node.control
        await asyncio.sleep(0.5)
        (first,) = children(node.process.pid)
        states = [Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0] for child in children(first)]
        assert len(states) == 2
        assert "Z" not in states
        os.kill(first, signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await node.process.wait() == 0


async def test_a_taken_port_ends_the_start() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        plan = Plan(("127.0.0.1",), taken.getsockname()[1], ("127.0.0.1",), 1, (sys.executable, "-c", CONTROL))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway.supervisor", json.dumps(asdict(plan)),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, told = await process.communicate()
        assert process.returncode == 1
        assert b"media port" in told
