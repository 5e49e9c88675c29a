"""What Prometheus is told of the relay: read from the workers' statistics when it asks, so that packets pay nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, Final, Protocol
from weakref import WeakSet

from prometheus_client import REGISTRY
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gateway.sfu.port import Statistics


class Counted(Protocol):
    """A relay that tells its statistics without waiting."""

    def counters(self) -> Sequence[Statistics]: ...


def total(parts: Sequence[Statistics]) -> Statistics:
    """The sum of several workers' statistics."""
    sums: dict[str, Any] = {
        field.name: sum(getattr(part, field.name) for part in parts)
        for field in fields(Statistics)
        if field.name not in ("drops", "occupancy")
    }
    drops: Counter[str] = Counter()
    for part in parts:
        drops.update(part.drops)
    longest = max((len(part.occupancy) for part in parts), default=0)
    padded = [part.occupancy + (0,) * (longest - len(part.occupancy)) for part in parts]
    return Statistics(**sums, drops=dict(drops), occupancy=tuple(map(sum, zip(*padded, strict=True))))


class _Metrics(Collector):
    def __init__(self) -> None:
        self.relays: WeakSet[Any] = WeakSet()

    def collect(self) -> Iterable[Metric]:
        every = [part for relay in self.relays for part in relay.counters()]
        one = total(every)
        yield _gauge("gateway_relay_workers", "Relay workers that have answered.", len(every))
        yield _gauge("gateway_relay_legs", "Legs with a selected address.", one.legs)
        yield _gauge("gateway_relay_open_gates", "Calls through which media passes.", one.open_gates)
        yield _gauge("gateway_relay_one_way_calls", "Open calls of which one side sends nothing.", one.one_way_calls)
        yield _gauge("gateway_relay_silent_legs", "Legs of open calls that send nothing.", one.silent_legs)
        yield _counter("gateway_relay_checks", "Authenticated ICE checks answered.", one.checks)
        yield _counter("gateway_relay_address_switches", "Changes of a leg's selected address.", one.address_switches)
        yield _by("gateway_relay_packets", "Datagrams.", "direction", {"in": one.packets_in, "out": one.packets_out})
        yield _by(
            "gateway_relay_bytes", "Payload of datagrams.", "direction", {"in": one.bytes_in, "out": one.bytes_out}
        )
        yield _by("gateway_relay_drops", "Datagrams not passed on, by reason.", "reason", one.drops)
        yield _gauge("gateway_relay_connections", "TCP connections of callers.", one.connections)
        yield _counter(
            "gateway_relay_connections_refused", "TCP connections that never showed a check.", one.connections_refused
        )
        yield _counter("gateway_relay_queue_drops", "Datagrams that full receive queues cost.", one.queue_drops)
        yield _by(
            "gateway_relay_trains", "Trains of datagrams, each handled as one.", "direction",
            {"in": one.trains_in, "out": one.trains_out},
        )  # fmt: skip
        yield _batches(one)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _by(name: str, text: str, label: str, values: Any) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for key in sorted(values):
        family.add_metric([key], values[key])
    return family


def _batches(one: Statistics) -> Metric:
    """Place n of `occupancy` counts batches of fewer than 2^n messages: at most 2^n - 1."""
    family = HistogramMetricFamily("gateway_relay_batch_messages", "Messages that one receive call brought.")
    counted, buckets = 0, []
    for place, count in enumerate(one.occupancy):
        counted += count
        buckets.append((str(float(2**place - 1)), counted))
    family.add_metric([], [*buckets, ("+Inf", counted)], sum_value=one.messages)
    return family


def watch(relay: Counted) -> None:
    """Count this relay in."""
    _METRICS.relays.add(relay)


def forget(relay: Counted) -> None:
    _METRICS.relays.discard(relay)


_METRICS: Final = _Metrics()
REGISTRY.register(_METRICS)
