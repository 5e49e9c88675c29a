"""All that Redis holds of one session: read at once, taken out if nothing changed meanwhile, put back as it was.

What stands outside of the session's own slot (lists, references, numbers) is cleaned afterwards, and may be cleaned
again: `aside`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from gateway.archive.archive import Archive
from gateway.archive.segment import compact
from gateway.archive.snapshot import Snapshot, divided, erased
from gateway.errors import StoreUnavailable
from gateway.keys import EVENT_INDEX, RECORDS, Keys, lists_of, reference_of
from gateway.payees.earned import line_of
from gateway.session import ROLES, Role

QUEUE: Final = "archive"
# The name of the archive that this Redis belongs to.
KNOWN: Final = "gateway:archive:name"
# More lost races than this on one session mean a writer in a loop, not contention.
ATTEMPTS: Final = 20
# A session that stands in one of these is not at rest.
WORK: Final = ("money", "mail", "outbox", "watch")
HASHES: Final = ("lease", "usage", "deliveries")

# KEYS: events, lease, usage, deliveries, index of events, a doc each, a queue of work each. ARGV: JSON of the snapshot.
TAKE_OUT = """
local was = cjson.decode(ARGV[1])
local docs = #was.docs
for i, version in ipairs(was.docs) do
  if (redis.call('HGET', KEYS[5 + i], 'v') or '0') ~= version then return 0 end
end
for i = 6 + docs, #KEYS do
  if redis.call('ZSCORE', KEYS[i], was.session) then return 0 end
end
if redis.call('LLEN', KEYS[1]) ~= was.events then return 0 end
if (redis.call('HGET', KEYS[2], 'usage') or '0') ~= was.usage then return 0 end
if redis.call('HLEN', KEYS[4]) ~= was.deliveries then return 0 end
for name, value in pairs(was.delivered) do
  if redis.call('HGET', KEYS[4], name) ~= value then return 0 end
end
for _, member in ipairs(was.index) do redis.call('ZREM', KEYS[5], member) end
for i = 1, 4 do redis.call('DEL', KEYS[i]) end
for i = 6, 5 + docs do redis.call('DEL', KEYS[i]) end
return 1
"""

# KEYS: as above, with the archive's queue in the place of the others. ARGV: JSON of the snapshot, when to look at it
# again. What is there is left alone if it is as new; a copy that is older in every part was lost, and is replaced.
PUT_BACK = """
local was = cjson.decode(ARGV[1])
local there, older, newer = false, false, false
local function held(mine, theirs)
  if tonumber(mine) > 0 then there = true end
  if tonumber(mine) < tonumber(theirs) then older = true elseif tonumber(mine) > tonumber(theirs) then newer = true end
end
for i, version in ipairs(was.docs) do held(redis.call('HGET', KEYS[5 + i], 'v') or '0', version) end
held(redis.call('LLEN', KEYS[1]), was.events)
if redis.call('EXISTS', KEYS[6]) == 1 then
  if older and newer then return 'conflict' end
  if newer then return 'newer' end
  if not older then return 'same' end
end
for i = 1, 4 do redis.call('DEL', KEYS[i]) end
for _, event in ipairs(was.told) do redis.call('RPUSH', KEYS[1], event) end
for _, member in ipairs(was.index) do redis.call('ZADD', KEYS[5], 0, member) end
for i, flat in ipairs({was.lease, was.rows, was.delivered}) do
  for name, value in pairs(flat) do redis.call('HSET', KEYS[1 + i], name, value) end
end
for i, version in ipairs(was.docs) do
  if version ~= '0' then redis.call('HSET', KEYS[5 + i], 'v', version, 'body', was.bodies[i]) end
end
redis.call('ZADD', KEYS[6 + #was.docs], ARGV[2], was.session)
if there then return 'replaced' end
return 'put'
"""

# KEYS: events, a doc each. ARGV: JSON of the docs' versions and new bodies ('' = as it is), and the events to change
REWRITE = """
local new = cjson.decode(ARGV[1])
for i, version in ipairs(new.docs) do
  if (redis.call('HGET', KEYS[1 + i], 'v') or '0') ~= version then return 0 end
end
for _, event in ipairs(new.events) do
  if redis.call('LINDEX', KEYS[1], event[1]) ~= event[2] then return 0 end
end
for i, version in ipairs(new.docs) do
  if new.bodies[i] ~= '' then
    redis.call('HSET', KEYS[1 + i], 'v', string.format('%.0f', version + 1), 'body', new.bodies[i])
  end
end
for _, event in ipairs(new.events) do redis.call('LSET', KEYS[1], event[1], event[3]) end
return 1
"""

Put = Literal["put", "same", "newer", "replaced", "conflict"]


@dataclass(frozen=True, slots=True)
class Found:
    """A session in Redis, and the queues in which work for it stands."""

    snapshot: Snapshot
    queues: frozenset[str]


class Hot:
    """Shell over Redis. Raises StoreUnavailable."""

    def __init__(self, redis: aioredis.Redis, keys: Keys, *, waitaof_ms: int = 2000) -> None:
        self._redis, self._keys, self._waitaof_ms = redis, keys, waitaof_ms
        self._take_out = redis.register_script(TAKE_OUT)
        self._put_back = redis.register_script(PUT_BACK)
        self._rewrite = redis.register_script(REWRITE)

    async def read(self, session: str) -> Found | None:
        """All of it at one moment; None when it is not here."""
        pipe = self._redis.pipeline(transaction=True)
        for name in RECORDS:
            pipe.execute_command("HMGET", self._keys.of(session, name), "v", "body")
        pipe.execute_command("LRANGE", self._keys.of(session, "events"), 0, -1)
        for name in HASHES:
            pipe.execute_command("HGETALL", self._keys.of(session, name))
        for queue in WORK:
            pipe.execute_command("ZSCORE", self._keys.beside(session, f"due:{queue}"), session)
        rows = await self._asked(pipe.execute())
        docs, rest = rows[: len(RECORDS)], rows[len(RECORDS) :]
        if docs[0][0] is None:
            return None
        known = {n: (int(v), json.loads(body)) for n, (v, body) in zip(RECORDS, docs, strict=True) if v is not None}
        events = tuple(json.loads(event) for event in rest[0])
        snapshot = Snapshot(session, known, events, *(_decoded(each) for each in rest[1:4]))
        return Found(snapshot, frozenset(q for q, score in zip(WORK, rest[4:], strict=True) if score is not None))

    async def take_out(self, snapshot: Snapshot) -> bool:
        """Remove it, if it is still exactly this and nothing is to be done about it. Confirmed on disk."""
        queues = [self._keys.beside(snapshot.session, f"due:{queue}") for queue in WORK]
        return bool(await self._confirmed(self._take_out, [*self._own(snapshot), *queues], [_command(snapshot)]))

    async def put_back(self, snapshot: Snapshot, look_at: int) -> Put:
        """Into Redis, unless it has the same or something newer. `look_at`: when it may be archived again (wall ms).
        Confirmed on disk."""
        keys = [*self._own(snapshot), self._keys.beside(snapshot.session, f"due:{QUEUE}")]
        answer: Put = (await self._confirmed(self._put_back, keys, [_command(snapshot), look_at])).decode()
        if answer in ("put", "replaced"):
            pipe = self._redis.pipeline(transaction=False)
            for key in lists_of(snapshot.record):
                pipe.execute_command("ZADD", key, 0, snapshot.session)
            if line := line_of(snapshot.record, snapshot.docs["payment"][1]):
                pipe.execute_command("ZADD", self._keys.beside(snapshot.session, line.list), line.at, snapshot.session)
                lines = self._keys.lines_of(snapshot.session, line.list)
                pipe.execute_command("HSET", lines, snapshot.session, compact(line.body))
            await self._asked(pipe.execute())
        return answer

    async def erase(self, session: str, role: Role) -> bool:
        """Blank one side's personal data, in one step, confirmed on disk; False if there is none here."""
        for _ in range(ATTEMPTS):
            found = await self.read(session)
            if found is None or (after := erased(found.snapshot, role)) == found.snapshot:
                return False
            keys = [self._keys.of(session, name) for name in ("events", *RECORDS)]
            if await self._confirmed(self._rewrite, keys, [_changes(found.snapshot, after)]):
                return True
        raise StoreUnavailable(f"{session} changes faster than it can be rewritten; try again.")

    async def leave_aside(self, snapshot: Snapshot) -> None:
        """Take out what stands outside of its slot. Only for a session that is in the archive and not here."""
        record, ident = snapshot.record, snapshot.session
        pipe = self._redis.pipeline(transaction=False)
        for key in lists_of(record):
            pipe.execute_command("ZREM", key, ident)
        if record["reference"] is not None:
            pipe.execute_command("EVAL", FREE, 1, reference_of(record["account"], record["reference"]), ident)
        places = (self._keys.of(ident, "session"), self._keys.beside(ident, f"due:{QUEUE}"))
        pipe.execute_command("EVAL", DONE_WITH, 2, *places, ident)
        await self._asked(pipe.execute())

    def _own(self, snapshot: Snapshot) -> list[str]:
        return [
            *(self._keys.of(snapshot.session, name) for name in ("events", *HASHES)),
            self._keys.beside(snapshot.session, EVENT_INDEX),
            *(self._keys.of(snapshot.session, name) for name in RECORDS),
        ]

    async def _confirmed(self, script: Any, keys: list[str], args: list[Any]) -> Any:
        pipe = self._redis.pipeline(transaction=False)
        await script(keys=keys, args=args, client=pipe)
        pipe.execute_command("WAITAOF", 1, 0, self._waitaof_ms)
        answer, (local, _replicas) = await self._asked(pipe.execute())
        if local < 1:
            raise StoreUnavailable("The session store did not confirm the write on disk.")
        return answer

    async def _asked(self, work: Any) -> Any:
        try:
            return await work
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error


async def meet(archive: Archive, redis: aioredis.Redis) -> None:
    """Have the archive be the one that Redis knows. The first one is made where there is none; later a place without it
    is one that is not mounted, or another one, and must not become an empty archive; nothing is asked of it here, so
    that a node starts without it. Raises RedisError, OSError, ArchiveUnavailable."""
    if not await redis.exists(KNOWN):
        await redis.set(KNOWN, await archive.made(), nx=True)
    archive.expected = cast(bytes, await redis.get(KNOWN)).decode()


async def bring_back(archive: Archive, hot: Hot, session: str, look_at: int) -> Put | None:
    """A session out of the archive into Redis; None if it is in no archive. What was erased there while it was on its
    way is erased here too."""
    kept = await archive.find(session)
    if kept is None:
        return None
    put = await hot.put_back(kept, look_at)
    now = await archive.find(session)
    for role in ROLES:
        if now is not None and divided(kept).personal[role] and not divided(now).personal[role]:
            await hot.erase(session, role)
    return put


# KEYS: a reference. ARGV: the session that may hold it
FREE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"

# KEYS: the session's record, the archive's queue. ARGV: the session. One that came back meanwhile keeps its place.
DONE_WITH = "if redis.call('EXISTS', KEYS[1]) == 0 then return redis.call('ZREM', KEYS[2], ARGV[1]) end return 0"


def _command(snapshot: Snapshot) -> str:
    docs = [snapshot.docs.get(name, (0, {})) for name in RECORDS]
    return compact(
        {
            "session": snapshot.session,
            "docs": [str(version) for version, _ in docs],
            "bodies": [compact(body) for _, body in docs],
            "events": len(snapshot.events),
            "told": [compact(event) for event in snapshot.events],
            "index": [f"{event['id']}|{snapshot.session}|{event['sequence']}" for event in snapshot.events],
            "usage": snapshot.lease.get("usage", "0"),
            "lease": snapshot.lease,
            "rows": snapshot.usage,
            "deliveries": len(snapshot.deliveries),
            "delivered": snapshot.deliveries,
        }
    )


def _changes(before: Snapshot, after: Snapshot) -> str:
    docs = [(before.docs.get(name, (0, {})), after.docs.get(name, (0, {}))) for name in RECORDS]
    events = enumerate(zip(before.events, after.events, strict=True))
    return compact(
        {
            "docs": [str(version) for (version, _), _ in docs],
            "bodies": ["" if was == now else compact(now[1]) for was, now in docs],
            "events": [[place, compact(was), compact(now)] for place, (was, now) in events if was != now],
        }
    )


def _decoded(hash_: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in hash_.items()}
