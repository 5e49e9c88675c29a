"""What waits for the ledger: nothing is forgotten, nothing written twice, lost answers are written again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.meter.ledger import Lease, Write, Written
from gateway.meter.tab import RENEW_MS, Tab

LEASE = Lease("ses_1", 1, "a", 0, 0)


def ok(usage: int, ahead_ms: int = 0) -> Written:
    return Written("ok", ahead_ms, usage)


def test_what_was_written_waits_no_more_but_a_row_that_grew_meanwhile_does() -> None:
    tab = Tab(LEASE, 0)
    tab.put({1: (0, 100), 2: (200, 300)}, 0)
    write = tab.write(0)
    tab.put({2: (200, 350)}, 10)
    tab.written(write, ok(1), 20)
    assert tab.waiting == {2: (200, 350)}
    assert tab.write(0).sequence > write.sequence


def test_law3_a_former_owner_writes_what_came_while_it_was_told_so() -> None:
    tab = Tab(LEASE, 0)
    renewal = tab.write(0)
    tab.put({1: (0, 100)}, 10)
    tab.written(renewal, Written("former", 0, 0), 20)
    tab.closed = True
    assert tab.fault == "fenced"
    assert tab.due(20)
    tab.written(tab.write(0), Written("former", 0, 1), 30)
    assert not tab.waiting
    assert not tab.due(30 + RENEW_MS)


def test_a_row_ahead_of_redis_waits_for_its_clock() -> None:
    tab = Tab(LEASE, 0)
    tab.put({1: (0, 100)}, 0)
    tab.written(tab.write(0), ok(1, ahead_ms=30), 10)
    assert tab.waiting
    tab.written(tab.write(0), ok(2), 50)
    assert not tab.waiting


def test_law3_answers_that_redis_forgot_are_written_again() -> None:
    tab = Tab(LEASE, 0)
    for number in (1, 2, 3):
        tab.put({number: (number * 100, number * 100 + 50)}, 0)
        tab.written(tab.write(0), ok(number), 0)
    tab.put({4: (400, 450)}, 0)
    tab.written(tab.write(0), ok(2), 0)  # two of three were lost, and this one is the second
    assert set(tab.waiting) == {1, 2, 3, 4}
    tab.written(tab.write(0), ok(3), 0)
    assert not tab.waiting


def test_a_renewal_alone_notices_the_loss() -> None:
    tab = Tab(LEASE, 0)
    tab.put({1: (0, 50)}, 0)
    tab.written(tab.write(0), ok(1), 0)
    assert not tab.due(RENEW_MS - 1)
    assert tab.due(RENEW_MS)
    tab.written(tab.write(0), ok(0), RENEW_MS)
    assert tab.waiting == {1: (0, 50)}


def test_a_refused_tab_takes_and_writes_nothing_more() -> None:
    tab = Tab(LEASE, 0)
    tab.put({1: (0, 50)}, 0)
    tab.written(tab.write(0), Written("final"), 0)
    tab.put({2: (60, 70)}, 0)
    assert (tab.fault, tab.waiting, tab.due(99_999)) == ("final", {}, False)


def test_a_closed_tab_lets_its_lease_run_out() -> None:
    tab = Tab(LEASE, 0)
    tab.put({1: (0, 50)}, 0)
    tab.closed = True
    assert tab.due(0)
    assert not tab.write(0).renew
    tab.written(tab.write(0), ok(1), 0)
    assert not tab.due(99_999)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 99), st.sampled_from(["ok", "away", "lost"])), max_size=40))
def test_law3_the_ledger_ends_as_the_tab_whatever_was_lost_or_late(steps: list[tuple[int, int, str]]) -> None:
    """A model ledger that forgets all its rows at `lost`, and never answers at `away` although it wrote."""
    tab, ledger, usage = Tab(LEASE, 0), {}, 0
    truth: dict[int, tuple[int, int]] = {}

    def store(write: Write) -> Written:
        nonlocal usage
        ledger.update(write.rows)
        usage += bool(write.rows)
        return ok(usage)

    for now, (number, end, fate) in enumerate(steps):
        truth[number] = (number * 100, number * 100 + end)
        tab.put({number: truth[number]}, now)
        write = tab.write(0)
        if fate == "lost":
            ledger, usage = {}, 0
        result = store(write)
        tab.written(write, Written("away") if fate == "away" else result, now)
    for _ in range(2):
        write = tab.write(0)
        tab.written(write, store(write), 100_000)
    assert not tab.waiting
    assert ledger == truth
