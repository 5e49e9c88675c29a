"""Tells what a datagram is by its first byte (RFC 7983 section 7), so that one port serves STUN, DTLS and SRTP.

The whole of 20-63 is DTLS: DTLS 1.3 ciphertext begins with 32-63 (RFC 9147 section 4), a narrower range would cut it
off. TURN channel data (64-79) has no business here and is junk like the rest.
"""

from __future__ import annotations

from typing import Final

JUNK: Final = 0
STUN: Final = 1
DTLS: Final = 2
MEDIA: Final = 3
"""RTP or RTCP, which share 128-191 (RFC 5761 section 4)."""

CLASSES: Final = bytes(
    STUN if first <= 3 else DTLS if 20 <= first <= 63 else MEDIA if 128 <= first <= 191 else JUNK
    for first in range(256)
)
"""Class by first byte; a table, because the relay asks it once for every packet."""


def classify(data: bytes | bytearray | memoryview) -> int:
    """Class of a datagram: JUNK, STUN, DTLS or MEDIA; an empty one is JUNK."""
    return CLASSES[data[0]] if data else JUNK


def is_rtcp(data: bytes | bytearray | memoryview) -> bool:
    """Whether MEDIA is RTCP: packet types 192 to 223, which RTP with rtcp-mux avoids (RFC 5761 section 4)."""
    return len(data) > 1 and 192 <= data[1] <= 223
