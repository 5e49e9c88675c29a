"""How people get into a session, and to its pay page: links and tokens, what each opens, and which have served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from redis import asyncio as aioredis

from gateway.clock import Clock
from gateway.errors import Unauthorized
from gateway.session import Role, SessionRecord
from gateway.tokens import JOIN_TOKEN_S, Grant, Tokens

SPENT: Final = "gateway:spent:"
# A bill that is due does not lapse; its link lasts as long as anybody may still mean to pay.
DAY_MS: Final = 86_400_000
PAY_MS: Final = 400 * DAY_MS


@dataclass(frozen=True, slots=True)
class Entry:
    """How one side gets in: a join token (ten minutes) and a link whose secret lasts as long as the session."""

    role: Role
    token: str
    url: str


class Doors:
    """`public_url` is the gateway's own address, `pay_url` that of the pay page's origin (empty: there is none), both
    without a path."""

    def __init__(self, redis: aioredis.Redis, tokens: Tokens, clock: Clock, public_url: str, pay_url: str = "") -> None:
        self._redis, self._tokens, self._clock, self._public_url = redis, tokens, clock, public_url.rstrip("/")
        self._pay_url = pay_url.rstrip("/")

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

    def pay_link(self, session: str) -> str | None:
        """The client's page to pay with a card, the same all day; None where there is no such page."""
        if not self._pay_url:
            return None
        expires_at = self._clock.wall_ms() // DAY_MS * DAY_MS + PAY_MS
        return f"{self._pay_url}/pay#{self._tokens.pay(session, expires_at=expires_at)}"

    def payer(self, secret: str) -> str:
        """The session that a pay page's secret is for. Raises Unauthorized `link_expired` or `link_invalid`."""
        try:
            return self._tokens.open("pay", secret, now=self._clock.wall_ms()).session
        except Unauthorized as error:
            raise _of_link(error) from error

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
            raise _of_link(error) from error


def _of_link(error: Unauthorized) -> Unauthorized:
    code = "link_expired" if error.code == "token_expired" else "link_invalid"
    return Unauthorized(error.detail, code=code)
