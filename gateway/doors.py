"""How people get into a session: the links and tokens that are given out, what each opens, and which have served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from redis import asyncio as aioredis

from gateway.clock import Clock
from gateway.errors import Unauthorized
from gateway.session import Role, SessionRecord
from gateway.tokens import JOIN_TOKEN_S, Grant, Tokens

SPENT: Final = "gateway:spent:"


@dataclass(frozen=True, slots=True)
class Entry:
    """How one side gets in: a join token (ten minutes) and a link whose secret lasts as long as the session."""

    role: Role
    token: str
    url: str


class Doors:
    """`public_url` is the gateway's own address, without a path."""

    def __init__(self, redis: aioredis.Redis, tokens: Tokens, clock: Clock, public_url: str) -> None:
        self._redis, self._tokens, self._clock, self._public_url = redis, tokens, clock, public_url.rstrip("/")

    @property
    def signal_url(self) -> str:
        return self._public_url.replace("http", "ws", 1) + "/v1/signal"

    def entry(self, record: SessionRecord, role: Role) -> Entry:
        secret = self._tokens.entry(record.id, role, expires_at=record.expires_at)
        return Entry(role, self._join(record.id, role), f"{self._public_url}/call#{secret}")

    async def opened(self, secret: str) -> tuple[Grant, str | None]:
        """What a link's secret or a join token opens, and a token to join with: a join token gives itself back, or
        none once it has served, since the page that it seated comes back by its resume secret (law 7).

        Raises Unauthorized `link_expired` or `link_invalid`.
        """
        grant, is_token = self._grant(secret)
        if not is_token:
            return grant, self._join(grant.session, grant.role)
        return grant, None if await self.is_spent(grant.id) else secret

    async def spend(self, token: str) -> None:
        """A join token has served; it opens nothing any more (it would have expired within ten minutes)."""
        await self._redis.set(f"{SPENT}{token}", 1, ex=JOIN_TOKEN_S + 60)

    async def is_spent(self, token: str) -> bool:
        return bool(await self._redis.exists(f"{SPENT}{token}"))

    def _join(self, session: str, role: Role) -> str:
        return self._tokens.join(session, role, now=self._clock.wall_ms())

    def _grant(self, secret: str) -> tuple[Grant, bool]:
        """What a secret opens, and whether it is a join token."""
        now = self._clock.wall_ms()
        try:
            try:
                return self._tokens.open("entry", secret, now=now), False
            except Unauthorized as error:
                if error.code == "token_expired":
                    raise
                return self._tokens.open("join", secret, now=now), True
        except Unauthorized as error:
            code = "link_expired" if error.code == "token_expired" else "link_invalid"
            raise Unauthorized(error.detail, code=code) from error
