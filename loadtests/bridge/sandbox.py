"""`python -m loadtests.bridge.sandbox LATENCY_MS`: Stripe's sandbox in a process of its own; prints its URL, and ends
with its standard input."""

from __future__ import annotations

import asyncio
import json
import logging
import sys

import structlog
import uvloop

from gateway.dev.sandbox import Sandbox, SandboxConfig


async def main(latency_ms: int) -> None:
    sandbox = Sandbox(SandboxConfig(latency_ms=latency_ms))
    await sandbox.start()
    print(json.dumps({"url": sandbox.url}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await sandbox.stop()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1])))
