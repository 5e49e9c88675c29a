"""`python -m tests.faults.sandbox PORT FOLDER`: Stripe's sandbox as a process that can be killed and started again."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from gateway.dev.sandbox import Sandbox, SandboxConfig


async def main(port: int, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    await Sandbox(SandboxConfig(port=port, data_dir=folder)).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
