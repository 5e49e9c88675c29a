"""Where the marketplace wants its events: endpoints out of the settings and out of the store, and their secrets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, cast
from urllib.parse import urlsplit

import redis.asyncio as aioredis
from redis.exceptions import RedisError
from standardwebhooks import Webhook
from yarl import URL

from gateway.clock import Clock
from gateway.disk import Disk
from gateway.errors import Conflict, GatewayError, InvalidRequest, NotFound, StoreUnavailable
from gateway.ids import new_id
from gateway.webhooks.catalogue import EVENT_TYPES
from gateway.webhooks.outbound import Blocked, judge

KEY: Final = "webhooks:endpoints"
FRESH_MS: Final = 1_000  # how long a sender may go on with what it read: a change is in force after that
ROTATION_MS: Final = 24 * 3_600_000  # both secrets sign for a day, so that receivers can change over at leisure
SECRET_BYTES: Final = 32
ATTEMPTS: Final = 20  # more lost races than this on one endpoint mean a writer in a loop

# KEYS: the endpoints. ARGV: an endpoint's id, as it was read ('' for not stored), as it is to be
SWAP: Final = """
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""


@dataclass(frozen=True, slots=True)
class Secret:
    """A signing secret (`whsec_…`), with the wall ms when it stops signing if it was rotated out."""

    value: str
    until: int | None = None

    def __repr__(self) -> str:
        return f"Secret(until={self.until})"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A receiver. `types` empty = all; `since`: older events are not sent by themselves; `account` None = all."""

    id: str
    url: str
    secrets: tuple[Secret, ...]
    types: tuple[str, ...] = ()
    enabled: bool = True
    disabled_reason: str | None = None
    since: int = 0
    account: str | None = None

    def wants(self, event: dict[str, Any]) -> bool:
        return bool(event["created"] >= self.since) and self.takes(event)

    def takes(self, event: dict[str, Any]) -> bool:
        """Whether its type is wanted, however old it is: for sending again by hand."""
        return not self.types or event["type"] in self.types

    def signature(self, event_id: str, at_ms: int, body: str) -> str:
        """The `webhook-signature` header (Standard Webhooks 1.0): one signature for each secret in force."""
        at = datetime.fromtimestamp(at_ms // 1000, UTC)
        live = [s for s in self.secrets if s.until is None or s.until > at_ms]
        return " ".join(_signer(secret.value).sign(event_id, at, body) for secret in live)

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: bytes | str) -> Endpoint:
        body = json.loads(text)
        return cls(
            **{**body, "secrets": tuple(Secret(**one) for one in body["secrets"]), "types": tuple(body["types"])}
        )


@lru_cache(maxsize=1024)
def _signer(secret: str) -> Webhook:
    return Webhook(secret)


def new_webhook_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def configured(url: str, secret: str) -> Endpoint:
    """An endpoint out of the settings; its id follows from its URL, so that it is the same after a restart."""
    return Endpoint("whe_" + hashlib.sha256(url.encode()).hexdigest()[:26], url, (Secret(secret),))


class Endpoints:
    """All endpoints. Stored ones live in one hash; what happens to a configured one is stored under its id, so that one
    which answered 410 stays disabled after a restart."""

    def __init__(
        self, redis: aioredis.Redis, clock: Clock, fixed: Iterable[Endpoint] = (), *, allow_private: bool = True
    ) -> None:
        """`allow_private`: new ones may be plain http and stand in private networks, as `Outbound` has it."""
        self._redis, self._clock, self._allow_private, self._disk = redis, clock, allow_private, Disk(redis)
        self._fixed = {endpoint.id: endpoint for endpoint in fixed}
        self._known: dict[str, Endpoint] = {}
        self._rows: dict[bytes, bytes] = {}
        self._read_at = -FRESH_MS
        self._reading = asyncio.Lock()

    async def list(self, account: str | None = None) -> list[Endpoint]:
        """All endpoints (of an account, if given), oldest first. Raises StoreUnavailable."""
        await self._refresh()
        return [e for e in self._known.values() if account is None or e.account in (None, account)]

    async def cached(self) -> dict[str, Endpoint]:
        """By id, at most FRESH_MS old: for the sender, which asks for every delivery."""
        async with self._reading:  # many passes ask at once; one reads for all
            if self._clock.boot_ms() - self._read_at >= FRESH_MS:
                await self._refresh()
        return self._known

    async def get(self, endpoint_id: str) -> Endpoint:
        await self._refresh()
        if endpoint_id not in self._known:
            raise NotFound("There is no such webhook endpoint.", code="endpoint_not_found")
        return self._known[endpoint_id]

    async def add(self, url: str, types: Iterable[str] = (), account: str | None = None) -> Endpoint:
        """A new endpoint with a fresh secret. It gets events from now on. Raises InvalidRequest."""
        _check_url(url, self._allow_private)
        if unknown := sorted(set(types) - EVENT_TYPES):
            raise InvalidRequest(f"There is no event of type {unknown[0]}.", code="invalid_field", param="types")
        now = self._clock.wall_ms()
        secret = Secret(new_webhook_secret())
        return await self._save(
            Endpoint(new_id("whe"), url, (secret,), tuple(sorted(set(types))), since=now, account=account)
        )

    async def remove(self, endpoint_id: str) -> None:
        """It gets nothing more; what was open for it becomes a dead letter. Raises NotFound, Conflict."""
        self._refuse_configured(endpoint_id)
        await self.get(endpoint_id)
        await self._redis.hdel(KEY, endpoint_id)
        await self._disk.confirmed()
        await self._refresh()

    async def rotate(self, endpoint_id: str) -> Endpoint:
        """A new secret first; the old ones sign beside it for ROTATION_MS. Raises NotFound, Conflict."""
        self._refuse_configured(endpoint_id)
        now, fresh = self._clock.wall_ms(), Secret(new_webhook_secret())

        def rotated(endpoint: Endpoint) -> Endpoint:
            live = [secret for secret in endpoint.secrets if not secret.until or secret.until > now]
            old = [replace(secret, until=secret.until or now + ROTATION_MS) for secret in live]
            return replace(endpoint, secrets=(fresh, *old))

        return await self._change(endpoint_id, rotated)

    async def disable(self, endpoint_id: str, reason: str) -> None:
        await self._change(endpoint_id, lambda endpoint: replace(endpoint, enabled=False, disabled_reason=reason))

    async def enable(self, endpoint_id: str) -> Endpoint:
        """On again, for events from now on; resend brings back older ones. Raises NotFound."""
        now = self._clock.wall_ms()
        return await self._change(
            endpoint_id, lambda endpoint: replace(endpoint, enabled=True, disabled_reason=None, since=now)
        )

    async def _change(self, endpoint_id: str, change: Callable[[Endpoint], Endpoint]) -> Endpoint:
        """By compare-and-set: a secret that was told is not lost to a 410 that comes beside it. Raises NotFound."""
        for _ in range(ATTEMPTS):
            endpoint = change(await self.get(endpoint_id))
            was = self._rows.get(endpoint_id.encode(), b"")
            if await self._redis.execute_command("EVAL", SWAP, 1, KEY, endpoint_id, was, endpoint.to_json()):
                await self._disk.confirmed()
                await self._refresh()
                return endpoint
        raise GatewayError(f"{endpoint_id} changes faster than it can be written.")

    def _refuse_configured(self, endpoint_id: str) -> None:
        if endpoint_id in self._fixed:
            raise Conflict("This endpoint is set in the configuration.", code="endpoint_configured")

    async def _save(self, endpoint: Endpoint) -> Endpoint:
        await self._redis.hset(KEY, endpoint.id, endpoint.to_json())
        await self._disk.confirmed()  # the secret is told once: it must not be lost afterwards
        await self._refresh()
        return endpoint

    async def _refresh(self) -> None:
        try:
            rows = cast(dict[bytes, bytes], await self._redis.hgetall(KEY))
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error
        self._rows = rows
        stored = {e.id: e for e in map(Endpoint.from_json, rows.values())}
        fixed = {id: _as_configured(one, stored.get(id)) for id, one in self._fixed.items()}
        self._known = dict(sorted((stored | fixed).items()))
        self._read_at = self._clock.boot_ms()


def _check_url(url: str, allow_private: bool) -> None:
    """What could never be sent to is refused at once; a name that leads to a private network only when it is used."""
    if not _usable(url):
        raise InvalidRequest("The URL must be http(s) with a host and no user name.", code="invalid_field", param="url")
    try:
        judge(URL(url), allow_private)
    except (Blocked, ValueError) as error:
        raise InvalidRequest(
            "The URL must be https, and of no private network.", code="invalid_field", param="url"
        ) from error


def _usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # brackets that do not close, ports beyond 65535
        return False
    named = bool(parts.hostname) and not parts.username and not parts.password
    return parts.scheme in ("http", "https") and named and port != 0


def _as_configured(fixed: Endpoint, stored: Endpoint | None) -> Endpoint:
    """A configured endpoint with what has happened to it since; its URL and secret are the configuration's."""
    if stored is None or stored.url != fixed.url:
        return fixed
    return replace(fixed, enabled=stored.enabled, disabled_reason=stored.disabled_reason, since=stored.since)
