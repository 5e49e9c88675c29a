"""R14 through the whole product: a booking is charged once, its meetings are held or called off, and each settles."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.integration.conftest import Stand


def at(hours: float) -> dict[str, str]:
    return {"starts_at": (datetime.now(UTC) + timedelta(hours=hours)).isoformat()}


async def book(stand: Stand, card: str = "pm_card_visa", **changes: Any) -> dict[str, Any]:
    body = await stand.terms(card, minutes=15, **changes)
    return dict(await stand.post("/v1/bookings", body))


async def transfers_of(stand: Stand, session: str) -> list[int]:
    found = (await stand.sandbox())["transfers"]
    return [transfer["amount"] for transfer in found if transfer["metadata"]["session"] == session]


async def test_r14_a_booking_is_charged_once_and_each_meeting_pays_out_when_it_is_over(stand: Stand) -> None:
    booking = await book(stand, meetings=[at(0.05), at(48), at(3)])
    assert (booking["status"], booking["amount"]) == ("paid", 3 * 15 * 1500)
    (intent,) = await stand.intents(booking["id"])
    assert (intent["amount_received"], intent["status"]) == (67_500, "succeeded")
    now, soon, late = booking["meetings"]
    session = await stand.until(now["session"], status="ready")
    assert (session["kind"], session["payment"]["status"], session["payment"]["amount_captured"]) == (
        "booked", "captured", 22_500,
    )  # fmt: skip

    entries = {"participants": {role: {"url": now[f"{role}_url"]} for role in ("client", "expert")}}
    client, _ = await stand.pair(entries)
    await client.say("leave")
    held = await stand.settled(now["session"])
    assert (held["amount_total"], held["amount_refunded"], held["end_reason"]) == (22_500, 0, "client_left")
    assert await transfers_of(stand, now["session"]) == [20_250]

    path = f"/v1/bookings/{booking['id']}/cancel"
    shown = await stand.post(f"{path}?preview=true", {"by": "client"})
    assert [each["amount_refund"] for each in shown["refunds"]] == [11_250, 22_500]
    assert (await stand.get(f"/v1/sessions/{late['session']}"))["status"] == "ready"
    done = await stand.post(path, {"by": "client"})
    assert (done["amount_refund"], done["preview"]) == (33_750, False)
    for asked in ({"by": "expert", "meeting": 2}, {"by": "platform"}):
        again = await stand.post(path, asked)
        assert (again["amount_refund"], again["refunds"]) == (0, []), "called off before"
    half, all_ = await asyncio.gather(stand.settled(soon["session"]), stand.settled(late["session"]))
    assert (half["amount_total"], half["amount_refunded"], half["payment"]["status"]) == (
        11_250, 11_250, "partially_refunded",
    )  # fmt: skip
    assert (all_["amount_total"], all_["amount_refunded"], all_["payment"]["status"]) == (0, 22_500, "refunded")
    assert (await transfers_of(stand, soon["session"]), await transfers_of(stand, late["session"])) == ([10_125], [])
    after = await stand.get(f"/v1/bookings/{booking['id']}")
    assert (after["status"], after["amount_refunded"]) == ("over", 33_750)
    assert (after["payment"]["status"], after["payment"]["amount_refunded"]) == ("partially_refunded", 33_750)
    told = [event["type"] for event in (await stand.get("/v1/events?limit=100"))["data"]]
    assert told.count("booking.paid") == told.count("booking.canceled") == 1
    mails = await stand.mail_texts(soon["session"])
    assert "given back by the terms of the booking" in mails["client"].lower()
    assert "112.50 USD" in mails["client"]


async def test_r14_a_declined_booking_is_paid_with_another_card_and_charged_once(stand: Stand) -> None:
    booking = await book(stand, "pm_card_chargeDeclined", count=2)
    assert (booking["status"], booking["payment"]["status"], booking["payment"]["decline_code"]) == (
        "unpaid", "failed", "generic_decline",
    )  # fmt: skip
    again = await stand.post(f"/v1/bookings/{booking['id']}/payment", {"payment_method": "pm_card_visa"})
    assert (again["status"], again["payment"]["status"], again["amount"]) == ("paid", "captured", 45_000)
    assert sorted(intent["amount_received"] for intent in await stand.intents(booking["id"])) == [0, 45_000]
    status, problem = await stand.call("POST", f"/v1/bookings/{booking['id']}/payment", {"payment_method": "pm_x"})
    assert (status, problem["code"]) == (409, "payment_state")
    status, gone = await stand.call("DELETE", f"/v1/bookings/{booking['id']}")
    assert (status, gone["amount_refund"], gone["booking"]["status"]) == (200, 45_000, "canceled")
    for meeting in booking["meetings"]:
        assert (await stand.settled(meeting["session"]))["payment"]["status"] == "refunded"


async def test_r14_the_page_is_not_let_in_before_the_meeting_opens(stand: Stand) -> None:
    booking = await book(stand, meetings=[at(1)])
    entries = {"participants": {"client": {"url": booking["meetings"][0]["client_url"]}}}
    refused = await stand.caller(entries, "client").join()
    assert (refused["type"], refused["code"], refused["fatal"]) == ("error", "meeting_not_open", True)


async def test_r14_bookings_are_listed_newest_first_in_pages_and_by_whom_they_are(stand: Stand) -> None:
    first, other = await book(stand, count=1), await book(stand, "pm_card_chargeDeclined", count=1, reference="mine")
    client = (await stand.terms())["client"] | {"id": "c2"}
    last = await book(stand, count=1, client=client)
    page = await stand.get("/v1/bookings?limit=2")
    assert ([each["id"] for each in page["data"]], page["has_more"]) == ([last["id"], other["id"]], True)
    rest = await stand.get(f"/v1/bookings?limit=2&starting_after={other['id']}")
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == ([first["id"]], False)
    for query, wanted in (("client=c2", last), ("status=unpaid", other), ("reference=mine", other)):
        (found,) = (await stand.get(f"/v1/bookings?{query}"))["data"]
        assert found["id"] == wanted["id"]
    (shown,) = (await stand.get("/v1/bookings?client=c2"))["data"]
    assert shown["meetings"][0]["session"] == last["meetings"][0]["session"]
    listed = await stand.get("/v1/sessions?limit=100")
    assert {each["kind"] for each in listed["data"]} == {"booked"}, "sessions have a list of their own"
    status, problem = await stand.call("GET", "/v1/bookings?starting_after=bkg_0")
    assert (status, problem["code"]) == (404, "booking_not_found")
