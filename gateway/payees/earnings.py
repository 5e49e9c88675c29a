"""What experts earned (R18): the list of an expert's shares, a line for each paid session, newest first, and its sums.

The lines lie in the partition of their session and change in one step with its payment (`Journal.commit`), so they
never say anything else; they stay when a settled session leaves Redis, and come back with it after a loss.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from redis.exceptions import RedisError

from gateway.errors import NotFound, StoreUnavailable
from gateway.journal import Journal
from gateway.payees.earned import Earned, list_of, totals

# Lines read at a time when all of them are summed.
CHUNK: Final = 500
ALL: Final = -1


class Earnings:
    """Shell over Redis. Times are wall ms: `since` ≤ the session's end < `until`."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def page(
        self, account: str, livemode: bool, expert: str, *, since: int, until: int, limit: int, after: str | None
    ) -> tuple[list[Earned], bool]:
        """Newest first, beyond the session `after`; and whether there are more. Raises NotFound, StoreUnavailable."""
        name = list_of(account, livemode, expert)
        spans = [(since, until, limit + 1)]
        last = None if after is None else await self._place(name, after)
        if last is not None:  # of the same ms, those with smaller ids are still to come
            spans = [(max(since, last[0]), min(until, last[0] + 1), ALL), (since, min(until, last[0]), limit + 1)]
        places = [place for place in await self._places(name, spans) if last is None or place < last]
        return await self._rows(name, [session for _, session in places[:limit]]), len(places) > limit

    async def totals(
        self, account: str, livemode: bool, expert: str, *, since: int, until: int
    ) -> dict[str, dict[str, int]]:
        name = list_of(account, livemode, expert)
        sessions = [session for _, session in await self._places(name, [(since, until, ALL)])]
        rows: list[Earned] = []
        for start in range(0, len(sessions), CHUNK):
            rows += await self._rows(name, sessions[start : start + CHUNK])
        return totals(rows)

    async def _place(self, name: str, session: str) -> tuple[int, str]:
        try:
            score = await self._journal.redis.zscore(self._journal.keys.beside(session, name), session)
        except RedisError as error:
            raise _away() from error
        if score is None:
            raise NotFound("There is no such session in this list.", code="session_not_found", param="starting_after")
        return int(score), session

    async def _places(self, name: str, spans: Sequence[tuple[int, int, int]]) -> list[tuple[int, str]]:
        """(end, session) in each span (from, before, at most of each partition), newest first. Of sessions that ended
        in the same ms the ids decide."""
        keys = [self._journal.keys.shared(n, name) for n in range(self._journal.keys.partitions)]
        try:
            pipe = self._journal.redis.pipeline(transaction=False)
            for key in keys:
                for since, until, most in spans:
                    _ = pipe.zrevrangebyscore(key, f"({until}", since, start=0, num=most, withscores=True)
            parts = await pipe.execute()
        except RedisError as error:
            raise _away() from error
        return sorted(((int(at), member.decode()) for part in parts for member, at in part), reverse=True)

    async def _rows(self, name: str, sessions: list[str]) -> list[Earned]:
        try:
            pipe = self._journal.redis.pipeline(transaction=False)
            for session in sessions:
                pipe.execute_command("HGET", self._journal.keys.lines_of(session, name), session)
            bodies = await pipe.execute()
        except RedisError as error:
            raise _away() from error
        return [Earned(**json.loads(body)) for body in bodies if body is not None]


def _away() -> StoreUnavailable:
    return StoreUnavailable("The session store is away; try again.")
