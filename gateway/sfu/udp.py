"""UDP sockets of the relay, and the plain way to read them: one system call a datagram, on any platform."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from gateway.sfu.path import Datagram
from gateway.sfu.quality import Ear, Listener
from gateway.sfu.relay import SIZE_LIMIT, Relay
from gateway.sfu.stun import Address, Buffer

DRAIN: Final = 64
"""Datagrams a wake-up. More would let one flood keep timers and other sockets waiting, and fall out of the cache."""
BUFFER_OCTETS: Final = 7 * 1024 * 1024
"""Socket buffers: at 20,000 packets a second about a third of a second of a stalled process."""


@dataclass(slots=True)
class Figures:
    """What the shell counts."""

    failures: Counter[str] = field(default_factory=Counter)
    """Datagrams that the kernel did not take, by reason; the core has counted them as sent."""
    occupancy: list[int] = field(default_factory=lambda: [0] * (DRAIN.bit_length() + 1))
    """At n: wake-ups that brought fewer than 2^n messages, but not fewer than half as many."""
    messages: int = 0
    """Of all wake-ups together; one may be a train of datagrams."""
    trains_in: int = 0
    trains_out: int = 0
    carried: int = 0
    """Datagrams that came in trains, beyond the first of each."""

    def count(self, messages: int) -> None:
        self.occupancy[messages.bit_length()] += 1
        self.messages += messages


def send(sock: socket.socket, data: Buffer, to: tuple[str, int], figures: Figures) -> None:
    """One datagram. What the kernel does not take is dropped and counted, as a network does."""
    try:
        sock.sendto(data, to)
    except (BlockingIOError, InterruptedError):
        figures.failures["send_full"] += 1
    except OSError:
        figures.failures["send_failed"] += 1


class PlainRing:
    """Receives from one socket, a datagram at a time; `answer` sends what the core wants sent."""

    def __init__(
        self, sock: socket.socket, place: int, relay: Relay, now: Callable[[], int], figures: Figures,
        answer: Callable[[list[Datagram]], None], listener: Listener,
    ) -> None:  # fmt: skip
        self._listener = listener
        self._ears: Mapping[Address, Ear] = {}
        self._socket, self._place, self._relay, self._now = sock, place, relay, now
        self._figures, self._answer = figures, answer
        # One octet more than the longest datagram that passes, so that longer ones are seen to be longer.
        self._buffer = memoryview(bytearray(SIZE_LIMIT + 1))

    def drain(self) -> int:
        """Receive, forward, answer, until nothing waits or DRAIN have come. How many came."""
        count = 0
        while count < DRAIN:
            try:
                size, name = self._socket.recvfrom_into(self._buffer)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self._figures.failures["receive_failed"] += 1
                break
            source = (*name[:2], self._place) if self._place else name[:2]
            # Read after the datagram was, so that none that waited across a deadline passes (law 4).
            now = self._now()
            self._answer(self._relay.receive(self._buffer[:size], source, now))
            if now >= self._listener.due_at:
                self._listener.turn(now)
            if (ear := self._ears.get(source)) is not None:
                ear.hear(self._buffer, 0, size, now)
            count += 1
        if count:
            self._figures.count(count)
        return count

    def listen(self, ears: Mapping[Address, Ear]) -> None:
        """Read the headers of what comes from these addresses, for now."""
        self._ears = ears


def bind(address: str, port: int) -> socket.socket:
    """A non-blocking UDP socket with large buffers. Raises OSError when the address is not free.

    A socket on an IPv6 address takes IPv6 alone: mapped addresses would stand in the table in two forms.
    """
    family = socket.AF_INET6 if ip_address(address.partition("%")[0]).version == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        for forced, plain in ((33, socket.SO_RCVBUF), (32, socket.SO_SNDBUF)):
            _enlarge(sock, forced, plain)
        sock.setblocking(False)
        sock.bind((address, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _enlarge(sock: socket.socket, forced: int, plain: int) -> None:
    # SO_RCVBUFFORCE and SO_SNDBUFFORCE pass over net.core.*mem_max where we may; the socket module does not name them.
    try:
        sock.setsockopt(socket.SOL_SOCKET, forced, BUFFER_OCTETS)
    except OSError:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, plain, BUFFER_OCTETS)
