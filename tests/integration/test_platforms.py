"""R17: an expert whom the first platform account does not reach, paid by a second one of the expert's own region."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.integration.conftest import Site, Stand

KEY = "sk_test_australia"
AUSTRALIA = f"""
[stripe.platforms.au]
api_key = "{KEY}"
webhook_secret = "whsec_australia0000000000000000"
country = "AU"
"""
EXPERT = {
    "id": "e_au", "name": "Expert", "email": "expert@example.com", "locale": "en", "stripe_account": "acct_demo_au",
    "country": "AU", "rating": 4.6,
}  # fmt: skip


async def australian(stand: Stand) -> dict[str, Any]:
    """The body of an order: card and customer are the second platform account's."""
    client = {
        "id": "c1", "name": "Client", "email": "client@example.com", "locale": "en",
        "stripe_customer": await stand.customer(KEY), "payment_method": "pm_card_visa",
    }  # fmt: skip
    return await stand.terms(client=client, expert=EXPERT, rate={"unit_amount": 6000, "currency": "usd"})


async def test_r17_without_a_platform_account_of_its_region_an_expert_is_refused_before_a_card(stand: Stand) -> None:
    asked = await stand.get("/v1/experts/e_au/payability?country=AU&stripe_account=acct_demo_au&rating=4.6")
    assert (asked["payable"], asked["eligible"], asked["route"], asked["reason"], asked["code"]) == (
        False, True, "unsupported", "no_platform_in_region", "expert_not_payable",
    )  # fmt: skip
    status, problem = await stand.call("POST", "/v1/sessions", await stand.terms(expert=EXPERT))
    assert (status, problem["code"], problem["reason"]) == (400, "expert_not_payable", "no_platform_in_region")
    assert (await stand.sandbox())["payment_intents"] == []


async def test_r17_an_australian_expert_is_paid_by_a_second_platform_account(site: Site) -> None:
    async with site.run(AUSTRALIA) as stand:
        asked = await stand.get("/v1/experts/e_au/payability?country=AU&stripe_account=acct_demo_au")
        assert (asked["payable"], asked["route"], asked["platform"], asked["settlement_currency"]) == (
            True, "platform_account", "au", "aud",
        )  # fmt: skip
        session = await stand.order(**await australian(stand))
        assert (session["platform"], session["payment"]["status"]) == ("au", "held")
        client, expert = await stand.pair(session)
        await asyncio.gather(client.hears(70), expert.hears(70))
        await client.say("leave")
        final = await stand.settled(session["id"])
        there, here = await stand.sandbox(KEY), await stand.sandbox()
        assert (here["payment_intents"], here["transfers"]) == ([], []), "the first account has nothing of it"
        [transfer] = there["transfers"]
        [charge] = there["charges"]
        assert charge["amount_captured"] == final["amount_total"] > 0
        assert (transfer["destination"], transfer["currency"]) == ("acct_demo_au", "aud")
        assert final["transfers"][0]["stripe_id"] == transfer["id"]
        assert final["transfers"][0]["amount_share"] == final["amount_expert"]
        earned = await stand.get("/v1/experts/e_au/earnings")
        assert [(row["session"], row["amount"]) for row in earned["data"]] == [(session["id"], transfer["amount"])]
        assert (earned["totals"][0]["currency"], earned["totals"][0]["paid"]) == ("aud", transfer["amount"])
        refund = await stand.post(f"/v1/sessions/{session['id']}/refunds", {"reason": "all of it"})
        assert refund["status"] == "succeeded"
        back = await stand.until(session["id"], settled=True, amount_refunded=final["amount_total"])
        assert back["transfers"][0]["status"] == "reversed"
        assert (await stand.sandbox(KEY))["transfers"][0]["amount_reversed"] == transfer["amount"]


async def test_r17_events_of_the_second_platform_account_are_heard(site: Site) -> None:
    async with site.run(AUSTRALIA) as stand:
        path = "/v1/experts/e_au/payability?country=AU&stripe_account=acct_demo_au"
        assert (await stand.get(path))["payable"]
        headers = {"Authorization": f"Bearer {KEY}"}
        url = f"{stand.stripe}/sandbox/accounts/acct_demo_au"
        async with stand.http.post(url, json={"restricted": True}, headers=headers) as answer:
            assert answer.status == 200
        async with asyncio.timeout(5):
            while (await stand.get(path))["payable"]:
                await asyncio.sleep(0.05)
        events = (await stand.get("/v1/events?limit=100"))["data"]
        assert [event["data"]["transfers"] for event in events if event["type"] == "account.updated"][-1] == "inactive"
