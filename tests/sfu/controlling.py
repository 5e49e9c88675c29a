"""A control process to be stopped and killed: configures one call, extends it, says so, and goes on until it dies.

`python -m tests.sfu.controlling CONTROL_SOCKET LIMIT_MS`
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from gateway.sfu.remote import RemoteRelay
from tests.sfu.workers import soon


async def main(path: str, limit_ms: int) -> None:
    relay = await RemoteRelay.open([Path(path)])
    while True:
        await relay.configure(soon(limit_ms=limit_ms, tag="7:1:2:owner"))
        print("configured", flush=True)
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
