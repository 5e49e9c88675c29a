"""What is shown of a bill: arithmetic that holds when it is done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.bookings.meetings import Meeting
from gateway.meter.record import bill
from gateway.session import Kind
from gateway.sessions.shown import arithmetic
from tests.orders import NOW, record


@pytest.mark.parametrize(
    ("kind", "funded", "says"),
    [("metered", True, "round(300 × 120 ÷ 60) = 600;"), ("pro_bono", True, "pro_bono, no fee = 0;"),
     ("free", True, "free, no fee = 0;"), ("booked", True, "300 × 30 min booked = 9000;"),
     ("booked", False, "booked, not paid = 0;")],
)  # fmt: skip
def test_the_arithmetic_says_how_the_metered_amount_came_about(kind: Kind, funded: bool, says: str) -> None:
    meeting = Meeting("bkg_1", 1) if kind == "booked" else None
    one = replace(record(kind=kind, meeting=meeting), started_at=NOW, funded=funded)
    assert says in arithmetic(one, bill(one, [(NOW, NOW + 120_000)]).to_dict())
