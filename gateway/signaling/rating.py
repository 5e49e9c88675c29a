"""How good each side's connection is, in four steps, from what the relay hears of it and what its page reports.

Pure. A side's connection has two ways: its uplink is the relay's to measure, its downlink only the page can. What the
page misses of the peer's packets because the peer's own uplink lost them is not put down to this side. A page's word
counts for what is shown and for nothing else: never for billing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from gateway.session import ROLES, Role, other
from gateway.sfu.port import LegReport, Report

Rating = Literal["excellent", "good", "poor", "lost"]

STEPS: Final[tuple[Rating, ...]] = ("excellent", "good", "poor", "lost")
UNHEARD_MS: Final = 6_000
"""A leg through an open gate that sends neither RTP nor RTCP for so long is lost; muted ones send every 4.5 s."""
STALE_MS: Final = 15_000
"""A page reports every 5 s; what it said longer ago is not true of now."""
BETTER_MS: Final = 3_000
"""It has to be better for so long before it is called so, worse counts at once: else the word flickers."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One way's figures; None where nothing was measured. `loss` is 0 to 1."""

    loss: float | None = None
    jitter_ms: float | None = None
    rtt_ms: float | None = None


EXCELLENT: Final = Sample(0.01, 30, 200)
GOOD: Final = Sample(0.05, 75, 450)
"""Up to which a call is that. Opus hides 1 % unnoticed and 5 % audibly; beyond 450 ms people talk at once."""


def rate(sample: Sample) -> Rating | None:
    """The worst of the figures decides; None if there is none."""
    if sample == Sample():
        return None
    return "excellent" if _within(sample, EXCELLENT) else "good" if _within(sample, GOOD) else "poor"


def _within(sample: Sample, limit: Sample) -> bool:
    pairs = (
        (sample.loss, limit.loss), (sample.jitter_ms, limit.jitter_ms), (sample.rtt_ms, limit.rtt_ms),
    )  # fmt: skip
    return all(value is None or bound is None or value <= bound for value, bound in pairs)


def worst(*ratings: Rating | None) -> Rating | None:
    """Of those that are known."""
    known = [rating for rating in ratings if rating is not None]
    return max(known, key=STEPS.index) if known else None


def reported(numbers: Mapping[str, float]) -> Sample:
    """A page's `stats` as the SDK sends them: `loss` as a ratio, `jitter` and `rtt` in seconds; no nonsense."""
    loss, jitter, rtt = (numbers.get(name) for name in ("loss", "jitter", "rtt"))
    return Sample(
        loss if loss is not None and 0 <= loss <= 1 else None,
        jitter * 1000 if jitter is not None and 0 <= jitter <= 60 else None,
        rtt * 1000 if rtt is not None and 0 <= rtt <= 60 else None,
    )


@dataclass(slots=True)
class _Side:
    uplink: Sample = Sample()
    downlink: Sample = Sample()
    said_at: int | None = None
    lost: bool = False
    rating: Rating | None = None
    better_since: int | None = None


class Ratings:
    """Of both sides of one call; `now` in ms of any one clock."""

    def __init__(self) -> None:
        self._sides: dict[Role, _Side] = {role: _Side() for role in ROLES}

    def uplink(self, role: Role) -> Sample:
        """As the relay measured it last."""
        return self._sides[role].uplink

    def __getitem__(self, role: Role) -> Rating | None:
        return self._sides[role].rating

    def heard(self, report: Report, now: int) -> bool:
        """The relay reports; whether a rating has changed."""
        for role, leg in zip(ROLES, report.legs, strict=True):
            side = self._sides[role]
            side.uplink = Sample(leg.loss, leg.jitter_ms, leg.rtt_ms)
            side.lost = _is_lost(leg, report)
        return self._judge(now)

    def told(self, role: Role, numbers: Mapping[str, float], now: int) -> Sample:
        """A page reports; its downlink, as it takes it to be."""
        side = self._sides[role]
        side.downlink, side.said_at = reported(numbers), now
        return side.downlink

    def _judge(self, now: int) -> bool:
        changed = False
        for role, side in self._sides.items():
            changed |= self._settle(side, self._rating(role, now), now)
        return changed

    def _rating(self, role: Role, now: int) -> Rating | None:
        side = self._sides[role]
        if side.lost:
            return "lost"
        fresh = side.said_at is not None and now - side.said_at <= STALE_MS
        return worst(rate(side.uplink), rate(self._own_downlink(role)) if fresh else None)

    def _own_downlink(self, role: Role) -> Sample:
        down, theirs = self._sides[role].downlink, self._sides[other(role)].uplink.loss or 0.0
        loss = None if down.loss is None else max(0.0, down.loss - theirs)
        # The page's round trip may be the whole way to the peer; that of its own half is the relay's to tell.
        return Sample(loss, down.jitter_ms)

    @staticmethod
    def _settle(side: _Side, rating: Rating | None, now: int) -> bool:
        if rating is None or rating == side.rating:
            side.better_since = None
            return False
        before = side.rating
        if before is not None and before != "lost" and STEPS.index(rating) < STEPS.index(before):
            side.better_since = now if side.better_since is None else side.better_since
            if now - side.better_since < BETTER_MS:
                return False
        side.rating, side.better_since = rating, None
        return True


def _is_lost(leg: LegReport, report: Report) -> bool:
    """Gone after it was there, or mute to the last bit."""
    if not report.spans:
        return False
    if not leg.present:
        return True
    return report.gate == "open" and leg.last_packet is not None and report.at - leg.last_packet >= UNHEARD_MS
