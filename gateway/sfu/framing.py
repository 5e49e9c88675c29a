"""Datagrams on a TCP connection, each behind its length in two octets (RFC 4571 section 2): taken apart, put together.

A core, and a bounded one: it keeps the beginning of one frame at most. What does not look like frames raises, since
nothing behind it on that connection can be trusted to begin where it seems to: HTTP and TLS announce lengths of 18,000
and 5,600 octets here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gateway.sfu.stun import Buffer

FRAME_LIMIT: Final = 1500
"""Octets of a frame's content. No caller's datagram is longer (relay.SIZE_LIMIT)."""
HEADER_OCTETS: Final = 2


class FramingError(ValueError):
    """The connection carries no frames that a caller would send; close it."""


def header(size: int) -> bytes:
    """What goes before a datagram of `size` octets."""
    return size.to_bytes(HEADER_OCTETS, "big")


class Framer:
    """The receiving half of one connection."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    @property
    def waiting(self) -> int:
        """Octets of the frame that is not complete."""
        return len(self._rest)

    def take(self, data: Buffer) -> Iterator[memoryview]:
        """The frames that `data` completes, in order; good until `data` is overwritten. Read it to the end.

        Empty frames mean nothing (RFC 4571 section 2). Raises FramingError at a frame over FRAME_LIMIT, after those
        before it.
        """
        view = memoryview(self._rest + bytes(data)) if self._rest else memoryview(data)
        self._rest = b""
        at, end = 0, len(view)
        while end - at >= HEADER_OCTETS:
            size = view[at] << 8 | view[at + 1]
            if size > FRAME_LIMIT:
                raise FramingError("a frame longer than any datagram of a caller")
            after = at + HEADER_OCTETS + size
            if after > end:
                break
            if size:
                yield view[at + HEADER_OCTETS : after]
            at = after
        self._rest = bytes(view[at:])
