"""One platform account at Stripe as a bridge uses it: its client, what it settles in, and its limits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from gateway.billing_bridge.calls import Call
from gateway.billing_bridge.outcome import Busy, Outcome
from gateway.billing_bridge.pace import Pace, Rank
from gateway.billing_bridge.pricing import Terms
from gateway.billing_bridge.stripe_client import StripeClient
from gateway.payees.routes import MAIN

# A request that waits longer than this to begin is looked at anew, since the session may have changed. Not sooner: its
# turn may come and go meanwhile.
BEGIN_S: Final = 25.0
GO_S: Final = 15.0
# Behind holds, captures, what follows them, and what only asks about one session.
LAST: Final[Rank] = (4, 0)
WAITS_S: Final = (1.0, 5.0, 20.0)


class Platform:
    """Shell. `per_second`, `per_endpoint`: Stripe's limits of this account over all bridges (0: none);
    `concurrency`: calls at once."""

    def __init__(
        self,
        redis: aioredis.Redis,
        stripe: StripeClient,
        terms: Terms,
        *,
        per_second: int,
        per_endpoint: int,
        concurrency: int,
        name: str = MAIN,
    ) -> None:
        self.stripe, self.terms = stripe, terms
        suffix = "" if name == MAIN else f":{name}"
        # Who may go, once the step is on disk: fsyncs come once a second, and would let a second's worth go together.
        self._gate = Pace(redis, per_second, per_endpoint, f"send{suffix}")
        # Who may begin, in order of urgency: a little more than may go, so that the gate never stands idle, but nobody
        # while a second's worth waits there, where urgency counts no more.
        self._pace = Pace(
            redis, -(-per_second * 21 // 20), -(-per_endpoint * 21 // 20), f"begin{suffix}",
            lambda operation: (per_endpoint or per_second) - self._gate.waiting(operation),
        )  # fmt: skip
        self._slots = asyncio.Semaphore(concurrency)

    async def may_begin(self, operation: str, rank: Rank) -> bool:
        """Whether the limits have room for one more at once. Raises RedisError."""
        return await self._pace.at_once(operation, rank)

    async def turn(self, operation: str, rank: Rank) -> bool:
        """Wait until they have; False if that takes too long, or the bridge stops."""
        return await self._pace.turn(operation, rank, BEGIN_S)

    async def send(self, call: Call, rank: Rank) -> Outcome:
        """One request; Busy if the limits had no room for long, or the bridge stops."""
        # Within a class whoever began first goes first: what began when nobody waited would else be overtaken for ever.
        begun = (rank[0], 0)
        try:
            gone = await self._gate.at_once(call.operation, begun)
            if not gone and not await self._gate.turn(call.operation, begun, GO_S):
                return Busy("own_limit")
        except RedisError:
            return Busy("store_away")
        async with self._slots:
            return await self.stripe.send(call.operation, call.params, call.key)

    def halt(self) -> None:
        """Send all who wait away."""
        self._pace.halt()
        self._gate.halt()


class Unhurried:
    """A platform account's client for what nobody waits for: within the limits, behind all else, and asked again while
    Stripe is busy."""

    def __init__(self, platform: Platform, waits_s: Sequence[float] = WAITS_S) -> None:
        self._platform, self._waits_s = platform, waits_s

    async def send(self, operation: str, params: Mapping[str, Any], key: str | None = None) -> Outcome:
        """As `StripeClient.send`."""
        for wait_s in self._waits_s:
            outcome = await self._platform.send(Call(operation, params, key), LAST)
            if not isinstance(outcome, Busy):
                return outcome
            await asyncio.sleep(max(wait_s, outcome.retry_after_ms / 1000))
        return await self._platform.send(Call(operation, params, key), LAST)
