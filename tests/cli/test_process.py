"""The process of a command, under signals."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_work_clean_up_and_ends_with_0(number: signal.Signals) -> None:
    program = (
        "import asyncio, sys\n"
        "from gateway.cli.process import run\n"
        "async def work():\n"
        "    print('working', flush=True)\n"
        "    try: await asyncio.sleep(30)\n"
        "    finally: print('cleaned', flush=True)\n"
        "sys.exit(run(work()))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(number)
        assert "cleaned" in process.stdout.read()
        assert process.wait(10) == 0
