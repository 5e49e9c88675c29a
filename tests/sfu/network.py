"""A relay core, its callers and the time, wired together without sockets."""

from __future__ import annotations

import itertools
from dataclasses import replace

from gateway.sfu import stun
from gateway.sfu.call import Call
from gateway.sfu.path import Datagram
from gateway.sfu.port import CallConfig, Credentials, LegConfig, Report
from gateway.sfu.relay import Relay
from gateway.sfu.stun import Address
from tests.sfu.caller import Caller, credentials

START = 1_000_000
FAR_AHEAD = 1 << 50


def counted_bytes() -> object:
    """Deterministic stand-in for randomness: no two results of twelve bytes are equal."""
    counter = itertools.count(1)
    return lambda size: next(counter).to_bytes(12, "big")[-size:]


class Network:
    """Callers sit at addresses; what the relay sends to one is handled at once, and answered from there."""

    def __init__(self) -> None:
        self.now = START
        self.relay = Relay(counted_bytes())  # type: ignore[arg-type]
        self.callers: dict[Address, Caller] = {}
        self.sent: list[Datagram] = []
        self.fed = 0
        self.heard: dict[Address, int] = {}
        """When each source last sent anything, and anything of STUN."""
        self.checked: dict[Address, int] = {}

    # --- time

    def run(self, milliseconds: int, extend: CallConfig | None = None) -> None:
        """Let time pass, timers firing at their instants; `extend` keeps a call's `until` 20 s ahead meanwhile."""
        end = self.now + milliseconds
        while True:
            timer = self.relay.get_timer()
            at = min(end, max(timer, self.now)) if timer is not None else end
            if extend is not None and at - self.now > 1000:
                at = self.now + 1000
            self.now = at
            if extend is not None:
                self.relay.configure(replace(extend, until=self.now + 20_000), self.now)
            self.deliver(self.relay.handle_timer(self.now))
            if at >= end:
                return

    def stop(self, milliseconds: int) -> None:
        """Let time pass without the relay noticing: the worker is stopped."""
        self.now += milliseconds

    # --- datagrams

    def send(self, data: bytes, source: Address) -> list[Datagram]:
        """One datagram reaches the relay; what it sent at once, answers of callers already handled."""
        self.fed += 1
        self.heard[source] = self.now
        if data and data[0] <= 3:
            self.checked[source] = self.now
        out = [(bytes(datagram), to) for datagram, to in self.relay.receive(data, source, self.now)]
        self.deliver(out)
        return out

    def deliver(self, datagrams: list[Datagram]) -> None:
        for data, to in datagrams:
            self.sent.append((bytes(data), to))
            caller = self.callers.get(to)
            reply = caller.take(bytes(data)) if caller is not None else None
            if reply is not None:
                self.send(reply, to)

    def check(self, source: Address, caller: Caller | None = None, **options: object) -> list[Datagram]:
        """A check from `source`; the caller sits there from now on."""
        if caller is not None:
            self.callers[source] = caller
        return self.send(self.callers[source].check(**options), source)  # type: ignore[arg-type]

    def media(self, source: Address, size: int = 100) -> bool:
        """An RTP packet from `source`; whether it was passed on."""
        packet = self.callers[source].rtp(size)
        return any(data == packet for data, _ in self.send(packet, source))

    def dtls(self, source: Address, size: int = 200, message: int = 0) -> bool:
        packet = self.callers[source].dtls(size, message)
        return any(data == packet for data, _ in self.send(packet, source))

    # --- looking inside

    def call(self, name: str = "call") -> Call:
        return self.relay._calls[name]

    def report(self, name: str = "call") -> Report:
        """The call's report as of now, whether or not it would be sent."""
        call = self.call(name)
        call.advance(self.now)
        return call.report(self.now)

    def challenge(self, place: int = 0) -> bytes:
        """The relay's own check that it sent as number `place`."""
        return [bytes(data) for data, _ in self.sent if data[0] <= 3 and stun.parse(data).kind == stun.REQUEST][place]

    def selected(self, leg: int, name: str = "call") -> Address | None:
        path = self.call(name).legs[leg].selected
        return None if path is None else path.address

    @property
    def drops(self) -> dict[str, int]:
        return dict(self.relay.statistics().drops)

    def adds_up(self) -> bool:
        """Every datagram that came in is accounted for exactly once."""
        s = self.relay.statistics()
        calls = self.relay._calls.values()
        forwarded = self.relay._gone[2] + sum(leg.forwarded()[0] for call in calls for leg in call.legs)
        return self.fed == s.packets_in == forwarded + s.checks + s.answers + sum(s.drops.values()) + s.held


ONE: Address = ("198.51.100.1", 40001)
TWO: Address = ("203.0.113.2", 40002)


def pair(name: str) -> tuple[Credentials, Credentials]:
    """The caller's own credentials and the relay's for that leg."""
    return credentials(f"{name}own"), credentials(f"{name}relay")


def config(name: str = "call", **changes: object) -> CallConfig:
    legs = tuple(LegConfig((pair(f"{name}{leg}")[1],), pair(f"{name}{leg}")[0]) for leg in (0, 1))
    plain = CallConfig(name, 1, legs, funded=True, limit_ms=1_800_000, until=FAR_AHEAD)  # type: ignore[arg-type]
    return replace(plain, **changes)  # type: ignore[arg-type]


def configured(**changes: object) -> Network:
    """A network with one configured call and both callers known, nobody connected."""
    net = Network()
    net.relay.configure(config(**changes), net.now)
    net.callers[ONE] = Caller(*pair("call0"))
    net.callers[TWO] = Caller(*pair("call1"))
    return net


def connected(**changes: object) -> Network:
    """Both legs have a selected address; the gate is shut, nothing was sent yet."""
    net = configured(**changes)
    net.check(ONE, nominate=True)
    net.check(TWO, nominate=True)
    assert net.selected(0) == ONE
    assert net.selected(1) == TWO
    return net


def talking(**changes: object) -> Network:
    """Both legs sent their first packet: the gate is open and a span runs from START."""
    net = connected(**changes)
    assert net.media(ONE)
    assert net.media(TWO)
    assert net.report().gate == "open"
    return net


def is_stun(datagram: Datagram) -> bool:
    return datagram[0][0] <= 3


def kinds(datagrams: list[Datagram]) -> list[int]:
    """Of the STUN messages among them."""
    return [stun.parse(bytes(data)).kind for data, _ in datagrams if data[0] <= 3]
