"""The relay inside this process: `RelayPort` over one UDP socket on the running event loop, with its metrics."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final
from weakref import WeakSet

from prometheus_client import REGISTRY
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.clock import Clock, SystemClock
from gateway.errors import RelayUnavailable
from gateway.sfu import udp
from gateway.sfu.port import CallConfig, Candidate, RelayPort, Report, Statistics
from gateway.sfu.relay import Relay
from gateway.sfu.shell import Shell

FIRST_PRIORITY: Final = 2_130_706_431
"""Of a host candidate with the highest local preference (RFC 8445 section 5.1.2.1)."""


class LocalRelay(RelayPort):
    """Made by `open`, ended by `close`; all calls of the process share its port."""

    def __init__(
        self, candidates: Sequence[Candidate], relay: Relay, shell_socket: socket.socket, clock: Clock
    ) -> None:
        self._relay, self._candidates = relay, candidates
        self._clock = clock
        self._readers: set[_Reader] = set()
        self._closed = False
        self._shell = Shell(relay, [shell_socket], clock.boot_ms)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0
        for descriptor in self._shell.descriptors:
            self._loop.add_reader(descriptor, self._readable, descriptor)
        _METRICS.relays.add(self)

    @classmethod
    async def open(
        cls,
        bind: str = "0.0.0.0",  # noqa: S104  a media relay serves all interfaces unless it is told otherwise
        port: int = 3478,
        advertise: Sequence[str] = ("127.0.0.1",),
        clock: Clock | None = None,
    ) -> LocalRelay:
        """Bind the port (0: any free one). `advertise`: addresses under which callers reach it, best first.

        Raises RelayUnavailable when the port cannot be bound.
        """
        try:
            shell_socket = udp.bind(bind, port)
        except OSError as error:
            raise RelayUnavailable("the media port cannot be bound", code="media_port_unavailable") from error
        bound = shell_socket.getsockname()[1]
        return cls(_candidates(advertise, bound), Relay(os.urandom), shell_socket, clock or SystemClock())

    def candidates(self, call: str) -> Sequence[Candidate]:
        return self._candidates

    async def configure(self, config: CallConfig) -> None:
        """As the port says. Raises RelayUnavailable when closed, Conflict when a ufrag is another leg's."""
        if self._closed:
            raise RelayUnavailable("the relay is closed")
        self._relay.configure(config, self._clock.boot_ms())
        self._touch()

    async def release(self, call: str) -> Report | None:
        for reader in self._readers:
            reader.newest.pop(call, None)
        return self._relay.release(call, self._clock.boot_ms())

    async def reports(self) -> AsyncIterator[Report]:
        """As the port says; each iterator begins with every call as it is, and ends when the relay is closed.

        A slow reader misses reports that a newer one of the same call has overtaken, never the newest.
        """
        reader = _Reader()
        self._readers.add(reader)
        self._relay.survey()
        self._publish()
        try:
            while reader.newest or not self._closed:
                await reader.wake.wait()
                reader.wake.clear()
                while reader.newest:
                    yield reader.newest.pop(next(iter(reader.newest)))
        finally:
            self._readers.discard(reader)

    async def statistics(self) -> Statistics:
        return self.counters()

    def counters(self) -> Statistics:
        """`statistics`, without waiting; drops include datagrams that the kernel would not send."""
        return self._shell.statistics()

    async def close(self) -> None:
        """Close the socket; calls are cut, iterators of reports end. Idempotent."""
        if not self._closed:
            self._closed = True
            for descriptor in self._shell.descriptors:
                self._loop.remove_reader(descriptor)
            if self._timer is not None:
                self._timer.cancel()
            self._shell.close()
            _METRICS.relays.discard(self)
            for reader in self._readers:
                reader.wake.set()

    def _readable(self, descriptor: int) -> None:
        self._shell.drain(descriptor)
        self._touch()

    def _touch(self) -> None:
        if self._relay.has_reports:
            self._publish()
        at = self._relay.get_timer()
        if at is None or (self._timer is not None and self._timer_at <= at):
            return  # A timer that is too early costs one wake-up, re-arming for each packet would cost more.
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(max(0, at - self._clock.boot_ms()) / 1000, self._due)

    def _due(self) -> None:
        self._timer = None
        self._shell.send_all(self._relay.handle_timer(self._clock.boot_ms()))
        self._touch()

    def _publish(self) -> None:
        for report in self._relay.reports(self._clock.boot_ms()):
            for reader in self._readers:
                reader.put(report)


class _Reader:
    """One iterator's waiting reports, the newest of each call."""

    def __init__(self) -> None:
        self.newest: dict[str, Report] = {}
        self.wake = asyncio.Event()

    def put(self, report: Report) -> None:
        self.newest[report.call] = report
        self.wake.set()


def _candidates(advertise: Iterable[str], port: int) -> tuple[Candidate, ...]:
    # The local preference falls by one from address to address; it stands in bits 8 to 23 of the priority.
    return tuple(
        Candidate(address, port, "udp", FIRST_PRIORITY - (place << 8), str(place + 1))
        for place, address in enumerate(advertise)
    )


class _Metrics(Collector):
    """Reads the statistics of the open relays when Prometheus asks, so that packets pay nothing for metrics."""

    def __init__(self) -> None:
        self.relays: WeakSet[LocalRelay] = WeakSet()

    def collect(self) -> Iterable[Metric]:
        all_of_them = [relay.counters() for relay in self.relays]
        legs = GaugeMetricFamily("gateway_relay_legs", "Legs with a selected address.")
        legs.add_metric([], sum(one.legs for one in all_of_them))
        gates = GaugeMetricFamily("gateway_relay_open_gates", "Calls through which media passes.")
        gates.add_metric([], sum(one.open_gates for one in all_of_them))
        checks = CounterMetricFamily("gateway_relay_checks", "Authenticated ICE checks answered.")
        checks.add_metric([], sum(one.checks for one in all_of_them))
        switches = CounterMetricFamily("gateway_relay_address_switches", "Changes of a leg's selected address.")
        switches.add_metric([], sum(one.address_switches for one in all_of_them))
        return (legs, gates, checks, switches, *self._directions(all_of_them), self._drops(all_of_them))

    def _directions(self, all_of_them: Sequence[Statistics]) -> tuple[Metric, Metric]:
        packets = CounterMetricFamily("gateway_relay_packets", "Datagrams.", labels=["direction"])
        packets.add_metric(["in"], sum(one.packets_in for one in all_of_them))
        packets.add_metric(["out"], sum(one.packets_out for one in all_of_them))
        octets = CounterMetricFamily("gateway_relay_bytes", "Payload of datagrams.", labels=["direction"])
        octets.add_metric(["in"], sum(one.bytes_in for one in all_of_them))
        octets.add_metric(["out"], sum(one.bytes_out for one in all_of_them))
        return packets, octets

    def _drops(self, all_of_them: Sequence[Statistics]) -> Metric:
        drops = CounterMetricFamily("gateway_relay_drops", "Datagrams not passed on, by reason.", labels=["reason"])
        for reason in sorted({reason for one in all_of_them for reason in one.drops}):
            drops.add_metric([reason], sum(one.drops.get(reason, 0) for one in all_of_them))
        return drops


_METRICS: Final = _Metrics()
REGISTRY.register(_METRICS)
