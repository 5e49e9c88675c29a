"""The quality of one hosted call: ratings out of reports and statistics, as messages and as histograms."""

from __future__ import annotations

from typing import Final

from prometheus_client import Histogram

from gateway.session import ROLES, Role, other
from gateway.sfu.port import Report
from gateway.signaling import messages as wire
from gateway.signaling.rating import Ratings, Sample

LOSS: Final = Histogram(
    "gateway_call_loss_ratio", "Packets lost, per leg and direction; the downlink is the page's word.", ["direction"],
    buckets=(0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1),
)  # fmt: skip
JITTER: Final = Histogram(
    "gateway_call_jitter_seconds", "Interarrival jitter (RFC 3550), per leg and direction.", ["direction"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5),
)  # fmt: skip
ROUND_TRIP: Final = Histogram(
    "gateway_call_round_trip_seconds", "Between a leg and the relay, by its checks.",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1, 2),
)  # fmt: skip


class Gauges:
    """Of one call. Measured values are observed when a page reports, about every 5 s a leg."""

    def __init__(self) -> None:
        self.ratings = Ratings()

    def heard(self, report: Report, now: int) -> list[tuple[Role, wire.Quality]]:
        """A report of the relay; what each side is to be told, if anything is new."""
        return self.messages() if self.ratings.heard(report, now) else []

    def messages(self) -> list[tuple[Role, wire.Quality]]:
        return [(role, self.message(role)) for role in ROLES]

    def message(self, role: Role) -> wire.Quality:
        """As the side sees it."""
        return wire.Quality(mine=self.ratings[role], peer=self.ratings[other(role)])

    def told(self, role: Role, message: wire.Stats, now: int) -> None:
        """A page's statistics."""
        down, up = self.ratings.told(role, message.numbers, now), self.ratings.uplink(role)
        _observe("downlink", down)
        _observe("uplink", up)
        if up.rtt_ms is not None:
            ROUND_TRIP.observe(up.rtt_ms / 1000)


def _observe(direction: str, sample: Sample) -> None:
    if sample.loss is not None:
        LOSS.labels(direction).observe(sample.loss)
    if sample.jitter_ms is not None:
        JITTER.labels(direction).observe(sample.jitter_ms / 1000)
