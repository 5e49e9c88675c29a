"""`kill -9` around what is made of a settled session: its refund, its mails and events, its way into the archive, and
the end of what is kept of a person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from tests.faults.checks import checked_booking, told_and_agreed
from tests.faults.test_bookings_killed import FEE, book, cancel, step
from tests.faults.yard import Point, Yard

pytestmark = pytest.mark.asyncio(loop_scope="package")

ORDERED: Final = r'\\"charge_to\\":'
NUMBERED: Final = r"\{receipts:"
ON_DISK: Final = "gateway:on-disk"
TAKEN_OUT: Final = '"deliveries":'
FORGOTTEN: Final = r"HDEL.*\{receipts:"
REWRITTEN: Final = r'"bodies":\['


def soon() -> str:
    return (datetime.now(UTC) + timedelta(hours=3)).isoformat()


async def settled(yard: Yard) -> dict[str, Any]:
    """A meeting that was called off too late for half of its fee; nobody needs to talk for it."""
    booking = await book(yard, 3)
    await cancel(yard, booking["id"])
    (final,) = await checked_booking(yard, booking["id"])
    return final


async def test_law5_a_refund_is_made_once_though_node_and_bridge_die_over_it(running: Yard) -> None:
    final = await settled(running)
    path, body = f"/v1/sessions/{final['id']}/refunds", {"amount": 1_000, "reason": "requested"}
    points: tuple[Point, ...] = (
        ("node", ORDERED, "before"),
        ("node", ORDERED, "after"),
        ("bridge", step("reversal_expert"), "after"),
    )
    await running.killed_at(points, running.insist("POST", path, body))
    after = await running.until(final["id"], 30, settled=True, amount_refunded=FEE // 2 + 1_000)
    refunds = (await running.objects(final["id"]))["refunds"]
    assert sorted(refund["amount"] for refund in refunds) == [1_000, FEE // 2]
    assert after["payment"]["amount_refunded"] == FEE // 2 + 1_000
    await told_and_agreed(running, final["id"])


@pytest.mark.parametrize("word", [NUMBERED, ON_DISK])
async def test_law8_killed_before_a_mail_is_handed_over_and_before_an_event_is_told(running: Yard, word: str) -> None:
    booking = await book(running, 3)
    points: tuple[Point, ...] = (("bridge", word, "before"), ("bridge", word, "after"))
    await running.killed_at(points, cancel(running, booking["id"]))
    await checked_booking(running, booking["id"], mailed_again=True)


async def test_law5_an_archive_pass_that_dies_leaves_a_session_whole_in_one_place_or_both(running: Yard) -> None:
    final = await settled(running)
    paths = ("", "/events", "/receipts", "/usage")
    before = [await running.get(f"/v1/sessions/{final['id']}{path}") for path in paths]
    for word, side in ((TAKEN_OUT, "before"), (TAKEN_OUT, "after"), (FORGOTTEN, "after")):
        points: tuple[Point, ...] = (("archiver", word, side),)  # type: ignore[assignment]
        await running.killed_at(points, running.start("archiver", final["id"]))
        assert [await running.get(f"/v1/sessions/{final['id']}{path}") for path in paths] == before
    assert not await running.redis.exists(running.journal.keys.of(final["id"], "session"))
    await running.start("archiver", final["id"])  # and once more, to its end
    await running.gone(running.pids.pop("archiver"))
    running.put_away += [receipt["number"] for receipt in before[2]["data"]]


async def test_r22_an_erasure_that_dies_and_is_asked_for_again_leaves_nothing_of_the_person(running: Yard) -> None:
    terms = await running.terms(minutes=15, meetings=[{"starts_at": soon()}])
    terms["client"] |= {"id": "c_leaves", "name": "Somebody Gone"}
    kept = []
    for _ in range(2):
        terms["reference"] = f"leaves-{len(kept)}"
        booking = await running.insist("POST", "/v1/bookings", terms)
        await cancel(running, booking["id"])
        kept += await checked_booking(running, booking["id"])
    points: tuple[Point, ...] = (("node", REWRITTEN, "before"), ("node", REWRITTEN, "after"))
    await running.killed_at(points, running.insist("DELETE", "/v1/people/c_leaves"))
    found = (await running.get("/v1/people/c_leaves/export"))["data"]
    assert {each["session"] for each in found} == {final["id"] for final in kept}
    assert not any(each["name"] or each["email"] for each in found)
    for final in kept:
        assert "Somebody Gone" not in str(await running.journal.events(final["id"]))
        assert (await running.get(f"/v1/sessions/{final['id']}"))["amount_total"] == final["amount_total"]
