"""Prefixed, sortable ids: `ses_…`, `evt_…`; and secrets that cannot be guessed."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import time

# Whose records an object of Stripe may belong to: a session's or a booking's.
OWNERS = ("ses_", "bkg_")
_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"


def uuid7_int(unix_ms: int, entropy: bytes) -> int:
    """A version 7 UUID (RFC 9562 section 5.7) as an integer: 48 bits of milliseconds, then 74 random bits."""
    random = int.from_bytes(entropy[:10], "big") & ((1 << 74) - 1)
    high, low = random >> 62, random & ((1 << 62) - 1)
    return (unix_ms & ((1 << 48) - 1)) << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low


def new_id(prefix: str) -> str:
    """`prefix_` and 26 characters of Crockford's base32, which sort by time of creation."""
    return _written(prefix, uuid7_int(time.time_ns() // 1_000_000, os.urandom(10)))


def _written(prefix: str, number: int) -> str:
    return f"{prefix}_" + "".join(_BASE32[(number >> shift) & 31] for shift in range(125, -1, -5))


def derived_id(prefix: str, parent: str, number: int) -> str:
    """The `number`th id of its kind under `parent`, always the same; it sorts beside its parent."""
    entropy = hashlib.sha256(f"{parent}:{prefix}:{number}".encode()).digest()
    return _written(prefix, uuid7_int(born_ms(parent), entropy))


def born_ms(id: str) -> int:
    """When an id of `new_id` was made, in wall ms of the host that made it. Raises ValueError for other text."""
    prefix, _, body = id.rpartition("_")
    if not prefix or len(body) != 26:
        raise ValueError("not an id of ours")
    number = 0
    for letter in body:
        number = number << 5 | _BASE32.index(letter)
    return number >> 80


def first_id(prefix: str, unix_ms: int) -> str:
    """What sorts before every id of that millisecond and after all older ones."""
    return _written(prefix, (unix_ms & ((1 << 48) - 1)) << 80)


def new_secret(prefix: str = "", size: int = 32) -> str:
    """`size` random bytes, URL-safe, behind an optional prefix that tells readers (and scanners) what it is."""
    return prefix + base64.urlsafe_b64encode(secrets.token_bytes(size)).rstrip(b"=").decode()
