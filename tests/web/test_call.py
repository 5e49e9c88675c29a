"""Two pages in one call: media both ways, verification, controls, the end."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import Page, expect

from tests.web.conftest import Visit
from tests.web.room import Room

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def join(page: Page) -> None:
    await page.get_by_test_id("join").click()


async def call(visit: Visit, **options: object) -> tuple[Page, Page]:
    """Client and expert, connected."""
    client, expert = await asyncio.gather(visit("client", **options), visit("expert", **options))
    await asyncio.gather(join(client), join(expert))
    await asyncio.gather(*(expect(page.get_by_test_id("status")).to_have_text("Connected") for page in (client, expert)))
    return client, expert


async def test_r08_two_pages_see_and_hear_each_other(visit: Visit) -> None:
    pages = await call(visit)
    for page in pages:
        await page.wait_for_function("document.querySelector('[data-testid=remote-video]').videoWidth > 0")
        await page.wait_for_function(
            """async () => [...(await parley.peerConnection.getStats()).values()]
               .some((row) => row.type === "inbound-rtp" && row.kind === "audio" && row.packetsReceived > 10)"""
        )
