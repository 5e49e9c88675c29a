"""What opens a call: entry secrets in links, join tokens for the first connect, resume secrets for all later ones.

Entry secrets, join tokens and the pay page's secrets are signed (HS256, one key, `typ` told apart by audience) and name
one role of one session (law 7). A join token lives at most ten minutes and is spent when its leg is first selected; a
resume secret is random, rotates at every use, and is kept hashed.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any, Literal, cast

import jwt

from gateway.errors import Unauthorized
from gateway.ids import new_id
from gateway.session import ROLES, Role

JOIN_TOKEN_S = 600
# Node clocks agree with Redis to well under this; more would only lengthen a token's life.
LEEWAY_S = 2


@dataclass(frozen=True, slots=True)
class Grant:
    """What a valid token opens; `id` is unique to the token, `expires` is Unix seconds."""

    session: str
    role: Role
    id: str
    expires: int


class Tokens:
    """Signs and verifies; `key` has at least 32 bytes. Times are passed in as wall ms."""

    def __init__(self, key: bytes) -> None:
        if len(key) < 32:
            raise ValueError("the signing key needs at least 32 bytes")
        self._key = key

    def entry(self, session: str, role: Role, *, expires_at: int) -> str:
        """The secret of a participant's link, good until the session expires."""
        return self._sign("entry", session, role, expires_at // 1000)

    def join(self, session: str, role: Role, *, now: int) -> str:
        """A token for the first connect, good for ten minutes."""
        return self._sign("join", session, role, now // 1000 + JOIN_TOKEN_S)

    def pay(self, session: str, *, expires_at: int) -> str:
        """The secret of the client's pay page: it shows what is asked and takes a card, and opens nothing else. The
        same each time, so that who reads a session twice reads the same."""
        return self._sign("pay", session, "client", expires_at // 1000, f"pay_{session}")

    def _sign(self, kind: str, session: str, role: Role, expires: int, ident: str = "") -> str:
        claims = {"aud": kind, "sid": session, "role": role, "jti": ident or new_id("tok"), "exp": expires}
        return jwt.encode(claims, self._key, algorithm="HS256", headers={"kid": "1"})

    def open(self, kind: Literal["entry", "join", "pay"], token: str, *, now: int) -> Grant:
        """Raises Unauthorized with code `token_expired` or `token_invalid`."""
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=["HS256"],
                audience=kind,
                options={"require": ["exp", "aud", "sid", "role", "jti"], "verify_exp": False},
            )
        except jwt.InvalidTokenError as error:
            raise Unauthorized("This link or token is not valid.", code="token_invalid") from error
        return self._grant(claims, now)

    @staticmethod
    def _grant(claims: dict[str, Any], now: int) -> Grant:
        if claims["role"] not in ROLES or not isinstance(claims["exp"], int):
            raise Unauthorized("This link or token is not valid.", code="token_invalid")
        if now // 1000 > claims["exp"] + LEEWAY_S:
            raise Unauthorized("This link or token has expired; ask for a new one.", code="token_expired")
        return Grant(claims["sid"], cast(Role, claims["role"]), claims["jti"], claims["exp"])


def digest(secret: str) -> str:
    """How a random secret is kept: its SHA-256, in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


def same(secret: str, digested: str) -> bool:
    return hmac.compare_digest(digest(secret), digested)
