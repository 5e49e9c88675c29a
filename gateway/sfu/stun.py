"""Reads and writes the STUN Binding messages of an ICE-lite agent (RFC 8489, RFC 8445 section 7), bounds-checked.

Whatever bytes come in, `parse` returns a `Message` or raises `StunError`, nothing else. Only messages with a valid
FINGERPRINT at their end are read at all (RFC 8445 section 7.1 demands it of ICE), so junk that looks like STUN dies
before anything is looked up. A parsed message is not authentic until `authentic` says so.
"""

from __future__ import annotations

import hmac
from binascii import crc32
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import Struct
from typing import Final

Address = tuple[str, int] | tuple[str, int, int]
"""Host and port of a caller; third, when the relay has several sockets, the place of the one it is reached by.

A caller that reaches two of our addresses from one of its own thus has two addresses here, and each is answered from
where it was spoken to: browsers drop what comes from an address that they did not send to. From CONNECTIONS on the
third is the number of a TCP connection: none of them ever has the address of another, whatever its ends.
"""
CONNECTIONS: Final = 1 << 16

Buffer = bytes | bytearray | memoryview

NEVER: Final = -(1 << 60)
"""An instant before all others, of things that have not happened."""

REQUEST: Final = 0x0001
INDICATION: Final = 0x0011
SUCCESS: Final = 0x0101
ERROR: Final = 0x0111

_COOKIE: Final = b"\x21\x12\xa4\x42"
_FINGERPRINT_XOR: Final = 0x5354554E
_HEADER: Final = 20
_USERNAME, _INTEGRITY, _ERROR_CODE, _MAPPED, _PRIORITY = 0x0006, 0x0008, 0x0009, 0x0020, 0x0024
_USE_CANDIDATE, _FINGERPRINT, _CONTROLLED, _CONTROLLING = 0x0025, 0x8028, 0x8029, 0x802A
_LENGTHS: Final = {_INTEGRITY: 20, _PRIORITY: 4, _USE_CANDIDATE: 0, _FINGERPRINT: 4, _CONTROLLED: 8, _CONTROLLING: 8}
_pair = Struct("!HH")


class StunError(ValueError):
    """The bytes are no STUN Binding message that an ICE agent may act on; the text says why, for tests and people."""


@dataclass(slots=True)
class Message:
    """A Binding message. `signed` is the offset of MESSAGE-INTEGRITY, or 0; unknown attributes are left out."""

    kind: int
    transaction: bytes
    signed: int = 0
    username: str | None = None
    priority: int | None = None
    use_candidate: bool = False
    controlled: int | None = None
    controlling: int | None = None
    mapped: tuple[str, int] | None = None
    error_code: int | None = None


def parse(data: Buffer) -> Message:
    """Read a Binding request, indication or response. Raises StunError; checks no integrity, that takes a key.

    Attributes after MESSAGE-INTEGRITY are ignored, FINGERPRINT excepted (RFC 8489 section 14.5); of an attribute that
    comes twice the first counts (section 14).
    """
    size = len(data)
    if size < _HEADER:
        raise StunError("shorter than a header")
    kind, length = _pair.unpack_from(data)
    if kind not in (REQUEST, INDICATION, SUCCESS, ERROR):
        raise StunError("not a Binding message")
    if length != size - _HEADER or length & 3:
        raise StunError("length does not match")
    if data[4:8] != _COOKIE:
        raise StunError("no magic cookie")
    message = Message(kind, bytes(data[8:_HEADER]))
    _read_attributes(message, data, size)
    return message


def _read_attributes(message: Message, data: Buffer, size: int) -> None:
    position, seen = _HEADER, set[int]()
    while position < size:
        # The length is a multiple of four and so is each step, so four bytes are always left here.
        attribute, length = _pair.unpack_from(data, position)
        start = position + 4
        end = start + length
        if end > size:
            raise StunError("attribute runs past the end")
        if _LENGTHS.get(attribute, length) != length:
            raise StunError("attribute of wrong length")
        if attribute == _FINGERPRINT:
            _check_fingerprint(data, position, end == size)
            return
        if attribute not in seen and not message.signed:
            seen.add(attribute)
            _read(message, attribute, position, data[start:end])
        position = start + ((length + 3) & ~3)
    raise StunError("no fingerprint")


def _read(message: Message, attribute: int, position: int, value: Buffer) -> None:
    if attribute == _USERNAME:
        message.username = _text(value)
    elif attribute == _INTEGRITY:
        message.signed = position
    elif attribute == _PRIORITY:
        message.priority = int.from_bytes(value, "big")
    elif attribute == _USE_CANDIDATE:
        message.use_candidate = True
    elif attribute == _CONTROLLED:
        message.controlled = int.from_bytes(value, "big")
    elif attribute == _CONTROLLING:
        message.controlling = int.from_bytes(value, "big")
    elif attribute == _MAPPED:
        message.mapped = _mapped(value, message.transaction)
    elif attribute == _ERROR_CODE:
        if len(value) < 4:
            raise StunError("error code cut short")
        message.error_code = (value[2] & 7) * 100 + value[3]


def _check_fingerprint(data: Buffer, position: int, last: bool) -> None:
    if not last:
        raise StunError("fingerprint is not last")
    if int.from_bytes(data[position + 4 : position + 8], "big") != crc32(data[:position]) ^ _FINGERPRINT_XOR:
        raise StunError("fingerprint does not match")


def _text(value: Buffer) -> str:
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise StunError("user name is not UTF-8") from None


def _mapped(value: Buffer, transaction: bytes) -> tuple[str, int]:
    if len(value) not in (8, 20) or value[1] != (1 if len(value) == 8 else 2):
        raise StunError("malformed mapped address")
    port = int.from_bytes(_xor(value[2:4], _COOKIE), "big")
    host = _xor(value[4:], _COOKIE + transaction)
    return (str(IPv4Address(host) if len(host) == 4 else IPv6Address(host)), port)


def _xor(value: Buffer, pad: bytes) -> bytes:
    size = len(value)
    return (int.from_bytes(value, "big") ^ int.from_bytes(pad[:size], "big")).to_bytes(size, "big")


def authentic(message: Message, data: Buffer, password: bytes) -> bool:
    """Whether MESSAGE-INTEGRITY is there and made with `password` (RFC 8489 section 14.5), in constant time."""
    at = message.signed
    if not at:
        return False
    # The header's length, as the signer had it, ends with MESSAGE-INTEGRITY itself.
    covered = b"".join((data[:2], (at + 4).to_bytes(2, "big"), data[4:at]))
    return hmac.compare_digest(hmac.digest(password, covered, "sha1"), data[at + 4 : at + 24])


def success(transaction: bytes, address: Address, password: bytes) -> bytes:
    """The answer to a check: XOR-MAPPED-ADDRESS, signed with our password."""
    host = _packed(address[0])
    family = b"\x00\x01" if len(host) == 4 else b"\x00\x02"
    port = _xor(address[1].to_bytes(2, "big"), _COOKIE)
    mapped = family + port + _xor(host, _COOKIE + transaction)
    return _seal(SUCCESS, transaction, _attribute(_MAPPED, mapped), password)


@lru_cache(maxsize=16_384)
def _packed(host: str) -> bytes:
    """Parsing took half of an answer's time; a caller's host hardly ever changes."""
    return ip_address(host.partition("%")[0]).packed


def role_conflict(transaction: bytes, password: bytes) -> bytes:
    """487 for a caller that calls itself controlled: against a lite agent it must control (RFC 8445 section 6.1.1)."""
    return _seal(ERROR, transaction, _attribute(_ERROR_CODE, b"\x00\x00\x04\x57Role Conflict"), password)


def challenge(transaction: bytes, username: str, password: bytes, priority: int) -> bytes:
    """Our own check, `username` being `their_ufrag:our_ufrag` and `password` theirs.

    The tie-breaker is 0: a caller that takes itself for controlled as well then switches roles instead of refusing
    (RFC 8445 section 7.3.1.1), and we never control.
    """
    attributes = (
        _attribute(_USERNAME, username.encode())
        + _attribute(_PRIORITY, priority.to_bytes(4, "big"))
        + _attribute(_CONTROLLED, bytes(8))
    )
    return _seal(REQUEST, transaction, attributes, password)


def _attribute(kind: int, value: bytes) -> bytes:
    return _pair.pack(kind, len(value)) + value + bytes(-len(value) % 4)


def _seal(kind: int, transaction: bytes, attributes: bytes, password: bytes) -> bytes:
    body = _COOKIE + transaction + attributes
    signed = _pair.pack(kind, len(attributes) + 24) + body
    body += _attribute(_INTEGRITY, hmac.digest(password, signed, "sha1"))
    covered = _pair.pack(kind, len(attributes) + 32) + body
    return covered + _attribute(_FINGERPRINT, (crc32(covered) ^ _FINGERPRINT_XOR).to_bytes(4, "big"))
