"""The asyncio shell of the relay's core over one UDP socket.

Feeds the core what came, sends what it wants sent, and keeps one timer armed. It drains the socket in batches, so a
burst costs one wake-up; it does nothing at all while nothing comes and no timer is due. Runs on asyncio and uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from gateway.clock import Clock
from gateway.sfu.path import Datagram
from gateway.sfu.relay import SIZE_LIMIT, Relay
from gateway.sfu.stun import Address, Buffer

DRAIN: Final = 64
"""Datagrams a wake-up. More would let one flood keep timers and other sockets of the loop waiting."""
BUFFER_OCTETS: Final = 7 * 1024 * 1024
"""Socket buffers: at 20,000 packets a second about a third of a second of a stalled process."""


class UdpShell:
    """One bound socket under one core. `on_reports` is called when the core has reports to give."""

    def __init__(self, relay: Relay, sock: socket.socket, clock: Clock, on_reports: Callable[[], None]) -> None:
        self._relay = relay
        self._socket = sock
        self._now = clock.boot_ms
        self._on_reports = on_reports
        self._loop = asyncio.get_running_loop()
        # One octet more than the longest datagram that passes, so that longer ones are seen to be longer.
        self._buffer = memoryview(bytearray(SIZE_LIMIT + 1))
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0
        self.failures: Counter[str] = Counter()
        """Datagrams that the kernel did not take, by reason; the core has counted them as sent."""
        self._loop.add_reader(sock, self._readable)

    def close(self) -> None:
        """Stop; the socket is closed too."""
        self._loop.remove_reader(self._socket)
        if self._timer is not None:
            self._timer.cancel()
        self._socket.close()

    def touch(self) -> None:
        """To be called after the core was changed from outside: sends nothing, re-arms the timer, gives reports."""
        if self._relay.has_reports:
            self._on_reports()
        self._arm()

    def _readable(self) -> None:
        receive, forward, now_ms, buffer = self._socket.recvfrom_into, self._relay.forward, self._now, self._buffer
        for _ in range(DRAIN):
            try:
                size, source = receive(buffer)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self.failures["receive_failed"] += 1
                break
            now = now_ms()
            to = forward(buffer[0], size, source, now) if size else None
            if to is not None:
                self._send(buffer[:size], to)
            else:
                self._send_all(self._relay.accept(buffer[:size], source, now))
        self.touch()

    def _send_all(self, datagrams: list[Datagram]) -> None:
        for data, to in datagrams:
            self._send(data, to)

    def _send(self, data: Buffer, to: Address) -> None:
        try:
            self._socket.sendto(data, to)
        except (BlockingIOError, InterruptedError):
            # A full socket buffer is congestion: dropping is what a network does, and the callers' control sees it.
            self.failures["send_full"] += 1
        except OSError:
            self.failures["send_failed"] += 1

    def _arm(self) -> None:
        at = self._relay.get_timer()
        if at is None or (self._timer is not None and self._timer_at <= at):
            return  # A timer that is too early costs one wake-up, re-arming for each packet would cost more.
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0, at - self._now()) / 1000, self._due)

    def _due(self) -> None:
        self._timer = None
        self._send_all(self._relay.handle_timer(self._now()))
        self.touch()


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
