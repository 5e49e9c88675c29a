"""Chromium and Debian's Firefox, each in a network of its own, driven by Playwright."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import Browser, Playwright, async_playwright

from tests.conftest import free_port
from tests.e2e.namespaces import Network
from tests.e2e.pages import CHROMIUM, FLAGS, Caller
from tests.e2e.stack import Dev, dev

ROLES = ("client", "expert")
FIREFOX = shutil.which("firefox-esr")
WITH_FIREFOX = pytest.mark.skipif(FIREFOX is None, reason="Debian's firefox-esr is not installed")
PREFS: dict[str, str | float | bool] = {
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
}
UNKNOWN = ("emulation.setMediaFeaturesOverride",)
"""What Playwright wants of every page and this Firefox cannot do: dark or light is all the same to a call."""

Engine = Callable[[Playwright, str, Network, Path], AbstractAsyncContextManager[Browser]]
"""Started with the gateway's URL, which it takes for a secure origin, as a real one is by its certificate."""


@asynccontextmanager
async def chromium(playwright: Playwright, url: str, where: Network, folder: Path) -> AsyncIterator[Browser]:
    flags = [*FLAGS, f"--unsafely-treat-insecure-origin-as-secure={url}"]
    browser = await playwright.chromium.launch(executable_path=where.program(folder, CHROMIUM), args=flags)
    try:
        yield browser
    finally:
        await browser.close()


@asynccontextmanager
async def firefox(playwright: Playwright, url: str, where: Network, folder: Path) -> AsyncIterator[Browser]:
    port, prefs = free_port(), {**PREFS, "dom.securecontext.allowlist": urlsplit(url).hostname or ""}
    # Of two equal options Firefox obeys the first; Playwright's own is any port.
    program = where.program(folder, f"{FIREFOX} --remote-debugging-port={port}")
    async with remote(where, port):
        browser = await playwright.firefox.launch(
            channel="moz-firefox", executable_path=program, firefox_user_prefs=prefs
        )
        try:
            yield browser
        finally:
            where.kill()  # Left to itself, it takes five seconds.
            await browser.close()


@asynccontextmanager
async def callers(
    folder: Path, networks: list[Network], engines: tuple[Engine, Engine] = (chromium, chromium), **order: Any
) -> AsyncIterator[tuple[Dev, dict[str, Any], list[Caller]]]:
    """A gateway at the first network's end, and a page in one session's lobby from each network."""
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(dev(folder / "dev", host=networks[0].gateway))
        session = await gateway.order(**order)
        playwright = await stack.enter_async_context(async_playwright())
        found = []
        for role, engine, where in zip(ROLES, engines, networks, strict=True):
            browser = await stack.enter_async_context(engine(playwright, gateway.url, where, folder))
            found.append(await Caller.open(browser, session["participants"][role]["url"]))
        yield gateway, session, found


@asynccontextmanager
async def remote(where: Network, port: int) -> AsyncIterator[None]:
    """Carries WebDriver BiDi between Playwright here and a Firefox that listens on its own network's loopback."""

    async def carry(request: web.Request) -> web.WebSocketResponse:
        here = web.WebSocketResponse(max_msg_size=0)
        await here.prepare(request)
        connector = aiohttp.TCPConnector(socket_factory=lambda _: where.socket())
        async with aiohttp.ClientSession(connector=connector) as http:
            async with http.ws_connect(f"http://127.0.0.1:{port}{request.path}", max_msg_size=0) as there:
                back = asyncio.create_task(_answers(there, here))
                async for message in here:
                    await _command(message.data, there, here)
                back.cancel()
        return here

    app = web.Application()
    app.router.add_get("/{path:.*}", carry)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield
    finally:
        await runner.cleanup()


async def _command(text: str, there: aiohttp.ClientWebSocketResponse, here: web.WebSocketResponse) -> None:
    command = json.loads(text)
    if command["method"] in UNKNOWN:
        await here.send_json({"type": "success", "id": command["id"], "result": {}})
    else:
        await there.send_str(text)


async def _answers(there: aiohttp.ClientWebSocketResponse, here: web.WebSocketResponse) -> None:
    async for message in there:
        await here.send_str(message.data)
    await here.close()
