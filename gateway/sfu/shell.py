"""The sockets of one relay under its core: batched where the platform can, plain elsewhere."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gateway.sfu import mmsg
from gateway.sfu.batch import Names, Outbox, Ring, StreamOutbox
from gateway.sfu.path import Datagram, Path
from gateway.sfu.port import Statistics
from gateway.sfu.quality import Ear, Listener
from gateway.sfu.relay import Relay
from gateway.sfu.stun import CONNECTIONS, Address
from gateway.sfu.tcp import Streams
from gateway.sfu.udp import Figures, PlainRing, send


class Shell:
    """Feeds the core what came by `sockets`, sends what it wants sent. `drain` is for whoever waits for them.

    An `Address` names its socket by the place in `sockets`. `batched` and `trains` False force the plain ways.
    """

    def __init__(
        self, relay: Relay, sockets: Sequence[socket.socket], now: Callable[[], int], *,
        listeners: Sequence[socket.socket] = (), batched: bool = True, trains: bool = True,
    ) -> None:  # fmt: skip
        self._relay, self._sockets, self._now = relay, tuple(sockets), now
        self.figures = Figures()
        self._listener = Listener(relay.talking, self._aim)
        self._rings: list[Ring | PlainRing | Streams] = []
        self._drains: dict[int, Callable[[], int]] = {}
        self._streams = Streams(relay, listeners, now, self.figures, self.send_all, self._listener)
        if batched and mmsg.available():
            self._open_rings(trains)
        else:
            for place, sock in enumerate(self._sockets):
                plain = PlainRing(sock, place, relay, now, self.figures, self.send_all, self._listener)
                self._rings.append(plain)
                self._drains[sock.fileno()] = plain.drain
            relay.index_by(StreamRows(self._streams))
        if listeners:
            self._rings.append(self._streams)
            self._drains[self._streams.descriptor] = self._streams.drain

    def _open_rings(self, trains: bool) -> None:
        outboxes = [Outbox(sock, self.figures, segments=trains and mmsg.can_segment(sock)) for sock in self._sockets]
        stream_outbox = StreamOutbox(self._streams.send)
        given = self._relay, self._now, self.send_all, self._listener
        rings = [
            Ring(place, outboxes, *given, trains=trains, others=(stream_outbox,)) for place in range(len(self._sockets))
        ]
        self._relay.index_by(WireRows(outboxes, rings, self._streams, stream_outbox))
        self._rings += rings
        self._drains = {sock.fileno(): ring.drain for sock, ring in zip(self._sockets, rings, strict=True)}

    def _aim(self, ears: Mapping[Address, Ear]) -> None:
        for ring in self._rings:
            ring.listen(ears)

    @property
    def drains(self) -> Mapping[int, Callable[[], int]]:
        """By descriptor what `drain` does with it."""
        return self._drains

    def drain(self, descriptor: int) -> int:
        """Take a batch from the socket; how many messages came."""
        return self._drains[descriptor]()

    def send_all(self, datagrams: list[Datagram]) -> None:
        for data, to in datagrams:
            place = to[2] if len(to) > 2 else 0
            if place >= CONNECTIONS:
                self._streams.send(data, place)
            else:
                send(self._sockets[place], data, to[:2], self.figures)

    def get_timer(self) -> int | None:
        """When `handle_timer` wants to be called: the core's timer and the connections'."""
        core, streams = self._relay.get_timer(), self._streams.get_timer()
        if core is None or streams is None:
            return streams if core is None else core
        return min(core, streams)

    def handle_timer(self, now: int) -> None:
        """Do what is due by `now`."""
        self._streams.handle_timer(now)
        self.send_all(self._relay.handle_timer(now))

    def statistics(self) -> Statistics:
        """The core's, with what only the sockets know."""
        self._relay.silence(self._now())
        return self._with_sockets(self._relay.statistics())

    def totals(self) -> Statistics:
        """The same as of the last reports, without a walk over all calls."""
        return self._with_sockets(self._relay.totals())

    def _with_sockets(self, core: Statistics) -> Statistics:
        figures = self.figures
        return replace(
            core,
            drops={**core.drops, **figures.failures},
            queue_drops=sum(mmsg.queue_drops(sock) for sock in self._sockets),
            occupancy=tuple(figures.occupancy),
            messages=figures.messages,
            trains_in=figures.trains_in,
            trains_out=figures.trains_out,
            connections=len(self._streams),
            connections_refused=self._streams.refused,
        )

    def close(self) -> None:
        self._streams.close()
        for sock in self._sockets:
            sock.close()


class StreamRows:
    """Rows that only the core looks up: connections follow them, nothing else."""

    def __init__(self, streams: Streams) -> None:
        self.cut, self.forget = streams.cut, streams.forget

    def enter(self, path: Path) -> None: ...

    def leave(self, path: Path) -> None: ...


class WireRows(StreamRows):
    """Rows by the names that the kernel writes; a row's `wire` is (outbox, address of its name, whether by trains).

    Of a connection it is (outbox, number, True); nothing that came by one is looked up here.
    """

    def __init__(
        self, outboxes: Sequence[Outbox], rings: Sequence[Ring], streams: Streams, stream_outbox: StreamOutbox
    ) -> None:
        super().__init__(streams)
        self._outboxes, self._rings, self._stream_outbox = outboxes, rings, stream_outbox
        self._names = Names()

    def enter(self, path: Path) -> None:
        if path.stream:
            path.wire = (self._stream_outbox, path.address[-1], True)
            return
        place = _place(path)
        outbox = self._outboxes[place]
        name = outbox.family.name(path.address)
        address = self._names.put(name)
        path.wire = (outbox, address, outbox.segments)
        outbox.rows[address] = self._rings[place].rows[outbox.family.key(name)] = path

    def leave(self, path: Path) -> None:
        if path.stream:
            return
        place = _place(path)
        outbox, address, _trains = path.wire
        del outbox.rows[address]
        del self._rings[place].rows[outbox.family.key(outbox.family.name(path.address))]
        self._names.give(address)
        path.wire = None


def _place(path: Path) -> int:
    return path.address[2] if len(path.address) > 2 else 0
