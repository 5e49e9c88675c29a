"""A POST with an Idempotency-Key happens once, whatever becomes of its answers (draft-ietf-httpapi-idempotency-key).

The first request claims the key, together with the id of what it is about to make; its result is kept for 24 hours
and replayed. Only results are kept: a refusal has changed nothing and frees the key. A request that dies leaves a
claim that runs out; the retry takes it over *with the same id*, so it finds what the dead one had made.

The claim is not waited for on disk: what the request then writes durably (the session) comes later in the same
store's append-only file, so whatever survives of the two, the claim does. On a cluster the two may live on different
nodes; there the uniqueness of `reference` stands in after a power loss.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from gateway.errors import Conflict, InvalidRequest, StoreUnavailable, Unprocessable
from gateway.ids import new_secret

# Shorter, and a client's retry after a long outage acts a second time; longer costs memory only.
KEPT_MS: Final = 24 * 3600 * 1000
# Shorter than the slowest request (10 s for a hold), and a retry would run beside it; longer, and a client
# whose request died with a node waits in vain.
LOCK_MS: Final = 30_000

# KEYS: the record; ARGV: fingerprint, owner, subject, lock ms, kept ms
CLAIM = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local kept = redis.call('HMGET', KEYS[1], 'fingerprint', 'status', 'body', 'locked_until', 'subject')
if not kept[1] then
  redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'owner', ARGV[2], 'subject', ARGV[3],
    'locked_until', now + ARGV[4])
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
  return {'fresh', ARGV[3]}
end
if kept[1] ~= ARGV[1] then return {'reused'} end
if kept[2] then return {'done', kept[2], kept[3]} end
local left = tonumber(kept[4]) - now
if left > 0 then return {'busy', left} end
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'locked_until', now + ARGV[4])
return {'taken', kept[5]}
"""

# KEYS: the record; ARGV: owner, status, body, kept ms
KEEP = """
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'status', ARGV[2], 'body', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
"""

# KEYS: the record; ARGV: owner, 'forget' or 'unlock'
RELEASE = """
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
if redis.call('HEXISTS', KEYS[1], 'status') == 1 then return 0 end
if ARGV[2] == 'forget' then return redis.call('DEL', KEYS[1]) end
return redis.call('HSET', KEYS[1], 'locked_until', '0')
"""


@dataclass(frozen=True, slots=True)
class Replay:
    """The kept result of the first request."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to act on a key until its lock runs out.

    `subject` is the id of what the request makes; `taken_over` says that an earlier request with the key may have
    made it already.
    """

    record: str
    owner: str
    subject: str
    taken_over: bool


def check_key(key: str) -> str:
    """Raises InvalidRequest (`idempotency_key_invalid`)."""
    if not 1 <= len(key) <= 255 or not all(" " < character <= "~" for character in key):
        raise InvalidRequest("Use 1 to 255 printable ASCII characters without spaces.", code="idempotency_key_invalid")
    return key


def fingerprint(method: str, path: str, body: Mapping[str, Any]) -> str:
    """What "the same parameters" means: method, path and JSON value; neither spacing nor the order of members."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{method} {path}\n{canonical}".encode()).hexdigest()


class Idempotency:
    """Shell over Redis; keys are kept as hashes, per account and mode."""

    def __init__(self, redis: aioredis.Redis, *, kept_ms: int = KEPT_MS, lock_ms: int = LOCK_MS) -> None:
        self._kept_ms, self._lock_ms = kept_ms, lock_ms
        self._claim = redis.register_script(CLAIM)
        self._keep = redis.register_script(KEEP)
        self._release = redis.register_script(RELEASE)

    async def claim(self, owner: str, key: str, mark: str, subject: str) -> Claim | Replay:
        """Claim `key` of `owner` (account and mode) for a request with fingerprint `mark` that would make `subject`.

        Raises Unprocessable `idempotency_key_reused`, Conflict `idempotency_key_in_use`, StoreUnavailable. After a
        Claim the caller must call `keep`, `forget` or `unlock`; if it dies instead, the lock runs out by itself.
        """
        record = f"idem:{owner}:{hashlib.sha256(key.encode()).hexdigest()}"
        nonce = new_secret(size=12)
        answer = await self._run(self._claim, record, [mark, nonce, subject, self._lock_ms, self._kept_ms])
        match answer[0].decode():
            case "reused":
                raise Unprocessable(
                    "This Idempotency-Key was used with other parameters.", code="idempotency_key_reused"
                )
            case "busy":
                raise Conflict(
                    "The first request with this key is still under way.",
                    code="idempotency_key_in_use",
                    retry_after=max(1, -(-int(answer[1]) // 1000)),
                )
            case "done":
                return Replay(int(answer[1]), answer[2])
            case outcome:
                return Claim(record, nonce, answer[1].decode(), taken_over=outcome == "taken")

    async def keep(self, claim: Claim, status: int, body: bytes) -> None:
        """The request has its result; without effect if the claim was taken over meanwhile."""
        await self._run(self._keep, claim.record, [claim.owner, status, body, self._kept_ms])

    async def forget(self, claim: Claim) -> None:
        """The request was refused and has changed nothing: the key is free."""
        await self._run(self._release, claim.record, [claim.owner, "forget"])

    async def unlock(self, claim: Claim) -> None:
        """The request failed and nobody knows how far it came: a retry may go on at once, with the same subject."""
        await self._run(self._release, claim.record, [claim.owner, "unlock"])

    async def _run(self, script: Any, record: str, args: list[Any]) -> list[Any]:
        try:
            return cast(list[Any], await script(keys=[record], args=args))
        except RedisError as error:
            raise StoreUnavailable("The store is away; try again.") from error
