"""The finalized record of a session: its usage and its bill, frozen. The bridge settles from this alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from gateway.bookings.meetings import kept
from gateway.meter.intervals import Interval, clip, length, without
from gateway.money import Shares, billable_ms, price, split
from gateway.session import SessionRecord

WaivedReason = Literal["waived", "below_minimum", "policy"]


@dataclass(frozen=True, slots=True)
class Bill:
    """Times in wall ms, durations in ms or whole seconds as named, amounts in minor units of `currency`.

    `amount_metered` is what the time cost, or a meeting was booked for; `amount_total` what is charged, or stays of it;
    the difference is waived, and why is told.
    """

    intervals: tuple[Interval, ...]
    union_ms: int
    free_seconds_used: int
    billable_ms: int
    billable_seconds: int
    amount_metered: int
    amount_waived: int
    waived_reason: WaivedReason | None
    shares: Shares
    currency: str
    started_at: int | None
    ended_at: int | None
    end_reason: str | None

    @property
    def amount_total(self) -> int:
        return self.shares.total

    def to_dict(self) -> dict[str, Any]:
        return {
            "intervals": [list(interval) for interval in self.intervals],
            "union_ms": self.union_ms,
            "free_seconds_used": self.free_seconds_used,
            "billable_ms": self.billable_ms,
            "billable_seconds": self.billable_seconds,
            "amount_metered": self.amount_metered,
            "amount_total": self.shares.total,
            "amount_waived": self.amount_waived,
            "waived_reason": self.waived_reason,
            "amount_expert": self.shares.expert,
            "amount_platform": self.shares.platform,
            "amount_ambassador": self.shares.ambassador,
            "currency": self.currency,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "end_reason": self.end_reason,
        }


def bill(record: SessionRecord, intervals: Iterable[Interval], *, minimum: int = 0) -> Bill:
    """What the session costs by these intervals: the live figure and, at the end, the bill (5-money, laws 3, 6, 9).

    Nothing before the start, after the end or beyond the limit counts, nor what was `unseen`. One floor to seconds,
    over the whole session; one rounding to money. A total under `minimum` (the smallest charge Stripe takes) is waived;
    0 turns that off.
    """
    start = record.started_at if record.started_at is not None else 0
    end = min(record.deadline or 0, record.ended_at if record.ended_at is not None else 1 << 62)
    held = clip(without(intervals, record.unseen), start, end) if record.started_at is not None else ()
    union_ms = length(held)
    paid_ms = billable_ms(union_ms, record.free_ms)
    metered = _price(record, paid_ms // 1000)
    total, reason = _kept(metered, record, union_ms) if record.meeting else _charged(metered, record, minimum)
    bps = record.ambassador["share_bps"] if record.ambassador else 0
    return Bill(
        intervals=held, union_ms=union_ms, free_seconds_used=(union_ms - paid_ms) // 1000, billable_ms=paid_ms,
        billable_seconds=paid_ms // 1000, amount_metered=metered, amount_waived=metered - total, waived_reason=reason,
        shares=split(total, record.commission_bps, bps), currency=record.currency, started_at=record.started_at,
        ended_at=record.ended_at, end_reason=record.end_reason,
    )  # fmt: skip


def _price(record: SessionRecord, billable_seconds: int) -> int:
    if record.meeting is not None:
        return record.amount_max if record.funded else 0
    return price(record.unit_amount, billable_seconds) if record.kind == "metered" else 0


def _kept(fee: int, record: SessionRecord, union_ms: int) -> tuple[int, WaivedReason | None]:
    """A meeting's fee was paid before; what does not stay of it is given back (R14)."""
    assert record.meeting is not None
    if fee and record.waived:
        return 0, "waived"
    stays = kept(
        record.meeting, fee, end_reason=record.end_reason, ended_at=record.ended_at,
        started=record.started_at is not None, held_ms=union_ms, full_ms=record.limit_ms,
    )  # fmt: skip
    return stays, "policy" if stays < fee else None


def _charged(metered: int, record: SessionRecord, minimum: int) -> tuple[int, WaivedReason | None]:
    if metered and record.waived:
        return 0, "waived"
    if 0 < metered < minimum:
        return 0, "below_minimum"
    # The hold bounds every bill by construction; the bound here is for a ledger that someone tampered with (law 5).
    return min(metered, record.amount_max), None
