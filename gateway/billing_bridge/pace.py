"""Stripe's limits kept before Stripe has to: one token bucket an account and one an endpoint, over all bridges.

Who waits stands in order of rank: first the class (holds of waiting callers, then captures, then what follows them),
then within it, for captures, the time at which their hold is lost.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import redis.asyncio as aioredis
import structlog
from prometheus_client import Gauge
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

WAITING = Gauge("gateway_stripe_waiting_requests", "Requests that wait for their turn within Stripe's limits")

# A bucket holds half a second's worth. Requests that were let go together may be up to half a second apart when they
# reach Stripe, and still be within the second's worth that Stripe allows at once.
BURST_S: Final = 0.5
PAUSE_S: Final = 0.02
PLENTY: Final = 1_000_000

Rank = tuple[int, int]

# KEYS: the account's buckets. ARGV: requests a second in all and at an endpoint (0: no limit), then endpoint, class
# and number wanted, most urgent first. What a more urgent class lacked a moment ago, anywhere, no other class takes.
TAKE = """
local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000
local function left(name, rate)
  local kept = redis.call('HMGET', KEYS[1], name, name .. '@')
  local most = math.max(1, rate * BURST)
  return math.min(most, tonumber(kept[1] or most) + (now - tonumber(kept[2] or now)) * rate / 1000)
end
local function put(name, tokens)
  redis.call('HSET', KEYS[1], name, string.format('%.6f', tokens), name .. '@', string.format('%.3f', now))
end
local all, each, granted = tonumber(ARGV[1]), tonumber(ARGV[2]), {}
local total = all > 0 and left('total', all)
for i = 3, #ARGV, 3 do
  local class, give = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local own = each > 0 and left('at:' .. ARGV[i], each)
  if own then give = math.min(give, math.floor(own)) end
  if total then
    local open = math.floor(total)
    for higher = 0, class - 1 do
      if now - tonumber(redis.call('HGET', KEYS[1], 'lack:' .. higher) or 0) < 250 then open = 0 end
    end
    if open < give then redis.call('HSET', KEYS[1], 'lack:' .. class, string.format('%.3f', now)) end
    give = math.max(0, math.min(give, open))
    total = total - give
  end
  if own then put('at:' .. ARGV[i], own - give) end
  granted[#granted + 1] = give
end
if total then put('total', total) end
redis.call('PEXPIRE', KEYS[1], 60000)
return granted
""".replace("BURST", str(BURST_S))


@dataclass(order=True, slots=True)
class _Waiter:
    rank: Rank
    number: int
    turn: asyncio.Future[bool] = field(compare=False)


class Pace:
    """Shell over Redis. `per_second`, `per_endpoint`: 0 is no limit; `name` tells buckets apart; `room` says how many
    of an operation may be let go now for other reasons."""

    def __init__(
        self, redis: aioredis.Redis, per_second: int, per_endpoint: int, name: str = "send",
        room: Callable[[str], int] = lambda operation: PLENTY,
    ) -> None:  # fmt: skip
        self._take = redis.register_script(TAKE)
        self._key = f"{{stripe:{name}}}:tokens"
        self._limits, self._room = (per_second, per_endpoint), room
        self._waiting: dict[str, list[_Waiter]] = {}
        self._numbers = itertools.count()
        self._pacer: asyncio.Task[None] | None = None

    async def at_once(self, operation: str, rank: Rank) -> bool:
        """Whether the request may go now; nobody overtakes those who wait for the same endpoint. Raises RedisError."""
        if not any(self._limits):
            return True
        if self._waiting.get(operation) or self._room(operation) <= 0:
            return False
        return (await self._ask([(operation, rank[0], 1)]))[0] == 1

    async def turn(self, operation: str, rank: Rank, patience_s: float) -> bool:
        """Wait for the request's turn; False if it did not come within `patience_s`, or the bridge stops."""
        waiter = _Waiter(rank, next(self._numbers), asyncio.get_running_loop().create_future())
        heapq.heappush(self._waiting.setdefault(operation, []), waiter)
        if self._pacer is None or self._pacer.done():
            self._pacer = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(patience_s):
                with WAITING.track_inprogress():
                    return await waiter.turn
        except TimeoutError:
            return False

    def waiting(self, operation: str) -> int:
        """How many of this process wait for their turn."""
        return len(self._waiting.get(operation, ()))

    def halt(self) -> None:
        """Send all who wait away."""
        for waiters in self._waiting.values():
            for waiter in waiters:
                if not waiter.turn.done():
                    waiter.turn.set_result(False)

    async def _run(self) -> None:
        """Hand out turns until nobody waits."""
        while self._still_waiting():
            ready = ((op, min(len(waiters), self._room(op))) for op, waiters in self._waiting.items())
            wanted = [(op, self._waiting[op][0].rank[0], number) for op, number in ready if number > 0]
            wanted.sort(key=lambda each: each[1])
            try:
                granted = await self._ask(wanted) if wanted else []
            except RedisError as error:
                log.warning("pace.store_away", error=type(error).__name__)
                granted = [0] * len(wanted)
            for (operation, _, _), count in zip(wanted, granted, strict=True):
                self._let_go(operation, count)
            await asyncio.sleep(PAUSE_S)

    def _let_go(self, operation: str, count: int) -> None:
        waiters = self._waiting[operation]
        while count and waiters:
            waiter = heapq.heappop(waiters)
            if not waiter.turn.done():
                waiter.turn.set_result(True)
                count -= 1

    def _still_waiting(self) -> bool:
        for operation in list(self._waiting):
            waiters = self._waiting[operation]
            while waiters and waiters[0].turn.done():
                heapq.heappop(waiters)
            if not waiters:
                del self._waiting[operation]
        return bool(self._waiting)

    async def _ask(self, wanted: Sequence[tuple[str, int, int]]) -> list[int]:
        args: list[Any] = [*self._limits]
        for each in wanted:
            args += each
        return [int(count) for count in await self._take(keys=[self._key], args=args)]
