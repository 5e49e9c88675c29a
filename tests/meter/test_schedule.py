"""Warnings, and how long a session may still last."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.meter.schedule import due, ending, free_ending, remaining_s
from gateway.session import SessionRecord
from tests.orders import record

START = 1_000_000


def started(minutes: int, **changes: object) -> SessionRecord:
    return replace(record(max_minutes=minutes), started_at=START, status="live", **changes)  # type: ignore[arg-type]


def test_r06_warnings_before_the_cap() -> None:
    warns = ending(started(90))
    assert [(w.remaining_s, w.at - START) for w in warns] == [
        (600, 4_800_000), (300, 5_100_000), (60, 5_340_000), (30, 5_370_000),
    ]  # fmt: skip
    assert {w.reason for w in warns} == {"cap_ending"}


def test_r06_warnings_longer_than_the_limit_are_skipped() -> None:
    assert [(w.reason, w.remaining_s) for w in ending(started(1))] == [("limit_ending", 30)]
    assert [w.remaining_s for w in ending(started(6))] == [300, 60, 30]


def test_r02_a_warning_before_the_first_paid_second_moves_with_interruptions() -> None:
    session = started(30, free_ms=300_000)
    assert [(w.at, w.remaining_s) for w in free_ending(session, 0, START)] == [
        (START + 240_000, 60), (START + 290_000, 10),
    ]  # fmt: skip
    paused_for_a_minute = free_ending(session, 100_000, START + 160_000)
    assert [w.at for w in paused_for_a_minute] == [START + 300_000, START + 350_000]


def test_nothing_is_said_of_a_free_part_that_never_ends() -> None:
    assert free_ending(started(5, free_ms=300_000), 0, START) == ()
    assert free_ending(started(30, free_ms=300_000, waived=True), 0, START) == ()


def test_of_several_missed_warnings_only_the_last_is_given() -> None:
    warns = ending(started(90))
    late = due(warns, frozenset(), START + 5_341_000)
    assert [w.remaining_s for w in late] == [60]
    assert due(warns, frozenset({("cap_ending", 60)}), START + 4_700_000) == ()


@given(st.integers(0, 5_500_000))
def test_r06_nothing_remains_at_the_deadline_and_not_before(elapsed: int) -> None:
    left = remaining_s(started(90), START + elapsed)
    assert (left == 0) == (elapsed >= 5_400_000)
    assert left <= 5400
