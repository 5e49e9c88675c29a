"""What payees owe: reversals that their balance did not allow, taken from their next transfers (`reversal_owed`).

One record for each account and currency, in a slot of its own. Every change carries a step's key and is done once: the
same key again gives the same answer, so a step whose outcome is unknown is simply sent again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from gateway.billing_bridge.outcome import Done, Outcome, Unknown
from gateway.scripts import checked, piped
from gateway.trips import Trips

WAITAOF_MS: Final = 2_000

# KEYS: the account's debts in one currency; ARGV: the step's key, amount
OWE = """
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 1 then redis.call('HINCRBY', KEYS[1], 'owed', ARGV[2]) end
return tonumber(redis.call('HGET', KEYS[1], ARGV[1]))
"""

# KEYS: as above; ARGV: the step's key, at most
TAKE = """
local had = redis.call('HGET', KEYS[1], ARGV[1])
if had then return tonumber(had) end
local amount = math.min(tonumber(redis.call('HGET', KEYS[1], 'owed') or 0), tonumber(ARGV[2]))
redis.call('HSET', KEYS[1], ARGV[1], amount)
redis.call('HINCRBY', KEYS[1], 'owed', -amount)
return amount
"""


class Debts:
    """Shell over Redis; amounts in minor units of the settlement currency."""

    def __init__(self, redis: aioredis.Redis, trips: Trips | None = None) -> None:
        self._redis, self._trips = redis, trips or Trips(redis)
        self._owe, self._take = redis.register_script(OWE), redis.register_script(TAKE)

    async def send(self, operation: str, params: Mapping[str, Any], key: str) -> Outcome:
        """`debts.owe` {account, currency, amount} or `debts.take` {account, currency, at_most}: confirmed on disk, or
        Unknown."""
        owes = operation == "debts.owe"
        script, amount = (self._owe, params["amount"]) if owes else (self._take, params["at_most"])
        try:
            call = [_key(params["account"], params["currency"])], [key, amount]
            done, (local, _replicas) = checked(
                await piped(self._redis, script, [call], ("WAITAOF", 1, 0, WAITAOF_MS))
            )  # fmt: skip
        except RedisError as error:
            return Unknown(type(error).__name__)
        return Done({"object": "debt", "amount": int(done)}) if local >= 1 else Unknown("not_on_disk")

    async def forget(self, steps: Iterable[Mapping[str, Any]]) -> None:
        """The keys of an archived session's steps: what is done is never sent again. Raises RedisError."""
        pipe = self._redis.pipeline(transaction=False)
        for step in steps:
            if step["step"].startswith(("owe_", "offset_", "forgive_")):
                pipe.execute_command("HDEL", _key(step["params"]["account"], step["params"]["currency"]), step["key"])
        if len(pipe):
            await pipe.execute()

    async def owed(self, accounts: Iterable[str], currency: str) -> dict[str, int]:
        """What each account owes now. Raises RedisError."""
        named = list(accounts)
        answers = await self._trips.ask(*(("HGET", _key(account, currency), "owed") for account in named))
        return {account: int(owed or 0) for account, owed in zip(named, answers, strict=True)}


def _key(account: str, currency: str) -> str:
    return f"{{acct:{account}}}:debts:{currency}"
