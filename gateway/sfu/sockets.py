"""Which sockets a relay worker needs for the addresses that callers are told, and what they are told of each."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from gateway.errors import RelayUnavailable
from gateway.sfu import tcp, udp
from gateway.sfu.port import Candidate

FIRST_PRIORITY: Final = 2_130_706_431
"""Of a host candidate with the highest local preference (RFC 8445 section 5.1.2.1)."""
FIRST_TCP_PRIORITY: Final = (90 << 24) + (((4 << 13) + 8191) << 8) + 255
"""Below every UDP candidate: type preference 90 as browsers give it, passive direction (RFC 6544 section 4.2)."""
ATTEMPTS: Final = 16
"""To find a number that is free for UDP and for TCP, when any will do."""


@dataclass(frozen=True, slots=True)
class Media:
    """A worker's media sockets, for UDP and for TCP connections, and the candidates that lead to them."""

    sockets: tuple[socket.socket, ...]
    listeners: tuple[socket.socket, ...]
    candidates: tuple[Candidate, ...]


def open_media(hosts: Sequence[str], port: int, advertise: Sequence[str], tcp_port: int | None = None) -> Media:
    """Bind one worker's sockets on `port` (0: any free ones), TCP ones on `tcp_port` if given. Raises RelayUnavailable.

    An advertised address is served by the socket on the host of its family. Where that is the unspecified address and
    several of the family are advertised, each gets a socket of its own if this machine has it: callers take answers
    only from the address that they asked. Behind a 1:1 NAT it has none of them, and one socket serves all.
    """
    binds: dict[str, str] = {}
    for family in (4, 6):
        told = [address for address in advertise if _family(address) == family]
        if not told:
            continue
        host = next((host for host in hosts if _family(host) == family), None)
        if host is None:
            raise RelayUnavailable(f"an IPv{family} address is advertised, but there is no IPv{family} host")
        own = len(told) > 1 and ip_address(host).is_unspecified and _all_ours(told)
        binds |= {address: address if own else host for address in told}
    return _bound(binds, port, tcp_port, advertise)


def _bound(binds: dict[str, str], port: int, tcp_port: int | None, advertise: Sequence[str]) -> Media:
    opened: dict[str, tuple[socket.socket, socket.socket]] = {}
    try:
        for address in advertise:
            if binds[address] not in opened:
                opened[binds[address]] = _pair(binds[address], port, tcp_port)
    except OSError as error:
        for pair in opened.values():
            for sock in pair:
                sock.close()
        raise RelayUnavailable("the media port cannot be bound", code="media_port_unavailable") from error
    by_udp, by_tcp = (
        [(address, opened[binds[address]][kind].getsockname()[1]) for address in advertise] for kind in (0, 1)
    )
    sockets, listeners = zip(*opened.values(), strict=True)
    return Media(sockets, listeners, candidates(by_udp, by_tcp))


def _pair(host: str, port: int, tcp_port: int | None) -> tuple[socket.socket, socket.socket]:
    """Both sockets of one host. A number of the kernel's choice for UDP may be taken for TCP: then another is tried."""
    for attempts_left in reversed(range(ATTEMPTS)):
        sock = udp.bind(host, port)
        try:
            return sock, tcp.listen(host, sock.getsockname()[1] if tcp_port is None else tcp_port)
        except OSError:
            sock.close()
            if port or not attempts_left:
                raise
    raise AssertionError("the last attempt returns or raises")


def candidates(by_udp: Sequence[tuple[str, int]], by_tcp: Sequence[tuple[str, int]]) -> tuple[Candidate, ...]:
    """Of addresses and ports, best first: all of UDP before any of TCP."""
    # The local preference falls by one from address to address; it stands in bits 8 to 23 of the priority.
    return (
        *(
            Candidate(address, port, "udp", FIRST_PRIORITY - (place << 8), str(place + 1))
            for place, (address, port) in enumerate(by_udp)
        ),
        *(
            Candidate(address, port, "tcp", FIRST_TCP_PRIORITY - (place << 8), str(len(by_udp) + place + 1))
            for place, (address, port) in enumerate(by_tcp)
        ),
    )


def _family(address: str) -> int:
    return ip_address(address.partition("%")[0]).version


def _all_ours(addresses: Sequence[str]) -> bool:
    for address in addresses:
        try:
            udp.bind(address, 0).close()
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return False
            raise RelayUnavailable("a media address cannot be bound", code="media_port_unavailable") from error
    return True
