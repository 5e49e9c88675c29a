"""Whole calls: from the order to two mails, two real pages, and a bill that is held against what the pages received."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Browser

from tests.e2e.cable import Cable
from tests.e2e.pages import DETOUR, Caller, truth_seconds
from tests.e2e.stack import Dev, dev

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

ROLES = ("client", "expert")


async def pair(
    browser: Browser, session: dict[str, Any], *, scripts: tuple[str, ...] = (), video: bool = True
) -> tuple[Caller, Caller]:
    """Both pages, joined and in picture (or sound); `scripts` go to the client's page."""
    client = await Caller.open(browser, session["participants"]["client"]["url"], scripts=scripts)
    expert = await Caller.open(browser, session["participants"]["expert"]["url"])
    for caller in (client, expert):
        await caller.join()
    for caller in (client, expert):
        await (caller.sees() if video else caller.hears())
    return client, expert


async def check_bill(gateway: Dev, session: dict[str, Any], truth: float | None, shown: str) -> dict[str, Any]:
    """The seconds against the truth, and every place that names money against every other."""
    final = await gateway.settled(session["id"])
    if truth is not None:
        assert abs(final["billable_seconds"] - truth) <= 1, (final["billable_seconds"], truth)
        assert final["billable_seconds"] <= truth + 0.25
    total = final["amount_total"]
    assert f"{total / 100:.2f}" in shown
    state = await gateway.sandbox()
    intents = [i for i in state["payment_intents"] if i["metadata"]["session"] == session["id"]]
    assert sum(i["amount_received"] for i in intents) == total == final["amount_captured"]
    transfers = [t for t in state["transfers"] if t["transfer_group"] == session["id"]]
    assert sum(t["amount"] for t in transfers) == final["amount_expert"] + final["amount_ambassador"]
    assert total == final["amount_expert"] + final["amount_platform"] + final["amount_ambassador"]
    await check_mails(gateway, session["id"], total)
    events = await gateway.events(session["id"])
    assert [e["sequence"] for e in events] == list(range(1, len(events) + 1))
    assert [e["type"] for e in events].count("session.finalized") == 1
    return final


async def check_mails(gateway: Dev, session: str, total: int) -> None:
    """R7: both got a mail, and both state the session's total."""
    for role, receipt in zip(ROLES, sorted(await gateway.receipts(session), key=lambda r: r["role"]), strict=True):
        assert receipt["role"] == role
        mine = [m for m in await gateway.mails() if f"{role}@example.com" in str(m) and receipt["number"] in str(m)]
        assert len(mine) == 1
        async with gateway.http.get(f"{gateway.mail}/{mine[0]['id']}") as answer:
            assert f"{total / 100:.2f}" in await answer.text()


async def plain(gateway: Dev, client: Caller, expert: Caller) -> None:
    await asyncio.sleep(7)


async def reloaded(gateway: Dev, client: Caller, expert: Caller) -> None:
    await asyncio.sleep(4)
    await expert.reload()
    await expert.sees()
    await client.sees()
    await asyncio.sleep(4)


async def muted(gateway: Dev, client: Caller, expert: Caller) -> None:
    for caller in (client, expert):
        await caller.click("mic")
        await caller.click("camera")
    await asyncio.sleep(9)


@pytest.mark.parametrize("course", [plain, reloaded, muted], ids=lambda f: f.__name__)
async def test_law3_billed_is_what_both_received(
    gateway: Dev, browser: Browser, course: Callable[[Dev, Caller, Caller], Awaitable[None]]
) -> None:
    session = await gateway.order(max_minutes=30)
    client, expert = await pair(browser, session)
    await course(gateway, client, expert)
    await client.click("hangup")
    shown = await client.summary()
    truth = await truth_seconds(client, expert)
    await check_bill(gateway, session, truth, shown)


async def test_r08_voice_only_with_a_switch_to_video(gateway: Dev, browser: Browser) -> None:
    session = await gateway.order(media="voice")
    client, expert = await pair(browser, session, video=False)
    assert await expert.page.evaluate("document.querySelector('[data-testid=remote-video]').videoWidth") == 0
    await asyncio.sleep(3)
    await client.click("camera")
    await expert.sees()
    await asyncio.sleep(3)
    await client.click("camera")
    await asyncio.sleep(1)
    await expert.click("hangup")
    shown = await client.summary()
    await check_bill(gateway, session, await truth_seconds(client, expert), shown)


async def test_law2_a_leg_cut_off_for_eight_seconds(gateway: Dev, browser: Browser) -> None:
    session = await gateway.order()
    cable = await Cable.lay(("127.0.0.1", gateway.media_port))
    client, expert = await pair(browser, session, scripts=(DETOUR % (gateway.media_port, cable.port),))
    await asyncio.sleep(4)
    cable.cut = True
    await asyncio.sleep(8)
    cable.cut = False
    await client.page.wait_for_timeout(6000)
    await client.click("hangup")
    shown = await client.summary()
    truth = await truth_seconds(client, expert)
    cable.close()
    await check_bill(gateway, session, truth, shown)


@pytest.fixture
async def hasty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Dev]:
    """A gateway whose cap comes after twelve seconds."""
    async with dev(tmp_path_factory.mktemp("dev"), config="[session]\ncap_seconds = 12\nwarnings = [6]\n") as running:
        yield running


async def test_r06_run_to_the_cap_warns_both_cuts_and_offers_to_continue(hasty: Dev, browser: Browser) -> None:
    gateway, session = hasty, await hasty.order()
    client, expert = await pair(browser, session)
    for caller in (client, expert):
        await caller.page.wait_for_selector(caller.id("warning") + ":visible", timeout=45_000)
    shown = await client.summary(45)
    await expert.summary()
    final = await check_bill(gateway, session, None, shown)
    assert (final["billable_seconds"], final["amount_total"]) == (12, 300)
    assert final["end_reason"] == "cap_reached"
    last = max((await client.changes())[-1], (await expert.changes())[-1])
    ended = next(e for e in await gateway.events(session["id"]) if e["type"] == "session.finalized")
    assert last <= ended["data"]["ended_at"] + 1000, "law 4: nothing is forwarded a second after the end"
    for caller in (client, expert):
        await caller.click("continue")
    for caller in (client, expert):
        await caller.page.wait_for_selector(caller.id("hangup") + ":visible", timeout=15_000)
        await caller.sees()
    following = (await gateway.get(f"/v1/sessions/{session['id']}"))["continued_by"]
    assert (await gateway.get(f"/v1/sessions/{following}"))["continues"] == session["id"]
    await client.click("hangup")
    await client.summary()


async def test_law1_the_certificate_that_each_side_sees_is_the_other_sides_own(gateway: Dev, browser: Browser) -> None:
    client, expert = await pair(browser, await gateway.order())
    ours, theirs = await client.certificates(), await expert.certificates()
    assert ours["remote"] == theirs["local"]
    assert theirs["remote"] == ours["local"]
    assert ours["local"] != theirs["local"]
    for caller in (client, expert):
        await caller.page.wait_for_function(
            "() => document.querySelector('[data-testid=sas]').textContent.trim().length > 8"
        )
    assert await client.text("sas") == await expert.text("sas")
    await client.click("hangup")


@pytest.mark.alone
async def test_the_first_picture_comes_at_once_after_the_second_join(
    gateway: Dev, browser: Browser, capsys: pytest.CaptureFixture[str]
) -> None:
    waits = []
    for _ in range(5):
        session = await gateway.order()
        client = await Caller.open(browser, session["participants"]["client"]["url"])
        expert = await Caller.open(browser, session["participants"]["expert"]["url"])
        await client.join()
        await client.page.wait_for_function("() => window.parley && window.parley.session")
        await expert.page.wait_for_selector(expert.id("join") + ":not([disabled])")
        await asyncio.sleep(1)  # the price is read before it is agreed to
        before = time.monotonic()
        await expert.join()
        await client.sees()
        await expert.sees()
        waits.append(time.monotonic() - before)
        await client.click("hangup")
        await client.summary()
        await client.context.close()
        await expert.context.close()
    # The target is half a second on a quiet machine; a test must not fail for its neighbours, so the bound is generous.
    with capsys.disabled():
        print(f"first picture after {statistics.median(waits):.3f} s, median of {[f'{w:.3f}' for w in waits]}")
    assert statistics.median(waits) <= 3, waits
