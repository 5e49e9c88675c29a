"""R2: the free part is granted once per client and expert within the window; what was not used is given back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.session import SessionRecord
from gateway.sessions.free_part import MAKING_MS, Grant, granted
from tests.orders import NOW, record

HOUR = 3_600_000
WINDOW = 24 * HOUR
OFFER = 300_000


def final(used_ms: int, *, started_at: int | None = NOW, free_ms: int = OFFER, waived: bool = False) -> SessionRecord:
    bill = {"union_ms": used_ms}
    return replace(record(), status="finalized", free_ms=free_ms, started_at=started_at, bill=bill, waived=waived)


def ask(session: str, *grants: Grant, now: int = NOW, wanted_ms: int = OFFER, **records: SessionRecord) -> int:
    return granted(session, wanted_ms, grants, records, now, WINDOW)[0]


def test_r02_the_first_gets_it_all_and_who_asks_again_gets_the_same() -> None:
    ms, grants = granted("a", OFFER, (), {}, NOW, WINDOW)
    assert (ms, grants) == (OFFER, (Grant("a", OFFER, NOW),))
    assert granted("a", OFFER, grants, {"a": record(free_minutes=5)}, NOW + HOUR, WINDOW) == (OFFER, grants)


def test_r02_an_open_session_keeps_what_it_was_promised() -> None:
    assert ask("b", Grant("a", OFFER, NOW), a=record(free_minutes=5)) == 0
    assert ask("b", Grant("a", 0, NOW), a=record(free_minutes=5)) == 0, "it was raised since"
    assert ask("b", Grant("a", 200_000, NOW), wanted_ms=OFFER) == 100_000


@pytest.mark.parametrize(("used", "left"), [(0, OFFER), (1, OFFER - 1), (OFFER, 0), (OFFER + HOUR, 0)])
def test_r02_what_was_not_used_is_given_back(used: int, left: int) -> None:
    assert ask("b", Grant("a", OFFER, NOW), a=final(used)) == left


@pytest.mark.parametrize(
    "came_to_nothing", [final(0, started_at=None), final(HOUR, waived=True), final(HOUR, started_at=NOW - WINDOW)]
)
def test_r02_a_session_that_came_to_nothing_or_is_long_over_takes_nothing(came_to_nothing: SessionRecord) -> None:
    ms, grants = granted("b", OFFER, [Grant("a", OFFER, NOW)], {"a": came_to_nothing}, NOW, WINDOW)
    assert (ms, grants) == (OFFER, (Grant("b", OFFER, NOW),)), "and is forgotten"


def test_r02_a_creation_that_died_gives_it_back_after_a_moment() -> None:
    lost = Grant("a", OFFER, NOW)
    assert ask("b", lost, now=NOW + MAKING_MS - 1) == 0
    assert ask("b", lost, now=NOW + MAKING_MS) == OFFER


def test_r02_a_session_gets_more_once_the_one_before_it_left_some() -> None:
    grants = (Grant("a", OFFER, NOW), Grant("b", 0, NOW))
    assert ask("b", *grants, a=final(100_000)) == 200_000


@dataclass
class Pair:
    """A client and an expert over some days: sessions are made, held and finalized in any order."""

    now: int = NOW
    grants: tuple[Grant, ...] = ()

    def __post_init__(self) -> None:
        self.records: dict[str, SessionRecord] = {}

    def make(self) -> None:
        name = f"s{len(self.records)}"
        ms, self.grants = granted(name, OFFER, self.grants, self.records, self.now, WINDOW)
        self.records[name] = replace(record(), free_ms=ms)

    def close(self, used_ms: int) -> None:
        name = next((name for name, one in self.records.items() if one.bill is None), None)
        if name is not None:
            started = self.now if used_ms else None
            self.records[name] = replace(
                self.records[name], started_at=started, status="finalized", bill={"union_ms": used_ms}
            )  # fmt: skip

    def used(self) -> list[tuple[int, int]]:
        done = [one for one in self.records.values() if one.bill is not None and one.started_at is not None]
        return [(one.started_at or 0, min(one.free_ms, (one.bill or {})["union_ms"])) for one in done]


@given(st.lists(st.none() | st.integers(0, 2 * OFFER) | st.sampled_from([-HOUR, -9 * HOUR, -WINDOW]), max_size=30))
def test_r02_no_window_ever_has_more_than_one_free_part(moves: list[int | None]) -> None:
    pair = Pair()
    for move in moves:
        if move is None:
            pair.make()
        elif move < 0:
            pair.now -= move
        else:
            pair.close(move)
        promised = sum(one.free_ms for one in pair.records.values() if one.bill is None)
        assert promised + sum(ms for at, ms in pair.used() if at + WINDOW > pair.now) <= OFFER
    starts = pair.used()
    for at, _ in starts:
        assert sum(ms for other, ms in starts if at <= other < at + WINDOW) <= OFFER
