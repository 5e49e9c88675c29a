"""The sockets of one relay under its core: batched where the platform can, plain elsewhere."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gateway.sfu import mmsg
from gateway.sfu.batch import Names, Outbox, Ring
from gateway.sfu.path import Datagram, Path
from gateway.sfu.port import Statistics
from gateway.sfu.quality import Ear, Listener
from gateway.sfu.relay import Relay
from gateway.sfu.stun import Address
from gateway.sfu.udp import Figures, PlainRing, send


class Shell:
    """Feeds the core what came by `sockets`, sends what it wants sent. `drain` is for whoever waits for them.

    An `Address` names its socket by the place in `sockets`. `batched` and `trains` False force the plain ways.
    """

    def __init__(
        self, relay: Relay, sockets: Sequence[socket.socket], now: Callable[[], int], *,
        batched: bool = True, trains: bool = True,
    ) -> None:  # fmt: skip
        self._relay, self._sockets, self._now = relay, tuple(sockets), now
        self.figures = Figures()
        self._listener = Listener(relay.talking, self._aim)
        self._rings: list[Ring | PlainRing] = []
        self._drains: dict[int, Callable[[], int]] = {}
        if batched and mmsg.available():
            self._open_rings(trains)
        else:
            for place, sock in enumerate(self._sockets):
                plain = PlainRing(sock, place, relay, now, self.figures, self.send_all, self._listener)
                self._rings.append(plain)
                self._drains[sock.fileno()] = plain.drain

    def _open_rings(self, trains: bool) -> None:
        outboxes = [Outbox(sock, self.figures, segments=trains and mmsg.can_segment(sock)) for sock in self._sockets]
        rings = [
            Ring(place, outboxes, self._relay, self._now, self.send_all, self._listener, trains=trains)
            for place in range(len(self._sockets))
        ]
        self._relay.index_by(WireRows(outboxes, rings))
        self._rings += rings
        self._drains = {sock.fileno(): ring.drain for sock, ring in zip(self._sockets, rings, strict=True)}

    def _aim(self, ears: Mapping[Address, Ear]) -> None:
        for ring in self._rings:
            ring.listen(ears)

    @property
    def descriptors(self) -> tuple[int, ...]:
        return tuple(self._drains)

    def drain(self, descriptor: int) -> int:
        """Take a batch from the socket; how many messages came."""
        return self._drains[descriptor]()

    def send_all(self, datagrams: list[Datagram]) -> None:
        for data, to in datagrams:
            send(self._sockets[to[2] if len(to) > 2 else 0], data, to[:2], self.figures)

    def statistics(self) -> Statistics:
        """The core's, with what only the sockets know."""
        figures, core = self.figures, self._relay.statistics()
        one_way_calls, silent_legs = self._relay.silence(self._now())
        return replace(
            core,
            drops={**core.drops, **figures.failures},
            queue_drops=sum(mmsg.queue_drops(sock) for sock in self._sockets),
            occupancy=tuple(figures.occupancy),
            messages=figures.messages,
            trains_in=figures.trains_in,
            trains_out=figures.trains_out,
            one_way_calls=one_way_calls,
            silent_legs=silent_legs,
        )

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


class WireRows:
    """Rows by the names that the kernel writes; a row's `wire` is (outbox, address of its name, whether by trains)."""

    def __init__(self, outboxes: Sequence[Outbox], rings: Sequence[Ring]) -> None:
        self._outboxes, self._rings = outboxes, rings
        self._names = Names()

    def enter(self, path: Path) -> None:
        place = _place(path)
        outbox = self._outboxes[place]
        name = outbox.family.name(path.address)
        address = self._names.put(name)
        path.wire = (outbox, address, outbox.segments)
        outbox.rows[address] = self._rings[place].rows[outbox.family.key(name)] = path

    def leave(self, path: Path) -> None:
        place = _place(path)
        outbox, address, _trains = path.wire
        del outbox.rows[address]
        del self._rings[place].rows[outbox.family.key(outbox.family.name(path.address))]
        self._names.give(address)
        path.wire = None


def _place(path: Path) -> int:
    return path.address[2] if len(path.address) > 2 else 0
