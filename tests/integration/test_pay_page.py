"""The pay page: a bill whose hold was lost, from the mail to the money, and another card before the call."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from gateway.journal import NOW
from tests.integration.conftest import Stand
from tests.receipts.receipt_cases import bill, session

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"payment_method": "4242424242424242", "attempt": 1}, "card_number_refused"),
    ({"payment_method": "card_1", "attempt": 1}, "invalid_field"),
    ({"payment_method": "pm_card_visa"}, "missing_field"),
    ({"payment_method": "pm_card_visa", "attempt": 20}, "too_many_cards"),
]


async def lost(stand: Stand) -> str:
    """A session of 75.00 that is over, and whose hold is gone."""
    made = await stand.order(rate={"unit_amount": 300, "currency": "usd"}, free_minutes=5)
    (intent,) = await stand.intents(made["id"])
    await stand.private(f"payment_intents/{intent['id']}/expire")
    journal = stand.running.gateway.journal
    doc = (await journal.read(made["id"], "session"))["session"]
    assert doc is not None
    over = {name: session()[name] for name in ("status", "started_at", "ended_at")} | {"bill": bill()}
    put = {"session": (doc.version, doc.body | over)}
    await journal.commit(made["id"], put, due={"money": NOW, "mail": NOW, "watch": None})
    return str(made["id"])


async def mailed(stand: Stand, words: str) -> str:
    """The text of the mail whose subject begins so, once it is there."""
    async with asyncio.timeout(10):
        while True:
            for mail in await stand.mails():
                if words in mail["subject"]:
                    return str(mail["text"])
            await asyncio.sleep(0.05)


class Page:
    """What the pay page's script does."""

    def __init__(self, stand: Stand, link: str) -> None:
        self._http = stand.http
        self.origin, _, self.secret = link.partition("/pay#")

    async def post(self, path: str, **body: Any) -> tuple[int, Any]:
        async with self._http.post(f"{self.origin}/pay/{path}", json={"token": self.secret, **body}) as answer:
            return answer.status, await answer.json(content_type=None)

    async def open(self) -> Any:
        status, shown = await self.post("open")
        assert status == 200, shown
        return shown

    async def pay(self, method: str) -> Any:
        status, shown = await self.post("card", payment_method=method, attempt=(await self.open())["attempt"])
        assert status == 200, shown
        return shown

    async def until(self, state: str) -> Any:
        async with asyncio.timeout(10):
            while (shown := await self.open())["state"] != state:
                await asyncio.sleep(0.05)
        return shown


async def due_page(stand: Stand) -> Page:
    text = await mailed(stand, "Payment due: 75.00 USD")
    found = re.search(r"http://\S+/pay#\S+", text)
    assert found is not None
    return Page(stand, found[0])


async def test_a_due_bill_is_paid_from_the_mail_after_a_decline_and_a_confirmation(stand: Stand) -> None:
    ident = await lost(stand)
    page = await due_page(stand)
    assert page.origin != stand.url
    asked = (await stand.until(ident, status="finalized"))["payment"]
    assert (await Page(stand, asked["pay_url"]).open())["amount"] == 7_500
    assert page.secret not in str(await stand.events(ident))
    shown = await page.open()
    assert (shown["state"], shown["amount"], shown["expert"]) == ("due", 7_500, "Expert")
    await page.pay("pm_card_chargeDeclined")
    assert (await page.until("due"))["decline_code"] == "generic_decline"
    shown = await page.pay("pm_card_authenticationRequired")
    assert shown["state"] == "confirm"
    async with stand.http.post(shown["action_url"], data={"verdict": "approve"}, allow_redirects=False) as answer:
        assert answer.headers["Location"].startswith(f"{page.origin}/pay?session=")
    shown = await page.until("paid")
    assert shown["card"]["last4"] == "3184"
    assert "/r/" in shown["receipt"]
    assert "75.00" in await mailed(stand, "Payment received")
    final = await stand.settled(ident)
    assert (final["amount_captured"], final["payment"]["status"]) == (7_500, "captured")


async def test_law5_a_card_sent_twice_is_charged_once(stand: Stand) -> None:
    ident = await lost(stand)
    page = await due_page(stand)
    attempt = (await page.open())["attempt"]
    answers = await asyncio.gather(
        *(page.post("card", payment_method="pm_card_visa", attempt=attempt) for _ in range(5))
    )
    assert {status for status, _ in answers} <= {200, 409}
    await page.until("paid")
    final = await stand.settled(ident)
    assert (final["payment"]["attempt"], final["amount_captured"]) == (attempt + 1, 7_500)
    taken = [one["amount_received"] for one in await stand.intents(ident)]
    assert sum(taken) == 7_500
    status, refused = await page.post("card", payment_method="pm_card_visa", attempt=attempt + 1)
    assert (status, refused["code"]) == (409, "payment_state")


async def test_r04_before_the_call_another_card_is_held_from_the_link_of_the_lobby(stand: Stand) -> None:
    made = await stand.paid(card="pm_card_chargeDeclined")
    entered = await stand.caller(made, "client").enter()
    assert (await stand.caller(made, "expert").enter())["pay_url"] is None
    page = Page(stand, made["payment"]["pay_url"])
    assert entered["pay_url"] == made["payment"]["pay_url"], "the same for who reads it twice"
    shown = await page.open()
    assert (shown["state"], shown["asks"], shown["amount"]) == ("hold", "hold", 180_000)
    assert (await page.pay("pm_card_mastercard"))["state"] == "held"
    await stand.until(made["id"], status="ready")
    assert (await stand.caller(made, "client").enter())["pay_url"] is None
    assert (await stand.get(f"/v1/sessions/{made['id']}"))["payment"]["pay_url"] is None


async def test_r04_a_returning_client_pays_by_a_card_of_the_last_time_and_by_nobody_elses(stand: Stand) -> None:
    first, strange = await stand.paid(card="pm_card_visa"), await stand.paid(card="pm_card_amex")
    client = (await stand.terms())["client"] | {"stripe_customer": first["client"]["stripe_customer"]}
    made = await stand.paid(client=client | {"payment_method": "pm_card_chargeDeclined"})
    page = Page(stand, made["payment"]["pay_url"])
    (card,) = (await page.open())["cards"]
    assert (card["brand"], card["last4"]) == ("visa", "4242")
    url = f"{stand.stripe}/v1/customers/{strange['client']['stripe_customer']}/payment_methods"
    async with stand.http.get(url, headers={"Authorization": "Bearer sk_test_marketplace"}) as answer:
        (theirs,) = (await answer.json())["data"]
    shown = await page.pay(theirs["id"])
    assert (shown["state"], shown["decline_code"]) == ("hold", "resource_missing")
    assert not any(one["amount_capturable"] for one in await stand.intents(made["id"])), "law 7: not with their card"
    shown = await page.pay(card["id"])
    assert (shown["state"], shown["card"]["last4"], shown["cards"]) == ("held", "4242", [])
    held = await stand.until(made["id"], status="ready")
    assert (held["payment"]["attempt"], held["payment"]["amount_held"]) == (3, 180_000)


async def test_r14_a_declined_booking_is_paid_on_its_own_page_after_the_bank_was_asked(stand: Stand) -> None:
    terms = await stand.terms("pm_card_chargeDeclined", minutes=15, count=2)
    booking = await stand.post("/v1/bookings", terms)
    page = Page(stand, booking["payment"]["pay_url"])
    shown = await page.open()
    assert (shown["state"], shown["asks"], shown["amount"], shown["meetings"]) == ("due", "booking", 45_000, [None] * 2)
    lobby = {"participants": {role: {"url": booking["meetings"][0][f"{role}_url"]} for role in ("client", "expert")}}
    entered = await stand.caller(lobby, "client").enter()
    assert (entered["payment"]["status"], entered["payment"]["decline_code"]) == ("failed", "generic_decline")
    assert (await Page(stand, entered["pay_url"]).open())["asks"] == "booking"
    assert (await stand.caller(lobby, "expert").enter())["pay_url"] is None
    shown = await page.pay("pm_card_authenticationRequired")
    assert shown["state"] == "confirm"
    refused = await page.post("card", payment_method="pm_card_visa", attempt=1)
    assert refused[1]["state"] == "confirm", "the attempt that the page shows was used: none is made"
    async with stand.http.post(shown["action_url"], data={"verdict": "approve"}, allow_redirects=False) as answer:
        assert answer.headers["Location"].startswith(f"{page.origin}/pay?session={booking['id']}")
    await page.until("paid")
    after = await stand.get(f"/v1/bookings/{booking['id']}")
    assert (after["status"], after["payment"]["pay_url"], after["payment"]["attempt"]) == ("paid", None, 2)
    assert sorted(one["amount_received"] for one in await stand.intents(booking["id"])) == [0, 45_000]
    for meeting in booking["meetings"]:
        await stand.until(meeting["session"], status="ready")


async def test_what_the_page_would_not_send_is_refused(stand: Stand) -> None:
    made = await stand.paid(card="pm_card_chargeDeclined")
    page = Page(stand, (await stand.caller(made, "client").enter())["pay_url"])
    for body, code in REFUSED:
        assert (await page.post("card", **body))[1]["code"] == code
    _, _, page.secret = made["participants"]["client"]["url"].partition("#")
    assert (await page.post("open"))[1]["code"] == "link_invalid", "law 7: the call's secret opens no pay page"
