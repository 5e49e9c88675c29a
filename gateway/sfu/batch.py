"""Batched I/O: many datagrams a system call, whole trains of them a look-up (architecture, relay rule 7).

A `Ring` receives up to SLOTS messages of its socket at once. Those that an armed row forwards are staged where they
lie, in the `Outbox` of the socket that leads to their destination, and go out with one call; all else is handed to the
core one by one. Neighbours with one source and one size leave as a train (UDP_SEGMENT), and trains that the kernel
gathered (UDP_GRO) are forwarded as they came: one look-up, one route and one pass through the kernel for all of it.
"""

from __future__ import annotations

import errno
import mmap
import socket
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Final

from gateway.sfu import mmsg
from gateway.sfu.demux import CLASSES, JUNK, MEDIA, STUN
from gateway.sfu.path import Datagram, Path
from gateway.sfu.quality import Ear, Listener
from gateway.sfu.relay import SIZE_LIMIT, Relay
from gateway.sfu.sockaddr import family
from gateway.sfu.stun import Address
from gateway.sfu.udp import DRAIN, Figures, send

SLOTS: Final = DRAIN
TRAIN_SLOT: Final = 65_536 + 33 * 64
PLAIN_SLOT: Final = 2_048
TRAIN_OCTETS: Final = 65_000
"""What leaves in one train at most; the kernel takes 65,507 octets, in at most 64 datagrams."""
CONGESTED: Final = frozenset({errno.EAGAIN, errno.EINTR, errno.ENOBUFS})
UNSEGMENTABLE: Final = frozenset({errno.EINVAL, errno.EMSGSIZE, errno.EIO})
"""A train that fails so may pass in single datagrams: the path takes no datagram of that size whole, or the device
cannot segment (EIO: it does no checksums)."""

Declined = tuple[int, Path | None]
"""Place of a message that is for the core, and the row of its source."""

_MEDIA_BYTES: Final = bytes(first for first in range(256) if CLASSES[first] == MEDIA)


class Staging:
    """Messages that wait to leave: what a Ring writes into, `staged` many."""

    def __init__(self) -> None:
        self.staged = 0
        self._headers = mmsg.Words(SLOTS * mmsg.WORDS)
        self.octets = self._headers.octets

    def flush(self) -> None:
        """Send what is staged."""
        raise NotImplementedError

    def _words(self, at: int) -> memoryview:
        return self._headers.words[at * mmsg.WORDS : (at + 1) * mmsg.WORDS]

    def _datagrams(self, at: int) -> list[bytes]:
        """What a staged message consists of."""
        words = self._words(at)
        pieces = mmsg.pieces(words[mmsg.PIECES], words[mmsg.PIECE_COUNT])
        if not words[mmsg.CONTROL_SIZE]:
            return pieces
        size, data = mmsg.segment_size(words[mmsg.CONTROL]), b"".join(pieces)
        return [data[start : start + size] for start in range(0, len(data), size)]


class StreamOutbox(Staging):
    """What leaves by TCP connections. In place of a name's address stands the number of the connection."""

    def __init__(self, send: Callable[[bytes, int], None]) -> None:
        super().__init__()
        self._send = send

    def flush(self) -> None:
        staged, self.staged = self.staged, 0
        for at in range(staged):
            serial = self._words(at)[mmsg.NAME]
            for datagram in self._datagrams(at):
                self._send(datagram, serial)


class Outbox(Staging):
    """Messages that wait to leave by one socket. `segments`: whether trains may; ends for good if the device cannot."""

    def __init__(self, sock: socket.socket, figures: Figures, *, segments: bool) -> None:
        super().__init__()
        self.socket, self.segments, self.figures = sock, segments, figures
        self.family = family(sock)
        self.rows: dict[int, Path] = {}
        """Rows by the address of their name, to tell which destination failed."""
        self._send = mmsg.sender(sock.fileno(), self._headers.address)

    def flush(self) -> None:
        """Send what is staged. What the kernel does not take is dropped and counted, as a network does."""
        done, staged = 0, self.staged
        self.staged = 0
        while done < staged:
            sent = self._send(done, staged - done)
            done += sent if sent > 0 else self._failed(mmsg.errno(), done, staged)

    def _failed(self, error: int, at: int, staged: int) -> int:
        """The message `at` did not go; how many messages are dealt with by this."""
        if error in CONGESTED:
            self.figures.failures["send_full"] += sum(len(self._datagrams(place)) for place in range(at, staged))
            return staged - at
        words = self._words(at)
        if error in UNSEGMENTABLE and words[mmsg.CONTROL_SIZE]:
            self._narrow(error, words[mmsg.NAME])
            to = self.family.address(self.family.key(mmsg.octets(words[mmsg.NAME], self.family.size)))
            for datagram in self._datagrams(at):
                send(self.socket, datagram, to, self.figures)
        else:
            self.figures.failures["send_failed"] += len(self._datagrams(at))
        return 1

    def _narrow(self, error: int, name: int) -> None:
        """No more trains to this destination; to none when it is the device that cannot make them."""
        if error == errno.EIO:
            self.segments = False
        failed = self.rows.get(name)
        for row in list(self.rows.values()) if not self.segments else [failed] if failed is not None else []:
            row.wire = (*row.wire[:2], False)


@dataclass(frozen=True, slots=True)
class Columns:
    """Views of a ring's first so many messages. Kept, because making them anew costs more than what they are for."""

    lengths: memoryview
    controls: memoryview
    full: memoryview
    out: memoryview
    names: memoryview
    firsts: memoryview


class Names:
    """Room for the names of destinations, at addresses that stay while their rows live."""

    CHUNK: Final = 256
    OCTETS: Final = mmsg.NAME_OCTETS

    def __init__(self) -> None:
        self._free: list[tuple[int, memoryview]] = []
        self._used: dict[int, tuple[int, memoryview]] = {}

    def put(self, name: bytes) -> int:
        """Address of a copy of `name`."""
        if not self._free:
            chunk = mmsg.Words(self.CHUNK * self.OCTETS // 8)
            starts = range(0, self.CHUNK * self.OCTETS, self.OCTETS)
            self._free = [(chunk.address + start, chunk.octets[start : start + self.OCTETS]) for start in starts]
        place = self._free.pop()
        place[1][: len(name)] = name
        self._used[place[0]] = place
        return place[0]

    def give(self, address: int) -> None:
        self._free.append(self._used.pop(address))


class Ring:
    """One socket's receiving half; see the module. `outboxes`: of all sockets, its own at `place`."""

    def __init__(
        self, place: int, outboxes: Sequence[Outbox], relay: Relay, now: Callable[[], int],
        answer: Callable[[list[Datagram]], None], listener: Listener, *, trains: bool,
        others: Sequence[Staging] = (),
    ) -> None:  # fmt: skip
        self.rows: dict[Hashable, Path] = {}
        """Rows of addresses that are known by this socket, by their names' keys."""
        self._listener = listener
        self._ears: dict[Hashable, Ear] = {}
        self._outboxes, self._outbox, self._place = (*outboxes, *others), outboxes[place], place
        self._relay, self._now, self._answer = relay, now, answer
        self._family, self._figures = self._outbox.family, self._outbox.figures
        self.trains = trains and self._outbox.segments and mmsg.set_trains(self._outbox.socket, on=True)
        self._lay_out(TRAIN_SLOT if self.trains else PLAIN_SLOT)
        self._receive = mmsg.receiver(self._outbox.socket.fileno(), self._headers.address, SLOTS)

    def _lay_out(self, slot: int) -> None:
        """Reserve everything once. Pages of the big slots cost memory only when a train has touched them."""
        self._memory = mmap.mmap(-1, SLOTS * slot)
        base = mmsg.address_of(self._memory)
        self._slot, self._buffer = slot, memoryview(self._memory)
        stride = self._family.stride
        self._headers, self._names = mmsg.Words(SLOTS * mmsg.WORDS), mmsg.Words(SLOTS * stride // 8)
        self._controls, self._full = mmsg.Words(SLOTS * mmsg.CONTROL_OCTETS // 8), mmsg.Words(SLOTS)
        self._in, self._out = mmsg.Words(SLOTS * 2), mmsg.Words(SLOTS * 2)
        room = mmsg.CONTROL_OCTETS if self.trains else 0
        for at in range(SLOTS):
            self._in.words[2 * at], self._in.words[2 * at + 1] = base + at * slot, slot
            self._out.words[2 * at] = base + at * slot
            self._full.words[at] = room
            mmsg.HEADER.pack_into(
                self._headers.octets, at * mmsg.HEADER_OCTETS,
                self._names.address + at * stride, self._family.size, self._in.address + at * mmsg.PIECE_OCTETS, 1,
                self._controls.address + at * mmsg.CONTROL_OCTETS, room,
            )  # fmt: skip
        self._segments = self._controls.octets.cast("I")[4::6]
        self._columns: list[Columns | None] = [None] * (SLOTS + 1)

    def drain(self) -> int:
        """One batch: receive, forward, answer. How many messages came; 0 when nothing waits."""
        count = self._receive()
        if count <= 0:
            if count < 0 and mmsg.errno() not in CONGESTED:
                self._figures.failures["receive_failed"] += 1
            return 0
        # Read after the datagrams were, so that none that waited across a deadline passes (law 4).
        now = self._now()
        self._figures.occupancy[count.bit_length()] += 1
        self._figures.messages += count
        if now >= self._listener.due_at:
            self._listener.turn(now)
        if count == 1 and self._forward_one(now):
            return 1
        self._forward_all(count, now)
        return count

    def _forward_one(self, now: int) -> bool:
        """One datagram that waited alone, the usual case when little is to do; False if it is not an armed row's."""
        words = self._headers.words
        size, control = words[mmsg.LENGTH], words[mmsg.CONTROL_SIZE]
        key = self._family.keys(self._names.words, 1)[0]
        path = self.rows.get(key)
        if path is None and not (self.trains and control):
            words[mmsg.CONTROL_SIZE] = mmsg.CONTROL_OCTETS if self.trains else 0
            self._hand_over(0, None, key, size, size, now)
            return True
        if (
            path is None
            or (to := path.to) is None
            or now >= path.cut
            or not 0 < size <= SIZE_LIMIT
            or self._buffer[0] >> 6 != 2
            or (self.trains and control)
        ):
            return False
        if self.trains:
            words[mmsg.CONTROL_SIZE] = mmsg.CONTROL_OCTETS
        path.packets += 1
        path.octets += size
        path.heard = now
        outbox, name, _whole = to.wire
        self._out.words[1] = size
        mmsg.HEADER.pack_into(outbox.octets, 0, name, mmsg.NAME_OCTETS, self._out.address, 1, 0, 0)
        outbox.staged = 1
        outbox.flush()
        if self._ears:
            self._hear(self._family.keys(self._names.words, 1), [size], [size], now)
        return True

    def _forward_all(self, count: int, now: int) -> None:
        columns = self._columns[count] or self._make_columns(count)
        columns.out[:] = columns.lengths
        sizes, keys = columns.lengths.tolist(), self._family.keys(columns.names, count)
        segments = sizes
        if self.trains:
            segments = self._read_segments(sizes, columns.controls.tolist())
            columns.controls[:] = columns.full
        declined = (self._stage if segments is sizes else self._stage_trains)(keys, sizes, segments, now)
        for outbox in self._outboxes:
            if outbox.staged:
                outbox.flush()
        if self._ears:
            self._hear(keys, sizes, segments, now)
        for at, path in declined:
            self._hand_over(at, path, keys[at], sizes[at], segments[at], now)
        if self.trains and not self._outbox.segments:
            self._end_trains()

    def _make_columns(self, count: int) -> Columns:
        words, end = self._headers.words, count * mmsg.WORDS
        columns = self._columns[count] = Columns(
            words[mmsg.LENGTH : end : mmsg.WORDS], words[mmsg.CONTROL_SIZE : end : mmsg.WORDS],
            self._full.words[:count], self._out.words[1 : 2 * count : 2],
            self._names.words[: count * self._family.stride // 8], self._buffer[: count * self._slot : self._slot],
        )  # fmt: skip
        return columns

    def _read_segments(self, sizes: list[int], controls: list[int]) -> list[int]:
        """Size of the datagrams in each message: its own if it is but one."""
        if not any(controls):
            return sizes
        told = self._segments[: len(sizes)].tolist()
        return [min(t, size) if c and t else size for t, size, c in zip(told, sizes, controls, strict=True)]

    def _stage(self, keys: Sequence[Hashable], sizes: list[int], _segments: list[int], now: int) -> list[Declined]:
        """Stage single datagrams that armed rows forward, neighbours as trains; which ones are for the core."""
        declined: list[Declined] = []
        find, pack, pieces, count = self.rows.get, mmsg.HEADER.pack_into, self._out.address, len(sizes)
        columns = self._columns[count]
        assert columns is not None
        firsts = columns.firsts.tobytes()
        strange = firsts.translate(None, _MEDIA_BYTES)
        ends = [*keys, None]
        at = 0
        while at < count:
            key, size, end = keys[at], sizes[at], at + 1
            while ends[end] == key and sizes[end] == size:
                end += 1
            if ends[end] == key and 0 < sizes[end] < size:
                end += 1  # The last of a train may be shorter.
            path = find(key)
            if (
                path is None
                or (to := path.to) is None
                or now >= path.cut
                or not 0 < size <= SIZE_LIMIT
                or (strange and firsts[at:end].translate(None, _MEDIA_BYTES))
            ):
                declined += [(place, path) for place in range(at, end)]
            else:
                outbox, name, whole = to.wire
                number = end - at
                path.packets += number
                path.octets += size if number == 1 else sum(sizes[at:end])
                path.heard = now
                if number == 1:
                    pack(outbox.octets, outbox.staged * 64, name, mmsg.NAME_OCTETS, pieces + at * 16, 1, 0, 0)
                    outbox.staged += 1
                elif whole and number * size <= TRAIN_OCTETS:
                    control = _CONTROLS.address + size * mmsg.CONTROL_OCTETS
                    pack(
                        outbox.octets, outbox.staged * 64, name, mmsg.NAME_OCTETS, pieces + at * 16, number, control, 24
                    )
                    outbox.staged += 1
                    self._figures.trains_out += 1
                else:
                    for place in range(at, end):
                        pack(outbox.octets, outbox.staged * 64, name, mmsg.NAME_OCTETS, pieces + place * 16, 1, 0, 0)
                        outbox.staged += 1
            at = end
        return declined

    def _stage_trains(
        self, keys: Sequence[Hashable], sizes: list[int], segments: list[int], now: int
    ) -> list[Declined]:
        """Stage trains that armed rows forward, each as it came; which messages are for the core."""
        declined: list[Declined] = []
        find, pack, pieces, buffer = self.rows.get, mmsg.HEADER.pack_into, self._out.address, self._buffer
        for at, (key, size, segment) in enumerate(zip(keys, sizes, segments, strict=True)):
            path, start = find(key), at * self._slot
            if (
                path is None
                or (to := path.to) is None
                or now >= path.cut
                or not 0 < segment <= SIZE_LIMIT
                or bytes(buffer[start : start + size : segment]).translate(None, _MEDIA_BYTES)
                or not (to.wire[2] or segment == size)
            ):
                declined.append((at, path))
                continue
            outbox, name, _whole = to.wire
            control = 0 if segment == size else _CONTROLS.address + segment * mmsg.CONTROL_OCTETS
            pack(
                outbox.octets,
                outbox.staged * 64,
                name,
                mmsg.NAME_OCTETS,
                pieces + at * 16,
                1,
                control,
                24 if control else 0,
            )
            outbox.staged += 1
            number = -(-size // segment)
            self._figures.trains_in += segment < size
            self._figures.carried += number - 1
            path.packets += number
            path.octets += size
            path.heard = now
        return declined

    def listen(self, ears: Mapping[Address, Ear]) -> None:
        """Read the headers of what comes from these addresses, for now."""
        name, key = self._family.name, self._family.key
        self._ears = {
            key(name(one)): ear for one, ear in ears.items() if one[2:] == ((self._place,) if self._place else ())
        }

    def _hear(self, keys: Sequence[Hashable], sizes: list[int], segments: list[int], now: int) -> None:
        """What was forwarded is measured, if it is its leg's turn."""
        for at in compress(range(len(keys)), map(self._ears.__contains__, keys)):
            ear, start, segment = self._ears.get(keys[at]), at * self._slot, segments[at] or 1
            if ear is None:
                continue  # It has had enough.
            end = start + sizes[at]
            for offset in range(start, end, segment):
                ear.hear(self._buffer, offset, min(segment, end - offset), now)
            if ear.left <= 0:
                self._ears.pop(keys[at], None)

    def _hand_over(self, at: int, path: Path | None, key: Hashable, size: int, segment: int, now: int) -> None:
        """Give a message to the core, datagram by datagram. A stranger's costs no more than the look-up it had."""
        start = at * self._slot
        source: Address | None = None
        for offset in range(0, size or 1, segment or 1):
            data = self._buffer[start + offset : start + min(offset + segment, size)]
            kind = CLASSES[data[0]] if size else JUNK
            if kind == JUNK or (kind != STUN and path is None):
                self._relay.ignore(kind, len(data))
                continue
            source = source or self._source(key)
            self._answer(self._relay.accept(data, source, now))

    def _source(self, key: Hashable) -> Address:
        host, port = self._family.address(key)
        return (host, port, self._place) if self._place else (host, port)

    def _end_trains(self) -> None:
        """What cannot leave as a train should not come as one."""
        self.trains = mmsg.set_trains(self._outbox.socket, on=False)
        self._headers.words[mmsg.CONTROL_SIZE :: mmsg.WORDS] = mmsg.Words(SLOTS).words


_CONTROLS: Final = mmsg.segment_controls(SIZE_LIMIT)
