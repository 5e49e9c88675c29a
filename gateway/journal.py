"""All records of a session, changed together or not at all, with the numbered events that tell of the change.

One Lua script is the only writer of records: it compares versions (and the owner's fence), puts the new bodies,
appends events (their place in the list *is* their sequence, so it has no gaps: law 8), schedules the session in work
queues and publishes that it changed. Queues are sorted sets by time; an entry says only "look at this session", so
a claim that its worker did not survive reappears by itself and doing it twice does nothing twice.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from gateway.archive.archive import Archive
from gateway.archive.hot import Hot, bring_back
from gateway.archive.snapshot import Snapshot
from gateway.archive.store import ArchiveUnavailable
from gateway.disk import Disk
from gateway.errors import Conflict, NotFound, StoreUnavailable
from gateway.ids import born_ms, first_id, new_id
from gateway.keys import EVENT_INDEX, LASTING, RECORDS, Keys, Line
from gateway.scripts import piped
from gateway.trips import Trips

API_VERSION = "2026-11-01"
# Nobody reads the stream of finalized sessions but those who watch; sessions themselves are the records.
STREAMED = 100

# KEYS: one doc each
READ = """
local found = {}
for i, key in ipairs(KEYS) do found[i] = redis.call('HMGET', key, 'v', 'body') end
return found
"""

# KEYS: session's events, lease; then one doc each; then one queue each; then the finalized stream, the index of events;
# then a list and its lines each; the session's own record
# ARGV: JSON of the command (below)
COMMIT = """
local cmd = cjson.decode(ARGV[1])
if cmd.here and redis.call('EXISTS', KEYS[#KEYS]) == 0 then return {err = 'ELSEWHERE'} end
if cmd.fence then
  local lease = redis.call('HMGET', KEYS[2], 'epoch', 'owner', 'usage')
  if lease[1] ~= cmd.fence.epoch or lease[2] ~= cmd.fence.owner then return {err = 'FENCED'} end
  if cmd.fence.usage and (lease[3] or '0') ~= cmd.fence.usage then return {err = 'USAGE'} end
end
for i, doc in ipairs(cmd.docs) do
  local version = redis.call('HGET', KEYS[2 + i], 'v') or '0'
  if version ~= doc.version then return {err = 'VERSION ' .. doc.name} end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i, doc in ipairs(cmd.docs) do
  redis.call('HSET', KEYS[2 + i], 'v', tostring(tonumber(doc.version) + 1), 'body', doc.body)
end
for _, event in ipairs(cmd.events) do
  local sequence = redis.call('LLEN', KEYS[1]) + 1
  redis.call('RPUSH', KEYS[1], '{"id":"' .. event.id .. '","type":"' .. event.type .. '","api_version":"' ..
    cmd.api_version .. '","created":' .. string.format('%.0f', now) .. ',"session":"' .. cmd.session ..
    '","sequence":' .. sequence .. ',"data":' .. event.data .. '}')
end
local base = 2 + #cmd.docs
for i, event in ipairs(cmd.events) do
  local sequence = redis.call('LLEN', KEYS[1]) - #cmd.events + i
  redis.call('ZADD', KEYS[base + #cmd.queues + 2], 0, event.id .. '|' .. cmd.session .. '|' .. sequence)
end
for i, queue in ipairs(cmd.queues) do
  if queue.at == 'none' then redis.call('ZREM', KEYS[base + i], cmd.session)
  elseif queue.at == 'now' then
    redis.call('ZADD', KEYS[base + i], now, cmd.session)
    redis.call('PUBLISH', queue.channel, cmd.session)
  else redis.call('ZADD', KEYS[base + i], queue.at, cmd.session) end
end
if cmd.final then
  redis.call('HSET', KEYS[2], 'final', '1')
  redis.call('XADD', KEYS[base + #cmd.queues + 1], 'MAXLEN', '~', STREAMED, '*',
    'session', cmd.session, 'record', cmd.final)
end
for i, line in ipairs(cmd.lines) do
  redis.call('ZADD', KEYS[base + #cmd.queues + 1 + 2 * i], line.at, cmd.session)
  redis.call('HSET', KEYS[base + #cmd.queues + 2 + 2 * i], cmd.session, line.body)
end
redis.call('PUBLISH', cmd.channel, cmd.session)
return now
""".replace("STREAMED", str(STREAMED))

# KEYS: queue, its claims (member -> until when). ARGV: now (ms) or '' for Redis time, lease ms, limit
# What someone works on is not given out again: a wish that arrives meanwhile waits, one ms behind the claim's own end,
# by which `DONE` knows it.
CLAIM = """
local now = tonumber(ARGV[1])
if not now then local t = redis.call('TIME'); now = t[1] * 1000 + math.floor(t[2] / 1000) end
local until_ = now + tonumber(ARGV[2])
local given = {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, tonumber(ARGV[3]))) do
  local held = tonumber(redis.call('HGET', KEYS[2], member) or '0')
  if held > now then redis.call('ZADD', KEYS[1], held + 1, member)
  else
    redis.call('ZADD', KEYS[1], until_, member)
    redis.call('HSET', KEYS[2], member, string.format('%.0f', until_))
    given[#given + 1] = member
  end
end
return {until_, given}
"""

# KEYS: queue, its claims, the record that was looked at. ARGV: member, the score that our claim gave it, when next
# ('' = never), the queue's channel, the version at which the look left the record ('' = any)
# Someone who put it there again meanwhile wants another look, and gets it now; so does a record which has fallen behind
# its look: Redis lost its power in between, and what the look concluded with it.
DONE = """
local there = ARGV[5] ~= '' and redis.call('HGET', KEYS[3], 'v')
if there and tonumber(there) < tonumber(ARGV[5]) then
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('ZADD', KEYS[1], 0, ARGV[1])
  redis.call('PUBLISH', ARGV[4], ARGV[1])
  return 1
end
if redis.call('HGET', KEYS[2], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[2], ARGV[1]) end
local at = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or -1)
if at == -1 then return 0 end
if at == tonumber(ARGV[2]) then
  if ARGV[3] == '' then return redis.call('ZREM', KEYS[1], ARGV[1]) end
  redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
elseif at == tonumber(ARGV[2]) + 1 then
  redis.call('ZADD', KEYS[1], 0, ARGV[1])
  redis.call('PUBLISH', ARGV[4], ARGV[1])
end
return 1
"""

# A session is not older than this when it is looked for before it is there.
MAKING_MS = 60_000
GATHER_S = 0.005  # a durable commit waits so long for others; the disk takes up to a second
NOW = 0  # in `due`: as soon as the commit is in, by Redis's own clock


@dataclass(frozen=True, slots=True)
class Doc:
    """One record: its body and the version that the next commit must name."""

    version: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """What happened, for the marketplace's webhooks; number and time are given by the commit."""

    type: str
    data: dict[str, Any]
    id: str = field(default_factory=lambda: new_id("evt"))


@dataclass(frozen=True, slots=True)
class Fence:
    """The writer's ownership: refused unless the session's lease still names it (law 3). With `usage`, also unless
    the ledger is still at that version, so that a bill is frozen over exactly the rows it was made from."""

    epoch: int
    owner: str
    usage: int | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed entry of a work queue; give it back to `done`."""

    queue: str
    session: str
    until: int


@dataclass(slots=True)
class _Group:
    """Commits that wait for one fsync, and who waits for each."""

    commits: list[tuple[list[str], list[Any], asyncio.Future[Any]]]
    task: asyncio.Task[None] | None = None


class Journal:
    """Shell over Redis. `waitaof_ms` bounds how long a durable commit waits for its fsync: with `appendfsync everysec`
    that comes as the second turns, so a bound of one second would refuse the unlucky.

    With an `archive`, sessions in it are read as if they were here, and whoever changes one brings it back first.
    """

    def __init__(
        self, redis: aioredis.Redis, keys: Keys | None = None, *, waitaof_ms: int = 2000,
        archive: Archive | None = None,
    ) -> None:  # fmt: skip
        self.redis = redis
        self.trips = Trips(redis)
        self.keys = keys or Keys()
        self._waitaof_ms = waitaof_ms
        self.archive = archive
        self.hot = Hot(redis, self.keys, waitaof_ms=waitaof_ms)
        self.disk = Disk(redis, waitaof_ms=waitaof_ms)
        self._read = redis.register_script(READ)
        self._commit = redis.register_script(COMMIT)
        self._claim = redis.register_script(CLAIM)
        self._done = redis.register_script(DONE)
        self._group: _Group | None = None

    @property
    def channel(self) -> str:
        return "gateway:changes"

    async def read(self, session: str, *names: str) -> dict[str, Doc | None]:
        """The named docs; None where there is none. Raises StoreUnavailable."""
        try:
            rows = await self.trips.run(self._read, [self.keys.of(session, name) for name in names], [])
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error
        if all(row[0] is None for row in rows) and (kept := await self.archived(session)):
            return {name: Doc(*kept.docs[name]) if name in kept.docs else None for name in names}
        return {
            name: Doc(int(row[0]), json.loads(row[1])) if row[0] is not None else None
            for name, row in zip(names, rows, strict=True)
        }

    async def archived(self, session: str) -> Snapshot | None:
        """The session as the archive has it. Whoever asks has found nothing here: what is here outranks it."""
        if self.archive is None:
            return None
        try:
            return await self.archive.find(session)
        except ArchiveUnavailable:
            if _just_made(session):
                return None  # new sessions need no archive
            raise

    async def wake(self, session: str) -> bool:
        """Bring an archived session back, to be changed; it is archived again when it has come to rest. False if it is
        in no archive."""
        if self.archive is None:
            return False
        return await bring_back(self.archive, self.hot, session, await self._now_ms()) is not None

    async def _now_ms(self) -> int:
        seconds, micros = await self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def commit(
        self,
        session: str,
        put: Mapping[str, tuple[int, Mapping[str, Any]]],
        *,
        events: Sequence[Event] = (),
        due: Mapping[str, int | None] | None = None,
        fence: Fence | None = None,
        finalized: Mapping[str, Any] | None = None,
        lines: Sequence[Line] = (),
        durable: bool = False,
    ) -> dict[str, int]:
        """Put all of `put` (name → expected version, 0 for a new doc, and body), or nothing; returns the new versions.

        `due`: queue → wall ms, NOW, or None to take it out. `lines`: put or replaced in the same step. Events also put
        the session into `outbox`.
        `durable`: confirmed on disk before it returns; unconfirmed it raises StoreUnavailable although the write may
        yet survive, so the caller must act as if it had not been told (5-money, Durability).
        Raises Conflict with code `version_conflict` or `fenced`.
        """
        assert put.keys() <= {*RECORDS, *LASTING}, "name a new document in gateway.keys"
        queues = dict(due or {})
        if events:
            queues.setdefault("outbox", NOW)
        command = {
            "session": session,
            "api_version": API_VERSION,
            "channel": self.channel,
            "docs": [
                {"name": name, "version": str(version), "body": _json(body)} for name, (version, body) in put.items()
            ],
            "events": [{"id": e.id, "type": e.type, "data": _json(e.data)} for e in events],
            "queues": [{"at": _at(when), "channel": self._calls(queue)} for queue, when in queues.items()],
            "lines": [{"at": line.at, "body": _json(line.body)} for line in lines],
            "fence": fence
            and {
                "epoch": str(fence.epoch),
                "owner": fence.owner,
                **({} if fence.usage is None else {"usage": str(fence.usage)}),
            },
            "final": None if finalized is None else _json(finalized),
            "here": True if self.archive is not None and _must_be_here(put) else None,
        }
        keys = [
            self.keys.of(session, "events"),
            self.keys.of(session, "lease"),
            *(self.keys.of(session, name) for name in put),
            *(self.keys.beside(session, f"due:{queue}") for queue in queues),
            self.keys.beside(session, "finalized"),
            self.keys.beside(session, EVENT_INDEX),
            *(
                key
                for line in lines
                for key in (self.keys.beside(session, line.list), self.keys.lines_of(session, line.list))
            ),
            self.keys.of(session, "session"),
        ]
        text = json.dumps({k: v for k, v in command.items() if v is not None})
        try:
            await self._run(keys, [text], durable)
        except _Elsewhere:
            if not await self.wake(session):
                raise NotFound(f"There is no session {session}.", code="session_not_found", param="id") from None
            await self._run(keys, [text], durable)
        return {name: version + 1 for name, (version, _) in put.items()}

    async def _run(self, keys: list[str], args: list[Any], durable: bool) -> Any:
        try:
            return await (self._confirmed(keys, args) if durable else self.trips.run(self._commit, keys, args))
        except RedisError as error:
            text = str(error)
            if text.startswith("ELSEWHERE"):
                raise _Elsewhere from error
            if text.startswith("FENCED"):
                raise Conflict("Another owner has the session.", code="fenced") from error
            if text.startswith(("VERSION", "USAGE")):
                raise Conflict("The session changed meanwhile; read it again.", code="version_conflict") from error
            raise StoreUnavailable("The session store is away; try again.") from error

    async def _confirmed(self, keys: list[str], args: list[Any]) -> Any:
        """One commit among those that go to the disk together: a connection that waits for its fsync does nothing else
        meanwhile, so many commits share one."""
        if self._group is None:
            self._group = _Group([])
            self._group.task = asyncio.create_task(self._write(self._group))
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._group.commits.append((keys, args, answer))
        return await answer

    async def _write(self, group: _Group) -> None:
        await asyncio.sleep(GATHER_S)
        self._group = None
        try:
            # WAITAOF speaks of the connection's own writes, so all must go over the same one.
            calls = [(keys, args) for keys, args, _ in group.commits]
            *results, confirmed = await piped(self.redis, self._commit, calls, ("WAITAOF", 1, 0, self._waitaof_ms))
            if isinstance(confirmed, Exception):
                raise confirmed
            unconfirmed = StoreUnavailable("The session store did not confirm the write on disk.")
            answers = [result if isinstance(result, Exception) or confirmed[0] else unconfirmed for result in results]
        except BaseException as error:
            answers = [error] * len(group.commits)
        for (_, _, answer), result in zip(group.commits, answers, strict=True):
            if answer.done():
                continue  # whoever asked was cancelled meanwhile
            if isinstance(result, BaseException):
                answer.set_exception(result)
            else:
                answer.set_result(result)

    async def events(self, session: str, after: int = 0) -> list[dict[str, Any]]:
        """The session's events with sequence > `after`, in order."""
        try:
            key = self.keys.of(session, "events")
            rows, here = await self.trips.ask(("LRANGE", key, after, -1), ("EXISTS", key))
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error
        if not here and (kept := await self.archived(session)):
            return list(kept.events[after:])
        return [json.loads(row) for row in rows]

    async def count_events(self, session: str) -> int:
        """How many events the session has here; 0 once it is in the archive, where nothing is left to be told."""
        try:
            return int((await self.trips.ask(("LLEN", self.keys.of(session, "events"))))[0])
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error

    async def event_place(self, event_id: str) -> tuple[str, int] | None:
        """Session and sequence of an event, by its id alone."""
        found = await self._indexed(f"[{event_id}|", f"[{event_id}|~", 1)
        return (found[0][1], found[0][2]) if found else None

    async def events_since(self, at: int, after: str = "", limit: int = 100) -> list[tuple[str, str, int]]:
        """Events of all sessions made at `at` (wall ms) or later, oldest first: id, session, sequence. `after`: the
        last id of the page before."""
        return await self._indexed(f"({after}|~" if after else f"[{first_id('evt', at)}", "+", limit)

    async def _indexed(self, first: str, last: str, limit: int) -> list[tuple[str, str, int]]:
        try:
            pipe = self.redis.pipeline(transaction=False)
            for partition in range(self.keys.partitions):
                key = self.keys.shared(partition, EVENT_INDEX)
                pipe.execute_command("ZRANGE", key, first, last, "BYLEX", "LIMIT", 0, limit)
            rows = [row.decode().split("|") for part in await pipe.execute() for row in part]
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error
        return [(id, session, int(sequence)) for id, session, sequence in sorted(rows)[:limit]]

    async def due(
        self, queue: str, *, lease_ms: int, limit: int = 100, now: int | None = None, of: Collection[str] | None = None
    ) -> list[Claim]:
        """Claim sessions whose time in `queue` has come; each stays hidden for `lease_ms`, then comes again unless
        `done` was called. `limit` holds for each partition; `of`: only partitions of these sessions are looked at.
        Without `now`, Redis's own clock decides."""
        partitions = range(self.keys.partitions) if of is None else sorted({self.keys.partition(each) for each in of})
        keys = [self.keys.shared(partition, f"due:{queue}") for partition in partitions]
        args = ["" if now is None else now, lease_ms, limit]
        try:
            calls = [([key, f"{key}:claims"], args) for key in keys]
            answers = await self.trips.run_each(self._claim, calls)
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error
        return [Claim(queue, member.decode(), int(until)) for until, members in answers for member in members]

    async def done(self, claim: Claim, again_at: int | None = None, left: tuple[str, int] | None = None) -> None:
        """The claimed look is over; look again at `again_at` (wall ms), or not until someone asks. `left`: a doc and
        the version at which it was left; if Redis has lost that since, look again at once."""
        key = self.keys.beside(claim.session, f"due:{claim.queue}")
        name, version = left or ("session", "")
        try:
            again = "" if again_at is None else again_at
            args: list[str | int] = [claim.session, claim.until, again, self._calls(claim.queue), version]
            await self.trips.run(self._done, [key, f"{key}:claims", self.keys.of(claim.session, name)], args)
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error

    async def schedule(self, queue: str, session: str, at: int) -> None:
        """Ask for a look at a session outside of a commit."""
        await self.redis.zadd(self.keys.beside(session, f"due:{queue}"), {session: at})
        await self.redis.publish(self._calls(queue), session)

    def changes(self) -> AsyncIterator[str]:
        """Ids of sessions as they change. Only a wake-up: messages are lost while Redis is away; polling is the truth.

        Ends (StoreUnavailable) when the connection does; subscribe again then."""
        return self._told(self.channel)

    def calls(self, queue: str) -> AsyncIterator[str]:
        """Ids of sessions as they are put into `queue` to be looked at now; a wake-up as `changes` is."""
        return self._told(self._calls(queue))

    def _calls(self, queue: str) -> str:
        return f"gateway:due:{queue}"

    async def _told(self, channel: str) -> AsyncIterator[str]:
        async with self.redis.pubsub() as pubsub:
            try:
                await pubsub.subscribe(channel)
                async for message in pubsub.listen():
                    if message["type"] == "message":
                        yield message["data"].decode()
            except RedisError as error:
                raise StoreUnavailable("The session store is away.") from error


_json: Final = json.JSONEncoder(separators=(",", ":")).encode  # `json.dumps` makes an encoder for each call


class _Elsewhere(Exception):
    """The session is not in Redis: it was archived, or never was."""


def _just_made(session: str) -> bool:
    with suppress(ValueError):
        return born_ms(session) > time.time_ns() // 1_000_000 - MAKING_MS
    return False


def _must_be_here(put: Mapping[str, tuple[int, Mapping[str, Any]]]) -> bool:
    """Whether the commit changes a session rather than making it: one that was archived must come back first."""
    return put.get("session", (1, {}))[0] > 0 and not put.keys() & set(LASTING)


def _at(when: int | None) -> str:
    if when is None:
        return "none"
    return "now" if when == NOW else str(when)
