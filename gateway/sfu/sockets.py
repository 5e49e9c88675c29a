"""Which sockets a relay worker needs for the addresses that callers are told, and what they are told of each."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from gateway.errors import RelayUnavailable
from gateway.sfu import udp
from gateway.sfu.port import Candidate

FIRST_PRIORITY: Final = 2_130_706_431
"""Of a host candidate with the highest local preference (RFC 8445 section 5.1.2.1)."""


@dataclass(frozen=True, slots=True)
class Media:
    """A worker's media sockets, and the candidates that lead to them."""

    sockets: tuple[socket.socket, ...]
    candidates: tuple[Candidate, ...]


def open_media(hosts: Sequence[str], port: int, advertise: Sequence[str]) -> Media:
    """Bind one worker's sockets on `port` (0: any free ones). Raises RelayUnavailable.

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
    return _bound(binds, port, advertise)


def _bound(binds: dict[str, str], port: int, advertise: Sequence[str]) -> Media:
    opened: dict[str, socket.socket] = {}
    try:
        for address in advertise:
            if binds[address] not in opened:
                opened[binds[address]] = udp.bind(binds[address], port)
    except OSError as error:
        for sock in opened.values():
            sock.close()
        raise RelayUnavailable("the media port cannot be bound", code="media_port_unavailable") from error
    ports = {address: opened[binds[address]].getsockname()[1] for address in advertise}
    return Media(tuple(opened.values()), candidates((address, ports[address]) for address in advertise))


def candidates(reached: Iterable[tuple[str, int]]) -> tuple[Candidate, ...]:
    """Of addresses and ports, best first."""
    # The local preference falls by one from address to address; it stands in bits 8 to 23 of the priority.
    return tuple(
        Candidate(address, port, "udp", FIRST_PRIORITY - (place << 8), str(place + 1))
        for place, (address, port) in enumerate(reached)
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
