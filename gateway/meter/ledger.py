"""The ledger in Redis: usage rows under (epoch, owner, number), fenced by the session's lease; atomic in Lua.

The lease of a session is a hash {epoch, owner, until, usage, final, high}: `epoch` rises with every owner and never
expires, `until` is Redis time, `usage` counts changes of the ledger, `high` is the latest Redis time seen, so that a
step back of its clock moves nothing back (6-media, Owners and clocks).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from gateway.errors import Conflict, StoreUnavailable
from gateway.journal import Fence
from gateway.keys import Keys
from gateway.meter.intervals import Interval

# Longer: an orphaned session waits longer for its next owner. Shorter: a stall of Redis costs the lease.
LEASE_MS: Final = 5_000

_NOW = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local high = tonumber(redis.call('HGET', KEYS[1], 'high') or '0')
if high > now then now = high end
"""

# KEYS: lease, epochs. ARGV: owner, lease ms, '1' if the caller knows that the owner is gone
ACQUIRE = (
    _NOW
    + """
local lease = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'until', 'final')
if lease[4] then return {err = 'FINAL'} end
if lease[2] and lease[2] ~= '' and lease[2] ~= ARGV[1] and tonumber(lease[3]) > now and ARGV[3] ~= '1' then
  return {err = 'HELD'}
end
local epoch = tonumber(lease[1] or '0')
if lease[2] ~= ARGV[1] then
  epoch = epoch + 1
  redis.call('HSET', KEYS[2], tostring(epoch), string.format('%.0f', now))
end
redis.call('HSET', KEYS[1], 'epoch', tostring(epoch), 'owner', ARGV[1],
  'until', string.format('%.0f', now + ARGV[2]), 'high', string.format('%.0f', now))
return {epoch, tonumber(redis.call('HGET', KEYS[2], tostring(epoch))), now}
"""
)

# KEYS: lease, epochs, usage. ARGV: epoch, owner, lease ms ('' leaves the lease alone), then number, start, end, ...
# Rows of an older epoch are accepted until the session is final, clipped to that epoch's time.
FLUSH = (
    _NOW
    + """
local lease = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'final')
if lease[3] then return {err = 'FINAL'} end
local from = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or 'nan')
if from ~= from then return {err = 'FENCED'} end
local mine = lease[1] == ARGV[1]
if mine and lease[2] ~= ARGV[2] then return {err = 'FENCED'} end
local to = now
if not mine then
  local following = tonumber(redis.call('HGET', KEYS[2], tostring(tonumber(ARGV[1]) + 1)) or tostring(now))
  if following < to then to = following end
end
local clipped = 0
for i = 4, #ARGV, 3 do
  local s, e = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  if s < from then s = from end
  if e > to then clipped = math.max(clipped, e - to); e = to end
  if e < s then e = s end
  redis.call('HSET', KEYS[3], ARGV[1] .. ':' .. ARGV[2] .. ':' .. ARGV[i],
    string.format('%.0f:%.0f', s, e))
end
if #ARGV > 3 then redis.call('HINCRBY', KEYS[1], 'usage', 1) end
if mine and ARGV[3] ~= '' then
  redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + ARGV[3]), 'high', string.format('%.0f', now))
end
return {clipped, now, mine and 1 or 0}
"""
)

# KEYS: lease. ARGV: epoch, owner
RELEASE = """
local lease = redis.call('HMGET', KEYS[1], 'epoch', 'owner')
if lease[1] == ARGV[1] and lease[2] == ARGV[2] then redis.call('HSET', KEYS[1], 'until', '0', 'owner', '') end
return 1
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a ledger: who wrote it, its number within that ownership, and the interval in wall ms."""

    epoch: int
    owner: str
    number: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Usage:
    """A session's ledger as read: rows in order of epoch and number, and the version to freeze it at."""

    rows: tuple[Row, ...]
    version: int

    @property
    def intervals(self) -> tuple[Interval, ...]:
        return tuple((row.start, row.end) for row in self.rows)


@dataclass(frozen=True, slots=True)
class Lease:
    """Ownership of a session since `acquired_at` (wall ms, Redis time); `now` is Redis's clock at that answer."""

    session: str
    epoch: int
    owner: str
    acquired_at: int
    now: int

    def fence(self, usage: int | None = None) -> Fence:
        return Fence(self.epoch, self.owner, usage)


@dataclass(frozen=True, slots=True)
class LeaseState:
    """A session's lease as anyone may see it."""

    epoch: int
    owner: str
    until: int
    final: bool


class Ledger:
    """Shell over Redis. Raises StoreUnavailable when it is away, Conflict `fenced`, `held` or `final` otherwise."""

    def __init__(self, redis: aioredis.Redis, keys: Keys, *, lease_ms: int = LEASE_MS) -> None:
        self._redis, self._keys, self.lease_ms = redis, keys, lease_ms
        self._acquire = redis.register_script(ACQUIRE)
        self._flush = redis.register_script(FLUSH)
        self._release = redis.register_script(RELEASE)

    async def acquire(self, session: str, owner: str, *, owner_gone: bool = False) -> Lease:
        """Become the owner under the next epoch; again for the same owner is a renewal. `owner_gone`: its heartbeat
        stopped, so its lease need not run out first."""
        keys = [self._keys.of(session, "lease"), self._keys.of(session, "epochs")]
        try:
            epoch, since, now = await self._acquire(keys=keys, args=[owner, self.lease_ms, "1" if owner_gone else ""])
        except RedisError as error:
            raise _translated(error) from error
        return Lease(session, int(epoch), owner, int(since), int(now))

    async def flush(self, lease: Lease, rows: Mapping[int, Interval], *, renew: bool = True) -> int:
        """Write rows (number → interval) and renew the lease, in one step. Returns by how many ms the latest row lies
        ahead of Redis's clock and was clipped; flush it once more that much later."""
        keys = [self._keys.of(lease.session, name) for name in ("lease", "epochs", "usage")]
        args: list[str | int] = [lease.epoch, lease.owner, self.lease_ms if renew else ""]
        for number, (start, end) in rows.items():
            args += [number, start, end]
        try:
            clipped, _now, _mine = await self._flush(keys=keys, args=args)
        except RedisError as error:
            raise _translated(error) from error
        return int(clipped)

    async def release(self, lease: Lease) -> None:
        """Give the session up so that another may claim it at once."""
        try:
            await self._release(keys=[self._keys.of(lease.session, "lease")], args=[lease.epoch, lease.owner])
        except RedisError as error:
            raise _translated(error) from error

    async def usage(self, session: str) -> Usage:
        """The whole ledger of a session. The version is read first: rows newer than it only make freezing fail."""
        try:
            pipe = self._redis.pipeline(transaction=True)
            pipe.execute_command("HGET", self._keys.of(session, "lease"), "usage")
            pipe.execute_command("HGETALL", self._keys.of(session, "usage"))
            version, rows = await pipe.execute()
        except RedisError as error:
            raise _translated(error) from error
        return Usage(tuple(sorted(_rows(rows), key=lambda r: (r.epoch, r.number))), int(version or 0))

    async def state(self, session: str) -> LeaseState | None:
        """The lease, or None if nobody ever owned the session."""
        try:
            key = self._keys.of(session, "lease")
            answer = await self._redis.execute_command("HMGET", key, "epoch", "owner", "until", "final")
        except RedisError as error:
            raise _translated(error) from error
        epoch, owner, until, final = answer
        if epoch is None:
            return None
        return LeaseState(int(epoch), owner.decode(), int(until), final is not None)


def _rows(answer: Mapping[bytes, bytes] | Sequence[bytes]) -> list[Row]:
    pairs = answer.items() if isinstance(answer, Mapping) else zip(answer[::2], answer[1::2], strict=True)
    rows = []
    for key, value in pairs:
        epoch, owner, number = key.decode().split(":")
        start, end = value.decode().split(":")
        rows.append(Row(int(epoch), owner, int(number), int(start), int(end)))
    return rows


def _translated(error: RedisError) -> Exception:
    text = str(error)
    for code, word in (("FENCED", "fenced"), ("HELD", "held"), ("FINAL", "final")):
        if text.startswith(code):
            return Conflict("Another owner has the session." if word != "final" else "The bill is final.", code=word)
    return StoreUnavailable("The session store is away; try again.")
