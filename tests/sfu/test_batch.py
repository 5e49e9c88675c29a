"""Batched I/O on real sockets: trains in and out, every fall-back forced, and the plain path beside it."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable, Iterator

import pytest

from gateway.sfu import mmsg
from gateway.sfu.batch import SLOTS, Ring
from gateway.sfu.port import CallConfig, Statistics
from gateway.sfu.relay import Relay
from gateway.sfu.shell import Shell, WireRows
from gateway.sfu.udp import bind
from tests.sfu.caller import Caller
from tests.sfu.network import config, pair

pytestmark = pytest.mark.skipif(not mmsg.available(), reason="needs Linux's recvmmsg")
NOW = 1_000_000


class Rig:
    """A core under a shell, and the two callers of one call on sockets of their own."""

    def __init__(self, *, hosts: tuple[str, str] = ("127.0.0.1", "127.0.0.1"), **ways: bool) -> None:
        self.now = NOW
        self.relay = Relay(os.urandom)
        self.sockets = [bind(host, 0) for host in dict.fromkeys(hosts)]
        self.shell = Shell(self.relay, self.sockets, lambda: self.now, **ways)
        self.relay.configure(soon(), self.now)
        self.callers = [Caller(*pair(f"call{leg}")) for leg in (0, 1)]
        self.ends = [self._end(host, hosts) for host in hosts]

    def _end(self, host: str, hosts: tuple[str, str]) -> socket.socket:
        end = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        end.bind((host, 0))
        end.connect(self.sockets[list(dict.fromkeys(hosts)).index(host)].getsockname())
        end.settimeout(2)
        return end

    def close(self) -> None:
        self.shell.close()
        for end in self.ends:
            end.close()

    def turn(self) -> None:
        """Let the shell take what waits."""
        for descriptor in self.shell.drains:
            while select.select([descriptor], [], [], 0)[0]:
                self.shell.drain(descriptor)

    def connect(self) -> None:
        for caller, end in zip(self.callers, self.ends, strict=True):
            end.send(caller.check(nominate=True))
            self.turn()
            for _ in range(2):
                reply = caller.take(end.recv(2048))
                if reply is not None:
                    end.send(reply)
            self.turn()
        for leg in (0, 1):
            assert self.passes(leg, [self.callers[leg].rtp()]) == 1

    def passes(self, leg: int, packets: list[bytes]) -> int:
        """How many of these packets of a leg arrive at the other, in order and unchanged."""
        for packet in packets:
            self.ends[leg].send(packet)
        self.turn()
        return self.arrived(1 - leg, packets)

    def arrived(self, leg: int, packets: list[bytes]) -> int:
        end, got = self.ends[leg], []
        while select.select([end], [], [], 0.02)[0]:
            got.append(end.recv(65_536))
        media = [data for data in got if data[0] >= 128]
        assert media == [packet for packet in packets if packet in media]
        return len(media)

    def send_train(self, leg: int, data: bytes, size: int) -> None:
        """As a train: the loopback device keeps it together up to a socket that takes trains."""
        control = [(mmsg.SOL_UDP, mmsg.UDP_SEGMENT, size.to_bytes(2, "little"))]
        self.ends[leg].sendmsg([data], control)
        self.turn()

    @property
    def statistics(self) -> Statistics:
        return self.shell.statistics()

    def counted(self) -> tuple[int, int]:
        """Packets and octets that were received of leg 0, by its report."""
        report = self.relay._calls["call"].report(self.now)
        return report.legs[0].packets_in, report.legs[0].bytes_in


def soon() -> CallConfig:
    return config(until=NOW + 20_000)


@pytest.fixture
def open_rig() -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def opened(**ways: object) -> Rig:
        rigs.append(Rig(**ways))  # type: ignore[arg-type]
        rigs[-1].connect()
        return rigs[-1]

    yield opened
    for rig in rigs:
        rig.close()


WAYS = [{}, {"trains": False}, {"batched": False}]


@pytest.mark.parametrize("ways", WAYS)
@pytest.mark.parametrize("sizes", [[300], [300] * 8, [1200] * 70, [1200] * 5 + [80], [80, 1200, 80, 80], [1500], [13]])
def test_packets_arrive_unchanged_and_in_order_and_are_counted(
    open_rig: Callable[..., Rig], ways: dict[str, bool], sizes: list[int]
) -> None:
    rig = open_rig(**ways)
    packets, octets = rig.counted()
    sent = [rig.callers[0].rtp(size) for size in sizes]
    assert rig.passes(0, sent) == len(sizes)
    assert rig.counted() == (packets + len(sizes), octets + sum(sizes))
    assert rig.statistics.drops == {}


def test_neighbours_of_one_size_leave_as_a_train_and_a_train_comes_as_one_message(open_rig: Callable[..., Rig]) -> None:
    rig = open_rig()
    before = rig.statistics
    assert rig.passes(0, [rig.callers[0].rtp(1000) for _ in range(8)]) == 8
    assert rig.statistics.trains_out == before.trains_out + 1
    packets = [rig.callers[0].rtp(1000) for _ in range(7)] + [rig.callers[0].rtp(400)]
    before, carried = rig.statistics, rig.shell.figures.carried
    counted = rig.counted()
    rig.send_train(0, b"".join(packets), 1000)
    assert rig.arrived(1, packets) == 8
    assert rig.shell.figures.carried == carried + 7
    assert rig.statistics.trains_in == before.trains_in + 1
    assert rig.statistics.messages == before.messages + 1
    assert rig.counted() == (counted[0] + 8, counted[1] + 7400)


def test_law7_what_is_not_media_inside_a_train_is_looked_at_by_itself(open_rig: Callable[..., Rig]) -> None:
    rig = open_rig()
    check = rig.callers[0].check()
    media = [rig.callers[0].rtp(len(check)) for _ in range(3)]
    junk = b"\x7f" * len(check)
    confirmed = rig.callers[0].confirmed
    rig.send_train(0, b"".join([*media[:2], check, junk, media[2]]), len(check))
    assert rig.arrived(1, media) == 3
    rig.callers[0].take(rig.ends[0].recv(2048))
    assert rig.callers[0].confirmed == confirmed + 1
    assert rig.statistics.drops == {"junk": 1}


@pytest.mark.parametrize("ways", WAYS)
def test_law7_a_strangers_datagrams_and_trains_are_dropped_and_counted(
    open_rig: Callable[..., Rig], ways: dict[str, bool]
) -> None:
    rig = open_rig(**ways)
    before = rig.statistics.packets_in
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect(rig.sockets[0].getsockname())
        stranger.settimeout(0.1)
        for data in (b"", b"\x80", b"\x7f", b"\x00\x01", b"\x16" * 200, b"\x80" * 1500, b"\x80" * 1501, b"\x80" * 9000):
            stranger.send(data)
        stranger.sendmsg([b"\x80" * 4000], [(mmsg.SOL_UDP, mmsg.UDP_SEGMENT, (1000).to_bytes(2, "little"))])
        rig.turn()
        with pytest.raises(TimeoutError):
            stranger.recv(2048)
    drops = rig.statistics.drops
    assert drops == {"junk": 2, "unknown_source": 7, "bad_stun": 1, "oversize": 2}
    assert rig.statistics.packets_in == before + 12
    assert rig.passes(0, [rig.callers[0].rtp()]) == 1


def test_law4_nothing_of_a_batch_that_was_read_at_the_deadline_passes(open_rig: Callable[..., Rig]) -> None:
    rig = open_rig()
    packets = [rig.callers[0].rtp(500) for _ in range(10)]
    for packet in packets:
        rig.ends[0].send(packet)
    rig.now = soon().until
    rig.turn()
    assert rig.arrived(1, packets) == 0
    assert rig.statistics.drops == {"over_deadline": 10}


def test_both_families_under_one_core_and_calls_between_them(open_rig: Callable[..., Rig]) -> None:
    rig = open_rig(hosts=("127.0.0.1", "::1"))
    for leg in (0, 1):
        packets = [rig.callers[leg].rtp(700) for _ in range(8)]
        assert rig.passes(leg, packets) == 8
    assert rig.statistics.drops == {}


@pytest.mark.parametrize("ways", WAYS)
def test_a_caller_of_two_of_our_addresses_is_answered_from_the_one_that_it_asked(
    open_rig: Callable[..., Rig], ways: dict[str, bool]
) -> None:
    rig = open_rig(hosts=("127.0.0.1", "127.0.0.2"), **ways)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        caller.bind(("127.0.0.1", 0))
        caller.settimeout(2)
        for sock in rig.sockets:
            caller.sendto(rig.callers[0].check(), sock.getsockname())
            rig.turn()
            for _ in range(2):
                data, source = caller.recvfrom(2048)
                assert source == sock.getsockname()
                reply = rig.callers[0].take(data)
                if reply is not None:
                    caller.sendto(reply, source)
            rig.turn()
        leg = rig.relay._calls["call"].legs[0]
        assert len([path for path in leg.paths.values() if path.valid]) == 3


class Refusing:
    """A `sendmmsg` that fails at each train (or at any message, if `every`)."""

    def __init__(self, rig: Rig, *, every: bool = False) -> None:
        rows = rig.relay._table.index
        assert isinstance(rows, WireRows)
        self.outbox = rows._outboxes[0]
        self.send, self.every, self.failing = self.outbox._send, every, False
        self.outbox._send = self

    def __call__(self, first: int, number: int) -> int:
        for at in range(first, first + number):
            if self.every or self.outbox._words(at)[mmsg.CONTROL_SIZE]:
                if at > first:
                    return self.send(first, at - first)
                self.failing = True
                return -1
        return self.send(first, number)


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EMSGSIZE, errno.EIO])
def test_a_train_that_the_kernel_refuses_goes_out_singly_and_no_further_one_is_tried(
    open_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    rig = open_rig()
    refusing = Refusing(rig)
    monkeypatch.setattr(mmsg, "errno", lambda: error)
    assert rig.passes(0, [rig.callers[0].rtp(900) for _ in range(8)]) == 8
    assert refusing.failing
    refusing.failing = False
    trains = rig.statistics.trains_out
    assert rig.passes(0, [rig.callers[0].rtp(900) for _ in range(8)]) == 8
    assert not refusing.failing
    assert rig.statistics.trains_out == trains
    # EIO is the device's, so it counts for everyone; the others are this destination's path.
    assert rig.passes(1, [rig.callers[1].rtp(900) for _ in range(8)]) == 8
    assert refusing.failing == (error != errno.EIO)
    packets = [rig.callers[0].rtp(900) for _ in range(4)]
    rig.send_train(0, b"".join(packets), 900)
    assert rig.arrived(1, packets) == 4
    assert rig.statistics.drops == {}


@pytest.mark.parametrize(("error", "reason"), [(errno.EAGAIN, "send_full"), (errno.EPERM, "send_failed")])
def test_what_the_kernel_does_not_take_is_dropped_and_counted(
    open_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, error: int, reason: str
) -> None:
    rig = open_rig()
    Refusing(rig, every=True)
    monkeypatch.setattr(mmsg, "errno", lambda: error)
    assert rig.passes(0, [rig.callers[0].rtp(900) for _ in range(8)]) == 0
    assert rig.statistics.drops == {reason: 8}


def test_without_segmentation_in_the_kernel_no_trains_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmsg, "can_segment", lambda _: False)
    rig = Rig()
    try:
        rig.connect()
        packets = [rig.callers[0].rtp(900) for _ in range(8)]
        rig.send_train(0, b"".join(packets), 900)
        assert rig.arrived(1, packets) == 8
        assert (rig.statistics.trains_in, rig.statistics.trains_out) == (0, 0)
    finally:
        rig.close()


def test_occupancy_tells_how_full_the_batches_were(open_rig: Callable[..., Rig]) -> None:
    rig = open_rig()
    before = rig.statistics
    rig.passes(0, [rig.callers[0].rtp() for _ in range(SLOTS + 1)])
    after = rig.statistics
    added = [now - was for now, was in zip(after.occupancy, before.occupancy, strict=True)]
    assert added == [0, 1, 0, 0, 0, 0, 0, 1]
    assert after.messages == before.messages + SLOTS + 1


def test_drops_of_a_full_receive_queue_are_read_from_the_kernel() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as small, socket.socket(type=socket.SOCK_DGRAM) as sender:
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        small.bind(("127.0.0.1", 0))
        assert mmsg.queue_drops(small) == 0
        for _ in range(100):
            sender.sendto(bytes(1000), small.getsockname())
        assert 50 < mmsg.queue_drops(small) < 100


def test_rows_leave_no_names_behind(open_rig: Callable[..., Rig]) -> None:
    rig = open_rig()
    rows = rig.relay._table.index
    assert isinstance(rows, WireRows)
    assert len(rows._names._used) == 2
    rig.relay.release("call", rig.now)
    assert not rows._names._used
    assert not any(ring.rows for ring in rows._rings)
    assert all(isinstance(ring, Ring) for ring in rows._rings)
    assert rig.passes(0, [rig.callers[0].rtp()]) == 0
