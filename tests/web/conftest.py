"""One Chromium for all of the page's tests, and a fresh room with fresh browser contexts for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.web.room import Room

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
]

# A machine that runs other tests beside these starves a browser for seconds.
PATIENCE_MS = 15_000
expect.set_options(timeout=PATIENCE_MS)

Visit = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(loop_scope="session")
async def room() -> AsyncIterator[Room]:
    async with Room().serving() as serving:
        yield serving


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser, room: Room) -> AsyncIterator[Visit]:
    """`await visit(role)` opens that role's link in a context of its own; `script` runs before the page's own."""
    contexts = []
    faults: list[str] = []

    async def open_page(role: str, *, script: str | None = None, path: str | None = None, **options: Any) -> Page:
        # No service may hold the policy back: a violation of it is an error of the test.
        context = await browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        if script:
            await context.add_init_script(script)
        page = await context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None)
        await page.goto(path or room.link(role))
        return page

    yield open_page
    for context in contexts:
        await context.close()
    assert faults == []
