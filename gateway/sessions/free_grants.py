"""Who was promised how much of the free part: one small record for each client and expert, changed by compare-and-set.

A grant is not waited for on disk: its session's own record, which is, comes later in the same append-only file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Final, cast

from redis.exceptions import RedisError

from gateway.errors import GatewayError, StoreUnavailable
from gateway.journal import Journal
from gateway.session import NewSession, SessionRecord
from gateway.sessions.free_part import Grant, granted

# Sessions with `hold: "join"` may wait for thirty days; a grant must not be forgotten while its session can start.
KEPT_MS: Final = 32 * 24 * 3_600_000
ATTEMPTS: Final = 50

# KEYS: the pair's grants. ARGV: as they were read ('' for none), as they are to be, how long to keep them (ms)
SWAP: Final = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
if ARGV[2] == '[]' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
"""


class FreeGrants:
    """Shell over Redis. `window_ms`: within it a pair has one free part; 0: each session has its own."""

    def __init__(self, journal: Journal, window_ms: int) -> None:
        self._journal, self._redis, self._window_ms = journal, journal.redis, window_ms

    async def of_order(self, terms: NewSession, *, account: str, livemode: bool, session: str, now: int) -> int:
        """What there is of the free part for a new session, in ms (5-money, Free part once)."""
        pair = pair_of(account, livemode, terms.client.id, terms.expert.id)
        wanted_ms = min(terms.free_minutes, terms.max_minutes) * 60_000 if terms.kind == "metered" else 0
        return await self.grant(pair, session, wanted_ms, now)

    async def left_by(self, record: SessionRecord, successor: str, now: int) -> int:
        """What a session leaves of the free part to the one after it, in ms; `record` may be newer than the store's."""
        pair = pair_of(record.account, record.livemode, record.client["id"], record.expert["id"])
        offer_ms = min(record.free_offer_ms, record.limit_ms)
        return await self.grant(pair, successor, offer_ms, now, {record.id: record})

    async def grant(
        self, pair: str, session: str, wanted_ms: int, now: int, known: Mapping[str, SessionRecord] | None = None
    ) -> int:
        """What the session gets of a free part of `wanted_ms`; of two that ask at once, the first. Again gives the
        same, or more. `known`: records that are newer than the store's. Raises StoreUnavailable."""
        if wanted_ms <= 0 or self._window_ms == 0:
            return max(0, wanted_ms)
        try:
            for _ in range(ATTEMPTS):
                before = cast("bytes | None", await self._redis.get(pair)) or b""
                grants = [Grant(**grant) for grant in json.loads(before or b"[]")]
                records = {grant.session: await self._record(grant.session) for grant in grants} | dict(known or {})
                ms, after = granted(session, wanted_ms, grants, records, now, self._window_ms)
                body = json.dumps([asdict(grant) for grant in after], separators=(",", ":"))
                kept_ms = KEPT_MS + self._window_ms
                if await self._redis.execute_command("EVAL", SWAP, 1, pair, before, body, kept_ms):
                    return ms
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error
        raise GatewayError("The free part is asked for faster than it can be granted.")

    async def _record(self, session: str) -> SessionRecord | None:
        doc = (await self._journal.read(session, "session"))["session"]
        return SessionRecord.from_dict(doc.body) if doc else None


def pair_of(account: str, livemode: bool, client: str, expert: str) -> str:
    """The key of a client and an expert, as the marketplace names them; a digest, for they may hold anything."""
    named = json.dumps([account, livemode, client, expert])
    return f"gateway:free:{hashlib.sha256(named.encode()).hexdigest()}"
