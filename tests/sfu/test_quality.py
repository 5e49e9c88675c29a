"""What the relay hears of an uplink: loss, jitter and rate by RFC 3550, in turns, and who is silent."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sfu import udp
from gateway.sfu.quality import BUDGET, LISTEN_MS, PERIOD_MS, SOURCE_LIMIT, Ear, Listener, Source, rtp
from gateway.sfu.relay import Relay
from gateway.sfu.shell import Shell
from tests.sfu.caller import Caller
from tests.sfu.network import FAR_AHEAD, ONE, START, TWO, config, counted_bytes, pair, talking

VOICE, VIDEO = 0x11111111, 0x22222222


def packet(sequence: int, timestamp: int = 0, ssrc: int = VOICE, kind: int = 111) -> bytes:
    header = struct.pack("!BBHII", 0x80, kind, sequence % 65536, timestamp % (1 << 32), ssrc)
    return header + b"sealed"


def hear(ear: Ear, data: bytes, now: int) -> None:
    ear.hear(data, 0, len(data), now)


def voice(ear: Ear, count: int, start: int = 0, lost: frozenset[int] = frozenset(), late: int = 0) -> None:
    """`count` packets of Opus, one each 20 ms, without those `lost`; every other one `late` ms after its time."""
    for at in range(start, start + count):
        if at not in lost:
            hear(ear, packet(at, at * 960), at * 20 + (late if at % 2 else 0))


class TestHeaders:
    @given(st.binary(max_size=40), st.integers(0, 8))
    def test_any_bytes_are_read_or_passed_over(self, data: bytes, at: int) -> None:
        size = max(0, len(data) - at)
        header = rtp(data, at, size)
        if header is not None:
            assert size >= 12
            assert data[at] >> 6 == 2
            assert header == struct.unpack_from("!HII", data, at + 2)

    def test_rtcp_is_told_apart_by_its_types(self) -> None:
        rtcp = [kind for kind in range(256) if rtp(packet(1, kind=kind), 0, 18) is None]
        assert rtcp == list(range(192, 224))

    def test_headers_stand_where_they_are_said_to(self) -> None:
        data = b"before" + packet(7, 99, VIDEO) + b"after"
        assert rtp(data, 6, 18) == (7, 99, VIDEO)
        assert rtp(data, 6, 11) is None


class TestLoss:
    def test_nothing_lost_is_nothing_lost(self) -> None:
        ear = Ear()
        voice(ear, 100)
        ear.end()
        assert ear.uplink.loss == 0

    def test_before_a_turn_has_ended_nothing_is_known(self) -> None:
        ear = Ear()
        voice(ear, 100)
        assert ear.uplink.loss is None

    @given(st.sets(st.integers(1, 198)), st.integers(0, 65535))
    def test_a3_counts_what_is_missing_whatever_the_numbers_begin_with(self, lost: set[int], start: int) -> None:
        ear = Ear()
        for at in range(200):
            if at not in lost:
                hear(ear, packet(start + at), at * 20)
        ear.end()
        assert ear.uplink.loss == pytest.approx(len(lost) / 199)

    @given(st.permutations(range(1, 40)))
    def test_order_is_no_loss(self, order: list[int]) -> None:
        ear = Ear()
        hear(ear, packet(0), 0)
        for at in order:
            hear(ear, packet(at), 20)
        ear.end()
        assert ear.uplink.loss == 0

    def test_a_packet_that_comes_twice_hides_no_loss(self) -> None:
        ear = Ear()
        for at in (0, 1, 1, 3, 4):
            hear(ear, packet(at), at * 20)
        ear.end()
        assert ear.uplink.loss == 0.25

    def test_what_passes_between_turns_is_no_loss(self) -> None:
        ear = Ear()
        voice(ear, 10)
        ear.end()
        voice(ear, 10, start=500)
        ear.end()
        assert ear.uplink.loss == 0

    def test_a_new_beginning_is_no_loss(self) -> None:
        ear = Ear()
        voice(ear, 10)
        voice(ear, 10, start=30_000)
        ear.end()
        assert ear.uplink.loss == 0

    def test_each_stream_counts_its_own(self) -> None:
        ear = Ear()
        for at in range(100):
            hear(ear, packet(at), at * 20)
            if at % 2 == 0:
                hear(ear, packet(40_000 + at, ssrc=VIDEO), at * 20)
        ear.end()
        assert ear.uplink.loss == pytest.approx(49 / (99 + 98))

    def test_old_loss_fades(self) -> None:
        ear = Ear()
        voice(ear, 50, lost=frozenset(range(10, 35)))
        ear.end()
        assert ear.uplink.loss == pytest.approx(25 / 49)
        for turn in range(1, 12):
            voice(ear, 50, start=turn * 50)
            ear.end()
        assert 0 < (ear.uplink.loss or 0) < 0.01

    @given(st.lists(st.integers(0, (1 << 32) - 1), max_size=100))
    def test_law7_streams_are_bounded_whatever_a_leg_sends(self, names: list[int]) -> None:
        ear = Ear()
        for at, ssrc in enumerate(names):
            hear(ear, packet(at, ssrc=ssrc), at)
        assert len(ear._sources) <= SOURCE_LIMIT

    @given(st.lists(st.tuples(st.binary(max_size=30), st.integers(0, 5000)), max_size=60))
    def test_law7_no_bytes_break_it(self, datagrams: list[tuple[bytes, int]]) -> None:
        ear = Ear()
        ear.begin((0, 0), 0)
        for data, now in datagrams:
            hear(ear, b"\x80" + data, now)
        ear.end()
        loss, jitter = ear.uplink.loss, ear.uplink.jitter_ms
        assert loss is None or 0 <= loss <= 1
        assert jitter is None or 0 <= jitter <= 1000


class TestJitter:
    @given(st.sampled_from([(48_000, 20), (90_000, 40), (8_000, 20), (16_000, 20)]), st.integers(0, 2**32 - 1))
    def test_the_clock_is_told_by_its_pace(self, stream: tuple[int, int], start: int) -> None:
        clock, every_ms = stream
        source = Source(start, 0)
        for at in range(60):
            source.hear(at, (start + at * every_ms * clock // 1000) % 2**32, at * every_ms)
        assert source.clock == clock
        assert source.jitter_ms == 0

    def test_a8_converges_to_the_mean_deviation(self) -> None:
        ear = Ear()
        voice(ear, 400, late=8)
        assert ear.uplink.jitter_ms == pytest.approx(8, abs=0.1)

    def test_the_packets_of_one_picture_are_no_jitter(self) -> None:
        ear = Ear()
        for at in range(300):
            frame, part = divmod(at, 3)
            hear(ear, packet(at, frame * 3000, VIDEO), frame * 100 // 3 + part * 5)
        assert (ear.uplink.jitter_ms or 0) < 1

    def test_voice_speaks_for_the_leg(self) -> None:
        ear = Ear()
        for at in range(300):
            hear(ear, packet(at, at * 960), at * 20)
            hear(ear, packet(at, at * 1800, VIDEO), at * 20 + (12 if at % 2 else 0))
        assert ear.uplink.jitter_ms == 0

    def test_pauses_between_turns_are_no_jitter(self) -> None:
        ear = Ear()
        for turn in range(20):
            voice(ear, 12, start=turn * 50)
            ear.end()
        assert ear.uplink.jitter_ms == 0


def test_the_rate_is_of_everything_the_leg_sent() -> None:
    ear = Ear()
    ear.begin((0, 0), START)
    assert ear.uplink.kbps is None
    ear.begin((100, 25_000), START + 2000)
    assert ear.uplink.kbps == 100
    assert ear.packets_per_s == 50


class TestTurns:
    def test_a_few_legs_are_heard_all_the_time(self) -> None:
        net, aimed = talking(), []
        listener = Listener(net.relay.talking, aimed.append)
        for turn in range(5):
            assert listener.due_at <= START + turn * PERIOD_MS
            listener.turn(START + turn * PERIOD_MS)
        assert [set(ears) for ears in aimed] == [{ONE, TWO}] * 5

    def test_many_legs_take_turns_and_each_gets_one(self) -> None:
        legs = [talking().call().legs[0] for _ in range(60)]
        for leg in legs:
            leg.ear.packets_per_s = 400
            leg.ear.begin(leg.received(), START - 1000)
            leg.ear.packets_per_s = 400
        aimed: list[int] = []
        heard: set[int] = set()
        listener = Listener(lambda: legs, lambda ears: aimed.append(len(ears)))
        now = START
        for _ in range(40):
            for leg in legs:
                path = leg.selected
                assert path is not None
                path.packets += 200
            listener.turn(now)
            heard |= {id(ear) for ear in listener._ears}
            now = listener.due_at
        assert heard == {id(leg.ear) for leg in legs}
        assert max(aimed) < len(legs)
        assert aimed[1::2] == [0] * 20

    def test_a_turn_is_short_and_bounded_where_there_is_much(self) -> None:
        legs = [talking().call().legs[0] for _ in range(2000)]
        listener = Listener(lambda: legs, lambda ears: None)
        listener.turn(START)
        assert listener.due_at == START + LISTEN_MS
        assert len(listener._ears) <= BUDGET
        listener.turn(START + LISTEN_MS)
        assert listener.due_at == START + PERIOD_MS
        assert not listener._ears

    def test_of_a_leg_among_many_no_more_is_read_than_is_enough(self) -> None:
        legs = [talking().call().legs[0] for _ in range(60)]
        listener = Listener(lambda: legs, lambda ears: None)
        listener.turn(START)
        ear = listener._ears[0]
        voice(ear, 500, lost=frozenset(range(100, 400)))
        ear.end()
        assert ear.uplink.loss == 0
        assert len(ear._sources) == 1
        assert ear.left == 0


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


class Wired:
    """A call whose gate is open through a shell on loopback; time stands still unless it is moved."""

    def __init__(self, *, batched: bool, trains: bool) -> None:
        self.clock = Clock()
        self.relay = Relay(counted_bytes())  # type: ignore[arg-type]
        self.own = udp.bind("127.0.0.1", 0)
        self.shell = Shell(self.relay, [self.own], self.clock, batched=batched, trains=trains)
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        self.callers = [Caller(*pair(f"call{leg}")) for leg in (0, 1)]
        for one in self.sockets:
            one.bind(("127.0.0.1", 0))
            one.settimeout(2)
        self.relay.configure(config(until=FAR_AHEAD), START)
        for leg in (0, 1):
            self.connect(leg)
        for leg in (0, 1):
            self.send(leg, packet(1, kind=200))

    def connect(self, leg: int) -> None:
        self.send(leg, self.callers[leg].check(nominate=True))
        while self.relay._calls["call"].legs[leg].selected is None:
            reply = self.callers[leg].take(self.sockets[leg].recv(2000))
            if reply is not None:
                self.send(leg, reply)

    def send(self, leg: int, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.sockets[leg].sendto(datagram, self.own.getsockname())
        count, tries = len(datagrams), 0
        while count > 0 and tries < 1000:
            count -= self.shell.drain(self.own.fileno())
            tries += 1

    def close(self) -> None:
        self.shell.close()
        for one in self.sockets:
            one.close()


@pytest.fixture(params=[(False, False), (True, False), (True, True)], ids=["plain", "batched", "trains"])
def wired(request: pytest.FixtureRequest) -> Iterator[Wired]:
    wired = Wired(batched=request.param[0], trains=request.param[1])
    yield wired
    wired.close()


@pytest.mark.parametrize("burst", [1, 8])
def test_loss_jitter_and_rate_stand_in_the_report(wired: Wired, burst: int) -> None:
    lost = set(random.Random(3).sample(range(1, 390), 39))
    for first in range(0, 400, burst):
        wired.clock.now = START + first * 20
        numbers = [at for at in range(first, first + burst) if at not in lost]
        wired.send(0, *(packet(at, at * 960).ljust(200) for at in numbers))
        wired.send(1, packet(first // burst, first * 960))
        for leg in (0, 1):
            wired.send(leg, wired.callers[leg].check())
    wired.clock.now = START + 400 * 20
    wired.send(0, packet(400, 400 * 960))
    one, two = wired.relay._calls["call"].report(wired.clock.now).legs
    assert one.loss == pytest.approx(0.1, abs=0.06)
    assert two.loss == 0
    assert one.kbps is not None
    assert 55 <= one.kbps <= 90
    assert one.jitter_ms is not None
    assert two.jitter_ms == pytest.approx(0, abs=0.5)


def test_law7_a_strangers_rtp_is_not_measured(wired: Wired) -> None:
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for at in range(250):
        wired.clock.now = START + at * 20
        wired.send(0, packet(at, at * 960))
        stranger.sendto(packet(at * 50, ssrc=VIDEO), wired.own.getsockname())
        wired.shell.drain(wired.own.fileno())
    stranger.close()
    ear = wired.relay._calls["call"].legs[0].ear
    assert set(ear._sources) == {VOICE}
    assert ear.uplink.loss == 0


class TestSilence:
    def test_both_heard_is_neither(self) -> None:
        net = talking()
        net.run(1000, extend=config())
        assert net.relay.silence(net.now) == (0, 0)

    def test_a_leg_of_which_nothing_is_heard_makes_the_call_one_way(self) -> None:
        net = talking()
        for _ in range(65):
            net.run(100, extend=config())
            net.media(ONE)
            net.check(TWO)
        assert net.report().gate == "open"
        assert net.relay.silence(net.now) == (1, 1)
        net.media(TWO)
        assert net.relay.silence(net.now) == (0, 0)

    def test_two_silent_legs_are_no_one_way_call(self) -> None:
        net = talking()
        for _ in range(65):
            net.run(100, extend=config())
            net.check(ONE)
            net.check(TWO)
        assert net.relay.silence(net.now) == (0, 2)

    def test_a_gate_that_is_shut_has_no_silent_legs(self) -> None:
        net = talking()
        net.stop(8000)
        assert net.report().gate == "shut"
        assert net.relay.silence(net.now) == (0, 0)
