"""`python -m tests.faults.nursery`: everything imported once, and a process forked for each line of orders.

A fork is as real a process as one that was executed, with its own session and its own end; only the second and a half
that Python needs to import everything is saved, which is most of what a restart costs. Orders are JSON lines
{"argv", "environ", "log"}; each is answered by the pid. The nursery's children go with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from gateway.app import serve
from gateway.cli import main
from gateway.cli.process import run
from gateway.settings import Settings
from tests.faults import sandbox


def _become(order: dict[str, Any]) -> None:
    """The child's whole life."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ.update(order["environ"])
    code = 1
    try:
        match order["argv"]:
            case ["sandbox", *words]:
                asyncio.run(sandbox.main(*words))
            case ["node", config]:  # with relay workers of its own; `gateway serve` would execute Python twice more
                code = run(serve(Settings.load(Path(config)), with_bridge=False))
            case words:
                code = main(words)
    finally:
        os._exit(code)


def _serve() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel takes the dead away
    children = []
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _become(json.loads(line))
        children.append(pid)
        print(pid, flush=True)
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    _serve()
