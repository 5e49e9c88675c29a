"""The ledger in Redis: usage rows under (epoch, owner, number), fenced by the session's lease; atomic in Lua.

The lease of a session is a hash {epoch, owner, until, usage, final, high}: `epoch` rises with every owner and never
expires, `until` is Redis time, `usage` counts changes of the ledger, `high` is the latest Redis time seen, so that a
step back of its clock moves nothing back (6-media, Owners and clocks). For each epoch N, `at:N` tells when it was
acquired, and `seq:N` the highest sequence of its flushes: what a hung Redis executes late, after its writer has long
written anew, changes nothing. `late:ROW` tells from when on a row was reported only after another had taken over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from gateway.archive.archive import Archive
from gateway.archive.snapshot import ROWS
from gateway.errors import Conflict, StoreUnavailable
from gateway.journal import Fence
from gateway.keys import Keys
from gateway.meter.chain import SealedRow
from gateway.meter.intervals import Interval, without
from gateway.scripts import Call, piped

# Longer: an orphaned session waits longer for its next owner. Shorter: a stall of Redis costs the lease.
LEASE_MS: Final = 5_000

# Sessions in one round trip: more, and the node's other work waits long while they are encoded; fewer, and a flush has
# more of them.
TOGETHER: Final = 1_000
# Round trips under way, each on a connection: the next is encoded while Redis works on those before. With fewer, one of
# the two waits; more are no faster.
UNDER_WAY: Final = 4

_NOW = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local high = tonumber(redis.call('HGET', KEYS[1], 'high') or '0')
if high > now then now = high end
"""

# KEYS: lease. ARGV: owner, lease ms, '1' if the caller knows that the owner is gone, '1' if Redis has only just come
# back: then a lease that ran out meanwhile says nothing about its owner.
ACQUIRE = (
    _NOW
    + """
local lease = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'until', 'final')
if lease[4] then return {err = 'FINAL'} end
if lease[2] and lease[2] ~= '' and lease[2] ~= ARGV[1] and ARGV[3] ~= '1'
  and (tonumber(lease[3]) > now or ARGV[4] == '1') then
  return {err = 'HELD'}
end
local epoch = tonumber(lease[1] or '0')
if lease[2] ~= ARGV[1] then
  epoch = epoch + 1
  redis.call('HSET', KEYS[1], 'at:' .. epoch, string.format('%.0f', now))
end
redis.call('HSET', KEYS[1], 'epoch', tostring(epoch), 'owner', ARGV[1],
  'until', string.format('%.0f', now + ARGV[2]), 'high', string.format('%.0f', now))
return {epoch, tonumber(redis.call('HGET', KEYS[1], 'at:' .. epoch)), now}
"""
)

# KEYS: lease, usage of each session. ARGV: lease ms, and one text with a line for each session: epoch, owner, acquired
# at, sequence ('-' = none), '1' to renew the lease, what the owner believes our time to be ('-' = nothing), and of each
# row number, start, end. One text, because an argument costs client and server more than all that is done with it here;
# so does an answer.
# Answers one text: code, ms by which its latest row was ahead of Redis's clock, and version of the ledger, of each.
# Rows of an older epoch are accepted until the session is final, clipped to that epoch's time. Its end is told by our
# clock, and rows are in the owner's: by as much as ours was set forward meanwhile it ended earlier on his. An epoch
# that is the next after the one stored was lost with Redis's last second: nobody else can have had it, so it is put
# back.
FLUSH = """
local call, match, find = redis.call, string.match, string.find
local t = call('TIME')
local clock = t[1] * 1000 + math.floor(t[2] / 1000)
local function text(number) return string.format('%.0f', number) end
local clock_text, until_text = text(clock), text(clock + ARGV[1])
local lines, at = ARGV[2], 1
local function rows_of(epoch, owner, from, to)
  local rows, ahead, prefix = {}, 0, epoch .. ':' .. owner .. ':'
  local number, first, last, after = match(lines, '^ (%d+) (%S+) (%S+)()', at)
  while number do
    local s, e = tonumber(first), tonumber(last)
    if s < from then s, first = from, text(from) end
    if e > to then ahead, e, last = math.max(ahead, e - to), to, text(to) end
    rows[#rows + 1] = prefix .. number
    rows[#rows + 1] = first .. ':' .. (e < s and first or last)
    at = after
    number, first, last, after = match(lines, '^ (%d+) (%S+) (%S+)()', at)
  end
  return rows, ahead
end
local function write(lease_key, usage_key)
  local epoch, owner, since, sequence, renew, theirs
  epoch, owner, since, sequence, renew, theirs, at = match(lines, '^(%d+) (%S+) (%d+) (%S+) (%d) (%S+)()', at)
  local at_name, seq_name = 'at:' .. epoch, 'seq:' .. epoch
  local lease = call('HMGET', lease_key, 'epoch', 'owner', 'final', 'high', 'usage', at_name, seq_name)
  if lease[3] then return 'final', 0, 0 end
  local now, now_text, until_at = clock, clock_text, until_text
  local high = tonumber(lease[4] or '0')
  if high > now then now, now_text, until_at = high, lease[4], text(high + ARGV[1]) end
  local code, from, current, holder = 'ok', lease[6] and tonumber(lease[6]), lease[1], lease[2]
  if not from then
    if tonumber(epoch) ~= tonumber(current or '0') + 1 then return 'fenced', 0, 0 end
    code, from, current, holder = 'restored', math.min(tonumber(since), now), epoch, owner
    call('HSET', lease_key, 'epoch', epoch, 'owner', owner, 'until', '0', at_name, text(from))
  end
  local mine, to = current == epoch and holder == owner, now
  if current == epoch then
    if not mine and holder ~= '' then return 'fenced', 0, 0 end
  else
    to = math.min(now, tonumber(call('HGET', lease_key, 'at:' .. (tonumber(epoch) + 1)) or now))
    if theirs ~= '-' then to = math.max(from, to - math.max(0, now - tonumber(theirs))) end
  end
  local usage = tonumber(lease[5] or '0')
  if lease[7] and sequence ~= '-' and tonumber(lease[7]) > tonumber(sequence) then return 'stale', 0, usage end
  local rows, ahead = rows_of(epoch, owner, from, to)
  local change = {}
  if current ~= epoch then
    for i = 1, #rows, 2 do
      local before = call('HGET', usage_key, rows[i])
      call('HSETNX', lease_key, 'late:' .. rows[i], match(before or rows[i + 1], before and '%d+$' or '^%d+'))
    end
  end
  if #rows > 0 then
    call('HSET', usage_key, unpack(rows))
    usage = usage + 1
    change = {'usage', usage}
    if sequence ~= '-' then change[3], change[4] = seq_name, sequence end
  end
  if mine and renew == '1' then
    local n = #change
    change[n + 1], change[n + 2], change[n + 3], change[n + 4] = 'until', until_at, 'high', now_text
  end
  if #change > 0 then call('HSET', lease_key, unpack(change)) end
  if not mine then return 'former', 0, usage end
  return code, ahead, usage
end
local answers = {}
for k = 1, #KEYS, 2 do
  local n = #answers
  answers[n + 1], answers[n + 2], answers[n + 3] = write(KEYS[k], KEYS[k + 1])
  at = find(lines, '\\n', at, true) + 1
end
return table.concat(answers, ' ')
"""

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

    @property
    def name(self) -> str:
        return f"{self.epoch}:{self.owner}:{self.number}"


@dataclass(frozen=True, slots=True)
class Usage:
    """A session's ledger as read: rows in order of epoch and number, and the version to freeze it at. `dropped`: the
    rows were kept for their time, and are gone; the frozen bill still has their union. `late`: from when on a row (by
    its place in `rows`) was reported only after another owner had taken over."""

    rows: tuple[Row, ...]
    version: int
    dropped: bool = False
    late: Mapping[int, int] = field(default_factory=dict)

    @property
    def intervals(self) -> tuple[Interval, ...]:
        return tuple((row.start, row.end) for row in self.rows)

    def unseen(self, epoch: int, shown: Iterable[Interval]) -> tuple[Interval, ...]:
        """What owners before `epoch` used beyond what is `shown` of them, and which `epoch` itself did not use."""
        own = [(row.start, row.end) for row in self.rows if row.epoch == epoch]
        return without(((row.start, row.end) for row in self.rows if row.epoch != epoch), (*own, *shown))

    @property
    def unclaimed(self) -> tuple[Interval, ...]:
        """What was reported late and no owner can say to have displayed: the last one died with that knowledge."""
        late = [(since, self.rows[place].end) for place, since in self.late.items()]
        rows = enumerate(self.rows)
        timely = ((row.start, min(row.end, self.late.get(place, row.end))) for place, row in rows)
        return without((span for span in late if span[0] < span[1]), (span for span in timely if span[0] < span[1]))

    @property
    def sealed(self) -> list[SealedRow]:
        """The rows as the chain takes them."""
        return [(row.epoch, row.owner, row.number, row.start, row.end) for row in self.rows]


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
class Write:
    """What one owner wants in the ledger of one session: rows by number. `sequence` rises with each write of an owner
    (None: whatever comes last counts); `renew` prolongs the lease; `at` is what it believes Redis's time to be, by the
    clock that its rows are in (wall ms)."""

    lease: Lease
    rows: Mapping[int, Interval]
    sequence: int | None = None
    renew: bool = True
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a write. `ok`; `restored`: Redis had lost the lease, it is back; `former`: taken, but another owns
    the session by now; `stale`: a later write was faster; `fenced`, `final`: refused; `away`: Redis did not do it.

    `ahead_ms`: the latest row was that far ahead of Redis's clock and was clipped, so write it again that much later.
    `usage`: the ledger's version; one that falls tells that Redis lost writes which it had answered.
    """

    code: Literal["ok", "restored", "former", "stale", "fenced", "final", "away"]
    ahead_ms: int = 0
    usage: int = 0


@dataclass(frozen=True, slots=True)
class LeaseState:
    """A session's lease as anyone may see it."""

    epoch: int
    owner: str
    until: int
    final: bool


class Ledger:
    """Shell over Redis. Raises StoreUnavailable when it is away, Conflict `fenced`, `held` or `final` otherwise."""

    def __init__(
        self, redis: aioredis.Redis, keys: Keys, *, lease_ms: int = LEASE_MS,
        settling: Callable[[], bool] = lambda: False, archive: Archive | None = None,
    ) -> None:  # fmt: skip
        """`settling`: Redis came back so lately that only a session's last owner may claim it (6-media)."""
        self._redis, self._keys, self.lease_ms, self._settling = redis, keys, lease_ms, settling
        self._archive = archive
        self._acquire = redis.register_script(ACQUIRE)
        self._flush = redis.register_script(FLUSH)
        self._release = redis.register_script(RELEASE)

    async def acquire(self, session: str, owner: str, *, owner_gone: bool = False) -> Lease:
        """Become the owner under the next epoch; again for the same owner is a renewal. `owner_gone`: its heartbeat
        stopped, so its lease need not run out first."""
        try:
            args: list[str | int] = [owner, self.lease_ms, "1" if owner_gone else "", "1" if self._settling() else ""]
            epoch, since, now = await self._acquire(keys=[self._keys.of(session, "lease")], args=args)
        except RedisError as error:
            raise _translated(error) from error
        return Lease(session, int(epoch), owner, int(since), int(now))

    async def flush(self, lease: Lease, rows: Mapping[int, Interval], *, renew: bool = True) -> int:
        """Write rows (number → interval) and renew the lease, in one step. Returns by how many ms the latest row lies
        ahead of Redis's clock and was clipped; flush it once more that much later."""
        (written,) = await self.write([Write(lease, rows, renew=renew)])
        if written.code == "away":
            raise StoreUnavailable("The session store is away; try again.")
        if written.code in ("fenced", "final"):
            raise refusal(written.code)
        return written.ahead_ms

    async def write(self, writes: Sequence[Write]) -> list[Written]:
        """Many sessions' rows: one script call for each partition, some of them sent together. Never raises for Redis:
        what it did not do is answered `away`, and may be written again as it is."""
        written = [Written("away")] * len(writes)
        trips = iter(self._trips(writes))

        async def travel() -> None:
            for trip in trips:
                if not await self._write_some(writes, trip, written):
                    return  # or a Redis that hangs would be waited for once for each trip

        await asyncio.gather(*(travel() for _ in range(UNDER_WAY)))
        return written

    def _trips(self, writes: Sequence[Write]) -> list[list[list[int]]]:
        """Places in `writes`, by round trip and partition."""
        parts: dict[int, list[int]] = {}
        for index, write in enumerate(writes):
            parts.setdefault(self._keys.partition(write.lease.session), []).append(index)
        trips: list[list[list[int]]] = [[]]
        for members in parts.values():
            if sum(map(len, trips[-1])) >= TOGETHER:
                trips.append([])
            trips[-1].append(members)
        return trips

    async def _write_some(
        self, writes: Sequence[Write], parts: Sequence[Sequence[int]], written: list[Written]
    ) -> bool:
        """Whether Redis answered."""
        calls = [self._call([writes[index] for index in members]) for members in parts]
        try:
            answers = await piped(self._redis, self._flush, calls)
        except (RedisError, OSError):
            return False
        for members, answer in zip(parts, answers, strict=True):
            if isinstance(answer, Exception):
                continue
            words = answer.decode().split()
            for place, index in enumerate(members):
                code, ahead, usage = words[3 * place : 3 * place + 3]
                written[index] = Written(code, int(ahead), int(usage))
        return True

    def _call(self, writes: Sequence[Write]) -> Call:
        keys: list[str] = []
        lines: list[str] = []
        for write in writes:
            lease = write.lease
            tag = self._keys.of(lease.session, "")
            keys += (f"{tag}lease", f"{tag}usage")
            sequence = "-" if write.sequence is None else write.sequence
            rows = "".join([f" {number} {start} {end}" for number, (start, end) in write.rows.items()])
            theirs = "-" if write.at is None else write.at
            lines.append(f"{lease.epoch} {lease.owner} {lease.acquired_at} {sequence} {write.renew:d} {theirs}{rows}\n")
        return keys, (self.lease_ms, "".join(lines))

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
            pipe.execute_command("HGETALL", self._keys.of(session, "lease"))
            pipe.execute_command("HGETALL", self._keys.of(session, "usage"))
            lease, rows = (_text(answer) for answer in await pipe.execute())
        except RedisError as error:
            raise _translated(error) from error
        if "epoch" not in lease and self._archive is not None and (kept := await self._archive.find(session)):
            lease, rows = kept.lease, kept.usage
        read = tuple(sorted(_rows(rows), key=lambda r: (r.epoch, r.number, r.owner)))
        late = {place: int(lease[name]) for place, row in enumerate(read) if (name := f"late:{row.name}") in lease}
        return Usage(read, int(lease.get("usage", 0)), ROWS in lease, late)

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


def _text(answer: Mapping[bytes, bytes] | Sequence[bytes]) -> Mapping[str, str]:
    pairs = answer.items() if isinstance(answer, Mapping) else zip(answer[::2], answer[1::2], strict=True)
    return {name.decode(): value.decode() for name, value in pairs}


def _rows(fields: Mapping[str, str]) -> list[Row]:
    rows = []
    for name, value in fields.items():
        epoch, owner, number = name.split(":")
        start, end = value.split(":")
        rows.append(Row(int(epoch), owner, int(number), int(start), int(end)))
    return rows


def _translated(error: RedisError) -> Exception:
    text = str(error)
    for code, word in (("FENCED", "fenced"), ("HELD", "held"), ("FINAL", "final")):
        if text.startswith(code):
            return refusal(word)
    return StoreUnavailable("The session store is away; try again.")


def refusal(code: str) -> Conflict:
    """The error of a refused write or claim: `fenced`, `held` or `final`."""
    return Conflict("Another owner has the session." if code != "final" else "The bill is final.", code=code)
