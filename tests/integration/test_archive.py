"""A paid call's whole life: out of Redis when all is done, read where it is, back for a refund, and right at Stripe."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.billing_bridge.archiver import Archiver, ArchiverSettings
from gateway.billing_bridge.audit import reconciled
from gateway.billing_bridge.stripe_client import StripeClient
from gateway.cli.money import ledger_differences
from gateway.meter.ledger import Ledger
from gateway.payees.routes import MAIN
from tests.integration.conftest import Stand
from tests.settled import traces


async def archived(stand: Stand, session: str) -> None:
    """As soon as mails and webhooks are through."""
    gateway = stand.running.gateway
    assert gateway.archive is not None
    archiver = Archiver(gateway.journal, gateway.archive, ArchiverSettings(quiet_ms=0), gateway.clock)
    async with asyncio.timeout(10):
        while (await archiver.archive([session]))[session] is not None:
            await asyncio.sleep(0.05)
    assert await gateway.archive.find(session) is not None


async def test_a_paid_call_is_archived_read_refunded_and_archived_again(stand: Stand) -> None:
    ordered = await stand.paid()
    session, path = ordered["id"], f"/v1/sessions/{ordered['id']}"
    client, _ = await stand.pair(ordered)
    await client.hears(80)
    await client.say("leave")
    await stand.settled(session)
    await stand.receipts(session)

    async def seen() -> list[Any]:
        return [await stand.get(f"{path}{part}") for part in ("", "/usage", "/events", "/receipts")]

    await archived(stand, session)
    journal = stand.running.gateway.journal
    # What outlives a session in Redis: the expert's earnings, and that its mails were written (ids, for ninety days).
    assert {key for key in await traces(journal, session) if ":earned:" not in key} <= {"receipts:written"}
    before = await seen()
    await stand.post(f"{path}/refunds", {"reason": "kind", "amount": 60})
    refunded = await stand.until(session, settled=True)
    assert (refunded["payment"]["status"], refunded["amount_refunded"]) == ("partially_refunded", 60)
    await archived(stand, session)
    after = await seen()
    assert after[2]["data"][: len(before[2]["data"])] == before[2]["data"]
    assert after[0]["amount_refunded"] == 60
    async with StripeClient(stand.running.keys.stripe_api_key, stand.stripe) as stripe:
        ledger, later = Ledger(journal.redis, journal.keys, archive=journal.archive), 1 << 62
        assert await reconciled(
            journal, {MAIN: stripe}, 0, later, lambda record: ledger_differences(journal, ledger, record)
        ) == (1, [])
