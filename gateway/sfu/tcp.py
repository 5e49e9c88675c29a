"""TCP connections of callers whose network passes no UDP (RFC 6544, we are passive), each an address of the core.

A connection is a bad wire for media, so it never becomes a queue: what the kernel would only pile up is dropped, as a
full router does, and the callers' congestion control sees loss in place of seconds of delay. All connections hang on
one selector, whose own descriptor an event loop waits for.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from fcntl import ioctl
from ipaddress import ip_address
from typing import Final

from gateway.sfu.demux import STUN, classify
from gateway.sfu.framing import HEADER_OCTETS, Framer, FramingError, header
from gateway.sfu.path import Datagram, Path
from gateway.sfu.quality import Ear, Listener
from gateway.sfu.relay import Relay
from gateway.sfu.stun import CONNECTIONS, Address, Buffer
from gateway.sfu.udp import DRAIN, Figures

STRANGER_MS: Final = 3_000
STRANGER_OCTETS: Final = 600
"""How long and how much a connection may take to bring its first authentic check (6-media, Secrets and sockets)."""
STRANGERS_OF_ONE: Final = 16
STRANGERS: Final = 1_024
"""Connections without a check, of one address and in all; beyond it the oldest makes room."""
QUEUE_OCTETS: Final = 64 * 1024
"""What may wait in the kernel unsent: a fifth of a second of good video. More is delay that nobody wants."""
SEND_BUFFER: Final = 128 * 1024
"""The kernel doubles it for its own overhead. It bounds what is on the way and not acknowledged, too."""
RECEIVE: Final = 65_536
USER_TIMEOUT_MS: Final = 15_000
"""Unacknowledged data ends a connection after as long as checks keep a leg present (CHECK_MS)."""
BACKLOG: Final = 256

_OUTQ: Final = 0x5411
_OUTQ_UNSENT: Final = 0x894B
"""SIOCOUTQ and SIOCOUTQNSD of Linux: octets not acknowledged, octets not even sent."""
_RESET: Final = struct.pack("ii", 1, 0)


class Connection:
    """One accepted connection. `rest`: the end of a frame whose beginning the kernel has taken."""

    __slots__ = ("address", "framer", "group", "open", "rest", "seen", "since", "socket", "stranger")

    def __init__(self, sock: socket.socket, address: Address, group: str, since: int) -> None:
        self.socket, self.address, self.group, self.since = sock, address, group, since
        self.framer = Framer()
        self.open = self.stranger = True
        self.seen = 0
        self.rest = b""


class Strangers:
    """Connections that have shown no authentic check yet, oldest first."""

    def __init__(self) -> None:
        self._all: dict[Connection, None] = {}
        self._groups: dict[str, dict[Connection, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def oldest(self) -> Connection | None:
        return next(iter(self._all), None)

    def surplus(self, group: str) -> Connection | None:
        """Who must go before one more of this group may come."""
        those = self._groups.get(group, {})
        if len(those) >= STRANGERS_OF_ONE:
            return next(iter(those))
        return self.oldest() if len(self._all) >= STRANGERS else None

    def add(self, connection: Connection) -> None:
        self._all[connection] = None
        self._groups.setdefault(connection.group, {})[connection] = None

    def remove(self, connection: Connection) -> None:
        if connection in self._all:
            del self._all[connection]
            those = self._groups[connection.group]
            del those[connection]
            if not those:
                del self._groups[connection.group]


class Streams:
    """All TCP connections of one relay. `descriptor` is readable when `drain` has something to do."""

    def __init__(
        self, relay: Relay, listeners: Sequence[socket.socket], now: Callable[[], int], figures: Figures,
        answer: Callable[[list[Datagram]], None], listener: Listener,
    ) -> None:  # fmt: skip
        self._listener = listener
        self._ears: Mapping[Address, Ear] = {}
        self._relay, self._now, self._figures, self._answer = relay, now, figures, answer
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, Connection] = {}
        self._strangers = Strangers()
        self._lost: list[Connection] = []
        """Closed by us at a cut; the core, which was in the midst of it, has yet to be told."""
        self._serial = CONNECTIONS
        self._buffer = memoryview(bytearray(RECEIVE))
        self._word = bytearray(4)
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self._listeners = tuple(listeners)
        for sock in self._listeners:
            self._selector.register(sock, selectors.EVENT_READ)
        self.refused = 0
        """Connections closed without ever having shown an authentic check."""

    @property
    def descriptor(self) -> int:
        return self._selector.fileno()

    def __len__(self) -> int:
        return len(self._connections)

    # --- in

    def drain(self) -> int:
        """Serve what is ready, each connection once, so that none keeps the others waiting; how many were."""
        ready = self._selector.select(0)
        for key, events in ready:
            connection: Connection | None = key.data
            if connection is None:
                self._accept(key.fileobj)  # type: ignore[arg-type]
                continue
            if connection.open and events & selectors.EVENT_WRITE:
                self._flush(connection)
            if connection.open and events & selectors.EVENT_READ:
                self._read(connection)
        return len(ready)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(DRAIN):
            try:
                sock, name = listener.accept()
            except (BlockingIOError, ConnectionError, InterruptedError):
                return
            except OSError:
                self._figures.failures["accept_failed"] += 1
                self._turn_away(listener)
                return
            self._welcome(sock, name)

    def _turn_away(self, listener: socket.socket) -> None:
        """No descriptor is left. Whoever waits would keep the listener readable and us spinning: spend the spare."""
        os.close(self._spare)
        with contextlib.suppress(OSError):
            listener.accept()[0].close()
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY)

    def _welcome(self, sock: socket.socket, name: tuple[str, int]) -> None:
        group = _group(name[0])
        surplus = self._strangers.surplus(group)
        if surplus is not None:
            self._close(surplus)
        try:
            _prepare(sock)
        except OSError:
            sock.close()  # Gone before we looked.
            return
        self._serial += 1
        connection = Connection(sock, (name[0], name[1], self._serial), group, self._now())
        self._connections[self._serial] = connection
        self._strangers.add(connection)
        self._selector.register(sock, selectors.EVENT_READ, connection)

    def _read(self, connection: Connection) -> None:
        # A stranger is read no further than it may go, so that a megabyte of its junk is never even copied.
        room = STRANGER_OCTETS + 1 - connection.seen if connection.stranger else RECEIVE
        try:
            size = connection.socket.recv_into(self._buffer, room)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            size = 0
        if size:
            self._take(connection, self._buffer[:size])
        if not size or (connection.open and connection.stranger and connection.seen > STRANGER_OCTETS):
            self._hang_up(connection)

    def _take(self, connection: Connection, data: memoryview) -> None:
        now = self._now()  # After the data was received, so that none that waited across a deadline passes (law 4).
        connection.seen += len(data)
        if now >= self._listener.due_at:
            self._listener.turn(now)
        try:
            for frame in connection.framer.take(data):
                self._frame(connection, frame, now)
                if not connection.open:
                    return
        except FramingError:
            self._figures.failures["bad_frame"] += 1
            self._hang_up(connection)

    def _frame(self, connection: Connection, frame: memoryview, now: int) -> None:
        if connection.stranger and classify(frame) != STUN:
            raise FramingError("nothing but checks may come first")
        self._answer(self._relay.receive(frame, connection.address, now))
        if (ear := self._ears.get(connection.address)) is not None:
            ear.hear(frame, 0, len(frame), now)
        if connection.stranger and self._relay.knows(connection.address):
            connection.stranger = False
            self._strangers.remove(connection)

    def listen(self, ears: Mapping[Address, Ear]) -> None:
        """Read the headers of what comes from these addresses, for now."""
        self._ears = ears

    # --- out

    def send(self, data: Buffer, serial: int) -> None:
        """One datagram to a connection, whole or not at all. An error shows when the selector tells of it."""
        connection = self._connections.get(serial)
        if connection is None:
            self._figures.failures["send_failed"] += 1
            return
        if connection.rest or self._waiting(connection, _OUTQ_UNSENT) > QUEUE_OCTETS:
            self._figures.failures["send_full"] += 1
            return
        try:
            sent = connection.socket.sendmsg((header(len(data)), data))
        except (BlockingIOError, InterruptedError):
            self._figures.failures["send_full"] += 1
        except OSError:
            self._figures.failures["send_failed"] += 1
        else:
            if sent < HEADER_OCTETS + len(data):
                connection.rest = (header(len(data)) + bytes(data))[sent:]
                self._watch(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def _flush(self, connection: Connection) -> None:
        try:
            sent = connection.socket.send(connection.rest)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._hang_up(connection)
            return
        connection.rest = connection.rest[sent:]
        if not connection.rest:
            self._watch(connection, selectors.EVENT_READ)

    def _watch(self, connection: Connection, events: int) -> None:
        self._selector.modify(connection.socket, events, connection)

    def _waiting(self, connection: Connection, which: int) -> int:
        if sys.platform != "linux":
            return 0  # The send buffer alone bounds it there.
        try:
            ioctl(connection.socket, which, self._word)
        except OSError:
            return 0
        return int.from_bytes(self._word, sys.byteorder)

    # --- the core's word

    def cut(self, path: Path) -> None:
        """Nothing may reach this address from now on: discard what waits for it, which only a reset can (law 4)."""
        connection = self._connections.get(path.address[2]) if path.stream else None  # type: ignore[misc]
        if connection is not None and (connection.rest or self._waiting(connection, _OUTQ)):
            self._close(connection)
            self._lost.append(connection)

    def forget(self, path: Path) -> None:
        """The address is no leg's any more."""
        connection = self._connections.get(path.address[2]) if path.stream else None  # type: ignore[misc]
        if connection is not None:
            self._close(connection)

    # --- time and the end

    def get_timer(self) -> int | None:
        """When `handle_timer` wants to be called."""
        if self._lost:
            return 0
        oldest = self._strangers.oldest()
        return None if oldest is None else oldest.since + STRANGER_MS

    def handle_timer(self, now: int) -> None:
        lost, self._lost = self._lost, []
        for connection in lost:
            self._answer(self._relay.hang_up(connection.address, now))
        while (oldest := self._strangers.oldest()) is not None and oldest.since + STRANGER_MS <= now:
            self._close(oldest)

    def _hang_up(self, connection: Connection) -> None:
        if connection.open:
            self._close(connection)
            self._answer(self._relay.hang_up(connection.address, self._now()))

    def _close(self, connection: Connection) -> None:
        if not connection.open:
            return
        connection.open = False
        self.refused += connection.stranger
        self._strangers.remove(connection)
        del self._connections[connection.address[2]]  # type: ignore[misc]
        self._selector.unregister(connection.socket)
        with contextlib.suppress(OSError):
            # A reset: no TIME_WAIT for strangers to pile up, and nothing that waits is sent after a cut.
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.socket.close()

    def close(self) -> None:
        for connection in list(self._connections.values()):
            self._close(connection)
        for listener in self._listeners:
            listener.close()
        self._selector.close()
        os.close(self._spare)


def listen(address: str, port: int) -> socket.socket:
    """A non-blocking listening socket. Raises OSError when the address is not free."""
    family = socket.AF_INET6 if ip_address(address.partition("%")[0]).version == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


def _group(host: str) -> str:
    """Whom a connection counts against: an IPv4 address, or the /64 that one IPv6 household has to itself."""
    address = ip_address(host.partition("%")[0])
    return host if address.version == 4 else address.exploded[:19]
