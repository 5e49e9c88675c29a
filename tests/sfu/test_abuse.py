"""Law 7 under fire: what strangers send gets no answer, costs one look-up, and no call beside it feels it.

Costs are counted, not timed: look-ups in the relay's tables, signatures computed, and the interpreter's own
instructions. Time is only bounded where packets really travel, on loopback.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.sfu import stun, udp
from gateway.sfu.port import Credentials
from gateway.sfu.relay import Relay
from gateway.sfu.shell import Shell
from gateway.sfu.stun import Address
from tests.sfu.caller import Caller, credentials, transaction
from tests.sfu.network import FAR_AHEAD, ONE, START, TWO, Network, config, counted_bytes, is_stun, pair, talking
from tests.sfu.workers import connect, node, soon, two_callers, watching
from tests.sfu.workers import talking as chatting

STRANGER: Address = ("192.0.2.66", 6666)
VICTIM: Address = ("192.0.2.99", 9999)


def forged(*, password: str = "guess" * 5, ufrag: str | None = None) -> bytes:
    """A check as a caller of the first leg makes it, but for what it does not know."""
    relay = pair("call0")[1]
    return Caller(credentials("thief"), Credentials(relay.ufrag if ufrag is None else ufrag, password)).check(
        nominate=True
    )


def forged_answer() -> bytes:
    return stun.success(transaction(), STRANGER, b"guess" * 5)


def genuine() -> bytes:
    return Caller(*pair("call0")).check()


def hello(size: int = 1200) -> bytes:
    return Caller(*pair("call0")).dtls(size)


def sealed(size: int = 200) -> bytes:
    return struct.pack("!BBHII", 0x80, 111, 1, 1, 1).ljust(size, b"\x5a")


ABUSE: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "one byte of STUN": lambda: b"\x00",
    "one byte of DTLS": lambda: b"\x16",
    "one byte of RTP": lambda: b"\x80",
    "one byte of junk": lambda: b"\xff",
    "junk": lambda: b"\xc8" * 1200,
    "TURN channel data": lambda: b"\x40\x00\x04\xb0" + b"x" * 1200,
    "another protocol": lambda: b"\x51SIP/2.0 OPTIONS",
    "RTP of a stranger": sealed,
    "RTCP of a stranger": lambda: b"\x80\xc8\x00\x06" + b"x" * 24,
    "RTP, oversize": lambda: sealed(1501),
    "ClientHello of a stranger": hello,
    "ClientHello, oversize": lambda: hello(1600),
    "DTLS 1.3 of a stranger": lambda: b"\x2f" + b"x" * 300,
    "a check with the wrong password": forged,
    "a check with an unknown ufrag": lambda: forged(ufrag="nobody"),
    "a check with an empty ufrag": lambda: forged(ufrag=""),
    "a check without a signature": lambda: unsigned(),
    "a check cut short": lambda: genuine()[:-4],
    "a header cut short": lambda: genuine()[:19],
    "a header and no more": lambda: genuine()[:20],
    "a check with a flipped bit": lambda: flipped(genuine(), 60),
    "a check, oversize": lambda: genuine().ljust(1504, b"\x00"),
    "a check with a length that lies": lambda: genuine()[:2] + b"\xff\xfc" + genuine()[4:],
    "STUN of another method": lambda: b"\x00\x03" + genuine()[2:],
    "an answer nobody asked for": forged_answer,
    "an indication": lambda: stun._seal(stun.INDICATION, transaction(), b"", b"x"),
}


def unsigned() -> bytes:
    whole = stun._seal(stun.REQUEST, transaction(), stun._attribute(6, f"{pair('call0')[1].ufrag}:x".encode()), b"x")
    body = whole[:2] + struct.pack("!H", len(whole) - 20 - 24) + whole[4:-32]
    fingerprint = (stun.crc32(body) ^ stun._FINGERPRINT_XOR).to_bytes(4, "big")
    return body + b"\x80\x28\x00\x04" + fingerprint


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


class Counting(dict[Any, Any]):
    """A table that counts who asks it."""

    asked = 0

    def get(self, key: Any, default: Any = None) -> Any:
        Counting.asked += 1
        return super().get(key, default)

    def __getitem__(self, key: Any) -> Any:
        Counting.asked += 1
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        Counting.asked += 1
        return super().__contains__(key)


def counted(net: Network) -> Network:
    """From now on the relay's tables count."""
    relay, table = net.relay, net.relay._table
    table.rows = relay._rows = Counting(table.rows)
    table.asked, table.challenges = Counting(table.asked), Counting(table.challenges)
    relay._locals = Counting(relay._locals)
    return net


def crowd(calls: int) -> Network:
    """A call that talks, among others that are configured."""
    net = talking()
    for number in range(calls):
        net.relay.configure(config(f"other{number}"), net.now)
    return net


def instructions(work: Callable[[], object]) -> int:
    """How many the interpreter executes in `work`: the same on every machine, whatever else it does."""
    count = 0

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    gc.disable()  # or the finalizers of what other tests left would be counted along
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


@dataclass(frozen=True)
class State:
    """All that a stranger might change."""

    reports: tuple[object, ...]
    rows: tuple[object, ...]
    asked: tuple[object, ...]
    paths: tuple[object, ...]
    transactions: int
    pending: int
    held: int
    timer: int | None
    sent: int


def state(net: Network) -> State:
    table, calls = net.relay._table, list(net.relay._calls.values())
    legs = [leg for call in calls for leg in call.legs]
    return State(
        tuple(replace(call.report(net.now), at=0) for call in calls),
        tuple(table.rows.items()), tuple(table.asked.items()),
        tuple((leg.selected, len(leg.paths)) for leg in legs),
        sum(len(leg.transactions) for leg in legs), len(table.challenges), table.pool.datagrams,
        net.relay.get_timer(), len(net.sent),
    )  # fmt: skip


@pytest.fixture
def signatures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    count = [0]
    real = stun.authentic

    def counting(*given: Any) -> bool:
        count[0] += 1
        return real(*given)

    monkeypatch.setattr(stun, "authentic", counting)
    return count


@pytest.mark.parametrize("kind", ABUSE)
@pytest.mark.parametrize("source", [STRANGER, ("198.51.100.1", 40009), ("2001:db8::1", 7, 1)])
def test_law7_no_answer_and_nothing_changes(kind: str, source: Address) -> None:
    net = talking()
    before, dropped = state(net), sum(net.drops.values())
    for _ in range(3):
        assert net.relay.receive(ABUSE[kind](), source, net.now) == []
    assert state(net) == before
    assert sum(net.drops.values()) == dropped + 3
    net.fed += 3
    assert net.adds_up()


@pytest.mark.parametrize("kind", ABUSE)
def test_law7_one_look_up_and_at_most_one_signature(kind: str, signatures: list[int]) -> None:
    net, data = counted(talking()), ABUSE[kind]()
    Counting.asked = signatures[0] = 0
    net.relay.accept(data, STRANGER, net.now)
    assert Counting.asked <= 1
    assert signatures[0] <= 1


@pytest.mark.parametrize("kind", ABUSE)
def test_law7_the_cost_is_bounded_and_the_same_among_five_hundred_calls(kind: str) -> None:
    data = ABUSE[kind]()
    few, many = crowd(1), crowd(500)
    costs = [instructions(lambda net=net: net.relay.accept(data, STRANGER, net.now)) for net in (few, many)]  # type: ignore[misc]
    assert costs[0] == costs[1]
    assert 0 < costs[0] <= 1000


@pytest.mark.parametrize("kind", ABUSE)
@pytest.mark.parametrize("count", [1, 5])
def test_law7_by_a_ring_too_a_stranger_costs_one_look_up_and_a_check_one_more(kind: str, count: int) -> None:
    with Wire() as wire:
        data = ABUSE[kind]()
        table = wire.relay._table
        table.rows = wire.relay._rows = Counting(table.rows)
        (ring,) = wire.shell._rings
        ring.rows = Counting(ring.rows)  # type: ignore[union-attr]
        wire.relay._locals, table.challenges = Counting(wire.relay._locals), Counting(table.challenges)
        for _ in range(count):
            wire.strangers.sendto(data, wire.address)
        Counting.asked = taken = 0
        while taken < count:
            taken += wire.shell.drain(wire.own.fileno())
        assert Counting.asked <= count * (2 if data and data[0] <= 3 else 1)


def test_law7_a_ring_spends_a_constant_on_media_of_strangers() -> None:
    """Through the batched shell, per datagram; a scan of any table would grow with the calls."""
    costs = []
    for calls in (1, 300):
        with Wire() as wire:
            for number in range(calls):
                wire.relay.configure(config(f"other{number}"), START)
            for _ in range(32):
                wire.strangers.sendto(sealed(), wire.address)
            costs.append(instructions(lambda wire=wire: wire.shell.drain(wire.own.fileno())))  # type: ignore[misc]
            assert wire.relay.statistics().drops["unknown_source"] == 32
    assert costs[0] == costs[1]
    assert costs[0] / 32 <= 400


class TestReplays:
    def test_law7_from_another_address_gets_nothing(self) -> None:
        net = talking()
        check = net.callers[ONE].check()
        net.send(check, ONE)
        before = state(net)
        for _ in range(50):
            assert net.relay.receive(check, STRANGER, net.now) == []
        assert state(net) == before

    def test_law7_a_captured_answer_proves_no_other_address(self) -> None:
        net = talking()
        answer = net.callers[ONE].answer(stun_message(net.challenge()))
        before = state(net)
        assert net.relay.receive(answer, STRANGER, net.now) == []
        assert net.relay.receive(answer, ONE, net.now) == []
        assert state(net) == before

    def test_law7_from_its_own_address_is_a_repetition_and_earns_no_more_than_itself(self) -> None:
        """RFC 8489 section 6.3.1: a server answers what is sent again, since the first answer may be lost."""
        net = talking()
        check = net.callers[ONE].check()
        net.send(check, ONE)
        for _ in range(50):
            out = net.relay.receive(check, ONE, net.now)
            assert [to for _, to in out] == [ONE]
            assert sum(len(data) for data, _ in out) <= len(check)
        assert net.selected(0) == ONE

    def test_law7_long_after_brings_a_spoofed_victim_ten_datagrams_at_most(self) -> None:
        """A check of which the relay has forgotten that it knows it, sent on from the address of a third party."""
        net = talking()
        captured = net.callers[ONE].check()
        net.send(captured, ONE)
        for _ in range(100):
            net.check(ONE)
        net.sent.clear()
        for _ in range(200):
            net.send(captured, VICTIM)
            net.run(50, extend=config())
        hit = [data for data, to in net.sent if to == VICTIM]
        assert 0 < len(hit) <= 10
        assert sum(map(len, hit)) <= 12_000
        assert net.selected(0) == ONE


def stun_message(data: bytes) -> Any:
    from aioice import stun as oracle

    return oracle.parse_message(data)


class TestPacketsOfAnotherSession:
    def test_law7_media_of_one_call_reaches_its_own_peer_only(self) -> None:
        net = two_calls()
        for leg, mine in ((ONE, TWO), (THREE, FOUR)):
            packet = net.callers[leg].rtp()
            assert net.send(packet, leg) == [(packet, mine)]

    def test_law7_a_check_for_another_call_from_an_address_in_use_moves_nothing(self) -> None:
        """A caller of one call, who knows the credentials of another, cannot draw that one's media to itself."""
        net = two_calls()
        thief = Caller(*pair("else0"))
        for _ in range(5):
            for data, to in net.relay.receive(thief.check(nominate=True), TWO, net.now):
                reply = thief.take(bytes(data)) if to == TWO else None
                if reply is not None:
                    net.relay.receive(reply, TWO, net.now)
            net.now += 300
            net.media(ONE)
            net.media(TWO)
            net.media(THREE)
            net.media(FOUR)
        assert thief.challenges > 0
        assert net.selected(1) == TWO
        assert net.selected(0, "else") == THREE
        assert net.media(ONE)
        assert net.media(THREE)

    def test_law7_credentials_of_one_leg_do_not_open_another(self) -> None:
        net = two_calls()
        mixed = Caller(pair("else0")[0], Credentials(pair("call0")[1].ufrag, pair("else0")[1].password))
        before = state(net)
        assert net.relay.receive(mixed.check(nominate=True), STRANGER, net.now) == []
        assert state(net) == before


THREE: Address = ("198.51.100.3", 40003)
FOUR: Address = ("203.0.113.4", 40004)


def two_calls() -> Network:
    net = talking()
    net.relay.configure(config("else"), net.now)
    for address, leg in ((THREE, 0), (FOUR, 1)):
        net.check(address, Caller(*pair(f"else{leg}")), nominate=True)
    assert net.media(THREE)
    assert net.media(FOUR)
    return net


@settings(max_examples=300)
@given(st.binary(max_size=1600), st.sampled_from([STRANGER, ("203.0.113.2", 40003)]))
def test_law7_whatever_a_stranger_sends(data: bytes, source: Address) -> None:
    net = TALKING
    before = state(net)
    assert net.relay.receive(data, source, net.now) == []
    assert state(net) == before


TALKING = talking()


def test_law7_a_flood_keeps_no_memory() -> None:
    net = talking()
    before = state(net)
    for number in range(3000):
        source = (f"10.{number >> 8 & 255}.{number & 255}.1", 1024 + number)
        for make in (hello, sealed, forged):
            assert net.relay.receive(make(), source, net.now) == []
    assert state(net) == before
    assert not is_stun((b"\x80", ONE))
    assert net.media(ONE)


class Wire:
    """A call that talks through a batched shell on loopback, and a socket of strangers beside it."""

    def __init__(self) -> None:
        self.relay = Relay(counted_bytes())  # type: ignore[arg-type]
        self.own = udp.bind("127.0.0.1", 0)
        self.address = self.own.getsockname()
        self.shell = Shell(self.relay, [self.own], lambda: START, trains=False)
        self.strangers = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.ends = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in (0, 1)]
        self.callers = [Caller(*pair(f"call{leg}")) for leg in (0, 1)]

    def __enter__(self) -> Wire:
        self.relay.configure(config(until=FAR_AHEAD), START)
        for leg, end in enumerate(self.ends):
            end.bind(("127.0.0.1", 0))
            end.settimeout(2)
            self.feed(end, self.callers[leg].check(nominate=True))
            while self.relay._calls["call"].legs[leg].selected is None:
                reply = self.callers[leg].take(end.recv(2000))
                if reply is not None:
                    self.feed(end, reply)
        for leg, end in enumerate(self.ends):
            self.feed(end, self.callers[leg].rtp())
            end.setblocking(False)
        for end in self.ends:
            received(end)
        return self

    def feed(self, end: socket.socket, data: bytes) -> None:
        end.sendto(data, self.address)
        self.shell.drain(self.own.fileno())

    def __exit__(self, *_: object) -> None:
        self.shell.close()
        for one in (*self.ends, self.strangers):
            one.close()


def received(end: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(end.recv(2000))
        except BlockingIOError:
            return found


@pytest.mark.parametrize("kind", ["junk", "RTP of a stranger", "ClientHello of a stranger", *list(ABUSE)[14:17]])
def test_law7_beside_a_flood_a_call_loses_nothing_and_waits_its_turn(kind: str) -> None:
    """A packet behind n others is forwarded by the batch that takes it in: no later than that, and in order."""
    with Wire() as wire:
        sent, heard = [], []
        for _ in range(40):
            for _ in range(100):
                wire.strangers.sendto(ABUSE[kind](), wire.address)
            sent.append(wire.callers[0].rtp())
            wire.ends[0].sendto(sent[-1], wire.address)
            for _ in range(2):  # 101 datagrams are two batches of at most 64
                wire.shell.drain(wire.own.fileno())
            heard += [data for data in received(wire.ends[1]) if data[0] >= 128]
            assert heard == sent
        wire.strangers.setblocking(False)
        assert received(wire.strangers) == []
        assert sum(wire.relay.statistics().drops.values()) == 4000


async def test_law7_a_worker_under_flood_serves_its_calls() -> None:
    """Real processes and real time: a second of all kinds at once, as fast as one sender may, beside a call."""
    async with node() as running, watching(running.relay) as watch:
        await running.relay.configure(soon())
        async with two_callers(running.relay) as (one, two):
            await connect(watch)
            async with chatting(one, two, interval=0.02):
                await one.until(lambda: one.caller.media)
                best = running.relay.candidates("call")[0]
                answered = await asyncio.to_thread(flood, (best.address, best.port), 1.0)
                assert answered == 0
                before = len(two.caller.media)
                await two.until(lambda: len(two.caller.media) > before)
            await asyncio.sleep(0.3)
            numbers = sorted(struct.unpack_from("!H", data, 2)[0] for data in two.caller.media if data[0] >= 128)
            report = watch.newest["call"]
            assert report.gate == "open"
            assert report.legs[0].present
            assert report.legs[1].present
            lost = set(range(numbers[0], numbers[-1] + 1)) - set(numbers)
            assert not lost
            drops = (await running.relay.statistics()).drops
            assert sum(drops.values()) > 1000


def flood(relay: tuple[str, int], seconds: float) -> int:
    """All kinds in turn, 64 a millisecond at most; how many answers came."""
    kinds = [make() for make in ABUSE.values()]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for data in (*kinds, *kinds):
                sender.sendto(data, relay)
            time.sleep(0.001)
        sender.setblocking(False)
        return len(received(sender))
