"""Holds one direction's DTLS flight until the other leg can take it (architecture, relay rule 3).

Without it a ClientHello that comes before the other leg's ICE is up is lost, and the handshake waits for DTLS timers of
up to seconds. A ClientHello with a post-quantum key share spans two datagrams, so a flight is held, not a datagram.
"""

from __future__ import annotations

from typing import Final

from gateway.sfu.stun import Buffer

HOLD_DATAGRAMS: Final = 8
HOLD_OCTETS: Final = 6_144
HOLD_MS: Final = 10_000
"""Older flights are freed: by then the caller has repeated itself, and an old hello would only answer a dead one."""
POOL_OCTETS: Final = 4_194_304
"""All hold buffers of a relay together; about 700 full ones."""

_HANDSHAKE: Final = 22
_RECORD: Final = 13


class Pool:
    """What all hold buffers of a relay take together."""

    __slots__ = ("datagrams", "limit", "octets")

    def __init__(self, limit: int = POOL_OCTETS) -> None:
        self.limit = limit
        self.octets = self.datagrams = 0

    def take(self, octets: int) -> bool:
        if self.octets + octets > self.limit:
            return False
        self.octets += octets
        self.datagrams += 1
        return True

    def give(self, octets: int) -> None:
        self.octets -= octets
        self.datagrams -= 1


class Hold:
    """The newest flight's distinct datagrams of one direction, oldest first."""

    __slots__ = ("flight", "octets", "pool", "since")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.flight: list[bytes] = []
        self.octets = 0
        self.since = 0
        """When the newest datagram came."""

    def add(self, data: Buffer, now: int) -> int:
        """Keep a copy; how many datagrams were dropped for it, itself included when there was no room."""
        datagram = bytes(data)
        displaced = self._displaced(datagram)
        for old in displaced:
            self._drop(old)
        dropped = len(displaced)
        while self.flight and (len(self.flight) >= HOLD_DATAGRAMS or self.octets + len(datagram) > HOLD_OCTETS):
            self._drop(self.flight[0])
            dropped += 1
        if len(datagram) > HOLD_OCTETS or not self.pool.take(len(datagram)):
            return dropped + 1
        self.flight.append(datagram)
        self.octets += len(datagram)
        self.since = now
        return dropped

    def take(self) -> list[bytes]:
        """Empty the buffer: what it held, oldest first."""
        flight = self.flight
        for datagram in flight:
            self.pool.give(len(datagram))
        self.flight = []
        self.octets = 0
        return flight

    def expires_at(self) -> int | None:
        return self.since + HOLD_MS if self.flight else None

    def _drop(self, datagram: bytes) -> None:
        self.flight.remove(datagram)
        self.octets -= len(datagram)
        self.pool.give(len(datagram))

    def _displaced(self, datagram: bytes) -> list[bytes]:
        """What the newcomer makes void: its own earlier copy, or, if it begins another flight, everything."""
        place, content = identity(datagram)
        for old in self.flight:
            old_place, old_content = identity(old)
            if old_content == content:
                return [old]
            if place is not None and old_place == place:
                return list(self.flight)
        return []


def identity(datagram: bytes) -> tuple[bytes | None, bytes]:
    """Place of a datagram in its flight, and its content without record sequence numbers.

    A repeated flight differs from the first in the records' sequence numbers alone (RFC 6347 section 4.2.4). The place
    is (message_seq, fragment_offset) of a plaintext handshake fragment, else None: two datagrams of one place but
    different content belong to two handshakes.
    """
    content, position, size = [], 0, len(datagram)
    while position + _RECORD <= size and 20 <= datagram[position] <= 25:
        end = position + _RECORD + int.from_bytes(datagram[position + 11 : position + 13], "big")
        content.append(datagram[position : position + 5] + datagram[position + 11 : end])
        position = end
    content.append(datagram[position:])
    plain = size >= _RECORD + 9 and datagram[0] == _HANDSHAKE and datagram[3:5] == b"\x00\x00"
    place = datagram[_RECORD + 4 : _RECORD + 9] if plain else None
    return place, b"".join(content)
