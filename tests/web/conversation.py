"""What two people do on the call page, in one line each."""

from __future__ import annotations

import asyncio
from typing import Any

from playwright.async_api import Page, expect

from tests.web.conftest import Visit


async def connected(*pages: Page) -> None:
    await asyncio.gather(*(expect(page.get_by_test_id("status")).to_have_text("Connected") for page in pages))


async def join(*pages: Page) -> None:
    await asyncio.gather(*(page.get_by_test_id("join").click() for page in pages))


async def call(visit: Visit, **options: Any) -> tuple[Page, Page]:
    """Client and expert, connected."""
    client, expert = await asyncio.gather(visit("client", **options), visit("expert", **options))
    await join(client, expert)
    await connected(client, expert)
    return client, expert


async def picture(page: Page) -> None:
    """Waits until the remote picture moves."""
    await holds(page, "document.querySelector('[data-testid=remote-video]').videoWidth > 0")
    before = await received(page, "video")
    await holds(page, f"({RECEIVED})('video').then((packets) => packets > {before})")


async def holds(page: Page, expression: str, seconds: float = 15) -> None:
    """Waits for something in the page. (Playwright's own wait needs `eval`, which the page's policy forbids.)"""
    async with asyncio.timeout(seconds):
        while not await page.evaluate(expression):
            await asyncio.sleep(0.05)


RECEIVED = """async (kind) => [...(await parley.peerConnection.getStats()).values()]
  .filter((row) => row.type === "inbound-rtp" && row.kind === kind)
  .reduce((sum, row) => sum + row.packetsReceived, 0)"""


async def received(page: Page, kind: str) -> int:
    return int(await page.evaluate(RECEIVED, kind))


async def signs(page: Page) -> list[str]:
    """The four signs of the verification, once they are there."""
    await holds(page, "parley.sas.state === 'ready'")
    return list(await page.evaluate("parley.sas.symbols.map(({ name }) => name)"))


async def until(condition: Any, seconds: float = 15) -> None:
    """Waits for something in the test's own server."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)
