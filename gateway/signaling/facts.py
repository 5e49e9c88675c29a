"""What is told of a call when it is over, to operators: its canonical log line and its metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog
from prometheus_client import Counter, Histogram

from gateway.session import ROLES, SessionRecord
from gateway.sfu.port import Report

log = structlog.get_logger(__name__)

ENDED: Final = Counter("gateway_sessions_ended_total", "Sessions that ended, by reason.", ["reason"])
SETUP: Final = Histogram(
    "gateway_session_setup_seconds", "From both being seated to both being heard.",
    buckets=(0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10),
)  # fmt: skip
BILLED: Final = Counter("gateway_billed_seconds_total", "Seconds billed by finalized sessions.")


@dataclass(slots=True)
class Facts:
    """Gathered while the call lasts; times in wall ms."""

    both_seated_at: int | None = None
    setup_ms: int | None = None
    joins: int = 0
    packets: int = 0
    bytes: int = 0

    def seated(self, count: int, now: int) -> None:
        self.joins += 1
        if count == len(ROLES) and self.both_seated_at is None:
            self.both_seated_at = now

    def together(self, at: int) -> None:
        if self.setup_ms is None and self.both_seated_at is not None:
            self.setup_ms = max(0, at - self.both_seated_at)
            SETUP.observe(self.setup_ms / 1000)

    def heard(self, report: Report) -> None:
        self.packets = sum(leg.packets_in for leg in report.legs)
        self.bytes = sum(leg.bytes_in for leg in report.legs)

    def finalized(self, record: SessionRecord, epoch: int) -> None:
        """Count it, and write the session's one line."""
        final = record.bill or {}
        ENDED.labels(record.end_reason).inc()
        BILLED.inc(final.get("billable_seconds", 0))
        log.info(
            "session", session=record.id, kind=record.kind, end_reason=record.end_reason, currency=record.currency,
            billable_seconds=final.get("billable_seconds"), amount_total=final.get("amount_total"),
            union_ms=final.get("union_ms"), intervals=len(final.get("intervals", ())), setup_ms=self.setup_ms,
            joins=self.joins, packets=self.packets, bytes=self.bytes, epoch=epoch,
        )  # fmt: skip
