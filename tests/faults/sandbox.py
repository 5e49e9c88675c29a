"""Stripe's sandbox as a process that can be killed and started again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.dev.sandbox import Sandbox, SandboxConfig

SECRET = "whsec_" + "0" * 24


async def main(port: str, folder: str, events_to: str) -> None:
    """Until the end of the process."""
    Path(folder).mkdir(exist_ok=True)
    config = SandboxConfig(port=int(port), data_dir=Path(folder), webhook_url=events_to, webhook_secret=SECRET)
    await Sandbox(config).start()
    await asyncio.Event().wait()
