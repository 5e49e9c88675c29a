"""From Stripe's objects back to our sessions: disputes name a charge, changes of an account name nobody.

Entries are written before the record that they belong to: a crash between leaves an entry too many, which does no
harm, and never one too few.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import redis.asyncio as aioredis

from gateway.billing_bridge.record import Payment
from gateway.billing_bridge.refunds import NOT_THE_ACCOUNT

# Cardholders may dispute for 120 days as a rule, and for 540 at most after the service (the networks' rules).
REMEMBER_S: Final = 2 * 366 * 86_400


class Index:
    """Shell over Redis."""

    def __init__(self, redis: aioredis.Redis) -> None:
        self._redis = redis

    async def write(self, session: str, before: Payment, after: Payment) -> None:
        """What `after` has and `before` had not. Raises RedisError."""
        pipe = self._redis.pipeline(transaction=False)
        for ident in _objects(after) - _objects(before):
            pipe.execute_command("SET", _of(ident), session, "EX", REMEMBER_S)
        for account in waiting_for(after) - waiting_for(before):
            pipe.execute_command("SADD", _withheld(account), session)
        if len(pipe):
            await pipe.execute()

    async def forget(self, session: str, before: Payment, after: Payment) -> None:
        """Sessions that wait for an account no longer; after the record was written. Raises RedisError."""
        for account in waiting_for(before) - waiting_for(after):
            await cast(Any, self._redis.srem(_withheld(account), session))

    async def session_of(self, thing: Mapping[str, Any]) -> str | None:
        """The session of an intent or charge, or of what hangs on one. Raises RedisError."""
        for ident in (thing.get("payment_intent"), thing.get("charge"), thing.get("id")):
            session = cast(bytes | None, await self._redis.get(_of(ident))) if isinstance(ident, str) else None
            if session is not None:
                return session.decode()
        return None

    async def withheld(self, account: str) -> list[str]:
        """The sessions with a transfer that waits for the account. Raises RedisError."""
        members = await cast(Any, self._redis.smembers(_withheld(account)))
        return sorted(member.decode() for member in members)


def _objects(payment: Payment) -> set[str]:
    if payment.part is not None:
        return set()  # the charge is its booking's
    held = {step.result["id"] for step in payment.steps if step.step == "hold" and step.result and "id" in step.result}
    return held | {payment.charge} if payment.charge else held


def waiting_for(payment: Payment) -> set[str]:
    """The accounts without which a transfer cannot be made now."""
    return {
        transfer.account
        for transfer in payment.transfers
        if transfer.account and transfer.status == "withheld" and transfer.reason not in NOT_THE_ACCOUNT
    }


def _of(ident: str) -> str:
    return f"gateway:stripe:of:{ident}"


def _withheld(account: str) -> str:
    return f"{{acct:{account}}}:withheld"
