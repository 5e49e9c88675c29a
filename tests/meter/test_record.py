"""The bill: laws 3, 5, 6 and 9 over every set of intervals."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.meter.intervals import length
from gateway.meter.record import bill
from gateway.session import SessionRecord
from tests.orders import NOW, record


def session(minutes: int = 30, unit: int = 300, free: int = 0, **changes: object) -> SessionRecord:
    fresh = record(max_minutes=minutes, unit_amount=unit, free_minutes=free)
    return replace(fresh, started_at=NOW, status="live", **changes)  # type: ignore[arg-type]


def test_r01_thirty_minutes_to_the_limit_are_ninety_dollars() -> None:
    final = bill(session(), [(NOW, NOW + 1_800_000)])
    assert (final.billable_seconds, final.amount_total, final.shares.expert, final.shares.platform) == (
        1800, 9000, 8100, 900,
    )  # fmt: skip


def test_r02_the_free_part_is_the_first_of_the_union_not_of_the_clock() -> None:
    final = bill(session(free=1), [(NOW, NOW + 30_000), (NOW + 600_000, NOW + 660_000)])
    assert final.billable_ms == 30_000
    assert final.free_seconds_used == 60


def test_one_floor_over_the_whole_session() -> None:
    pieces = [(NOW + n * 1000, NOW + n * 1000 + 999) for n in range(10)]
    assert bill(session(), pieces).billable_seconds == 9


def test_a_bill_below_the_smallest_charge_is_waived_and_says_so() -> None:
    final = bill(session(unit=100), [(NOW, NOW + 20_000)], minimum=50)
    assert (final.amount_metered, final.amount_total, final.amount_waived) == (33, 0, 33)
    assert final.waived_reason == "below_minimum"


def test_r15_a_waived_session_keeps_its_figure_and_charges_nothing() -> None:
    final = bill(session(waived=True), [(NOW, NOW + 600_000)])
    assert (final.amount_metered, final.amount_total, final.waived_reason) == (3000, 0, "waived")


def test_a_session_that_never_started_costs_nothing() -> None:
    assert bill(record(), [(NOW, NOW + 600_000)]).amount_total == 0


INTERVALS = st.lists(
    st.tuples(st.integers(-10_000, 2_000_000), st.integers(-10_000, 2_000_000)).map(
        lambda pair: (NOW + pair[0], NOW + pair[1])
    ),
    max_size=10,
)


@given(INTERVALS, st.integers(1, 1500), st.integers(0, 10), st.integers(1, 30))
def test_law3_and_law5_never_more_than_the_union_nor_the_limit_nor_the_hold(
    intervals: list[tuple[int, int]], unit: int, free: int, minutes: int
) -> None:
    ours = session(minutes, unit, free)
    final = bill(ours, intervals)
    assert final.union_ms <= min(length(intervals), ours.limit_ms)
    assert final.billable_seconds * 1000 <= max(0, final.union_ms - ours.free_ms)
    assert final.amount_total <= ours.amount_max
    assert final.shares.expert + final.shares.platform + final.shares.ambassador == final.amount_total


@given(INTERVALS, INTERVALS)
def test_law9_more_time_never_costs_less(some: list[tuple[int, int]], more: list[tuple[int, int]]) -> None:
    assert bill(session(), some).amount_total <= bill(session(), [*some, *more]).amount_total
