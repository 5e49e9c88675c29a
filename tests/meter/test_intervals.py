"""Time as a set."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from gateway.meter.intervals import Stretch, clip, length, metered, union, without

INTERVALS = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=12)


def instants(intervals: object) -> set[int]:
    return {t for start, end in intervals for t in range(start, end)}  # type: ignore[attr-defined]


@given(INTERVALS)
def test_a_union_holds_the_same_instants_and_counts_each_once(intervals: list[tuple[int, int]]) -> None:
    merged = union(intervals)
    assert instants(merged) == instants(intervals)
    assert length(intervals) == len(instants(intervals))
    assert all(a[1] < b[0] for a, b in itertools.pairwise(merged))


@given(INTERVALS, INTERVALS)
def test_law3_two_owners_never_count_twice(ours: list[tuple[int, int]], theirs: list[tuple[int, int]]) -> None:
    assert length([*ours, *theirs, *ours]) == len(instants(ours) | instants(theirs))


@given(INTERVALS, st.integers(0, 300), st.integers(0, 300))
def test_clipping_keeps_what_lies_within(intervals: list[tuple[int, int]], start: int, end: int) -> None:
    assert instants(clip(intervals, start, end)) == instants(intervals) & set(range(start, end))


@given(INTERVALS, INTERVALS)
def test_taking_away_leaves_the_other_instants(intervals: list[tuple[int, int]], taken: list[tuple[int, int]]) -> None:
    assert instants(without(intervals, taken)) == instants(intervals) - instants(taken)


def test_a_stretch_that_hang_up_ended_counts_whole() -> None:
    assert metered([Stretch(1, 0, 10_000, heard=6_000)], returned=False) == ((0, 10_000),)


def test_law2_silence_counts_to_the_last_arrival() -> None:
    silent = Stretch(1, 0, 17_000, heard=10_000, silent=True)
    assert metered([silent], returned=False) == ((0, 10_000),)
    assert metered([silent], returned=True) == ((0, 10_000),)
    again = Stretch(2, 18_000, 20_000, heard=20_000, running=True)
    assert metered([silent, again], returned=False) == ((0, 10_000), (18_000, 20_000))


def test_law2_what_is_given_away_to_silence_is_bounded() -> None:
    stretches = [Stretch(n, n * 20_000, n * 20_000 + 17_000, heard=n * 20_000 + 10_000, silent=True) for n in range(3)]
    assert metered(stretches, returned=True) == ((0, 10_000), (20_000, 34_000), (40_000, 57_000))
    assert metered(stretches, returned=False)[2] == (40_000, 50_000), "a leg that never comes back is owed its tail"


def test_law2_sending_a_little_and_listening_a_lot_is_billed_for_what_was_heard() -> None:
    """A client that sends 100 ms in every 8 s keeps the gate open for 7.1 s of them, and pays for all but 10 s."""
    stretches = [Stretch(n, n * 8_000, n * 8_000 + 7_100, heard=n * 8_000 + 100, silent=True) for n in range(600)]
    assert length(metered(stretches, returned=True)) == 600 * 7_100 - 10_000


SILENCES = st.lists(st.tuples(st.integers(0, 9_000), st.integers(0, 7_000), st.booleans()), max_size=20)


@given(SILENCES, st.booleans())
def test_law9_a_figure_never_grows_after_the_fact(silences: list[tuple[int, int, bool]], returned: bool) -> None:
    """What comes later changes no earlier interval, but for the last tail once its leg is back."""
    stretches, at = [], 0
    for number, (spoken, tail, silent) in enumerate(silences):
        stretches.append(Stretch(number, at, at + spoken + tail, heard=at + spoken, silent=silent))
        at += 20_000
    whole = metered(stretches, returned=returned)
    for n in range(len(stretches)):
        assert metered(stretches[:n], returned=True) == whole[:n]
    assert all(start <= end <= s.end for (start, end), s in zip(whole, stretches, strict=True))
