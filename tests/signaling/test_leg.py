"""Credentials of one leg over time."""

from __future__ import annotations

from gateway.sfu.port import Credentials, LegConfig
from gateway.signaling.leg import MAX_PAST, OVERLAP_MS, Leg

A, B, C, D = (Credentials(name * 4, name * 24) for name in "abcd")


def leg() -> Leg:
    one = Leg()
    one.begin(A)
    return one


def test_pending_credentials_are_valid_before_they_are_current() -> None:
    one = leg()
    one.pending = B
    assert (one.config, one.number) == (LegConfig((B, A)), 1)
    one.promote(0, told=True)
    assert (one.config, one.number, one.local) == (LegConfig((B, A)), 2, B)


def test_nothing_pending_changes_nothing() -> None:
    one = leg()
    one.promote(0, told=True)
    assert (one.config, one.number) == (LegConfig((A,)), 1)


def test_the_overlap_ends_after_its_time_and_not_before() -> None:
    one = leg()
    one.pending = B
    one.promote(5, told=True)
    assert not one.expire(4 + OVERLAP_MS)
    assert one.expire(5 + OVERLAP_MS)
    assert one.config == LegConfig((B,))


def test_the_overlap_starts_when_the_browser_was_told() -> None:
    one = leg()
    one.pending = B
    one.promote(0, told=False)
    assert one.timer() is None
    assert not one.expire(10 * OVERLAP_MS)
    one.told(70_000)
    assert one.timer() == 70_000 + OVERLAP_MS
    one.told(80_000)
    assert one.timer() == 70_000 + OVERLAP_MS


def test_former_credentials_are_few() -> None:
    one = leg()
    for credentials in (B, C, D):
        one.pending = credentials
        one.promote(0, told=True)
    assert one.config == LegConfig((D, C, B))
    assert len(one.past) == MAX_PAST


def test_a_new_incarnation_forgets_them_all() -> None:
    one = leg()
    one.pending, one.remote = B, C
    one.promote(0, told=True)
    one.begin(D)
    assert (one.config, one.number) == (LegConfig((D,)), 3)
