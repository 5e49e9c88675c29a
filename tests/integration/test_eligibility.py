"""R16 through the whole product: an expert whom Stripe restricts after the order is not paid by a card held later."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.integration.conftest import Stand


async def restrict(stand: Stand, restricted: bool) -> None:
    """Stripe changes its mind of the expert's account, and its event is heard."""
    await stand.private("accounts/acct_demo", restricted=restricted)
    path = "/v1/experts/e1/payability?country=US&stripe_account=acct_demo"
    async with asyncio.timeout(10):
        while (await stand.get(path))["payable"] is restricted:
            await asyncio.sleep(0.05)


async def joining(stand: Stand, session: dict[str, Any]) -> dict[str, Any]:
    return dict(await stand.caller(session, "client").join(consent=True))


async def test_r16_a_hold_at_the_join_is_not_taken_for_an_expert_who_may_not_be_paid_by_then(stand: Stand) -> None:
    kept = await stand.paid(hold="join")
    free = await stand.paid(hold="join", if_not_eligible="free")
    await restrict(stand, True)
    refused = await joining(stand, kept)
    assert (refused["type"], refused["code"], refused["fatal"]) == ("error", "expert_not_payable", True)
    expert = stand.caller(free, "expert")
    assert (await expert.join())["pricing"]["unit_amount"] == 6_000
    welcome = await joining(stand, free)
    told = await expert.until("status", pricing=...)
    assert told["pricing"]["unit_amount"] == 0, "no price changes silently"
    assert (welcome["type"], welcome["pricing"]["unit_amount"], welcome["status"]) == ("welcome", 0, "ready")
    await stand.until(free["id"], kind="free", limit_seconds=900, status="ready")
    async with asyncio.timeout(5):
        while (await stand.get(f"/v1/sessions/{free['id']}"))["payment"]["status"] != "none":
            await asyncio.sleep(0.05)
    assert "session.made_free" in [event["type"] for event in await stand.events(free["id"])]
    for session in (kept, free):
        assert await stand.intents(session["id"]) == []
    assert (await stand.get(f"/v1/sessions/{kept['id']}"))["payment"]["status"] == "awaiting_join"
    await restrict(stand, False)
    assert (await joining(stand, kept))["type"] == "welcome"
    held = await stand.until(kept["id"], status="ready")
    assert held["payment"]["amount_held"] == 180_000
