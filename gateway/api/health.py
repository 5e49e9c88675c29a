"""The private listener: metrics and probes. Nothing of it is served to the public.

`/livez` says that the process turns; `/readyz` that it should be given work, and if not, what is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog
from aiohttp import web
from prometheus_client.aiohttp import make_aiohttp_handler

log = structlog.get_logger(__name__)

# A check passes by returning (whatever it returns but False) and fails by False or any exception.
Check = Callable[[], Awaitable[object]]
# Longer, and the probe's own time-out (1 s is Kubernetes' default) hides which check it was.
CHECK_S: Final = 0.8


def private_app(checks: Mapping[str, Check], *, check_s: float = CHECK_S) -> web.Application:
    """`checks`: name → coroutine function, all run on each `/readyz`, each for at most `check_s` seconds."""
    app = web.Application()

    async def livez(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def readyz(_: web.Request) -> web.Response:
        outcomes = await asyncio.gather(*(_passes(name, check, check_s) for name, check in checks.items()))
        failing = [name for name, passed in zip(checks, outcomes, strict=True) if not passed]
        status = "not_ready" if failing else "ready"
        return web.json_response({"status": status, "failing": failing}, status=503 if failing else 200)

    app.router.add_get("/metrics", make_aiohttp_handler())
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    return app


async def _passes(name: str, check: Check, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await check() is not False
    except Exception as error:
        # The kind only: a connection's error text carries its address.
        log.warning("not_ready", check=name, error=type(error).__name__)
        return False
