"""Linux's recvmmsg, sendmmsg, UDP_GRO and UDP_SEGMENT by ctypes: the calls, the layouts, and whether they are there.

A ring of messages is one array of 64-bit words, eight to a `mmsghdr`, so that whole columns (lengths, sizes of control
data) are read and written by one strided slice and no Python object is made per field.
"""

from __future__ import annotations

import ctypes
import mmap
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, Final

WORDS: Final = 8
"""64-bit words of a `mmsghdr`; the columns that matter:"""
NAME, NAME_SIZE, PIECES, PIECE_COUNT, CONTROL, CONTROL_SIZE, FLAGS, LENGTH = range(WORDS)
HEADER: Final = struct.Struct("=QQQQQQ")
"""The columns that a sender sets, from NAME to CONTROL_SIZE."""
HEADER_OCTETS: Final = 64
PIECE_OCTETS: Final = 16
NAME_OCTETS: Final = 32
"""Room for a socket address of any family; longer than its name, which the kernel does not mind."""

SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
SO_MEMINFO: Final = 55
_MEMINFO_DROPS: Final = 8

CONTROL_OCTETS: Final = 24
"""Of a control message with one small integer: header 16, value, padding."""
_CONTROL: Final = struct.Struct("=QiiH6x")


def available() -> bool:
    """Whether the layouts here are this platform's: 64-bit little-endian Linux with the calls in its C library."""
    if sys.platform != "linux" or sys.byteorder != "little" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    return all(hasattr(_library(), name) for name in ("recvmmsg", "sendmmsg"))


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def receiver(descriptor: int, headers: int, count: int) -> Callable[[], int]:
    """recvmmsg of up to `count` messages into `headers`, without waiting: how many came; -1 and `errno()`."""
    # Arguments are made once: converting them anew takes a third of an idle call.
    arguments = (
        ctypes.c_int(descriptor), ctypes.c_void_p(headers), ctypes.c_uint(count), ctypes.c_int(socket.MSG_DONTWAIT),
        ctypes.c_void_p(None),
    )  # fmt: skip
    call = _library()["recvmmsg"]
    return lambda: call(*arguments)


def sender(descriptor: int, headers: int) -> Callable[[int, int], int]:
    """sendmmsg of the messages of `headers` from one place on, so many: how many went; -1 and `errno()`."""
    count, at = ctypes.c_uint(), ctypes.c_void_p()
    arguments = (ctypes.c_int(descriptor), at, count, ctypes.c_int(socket.MSG_DONTWAIT))
    call = _library()["sendmmsg"]

    def send(first: int, number: int) -> int:
        at.value, count.value = headers + first * HEADER_OCTETS, number
        return call(*arguments)  # type: ignore[no-any-return]

    return send


errno = ctypes.get_errno


class Words:
    """A fixed array of 64-bit words: its `address`, and views of it as words and as octets."""

    def __init__(self, count: int) -> None:
        self._array: Any = (ctypes.c_uint64 * count)()
        self.address = ctypes.addressof(self._array)
        self.octets = memoryview(self._array).cast("B")
        self.words = self.octets.cast("Q")


def segment_controls(limit: int) -> Words:
    """Control messages, CONTROL_OCTETS each, by which a send goes out as datagrams of 0, 1, 2 ... `limit` octets."""
    controls = Words((limit + 1) * CONTROL_OCTETS // 8)
    for size in range(limit + 1):
        _CONTROL.pack_into(controls.octets, size * CONTROL_OCTETS, 18, SOL_UDP, UDP_SEGMENT, size)
    return controls


def address_of(memory: mmap.mmap) -> int:
    """Where it begins. Holds no reference: keep `memory`."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def pieces(address: int, count: int) -> list[bytes]:
    """Copies of what so many `iovec` at `address` point to."""
    words = (ctypes.c_uint64 * (2 * count)).from_address(address)
    return [ctypes.string_at(words[2 * at], words[2 * at + 1]) for at in range(count)]


def segment_size(control: int) -> int:
    """The size in the control message at this address."""
    return ctypes.c_uint16.from_address(control + 16).value


def octets(address: int, size: int) -> bytes:
    return ctypes.string_at(address, size)


def can_segment(sock: socket.socket) -> bool:
    """Whether the kernel knows UDP_SEGMENT (Linux 4.18). Whether a route's device does, only sending tells."""
    try:
        sock.setsockopt(SOL_UDP, UDP_SEGMENT, 0)
    except OSError:
        return False
    return True


def set_trains(sock: socket.socket, on: bool) -> bool:
    """Have the kernel hand over trains of equal datagrams as one (UDP_GRO, Linux 5.0); whether it does."""
    try:
        sock.setsockopt(SOL_UDP, UDP_GRO, int(on))
    except OSError:
        return False
    return on


def queue_drops(sock: socket.socket) -> int:
    """Datagrams that the socket's full receive queue cost so far.

    The counter is the one of SO_RXQ_OVFL. That option would bring it with each packet; this reads it when it is wanted.
    """
    try:
        info = sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 64)
    except OSError:
        return 0
    return int(struct.unpack_from("=I", info, 4 * _MEMINFO_DROPS)[0]) if len(info) >= 4 * (_MEMINFO_DROPS + 1) else 0
