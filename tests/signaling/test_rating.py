"""The four steps of a connection, from the relay's measure of each uplink and the pages' word on their downlinks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from gateway.sfu.port import LegReport, Report, Span
from gateway.signaling.gauges import Gauges
from gateway.signaling.messages import Quality, Stats
from gateway.signaling.rating import BETTER_MS, STALE_MS, STEPS, Ratings, Sample, rate, reported, worst

FINE = {"loss": 0.0, "jitter_ms": 4.0, "rtt_ms": 40.0}
SPAN = Span(1, 0, 10, (0, 0))
figures = st.one_of(st.none(), st.floats(0, 2000, allow_nan=False))


def leg(**changes: Any) -> LegReport:
    return LegReport(**{"selected": True, "present": True, "last_packet": 10_000, **FINE, **changes})


def report(
    client: LegReport | None = None, expert: LegReport | None = None, *, at: int = 10_000, **changes: Any
) -> Report:
    legs = (client or leg(), expert or leg())
    return Report("call", at, 1, changes.pop("gate", "open"), legs, changes.pop("spans", (SPAN,)))


def stats(**numbers: float) -> Stats:
    return Stats.model_validate({"type": "stats", **numbers})


@pytest.mark.parametrize(
    ("sample", "rating"),
    [
        (Sample(), None),
        (Sample(loss=0), "excellent"),
        (Sample(loss=0.01, jitter_ms=30, rtt_ms=200), "excellent"),
        (Sample(loss=0.011), "good"),
        (Sample(loss=0, jitter_ms=31), "good"),
        (Sample(rtt_ms=201), "good"),
        (Sample(loss=0.05, jitter_ms=75, rtt_ms=450), "good"),
        (Sample(loss=0.06, jitter_ms=1, rtt_ms=1), "poor"),
        (Sample(jitter_ms=76), "poor"),
        (Sample(rtt_ms=451), "poor"),
    ],
)
def test_the_worst_figure_decides(sample: Sample, rating: str | None) -> None:
    assert rate(sample) == rating


@given(figures, figures, figures, figures)
def test_more_loss_is_never_better(
    low: float | None, high: float | None, jitter: float | None, rtt: float | None
) -> None:
    if low is not None and high is not None:
        low, high = sorted((low, high))
        better, worse = rate(Sample(low, jitter, rtt)), rate(Sample(high, jitter, rtt))
        assert better is not None
        assert worse is not None
        assert STEPS.index(better) <= STEPS.index(worse)


@given(st.dictionaries(st.sampled_from(["loss", "jitter", "rtt", "other"]), st.floats(allow_nan=False)))
def test_law7_whatever_a_page_says_becomes_sane_figures(numbers: dict[str, float]) -> None:
    sample = reported(numbers)
    assert sample.loss is None or 0 <= sample.loss <= 1
    assert sample.jitter_ms is None or 0 <= sample.jitter_ms <= 60_000
    assert sample.rtt_ms is None or 0 <= sample.rtt_ms <= 60_000


def test_seconds_become_milliseconds() -> None:
    assert reported({"loss": 0.02, "jitter": 0.03, "rtt": 0.25}) == Sample(0.02, 30, 250)


def test_the_worst_of_those_known() -> None:
    assert worst(None, "good", "excellent") == "good"
    assert worst(None, None) is None
    assert worst("poor", "lost") == "lost"


class TestSides:
    def test_nothing_measured_is_nothing_said(self) -> None:
        ratings = Ratings()
        bare = LegReport(selected=False, present=False)
        assert not ratings.heard(report(bare, bare, gate="shut", spans=()), 0)
        assert ratings["client"] is None

    def test_each_uplink_is_its_own_sides(self) -> None:
        ratings = Ratings()
        assert ratings.heard(report(leg(loss=0.2), leg()), 0)
        assert (ratings["client"], ratings["expert"]) == ("poor", "excellent")

    def test_a_lossy_downlink_is_the_receivers(self) -> None:
        ratings = Ratings()
        ratings.told("client", {"loss": 0.03}, 0)
        ratings.heard(report(), 0)
        assert (ratings["client"], ratings["expert"]) == ("good", "excellent")

    def test_what_the_peers_uplink_lost_is_not_the_receivers_fault(self) -> None:
        ratings = Ratings()
        ratings.told("client", {"loss": 0.1}, 0)
        ratings.heard(report(expert=leg(loss=0.1)), 0)
        assert (ratings["client"], ratings["expert"]) == ("excellent", "poor")

    def test_what_a_page_said_long_ago_does_not_count(self) -> None:
        ratings = Ratings()
        ratings.told("client", {"loss": 0.5}, 0)
        ratings.heard(report(), STALE_MS)
        assert ratings["client"] == "poor"
        ratings.heard(report(), STALE_MS + 1)
        ratings.heard(report(), STALE_MS + 1 + BETTER_MS)
        assert ratings["client"] == "excellent"

    def test_a_leg_that_went_is_lost_and_is_back_at_once(self) -> None:
        ratings = Ratings()
        ratings.heard(report(), 0)
        assert ratings.heard(report(leg(present=False), gate="shut"), 1)
        assert (ratings["client"], ratings["expert"]) == ("lost", "excellent")
        assert ratings.heard(report(), 2)
        assert ratings["client"] == "excellent"

    def test_before_the_call_ran_nobody_is_lost(self) -> None:
        ratings = Ratings()
        ratings.heard(report(leg(present=False), gate="shut", spans=()), 0)
        assert ratings["client"] == "excellent"

    def test_an_open_gate_through_which_a_leg_sends_nothing_is_lost(self) -> None:
        ratings = Ratings()
        ratings.heard(report(leg(last_packet=4_001)), 0)
        assert ratings["client"] == "excellent"
        ratings.heard(report(leg(last_packet=4_000)), 0)
        assert ratings["client"] == "lost"

    def test_worse_counts_at_once_better_after_a_while(self) -> None:
        ratings = Ratings()
        ratings.heard(report(leg(loss=0.2)), 0)
        assert not ratings.heard(report(leg(loss=0.02)), 100)
        assert not ratings.heard(report(leg(loss=0.2)), 2000)
        assert not ratings.heard(report(leg(loss=0.02)), 2500)
        assert not ratings.heard(report(leg(loss=0.02)), 2499 + BETTER_MS)
        assert ratings.heard(report(leg(loss=0.02)), 2500 + BETTER_MS)
        assert ratings["client"] == "good"
        assert ratings.heard(report(leg(loss=0.2)), 9000)


class TestMessages:
    def test_both_are_told_from_where_they_sit(self) -> None:
        gauges = Gauges()
        told = dict(gauges.heard(report(leg(loss=0.2)), 0))
        assert told["client"] == Quality(mine="poor", peer="excellent")
        assert told["expert"] == Quality(mine="excellent", peer="poor")

    def test_nothing_new_is_not_said_again(self) -> None:
        gauges = Gauges()
        assert gauges.heard(report(), 0)
        assert gauges.heard(report(), 1) == []

    def test_what_is_measured_is_observed_by_direction(self) -> None:
        gauges = Gauges()
        gauges.heard(report(leg(loss=0.04)), 0)
        before = {one: sums(one) for one in ("uplink", "downlink")}
        gauges.told("client", stats(loss=0.25, jitter=0.02), 0)
        assert sums("uplink") - before["uplink"] == pytest.approx(0.04)
        assert sums("downlink") - before["downlink"] == pytest.approx(0.25)


def sums(direction: str) -> float:
    return REGISTRY.get_sample_value("gateway_call_loss_ratio_sum", {"direction": direction}) or 0.0
