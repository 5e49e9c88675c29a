"""Socket addresses as the kernel writes them: keys for look-ups by raw bytes, and names to send to.

An IPv4 address is told by the first eight octets of its `sockaddr_in` (family, port, host), read as one integer; an
IPv6 one by the 28 octets of its `sockaddr_in6`. Both are what a kernel map would be keyed by.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.sfu.stun import Address

_IN6: Final = struct.Struct("=H2sI16sI")
_PORT: Final = struct.Struct("!H")


@dataclass(frozen=True, slots=True)
class Family:
    """How one address family's names look. `size`: of a name; `stride`: between names in a ring, a multiple of 8."""

    size: int
    stride: int
    keys: Callable[[memoryview, int], Sequence[Hashable]]
    """Keys of the first so many names of a ring, given as 64-bit words."""
    name: Callable[[Address], bytes]
    """The name of an address, whose host is a literal of this family."""
    key: Callable[[bytes], Hashable]
    """The key of a name."""
    address: Callable[[Hashable], tuple[str, int]]
    """Host and port of a key."""


def _in_keys(names: memoryview, count: int) -> Sequence[Hashable]:
    return names[: 2 * count : 2].tolist()


def _in_name(address: Address) -> bytes:
    return struct.pack("=H2s4s8x", socket.AF_INET, _PORT.pack(address[1]), socket.inet_aton(address[0]))


def _in_key(name: bytes) -> Hashable:
    return int.from_bytes(name[:8], sys.byteorder)


def _in_address(key: Hashable) -> tuple[str, int]:
    assert isinstance(key, int)
    raw = key.to_bytes(8, sys.byteorder)
    return socket.inet_ntoa(raw[4:]), (raw[2] << 8) + raw[3]


def _in6_keys(names: memoryview, count: int) -> Sequence[Hashable]:
    raw = bytes(names[: 4 * count])
    return [raw[start : start + 28] for start in range(0, 32 * count, 32)]


def _in6_name(address: Address) -> bytes:
    host, _, scope = address[0].partition("%")
    packed = socket.inet_pton(socket.AF_INET6, host)
    return _IN6.pack(socket.AF_INET6, _PORT.pack(address[1]), 0, packed, int(scope or 0))


def _in6_key(name: bytes) -> Hashable:
    return name


def _in6_address(key: Hashable) -> tuple[str, int]:
    assert isinstance(key, bytes)
    _family, port, _flow, packed, scope = _IN6.unpack(key)
    host = socket.inet_ntop(socket.AF_INET6, packed)
    return (f"{host}%{scope}" if scope else host), _PORT.unpack(port)[0]


IN: Final = Family(16, 16, _in_keys, _in_name, _in_key, _in_address)
IN6: Final = Family(28, 32, _in6_keys, _in6_name, _in6_key, _in6_address)


def family(sock: socket.socket) -> Family:
    return IN6 if sock.family == socket.AF_INET6 else IN
