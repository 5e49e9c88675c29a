"""The cards of a returning client, from the page's wish to Stripe's answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from gateway.billing_bridge.wallets import Wallets
from gateway.changes import Changes
from gateway.kept_cards import KEPT_S, KEY, KeptCard
from gateway.sessions.wallet import Wallet
from tests.billing_bridge.fixtures import Till


@dataclass
class Page:
    till: Till
    wallet: Wallet

    async def last4(self, session: str) -> list[str]:
        return [card.last4 for card in await self.wallet.cards(session)]


@pytest.fixture
async def page(till: Till) -> AsyncIterator[Page]:
    changes = Changes(till.journal)
    tasks = [
        asyncio.create_task(Wallets(till.journal, till.bridge.platforms, till.clock).run()),
        asyncio.create_task(changes.run()),
    ]
    await asyncio.sleep(0.05)  # both have subscribed: what follows is no matter of polling
    yield Page(till, Wallet(till.journal, changes))
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks)


async def test_r04_a_returning_client_finds_the_card_of_the_last_time_and_nobody_elses(page: Page) -> None:
    till = page.till
    first = await till.open("ses_1", card="pm_card_mastercard")
    await till.settle("ses_1")
    await till.open("ses_2", card="pm_card_amex")
    await till.settle("ses_2")
    await till.open("ses_3", card="pm_card_chargeDeclined", client=first["client"])
    await till.settle("ses_3")
    assert await page.last4("ses_3") == ["4444"], "law 7: ses_2 is another customer's; what was declined is not kept"
    (card,) = await page.wallet.cards("ses_3")
    assert isinstance(card, KeptCard)
    assert 0 < await till.journal.redis.ttl(till.journal.keys.of("ses_3", KEY)) <= KEPT_S


async def test_a_client_without_a_customer_or_with_a_lost_one_has_no_cards(page: Page) -> None:
    for ident, customer in (("ses_1", None), ("ses_2", "cus_gone")):
        await page.till.open(ident, client={"id": "c1", "stripe_customer": customer})
        assert await page.last4(ident) == []
        assert await page.till.journal.redis.get(page.till.journal.keys.of(ident, KEY)) == b"[]", "known, not unknown"


async def test_while_stripe_is_away_the_page_has_the_form_alone(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.sessions.wallet.WAIT_S", 0.2)
    session = await page.till.open("ses_1", card="pm_card_visa")
    await page.till.settle("ses_1")
    await page.till.ask.fault("GET /v1/customers/*", "500", times=1)
    assert await page.last4("ses_1") == []
    async with asyncio.timeout(5):
        while await page.last4("ses_1") != ["4242"]:
            await asyncio.sleep(0.02)
    assert session["client"]["stripe_customer"]
