"""What must be so after any fault, of a session or a booking: the ledger as it was sealed, one charge, each share once,
each mail once by its Message-ID, numbers and events without gaps, nothing told that is not so, Stripe of one mind."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Final

from gateway.billing_bridge.audit import reconciled
from gateway.billing_bridge.stripe_client import StripeClient
from gateway.meter.ledger import Ledger
from gateway.meter.replay import replay
from gateway.payees.routes import MAIN
from tests.faults.yard import STRIPE_KEY, Yard

ONCE: Final = ("session.created", "session.ended", "session.finalized", "payment.captured")


async def checked(yard: Yard, session: str, *, mailed_again: bool = False) -> dict[str, Any]:
    """A session that was talked, and paid by the second at 1.00; its record."""
    final = await yard.settled(session, 40)
    usage = await yard.get(f"/v1/sessions/{session}/usage")
    assert final["billable_seconds"] == usage["union_ms"] // 1000, "law 3"
    assert final["amount_total"] == 100 * final["billable_seconds"], "law 3"
    there = await yard.objects(session)
    taken = [i["amount_received"] for i in there["payment_intents"] if i["status"] == "succeeded"]
    assert taken == [final["amount_total"]], "law 5: charged once"
    assert {i["status"] for i in there["payment_intents"]} <= {"succeeded", "canceled"}
    await _each(yard, session, final, mailed_again=mailed_again)
    await _whole(yard, {session})
    return final


async def checked_booking(yard: Yard, booking: str, *, mailed_again: bool = False) -> list[dict[str, Any]]:
    """A booking whose meetings are all over; their records, in order."""
    found = await yard.get(f"/v1/bookings/{booking}")
    meetings = [await yard.settled(meeting["session"], 40) for meeting in found["meetings"]]
    there = await yard.objects(booking)
    taken = [i["amount_received"] for i in there["payment_intents"] if i["status"] == "succeeded"]
    assert taken == [found["amount"]], "law 5: one charge for all"
    for final in meetings:
        await _each(yard, final["id"], final, mailed_again=mailed_again)
    stay = sum(final["amount_total"] for final in meetings)
    given_back = [r["amount"] for f in meetings for r in (await yard.objects(f["id"]))["refunds"]]
    assert sum(given_back) == found["amount"] - stay, "law 5: each refund once"
    assert [event["type"] for event in await yard.journal.events(booking)].count("booking.paid") == 1
    await _arrived(yard, booking)
    await _whole(yard, {booking, *(final["id"] for final in meetings)})
    return meetings


async def told_and_agreed(yard: Yard, *streams: str) -> None:
    """All events of these were told and no others, and Stripe has nothing else of them."""
    for stream in streams:
        await _arrived(yard, stream)
    await _whole(yard, set(streams))


async def _each(yard: Yard, session: str, final: dict[str, Any], *, mailed_again: bool) -> None:
    again = await replay(yard.journal, Ledger(yard.redis, yard.journal.keys), session)
    assert again.frozen is not None
    assert (again.differences, again.broken) == ({}, []), "law 3: the chain over the ledger"
    parts = {to: final[f"amount_{to}"] for to in ("expert", "ambassador")}
    assert final["amount_total"] == sum(parts.values()) + final["amount_platform"], "law 6"
    transfers = (await yard.objects(session))["transfers"]
    gave = Counter(dict.fromkeys(parts, 0))
    for transfer in transfers:
        gave[transfer["metadata"]["step"].removeprefix("transfer_")] += transfer["amount"] - transfer["amount_reversed"]
    assert gave == parts, "law 6: each share, once"
    assert len(transfers) == len({transfer["destination"] for transfer in transfers}), "law 5: one transfer each"
    await _mailed(yard, session, mailed_again=mailed_again)
    events = await _arrived(yard, session)
    kinds = Counter(event["type"] for event in events)
    assert {once: kinds[once] for once in ONCE} == dict.fromkeys(ONCE, 1), "law 8"


async def _mailed(yard: Yard, session: str, *, mailed_again: bool) -> None:
    receipts = await yard.receipts(session)
    mails = Counter(str(mail["Message-ID"]) for mail in yard.sink.mails if session in str(mail["Message-ID"]))
    assert len(mails) == len(receipts), "one Message-ID for each receipt"
    assert {receipt["role"] for receipt in receipts} == {"client", "expert"}
    # A mailer that dies between the server's answer and its record sends it again, under the same Message-ID.
    assert mailed_again or max(mails.values()) == 1, mails
    texts = [str(mail) for mail in yard.sink.mails if session in str(mail["Message-ID"])]
    assert all(any(receipt["number"] in text for text in texts) for receipt in receipts)


async def _arrived(yard: Yard, stream: str) -> list[dict[str, Any]]:
    """Every event of the record was told, and nothing else was (law 8)."""
    async with asyncio.timeout(20):
        while True:
            events = await yard.journal.events(stream)
            told = {e["id"]: e["sequence"] for e in list(yard.received) if e["session"] == stream}
            if told.keys() >= {event["id"] for event in events}:
                break
            await asyncio.sleep(0.05)
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1)), "law 8: no gaps"
    assert told == {event["id"]: event["sequence"] for event in events}, "law 8: nothing else was told"
    return events


async def _whole(yard: Yard, mine: set[str]) -> None:
    """What spans sessions: Stripe, and the registers of receipts."""
    async with StripeClient(STRIPE_KEY, yard.stripe) as stripe:
        _, differences = await reconciled(yard.journal, {MAIN: stripe}, 0)
    named = [str(each) for each in differences if each.session in mine]
    assert named == [], named
    async for key in yard.redis.scan_iter("{receipts:*}:*", count=1000):
        rows = await yard.redis.hgetall(key)
        last = int(rows.pop(b"last"))
        series = key.decode().rpartition(":")[2]
        numbers = [f"{series}-{int(row.split(b':')[0]):06d}" for row in rows.values()]
        numbers += [number for number in yard.put_away if number.startswith(f"{series}-")]
        assert sorted(numbers) == [f"{series}-{n:06d}" for n in range(1, last + 1)], "numbers without gaps"
