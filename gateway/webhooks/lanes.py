"""The lanes of a session's deliveries: the leases under which senders work, and the record of what has arrived.

A *lane* is a piece of work on one session that one sender holds under a lease: the first attempts for one endpoint
(in order of `sequence`), or the retry of one event. Lanes are independent, so a retry never delays later events; one
that outlasts its pass goes on alone under its lease, so a receiver that hangs delays nobody else. What is known of a
session's deliveries is one hash beside its events:

    c:ENDPOINT           cursor: first attempts have been made up to this sequence
    o:ENDPOINT:SEQUENCE  open: attempts made, when the next is due, why the last one failed
    d:ENDPOINT:SEQUENCE  dead: attempts made, when it was given up, why
    l:LANE               lease of a lane: until when, and whose

An event at or below the cursor that is neither open nor dead has arrived.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from redis.exceptions import RedisError

from gateway.errors import StoreUnavailable
from gateway.journal import Journal
from gateway.outbox.delivery import Delivery
from gateway.webhooks.endpoints import Endpoint

QUEUE: Final = "outbox"
HASH: Final = "deliveries"

# KEYS: deliveries; ARGV: now, until, owner, then the ids of endpoints that may be worked on
# Takes every lane that is free: the first attempts of each endpoint and the retries that are due.
TAKE = """
local now, taken, wanted = tonumber(ARGV[1]), {}, {}
local function take(lane)
  local held = redis.call('HGET', KEYS[1], 'l:' .. lane)
  if held and tonumber(string.match(held, '^%d+')) > now then return end
  redis.call('HSET', KEYS[1], 'l:' .. lane, ARGV[2] .. ':' .. ARGV[3])
  taken[#taken + 1] = lane
end
for i = 4, #ARGV do wanted[ARGV[i]] = true; take(ARGV[i]) end
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local lane, endpoint = string.match(all[i], '^o:(([^:]+):%d+)$')
  if lane and wanted[endpoint] and tonumber(string.match(all[i + 1], '^%d+:(%d+)')) <= now then take(lane) end
end
return {taken, redis.call('HGETALL', KEYS[1])}
"""

# KEYS: deliveries, queue, its claims, events; ARGV: owner, lane, session, when to look next ('' = no matter), up to
# which event first attempts were to be made ('' = a retry), number of fields to set, field and value of each, then
# fields to drop. Refused (0) when the lease was lost meanwhile.
# Events that came meanwhile have asked for a look, but it may have found this lane held: another one, at once. Whoever
# looks at the session now may have read the record before this: the look comes right after theirs, as in the journal's
# CLAIM.
GIVE = """
local held = redis.call('HGET', KEYS[1], 'l:' .. ARGV[2])
if not held or string.match(held, ':(.+)$') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'l:' .. ARGV[2])
local last = 6 + 2 * tonumber(ARGV[6])
for i = 7, last, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
for i = last + 1, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
local look = tonumber(ARGV[4])
if ARGV[5] ~= '' and redis.call('LLEN', KEYS[4]) > tonumber(ARGV[5]) then look = 0 end
if not look then return 1 end
local at = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[3]) or '-1')
local claimed = tonumber(redis.call('HGET', KEYS[3], ARGV[3]) or '0')
if claimed > 0 and at >= claimed then redis.call('ZADD', KEYS[2], claimed + 1, ARGV[3])
elseif at == -1 or at > look then redis.call('ZADD', KEYS[2], look, ARGV[3]) end
return 1
"""


@dataclass(slots=True)
class Lane:
    """A lane that this pass holds, and what it found out; `sequence` None = first attempts, of events up to `known_to`:
    later ones may not be on disk yet. `alone`: its pass is over, so it asks for its next look itself."""

    endpoint: Endpoint
    sequence: int | None
    known_to: int
    put: dict[str, str] = field(default_factory=dict)
    drop: list[str] = field(default_factory=list)
    next_at: int | None = None
    alone: bool = False
    ended: bool = False

    @property
    def name(self) -> str:
        return self.endpoint.id if self.sequence is None else f"{self.endpoint.id}:{self.sequence}"

    def look_again(self, at: int) -> None:
        self.next_at = at if self.next_at is None else min(self.next_at, at)


class Lanes:
    """Shell over the hash. All raise StoreUnavailable when Redis is away."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._take = journal.redis.register_script(TAKE)
        self._give = journal.redis.register_script(GIVE)

    async def take(
        self, session: str, owner: str, endpoints: Sequence[str], now: int, until: int
    ) -> tuple[list[str], dict[str, str]]:
        """Lease every free lane of those endpoints; the names of the lanes taken, and the hash as it then is."""
        args: list[str | int] = [now, until, owner, *endpoints]
        try:
            names, flat = await self._journal.trips.run(self._take, [self._key(session)], args)
        except RedisError as error:
            raise _away() from error
        texts = [text.decode() for text in flat]
        return [name.decode() for name in names], dict(zip(texts[::2], texts[1::2], strict=True))

    async def give(self, session: str, owner: str, lane: Lane) -> None:
        """Write what the lane found out, and let it go; nothing is written if the lease was lost meanwhile."""
        put = [text for pair in lane.put.items() for text in pair]
        look = lane.next_at if lane.alone and lane.next_at is not None else ""
        until = lane.known_to if lane.sequence is None else ""
        args: list[str | int] = [owner, lane.name, session, look, until, len(lane.put), *put, *lane.drop]
        queue = self._journal.keys.beside(session, f"due:{QUEUE}")
        keys = [self._key(session), queue, f"{queue}:claims", self._journal.keys.of(session, "events")]
        try:
            await self._journal.trips.run(self._give, keys, args)
        except RedisError as error:
            raise _away() from error

    async def fields(self, session: str) -> dict[str, str]:
        """The hash as it is, also that of an archived session."""
        try:
            rows = cast(dict[bytes, bytes], await self._journal.redis.hgetall(self._key(session)))
        except RedisError as error:
            raise _away() from error
        if not rows and (kept := await self._journal.archived(session)) is not None:
            return dict(kept.deliveries)
        return {name.decode(): value.decode() for name, value in rows.items()}

    async def change(self, session: str, put: Mapping[str, str], drop: Sequence[str]) -> None:
        """Set and drop fields outside of a lane: dead letters made and unmade."""
        pipe = self._journal.redis.pipeline()
        for name, value in put.items():
            pipe.execute_command("HSET", self._key(session), name, value)
        pipe.execute_command("HDEL", self._key(session), *drop)
        try:
            await pipe.execute()
        except RedisError as error:
            raise _away() from error

    def _key(self, session: str) -> str:
        return self._journal.keys.of(session, HASH)


def lane_of(name: str, known: Mapping[str, Endpoint], known_to: int) -> Lane:
    endpoint, _, sequence = name.partition(":")
    return Lane(known[endpoint], int(sequence) if sequence else None, known_to)


def opened(value: str) -> Delivery:
    """The value of an `o:` or `d:` field; of a dead one `next_at` is when it was given up."""
    attempts, at, why = value.split(":", 2)
    return Delivery(int(attempts), int(at), "open", why)


def delivery_view(event: Mapping[str, Any], endpoint: Endpoint, rows: Mapping[str, str]) -> dict[str, Any]:
    """How one event stands with one endpoint, for people and REST."""
    place = f"{endpoint.id}:{event['sequence']}"
    view = {"event": event["id"], "type": event["type"], "sequence": event["sequence"], "endpoint": endpoint.id}
    for prefix, state in (("o", "open"), ("d", "dead")):
        if row := rows.get(f"{prefix}:{place}"):
            last = opened(row)
            return {**view, "state": state, "attempts": last.attempts, "at": last.next_at, "why": last.why}
    attempted_to = int(rows.get(f"c:{endpoint.id}", "0"))
    return {**view, "state": "delivered" if event["sequence"] <= attempted_to else "pending"}


def _away() -> StoreUnavailable:
    return StoreUnavailable("The session store is away; try again.")
