"""Credentials for a TURN server that callers behind TLS-only firewalls go through: short-lived, of one leg (TURN REST).

The gateway and the TURN server share one secret and nothing else. A user name says until when it holds and which leg
it is for; the password is its HMAC (draft-uberti-behave-turn-rest-00 section 2.2, coturn's `use-auth-secret`).
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.session import Role
from gateway.signaling.messages import IceServer


@dataclass(frozen=True, slots=True)
class Turn:
    """TURN servers as one entry of RTCConfiguration; without `urls` there are none. `ttl_s`: how long a password holds,
    from a side's `welcome` on."""

    urls: Sequence[str] = ()
    secret: str = field(default="", repr=False)
    ttl_s: int = 7_200

    def servers(self, session: str, role: Role, now_ms: int) -> list[IceServer]:
        """What `welcome.ice_servers` says to this side of this session."""
        if not self.urls:
            return []
        username = f"{now_ms // 1000 + self.ttl_s}:{session}.{role}"
        return [IceServer(urls=list(self.urls), username=username, credential=password(self.secret, username))]


def password(secret: str, username: str) -> str:
    """HMAC-SHA1 in base64, as the scheme has it."""
    return b64encode(hmac.digest(secret.encode(), username.encode(), "sha1")).decode()
