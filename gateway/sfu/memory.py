"""A worker's memory that outlives it: one slot a call in a shared file, from which its successor goes on.

The file belongs to the supervisor, has no name in any directory (where the platform allows, none on disk either: it
holds ICE passwords), and is handed to each start of the worker. A slot holds a snapshot's length and checksum, the
instant up to which it holds, what is newer than it, and its bytes; one that the worker's death tore does not match its
checksum and is as good as empty.
"""

from __future__ import annotations

import marshal
import mmap
import os
import struct
import tempfile
from binascii import crc32
from collections.abc import Iterator
from typing import Any, Final

SLOT_OCTETS: Final = 2_304
"""A call takes about 1 KiB, with what `snapshot` takes of it at most 2."""
GROWTH: Final = 256
_HEAD: Final = struct.Struct("=IIq")
_UNTIL: Final = struct.Struct("=q")
_UNTIL_AT: Final = 8
_NEWER: Final = struct.Struct("=II")
_NEWER_OCTETS: Final = 192
"""Room for what is newer: its length, its checksum, its bytes."""
NEWER_LIMIT: Final = _NEWER_OCTETS - _NEWER.size
_BODY_AT: Final = _HEAD.size + _NEWER_OCTETS
BODY_LIMIT: Final = SLOT_OCTETS - _BODY_AT


def new_file() -> int:
    """A descriptor for a memory; whoever has it can read it."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("relay")
    with tempfile.TemporaryFile(prefix="parley-relay-") as file:
        return os.dup(file.fileno())


class Memory:
    """The slots in the file behind `descriptor`, which is used up to its present size at first."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map: mmap.mmap | None = None
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        size = os.fstat(descriptor).st_size
        if size:
            self._map = mmap.mmap(descriptor, size)
        self._free = list(range(size // SLOT_OCTETS - 1, -1, -1))

    def load(self) -> Iterator[tuple[tuple[Any, ...], int]]:
        """What was kept, and until when each held; before the first `keep`. What cannot be read is left out.

        What it was touched with is one more value at the end.
        """
        if self._map is None:
            return
        for slot in sorted(self._free):
            length, checksum, until = _HEAD.unpack_from(self._map, slot * SLOT_OCTETS)
            start = slot * SLOT_OCTETS + _BODY_AT
            body = self._map[start : start + length] if 0 < length <= BODY_LIMIT else b""
            if body and crc32(body) == checksum:
                kept: tuple[Any, ...] = marshal.loads(body)  # noqa: S302  our own, checked, of this very interpreter
                newer = self._newer(slot)
                yield (*kept, newer) if newer else kept, until
        self._map[:] = bytes(len(self._map))

    def keep(self, call: str, kept: tuple[Any, ...], now: int) -> bool:
        """Write a call's slot anew; False if it is too long, and then the call is not kept at all."""
        body = marshal.dumps(kept)
        if len(body) > BODY_LIMIT:
            self.drop(call)
            return False
        slot = self._slots.get(call)
        if slot is None:
            slot = self._slots[call] = self._take()
        assert self._map is not None
        start = slot * SLOT_OCTETS
        head = _HEAD.pack(len(body), crc32(body), now)
        self._map[start : start + _BODY_AT + len(body)] = head + bytes(_NEWER_OCTETS) + body
        return True

    def touch(self, call: str, now: int, newer: bytes = b"") -> None:
        """What was kept of the call still holds, with what is `newer` than it, at most NEWER_LIMIT octets."""
        assert len(newer) <= NEWER_LIMIT
        slot = self._slots.get(call)
        if slot is None or self._map is None:
            return
        start = slot * SLOT_OCTETS
        _UNTIL.pack_into(self._map, start + _UNTIL_AT, now)
        if newer:
            start += _HEAD.size
            self._map[start : start + _NEWER.size + len(newer)] = _NEWER.pack(len(newer), crc32(newer)) + newer

    def _newer(self, slot: int) -> bytes:
        assert self._map is not None
        start = slot * SLOT_OCTETS + _HEAD.size
        length, checksum = _NEWER.unpack_from(self._map, start)
        newer = self._map[start + _NEWER.size : start + _NEWER.size + min(length, NEWER_LIMIT)]
        return newer if newer and crc32(newer) == checksum else b""

    def drop(self, call: str) -> None:
        slot = self._slots.pop(call, None)
        if slot is not None and self._map is not None:
            self._map[slot * SLOT_OCTETS : slot * SLOT_OCTETS + _HEAD.size] = bytes(_HEAD.size)
            self._free.append(slot)

    def _take(self) -> int:
        if not self._free:
            used = os.fstat(self._descriptor).st_size // SLOT_OCTETS
            size = (used + GROWTH) * SLOT_OCTETS
            os.ftruncate(self._descriptor, size)
            if self._map is not None:
                self._map.close()
            self._map = mmap.mmap(self._descriptor, size)
            self._free = list(range(used + GROWTH - 1, used - 1, -1))
        return self._free.pop()
