"""Calls that the relay forwards and nobody hosts: a control process that came back finds them and collects their usage.

The relay gives back with each report the tag under which the call was last configured. It names the lease that the
usage was metered under, so the rows go where the former process would have written them, and nothing counts twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from gateway.meter.intervals import Interval, metered
from gateway.meter.ledger import Lease, Ledger, Write
from gateway.sfu.port import Report
from gateway.signaling.call import stretch

log = structlog.get_logger(__name__)

# As often as hosted sessions are flushed; longer, and a second death costs more.
COLLECT_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Tag:
    """Whose a call is: its owner's lease, and what that owner adds to the relay's clock to get wall ms."""

    epoch: int
    owner: str
    acquired_at: int
    offset_ms: int

    @classmethod
    def of(cls, lease: Lease, offset_ms: int) -> Tag:
        return cls(lease.epoch, lease.owner, lease.acquired_at, offset_ms)

    def __str__(self) -> str:
        return f"{self.epoch}:{self.acquired_at}:{self.offset_ms}:{self.owner}"

    @classmethod
    def parse(cls, text: str) -> Tag:
        """Raises ValueError."""
        epoch, acquired_at, offset_ms, owner = text.split(":", 3)
        return cls(int(epoch), owner, int(acquired_at), int(offset_ms))


def rows(report: Report, tag: Tag) -> Mapping[int, Interval]:
    """What was metered of a call, as its former owner would have written it; no more than was reported (law 3)."""
    stretches = [stretch(span, tag.offset_ms, 0) for span in report.spans]
    intervals = metered(stretches, returned=all(leg.present for leg in report.legs))
    return {each.number: interval for each, interval in zip(stretches, intervals, strict=True)}


class Orphans:
    """Shell. `heard` each report that is no hosted session's; `settle` before a session is hosted again."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._newest: dict[str, Report] = {}
        self._written: dict[str, Mapping[int, Interval]] = {}

    def heard(self, report: Report) -> None:
        self._newest[report.call] = report

    def adopted(self, session: str) -> None:
        """The session is hosted here now."""
        self._newest.pop(session, None)
        self._written.pop(session, None)

    async def run(self) -> None:
        """Collect until cancelled; a process that just came back may find sessions that nobody asks for any more."""
        while True:
            await asyncio.sleep(COLLECT_S)
            await self.settle()

    async def settle(self, *sessions: str) -> None:
        """Write what was reported of these sessions, or of all; what Redis does not take is written the next time."""
        writes = [self._write(call) for call in sessions or tuple(self._newest)]
        due = [write for write in writes if write is not None]
        if not due:
            return
        for write, result in zip(due, await self._ledger.write(due), strict=True):
            session = write.lease.session
            if result.code in ("fenced", "final"):
                self.adopted(session)
            elif result.code != "away":
                self._written[session] = write.rows
                log.info("usage_collected", session=session, rows=len(write.rows), code=result.code)

    def _write(self, call: str) -> Write | None:
        report = self._newest.get(call)
        if report is None:
            return None
        try:
            tag = Tag.parse(report.tag)
        except ValueError:
            self._newest.pop(call)
            return None
        found = rows(report, tag)
        if not found or found == self._written.get(call):
            return None
        return Write(Lease(call, tag.epoch, tag.owner, tag.acquired_at, tag.acquired_at), found, renew=False)
