"""Callers by TCP on real sockets: calls, strangers, and connections that take no more."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from gateway.clock import SystemClock
from gateway.sfu import tcp, udp
from gateway.sfu.port import LegReport, Statistics
from gateway.sfu.relay import Relay
from gateway.sfu.shell import Shell
from gateway.sfu.sockets import open_media
from gateway.sfu.stun import CONNECTIONS
from tests.sfu.caller import Caller, TcpCaller, UdpCaller
from tests.sfu.network import ONE, TWO, Network, config, connected, pair
from tests.sfu.workers import connect, node, soon, watching

BY_TCP = ("198.51.100.9", 50_000, CONNECTIONS + 1)


class Inside:
    """One worker's core and shell on sockets of this process, driven by the running loop."""

    def __init__(self, *, batched: bool = True) -> None:
        media = open_media(["127.0.0.1"], 0, ["127.0.0.1"])
        self.at = "127.0.0.1", media.candidates[0].port
        assert media.candidates[1].port == self.at[1]
        self.relay, self._now = Relay(os.urandom), SystemClock().boot_ms
        self.shell = Shell(self.relay, media.sockets, self._now, listeners=media.listeners, batched=batched)
        self._loop = asyncio.get_running_loop()
        for descriptor in self.shell.drains:
            self._loop.add_reader(descriptor, self._readable, descriptor)
        self._timer = self._loop.create_task(self._timers())

    def _readable(self, descriptor: int) -> None:
        self.shell.drain(descriptor)

    async def _timers(self) -> None:
        while True:
            now = self._now()
            if (at := self.shell.get_timer()) is not None and at <= now:
                self.shell.handle_timer(now)
            await asyncio.sleep(0.01)

    def configure(self, **changes: object) -> None:
        self.relay.configure(config(until=self._now() + 20_000, **changes), self._now())

    def release(self) -> None:
        self.relay.release("call", self._now())

    def legs(self) -> tuple[LegReport, LegReport]:
        self.relay.survey()
        (report,) = self.relay.reports(self._now())
        return report.legs

    def connected(self) -> bool:
        return all(leg.selected for leg in self.legs())

    @property
    def counts(self) -> Statistics:
        return self.shell.statistics()

    def close(self) -> None:
        self._timer.cancel()
        for descriptor in self.shell.drains:
            self._loop.remove_reader(descriptor)
        self.shell.close()


@pytest.fixture
async def inside() -> AsyncIterator[Inside]:
    inside = Inside()
    yield inside
    inside.close()


@contextlib.asynccontextmanager
async def opened(*callers: UdpCaller | TcpCaller) -> AsyncIterator[None]:
    try:
        for caller in callers:
            await caller.open()
        yield
    finally:
        for caller in callers:
            await caller.close()


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


# --- calls


@pytest.mark.parametrize("kinds", [(TcpCaller, TcpCaller), (UdpCaller, TcpCaller), (TcpCaller, UdpCaller)])
async def test_calls_by_tcp_and_mixed_ones(kinds: tuple[type[UdpCaller], type[UdpCaller]]) -> None:
    async with node() as running, watching(running.relay) as watch:
        await running.relay.configure(soon())
        by_udp, by_tcp = running.relay.candidates("call")
        assert by_tcp.line().endswith(f" {by_udp.port} typ host tcptype passive")
        assert by_tcp.priority < by_udp.priority
        assert by_tcp.foundation != by_udp.foundation
        at = (by_tcp.address, by_tcp.port)
        one, two = (kind(Caller(*pair(f"call{leg}")), at) for leg, kind in enumerate(kinds))
        async with opened(one, two):
            await connect(watch)
            sent = [one.caller.rtp(size) for size in (100, 1200, 1500, 60)]
            one.send(one.caller.dtls())
            two.send(two.caller.rtp())
            for packet in sent:
                one.send(packet)
            await one.until(lambda: one.caller.media)
            await two.until(lambda: len(two.caller.media) == 5)
            assert two.caller.media[1:] == sent
            report = await watch.until(lambda r: bool(r.spans))
            assert [leg.transport for leg in report.legs] == [
                "tcp" if kind is TcpCaller else "udp" for kind in kinds
            ]  # fmt: skip


@pytest.mark.parametrize("batched", [True, False])
async def test_bursts_of_udp_reach_a_tcp_leg_whole_and_in_order(batched: bool) -> None:
    """Staged batches and trains go out as frames, by the batched shell and by the plain one."""
    inside = Inside(batched=batched)
    inside.configure()
    one, two = UdpCaller(Caller(*pair("call0")), inside.at), TcpCaller(Caller(*pair("call1")), inside.at)
    async with opened(one, two):
        await until(inside.connected)
        two.send(two.caller.rtp())
        one.send(one.caller.rtp())
        await two.until(lambda: two.caller.media)
        two.caller.media.clear()
        sent = [one.caller.rtp(size) for size in (1100, 1100, 1100, 700, 90, 90) * 5]
        for packet in sent:
            one.send(packet)
        await two.until(lambda: len(two.caller.media) == len(sent))
        assert two.caller.media == sent
    inside.close()


async def test_a_broken_connection_ends_presence_at_once_and_a_new_one_goes_on(inside: Inside) -> None:
    inside.configure()
    one, two = TcpCaller(Caller(*pair("call0")), inside.at), UdpCaller(Caller(*pair("call1")), inside.at)
    async with opened(two):
        await one.open()
        await until(inside.connected)
        await one.close()
        await until(lambda: not inside.legs()[0].selected, seconds=1)
        assert not inside.legs()[0].present
        again = TcpCaller(one.caller, inside.at)
        async with opened(again):
            await until(inside.connected)
            two.send(two.caller.rtp())
            await again.until(lambda: again.caller.media)


async def test_releasing_a_call_closes_its_connections(inside: Inside) -> None:
    inside.configure()
    one, two = (TcpCaller(Caller(*pair(f"call{leg}")), inside.at) for leg in (0, 1))
    async with opened(one, two):
        await until(inside.connected)
        inside.release()
        await one.until(lambda: one.ended)
        await two.until(lambda: two.ended)
    assert inside.counts.connections == 0


def test_a_restarted_worker_keeps_addresses_but_no_connection() -> None:
    net = connected()
    net.check(BY_TCP, Caller(*pair("call0")))
    net.media(BY_TCP)
    net.run(400)
    net.media(BY_TCP)
    net.media(BY_TCP)
    assert net.selected(0) == BY_TCP
    kept = net.relay.snapshot("call", net.now)
    assert kept is not None
    net.relay = Relay(os.urandom, 2)
    net.relay.restore(kept, net.now, net.now)
    assert set(net.call().legs[0].paths) == {ONE}
    assert net.selected(0) == ONE


# --- strangers (6-media, Secrets and sockets)


async def test_strangers_are_closed_after_three_seconds(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "STRANGER_MS", 200)
    silent, forger = (TcpCaller(Caller(*pair("nobody")), inside.at) for _ in range(2))
    await silent.open(interval=None)
    await forger.open(interval=0.06)
    started = asyncio.get_running_loop().time()
    await silent.until(lambda: silent.ended)
    await forger.until(lambda: forger.ended)
    assert 0.15 < asyncio.get_running_loop().time() - started < 1
    assert silent.raw == forger.raw == []
    assert inside.counts.connections == 0
    assert inside.counts.connections_refused == 2
    assert inside.shell.get_timer() is None
    for caller in (silent, forger):
        await caller.close()


async def test_strangers_are_closed_after_600_octets(inside: Inside) -> None:
    stranger = TcpCaller(Caller(*pair("nobody")), inside.at)
    await stranger.open(interval=None)
    check = stranger.caller.check()
    for _ in range(600 // (len(check) + 2)):
        stranger.send(check)
    await until(lambda: inside.counts.drops.get("unknown_ufrag", 0) == 600 // (len(check) + 2))
    assert inside.counts.connections == 1
    stranger.send(check)
    await stranger.until(lambda: stranger.ended, seconds=1)
    assert stranger.raw == []
    await stranger.close()


@pytest.mark.parametrize(
    "octets", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00\x05\x16\xfe\xfd\x00\x00", b"\x00\x02\x80\x60", b"\x05\xdd"]
)
async def test_what_is_no_check_closes_a_stranger_at_once(inside: Inside, octets: bytes) -> None:
    stranger = TcpCaller(Caller(*pair("nobody")), inside.at)
    await stranger.open(interval=None)
    stranger.send_raw(octets)
    await stranger.until(lambda: stranger.ended, seconds=1)
    assert stranger.raw == []
    await stranger.close()


async def test_one_address_has_sixteen_strangers_at_most_and_the_oldest_go(inside: Inside) -> None:
    strangers = [TcpCaller(Caller(*pair("nobody")), inside.at) for _ in range(tcp.STRANGERS_OF_ONE + 3)]
    for stranger in strangers:
        await stranger.open(interval=None)
        await until(lambda: len(inside.shell._streams) > 0)
    await until(lambda: sum(stranger.ended for stranger in strangers) == 3)
    assert [stranger.ended for stranger in strangers[:4]] == [True, True, True, False]
    assert inside.counts.connections == tcp.STRANGERS_OF_ONE
    for stranger in strangers:
        await stranger.close()


async def test_all_strangers_together_are_bounded(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "STRANGERS", 4)
    strangers = [TcpCaller(Caller(*pair("nobody")), inside.at) for _ in range(6)]
    for stranger in strangers:
        await stranger.open(interval=None)
    await until(lambda: sum(stranger.ended for stranger in strangers) == 2)
    assert inside.counts.connections == 4
    for stranger in strangers:
        await stranger.close()


async def test_a_flood_of_strangers_leaves_the_calls_alone(inside: Inside) -> None:
    inside.configure()
    one, two = (TcpCaller(Caller(*pair(f"call{leg}")), inside.at) for leg in (0, 1))
    async with opened(one, two):
        await until(inside.connected)
        strangers = [TcpCaller(Caller(*pair("nobody")), inside.at) for _ in range(40)]
        for stranger in strangers:
            await stranger.open(interval=None)
        one.send(one.caller.rtp())
        await two.until(lambda: two.caller.media)
        assert not one.ended
        for stranger in strangers:
            await stranger.close()


def test_ipv6_strangers_count_by_their_network() -> None:
    assert tcp._group("2001:db8::1") == tcp._group("2001:db8::ffff:1")
    assert tcp._group("2001:db8:0:1::1") != tcp._group("2001:db8::1")
    assert tcp._group("192.0.2.1") != tcp._group("192.0.2.2")


# --- connections that take no more


def stuck(shell: Shell, listener: socket.socket) -> tuple[socket.socket, int]:
    """A client that reads nothing, and the number of its connection here."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(listener.getsockname())
    shell._streams.drain()
    return client, max(shell._streams._connections)


@contextlib.contextmanager
def bare_shell(net: Network) -> Iterator[tuple[Shell, socket.socket]]:
    sock, listener = udp.bind("127.0.0.1", 0), tcp.listen("127.0.0.1", 0)
    shell = Shell(net.relay, [sock], lambda: net.now, listeners=[listener])
    try:
        yield shell, listener
    finally:
        shell.close()


def test_a_connection_that_takes_no_more_gets_drops_not_a_queue() -> None:
    net = Network()
    with bare_shell(net) as (shell, listener):
        client, serial = stuck(shell, listener)
        connection = shell._streams._connections[serial]
        for _ in range(2_000):
            shell.send_all([(bytes(1200), (*client.getsockname(), serial))])
        dropped = shell.figures.failures["send_full"]
        assert dropped > 1_500
        assert shell._streams._waiting(connection, tcp._OUTQ) < 3 * tcp.QUEUE_OCTETS
        assert len(connection.rest) <= 1202
        # Whatever got through is whole frames: a drop never leaves half of one.
        client.settimeout(0.2)
        received = bytearray()
        with contextlib.suppress(TimeoutError):
            while True:
                received += client.recv(65_536)
                shell._streams.drain()
        assert len(received) == (2_000 - dropped) * 1202
        assert received[:2] == (1200).to_bytes(2, "big")
        client.close()


def test_law4_what_waits_in_a_connection_is_discarded_at_the_cut() -> None:
    net = connected(limit_ms=1_000)
    with bare_shell(net) as (shell, listener):
        client, serial = stuck(shell, listener)
        # The expert's leg comes by the stuck connection; its checks and answers are handed in by hand.
        address = (*client.getsockname(), serial)
        caller = Caller(*pair("call1"))
        net.callers[address] = caller
        net.check(address, nominate=True)
        assert net.relay.knows(address)
        path = net.call().legs[1].paths[address]
        net.call().legs[1]._select(path, net.now)
        net.media(ONE)
        net.media(address)
        assert net.report().gate == "open"
        for _ in range(300):
            shell.send_all([(bytes(1200), address)])
        net.now += 1_000
        shell.handle_timer(net.now)
        assert net.report().spans[-1].ended_by == "deadline"
        client.settimeout(1)
        with pytest.raises(ConnectionResetError):
            drained(client)
        # The core is told on the next turn: the leg has lost that address.
        assert shell.get_timer() == 0
        shell.handle_timer(net.now)
        assert not net.relay.knows(address)
        client.close()


def drained(client: socket.socket) -> None:
    while client.recv(65_536):
        pass


# --- the core


def test_a_connection_belongs_to_the_leg_that_its_first_check_was_for() -> None:
    net = connected()
    net.check(BY_TCP, Caller(*pair("call0")))
    net.callers[BY_TCP] = Caller(*pair("call1"))
    assert net.check(BY_TCP) == []
    assert net.drops["connection_of_another_leg"] == 1


def test_udp_is_preferred_while_no_media_flows_and_media_is_followed_to_tcp() -> None:
    net = connected()
    net.check(BY_TCP, Caller(*pair("call0")), nominate=True)
    assert net.selected(0) == ONE
    net.run(400)
    net.media(BY_TCP)
    net.media(BY_TCP)
    assert net.selected(0) == BY_TCP
    assert net.report().legs[0].transport == "tcp"
    assert net.report().legs[1].transport == "udp"


def test_hanging_up_an_address_that_nobody_knows_changes_nothing() -> None:
    net = connected()
    assert net.relay.hang_up(BY_TCP, net.now) == []
    assert net.selected(0) == ONE
    assert net.selected(1) == TWO


def test_hanging_up_the_selected_connection_selects_what_is_left() -> None:
    net = Network()
    net.relay.configure(config(), net.now)
    net.check(BY_TCP, Caller(*pair("call0")), nominate=True)
    assert net.selected(0) == BY_TCP
    net.check(ONE, Caller(*pair("call0")))
    net.relay.hang_up(BY_TCP, net.now)
    assert net.selected(0) == ONE
    assert not net.relay.knows(BY_TCP)
