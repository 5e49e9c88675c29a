"""API keys of marketplaces: who is calling, in which mode, and what the key may do.

A key is `pg_test_…` or `pg_live_…`; only its SHA-256 is kept. The keys carry 256 random bits, so a plain hash is
enough: there is nothing to guess that salt or stretching would protect.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gateway.errors import Forbidden, Unauthorized

Scope = Literal["sessions", "money", "read"]
ALL_SCOPES: frozenset[Scope] = frozenset({"sessions", "money", "read"})
PREFIXES = {False: "pg_test_", True: "pg_live_"}


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What a presented key stands for. `hash` is the SHA-256 of the whole key, in lower-case hexadecimal."""

    account: str
    hash: str
    scopes: frozenset[Scope] = ALL_SCOPES
    livemode: bool = False

    @classmethod
    def of(cls, key: str, account: str, scopes: Iterable[Scope] = ALL_SCOPES) -> ApiKey:
        """The record of a key in the clear; its prefix decides the mode. Raises ValueError for another prefix."""
        for livemode, prefix in PREFIXES.items():
            if key.startswith(prefix):
                return cls(account, digest(key), frozenset(scopes), livemode)
        raise ValueError("an API key starts with pg_test_ or pg_live_")

    def may(self, scope: Scope) -> bool:
        """Every key may read what it can also change."""
        return scope == "read" or scope in self.scopes

    @property
    def only_reads(self) -> bool:
        return not self.scopes - {"read"}


def mint(*, livemode: bool = False) -> str:
    """A new key in the clear, to be shown once."""
    return PREFIXES[livemode] + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class KeyRing:
    """The keys that this gateway accepts, several per account so that one can be replaced without a gap."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys = tuple(keys)

    def authenticate(self, authorization: str | None) -> ApiKey:
        """The key of an Authorization header (RFC 6750 section 2.1). Raises Unauthorized.

        Every stored hash is compared, in constant time, so that the time taken tells nothing about which one is near.
        """
        scheme, _, presented = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not presented.strip():
            raise Unauthorized("An API key is needed: send it as `Authorization: Bearer KEY`.")
        presented = presented.strip()
        hashed = digest(presented)
        matches = [key for key in self._keys if hmac.compare_digest(key.hash, hashed)]
        if not matches or not presented.startswith(PREFIXES[matches[0].livemode]):
            raise Unauthorized("This API key is not known here.")
        return matches[0]


def require(key: ApiKey, scope: Scope) -> None:
    """Raises Forbidden with the scope that the key lacks."""
    if not key.may(scope):
        raise Forbidden(f"This key lacks the scope `{scope}`.", code="insufficient_scope", required=scope)
