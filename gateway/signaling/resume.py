"""Resume secrets: how a page comes back to its seat. Rotated at every use, bound to a key that cannot leave the page.

`welcome` gives a secret and a nonce; the next `hello` brings the secret and the key's signature over that nonce. The
one before stays good until the new one was used or a minute has passed: a page may lose the answer that rotated it
(6-media, Secrets and sockets). Kept hashed, in one hash per session.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any, Final, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from redis.exceptions import RedisError

from gateway.clock import Clock
from gateway.errors import StoreUnavailable, Unauthorized
from gateway.ids import new_secret
from gateway.journal import Journal
from gateway.session import ROLES, Role
from gateway.tokens import digest, same

PREVIOUS_MS: Final = 60_000
# As long as a session may wait for its second half; ended sessions answer with their summary meanwhile.
KEPT_S: Final = 2 * 86_400
_P256_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Issued:
    """What `welcome` hands out."""

    resume: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Returned:
    """Who came back, and the key that stays bound to the seat."""

    session: str
    role: Role
    key: dict[str, Any] | None


class ResumeSecrets:
    """Shell over Redis. Raises StoreUnavailable when it is away."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal, self._clock = journal, clock

    async def issue(self, session: str, role: Role, key: dict[str, Any] | None) -> Issued:
        """A fresh secret for the seat; what was current becomes the previous one, if the same key holds it."""
        old = await self._load(session, role)
        issued = Issued(f"{session}.{role}.{new_secret(size=24)}", new_secret(size=18))
        kept = {"hash": digest(issued.resume), "nonce": issued.nonce, "key": key}
        if old is not None and old["key"] == key:
            kept["previous"] = {
                "hash": old["hash"], "nonce": old["nonce"], "until": self._clock.wall_ms() + PREVIOUS_MS,
            }  # fmt: skip
        await self._store(session, role, kept)
        return issued

    async def verify(self, resume: str, proof: str | None) -> Returned:
        """Who this secret seats. Raises Unauthorized `resume_invalid`, always the same words."""
        session, role = _address(resume)
        kept = await self._load(session, role)
        if kept is None:
            raise _invalid()
        nonce = self._nonce(kept, resume)
        if kept["key"] is not None and not _signed(kept["key"], nonce, proof):
            raise _invalid()
        return Returned(session, role, kept["key"])

    def _nonce(self, kept: dict[str, Any], resume: str) -> str:
        if same(resume, kept["hash"]):
            return cast("str", kept["nonce"])
        previous = kept.get("previous")
        if previous and same(resume, previous["hash"]) and self._clock.wall_ms() < previous["until"]:
            return cast("str", previous["nonce"])
        raise _invalid()

    async def _load(self, session: str, role: Role) -> dict[str, Any] | None:
        key = self._journal.keys.of(session, "resume")
        try:
            kept = await self._journal.redis.execute_command("HGET", key, role)
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error
        return None if kept is None else cast("dict[str, Any]", json.loads(kept))

    async def _store(self, session: str, role: Role, kept: dict[str, Any]) -> None:
        key = self._journal.keys.of(session, "resume")
        try:
            pipe = self._journal.redis.pipeline(transaction=True)
            pipe.execute_command("HSET", key, role, json.dumps(kept))
            pipe.execute_command("EXPIRE", key, KEPT_S)
            await pipe.execute()
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error


def _invalid() -> Unauthorized:
    return Unauthorized("This page may not resume the call; open your link again.", code="resume_invalid")


def _address(resume: str) -> tuple[str, Role]:
    parts = resume.split(".")
    if len(parts) != 3 or parts[1] not in ROLES:
        raise _invalid()
    return parts[0], parts[1]


def _signed(jwk: dict[str, Any], nonce: str, proof: str | None) -> bool:
    """Whether `proof` is base64url of r||s (RFC 7518 section 3.4) over the nonce's bytes."""
    try:
        raw = _decoded(proof or "")
        x, y = (int.from_bytes(_decoded(jwk[name]), "big") for name in ("x", "y"))
        key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        if len(raw) != 2 * _P256_BYTES:
            return False
        r, s = (int.from_bytes(part, "big") for part in (raw[:_P256_BYTES], raw[_P256_BYTES:]))
        key.verify(utils.encode_dss_signature(r, s), nonce.encode(), ec.ECDSA(SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
