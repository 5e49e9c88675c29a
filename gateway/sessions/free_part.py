"""The free part, granted once per client and expert within a window (R2; 5-money, Free part once). Pure.

What a grant takes is never written down: it follows from its session. One that is open reserves all of it, one whose
bill is final took what it used, and one that came to nothing gives it back by that alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.session import SessionRecord

# Longer than a creation takes: a grant is written before its session, and one whose session never came is lost.
MAKING_MS = 30_000


@dataclass(frozen=True, slots=True)
class Grant:
    """So much of the free part was promised to a session, at `at` (wall ms)."""

    session: str
    ms: int
    at: int


def takes(grant: Grant, record: SessionRecord | None, now: int, window_ms: int) -> int:
    """What a grant takes of the free part now, in ms. The window counts from the session's start."""
    if record is None:
        return grant.ms if now - grant.at < MAKING_MS else 0
    if record.bill is None:
        return max(grant.ms, record.free_ms)
    gone = record.started_at is None or record.started_at + window_ms <= now
    return 0 if gone or record.let_off else min(record.free_ms, int(record.bill["union_ms"]))


def granted(
    session: str, wanted_ms: int, grants: Iterable[Grant], records: Mapping[str, SessionRecord | None], now: int,
    window_ms: int,
) -> tuple[int, tuple[Grant, ...]]:  # fmt: skip
    """What `session` gets of a free part of `wanted_ms`, and all grants that still count, its own among them.

    Asked again, a session gets what it had, or more when others have left more by now.
    """
    had = next((grant for grant in grants if grant.session == session), None)
    others = [grant for grant in grants if grant.session != session]
    taken = {grant: takes(grant, records.get(grant.session), now, window_ms) for grant in others}
    ms = max(had.ms if had else 0, wanted_ms - sum(taken.values()), 0)
    kept = tuple(grant for grant, took in taken.items() if took > 0)
    own = Grant(session, ms, had.at if had else now)
    return ms, (*kept, own) if ms else kept
