"""The course of one call: who is there, what runs, what is metered, what is due to be said, and when it is over.

Pure: told of seats and of the relay's reports, asked with `now` (wall ms of the session's clock); answers with values.
It keeps no record of its own: the session's record is handed in as it changes, and what should become of it comes out
as `Together`, `Apart` and `End`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway import session as core
from gateway.meter import schedule
from gateway.meter.intervals import Interval, Stretch, metered
from gateway.meter.record import Bill, bill
from gateway.session import ROLES, EndReason, Role, SessionRecord
from gateway.sfu.port import Report, Span

SILENT: Final = frozenset({"silence", "reset"})


@dataclass(frozen=True, slots=True)
class Timers:
    """How long to wait, in ms: a lone party for the other one, and a session whose leg was lost for its return."""

    lone_ms: int = 120_000
    grace_ms: int = 60_000
    warnings_s: Sequence[int] = schedule.WARNINGS_S
    free_warnings_s: Sequence[int] = schedule.FREE_WARNINGS_S


@dataclass(frozen=True, slots=True)
class Together:
    """Both legs are heard since `at`."""

    at: int


@dataclass(frozen=True, slots=True)
class Apart:
    """A leg is not heard any more."""


@dataclass(frozen=True, slots=True)
class Warned:
    """Both are to be told that `remaining_s` are left."""

    reason: schedule.WarningReason
    remaining_s: int


@dataclass(frozen=True, slots=True)
class Presence:
    """A leg came (`connected`) or went."""

    role: Role
    connected: bool


@dataclass(frozen=True, slots=True)
class End:
    """The call is over for this reason, at this instant."""

    reason: EndReason
    at: int


Outcome = Together | Apart | Warned | Presence | End


def stretch(span: Span, offset_ms: int, now: int) -> Stretch:
    """A span of the relay's clock as the meter sees it, in wall ms; one that runs lasts until `now` at least."""
    end = span.end + offset_ms
    return Stretch(
        span.number, span.start + offset_ms, max(end, now) if span.ended_by is None else end,
        min(span.heard) + offset_ms, silent=span.ended_by in SILENT, running=span.ended_by is None,
    )  # fmt: skip


class Call:
    """The core. `offset_ms` is wall minus boot clock, fixed for the call so that a length never changes by mapping.

    `earlier`: intervals that former owners left in the ledger.
    """

    def __init__(
        self, record: SessionRecord, timers: Timers, *, offset_ms: int, now: int, earlier: Sequence[Interval] = ()
    ) -> None:
        self.record, self.timers, self.offset_ms = record, timers, offset_ms
        self.earlier = tuple(earlier)
        self._spans: dict[int, Span] = {}
        self._present: dict[Role, bool] = dict.fromkeys(ROLES, False)
        self._selected: dict[Role, bool] = dict.fromkeys(ROLES, False)
        self._seated: dict[Role, bool] = dict.fromkeys(ROLES, False)
        self._alone_since: int | None = None
        # A session that comes to us running was interrupted by the change of owners.
        self._apart_since: int | None = now if record.started_at is not None else None
        self._warned: frozenset[tuple[str, int]] = frozenset(
            (w.reason, w.remaining_s) for w in schedule.ending(record, timers.warnings_s) if w.at <= now
        )
        self._flushed: dict[int, Interval] = {}
        self._reported_at = 0
        # The last answer and what it was of: a turn asks for the same instant's figures several times.
        self._billed: tuple[tuple[Any, ...], Bill] | None = None
        self._reported: tuple[tuple[Any, ...], dict[int, Interval]] | None = None

    def seat(self, role: Role, *, taken: bool, now: int) -> None:
        """A side's socket came or went."""
        self._seated[role] = taken
        self._watch_loneliness(now)

    def _watch_loneliness(self, now: int) -> None:
        """Nobody waits alone for the card: the time counts from when the call could begin. At an appointment one waits
        until it must have begun."""
        begins = self.record.status == "ready" and self.record.funded
        lonely = begins and self.record.meeting is None and sum(self._seated.values()) == 1
        self._alone_since = (self._alone_since or now) if lonely else None

    def seated(self, role: Role) -> bool:
        return self._seated[role]

    def connected(self, role: Role) -> bool:
        """Whether the relay hears the side's leg."""
        return self._present[role]

    def selected(self, role: Role) -> bool:
        return self._selected[role]

    @property
    def running(self) -> bool:
        """Whether the gate is open now: forwarded and metered (law 2)."""
        return any(span.ended_by is None for span in self._spans.values())

    def learn(self, report: Report) -> None:
        """Take the usage of a report; of two the later one counts, in whichever order they are taken."""
        if report.at < self._reported_at:
            return
        self._reported_at = report.at
        told = {span.number: span for span in report.spans}
        for span in self._spans.values():
            if span.ended_by is None and span.number not in told:
                # A running span is in every report: this one's worker died, and its successor knows nothing of it.
                told[span.number] = replace(span, ended_by="lost")
        self._spans = self._spans | told  # a new one, since what was reckoned from the former is kept with it

    @property
    def began_before(self) -> int | None:
        """Since when a former owner's usage says that both were together, if the record knows only a later start: that
        owner died, or was replaced, before its word of it was kept (law 4)."""
        first, started = min((start for start, _ in self.earlier), default=None), self.record.started_at
        return first if first is not None and started is not None and first < started else None

    def heard(self, report: Report, now: int) -> list[Outcome]:
        """Take a report of the relay; what follows from it, in order."""
        self.learn(report)
        outcomes: list[Outcome] = []
        for role, leg in zip(ROLES, report.legs, strict=True):
            self._selected[role] = leg.selected
            if leg.present != self._present[role]:
                self._present[role] = leg.present
                outcomes.append(Presence(role, leg.present))
        return outcomes + self._gate(now)

    def _gate(self, now: int) -> list[Outcome]:
        last = self._spans[max(self._spans)] if self._spans else None
        if last is None:
            return []
        if last.ended_by is None:
            self._apart_since = self._alone_since = None
            return [] if self.record.status == "live" else [Together(last.start + self.offset_ms)]
        if last.ended_by == "deadline" and self.record.open:
            # Never the session's own idea of the deadline: the relay's instant is the one that was forwarded until.
            return [*self._missed(last), End(self.record.limit_reason, last.end + self.offset_ms)]
        if self._apart_since is None:
            self._apart_since = now
            return [*self._missed(last), Apart()]
        return self._missed(last)

    def _missed(self, last: Span) -> list[Outcome]:
        """A stretch that began and ended between two reports, or before Redis took its word, still was the start."""
        unsaid = self.record.started_at is None or self.record.status == "ready"
        return [Together(last.start + self.offset_ms)] if unsaid else []

    @property
    def _returned(self) -> bool:
        """Whether both legs are heard."""
        return all(self._present.values())

    def stretches(self, now: int) -> list[Stretch]:
        """The gate's history by this owner in wall ms; one that runs lasts until `now`."""
        return [stretch(span, self.offset_ms, now) for _, span in sorted(self._spans.items())]

    def _metered(self, now: int) -> dict[int, Interval]:
        stretches = self.stretches(now)
        intervals = metered(stretches, returned=self._returned)
        return {s.number: interval for s, interval in zip(stretches, intervals, strict=True)}

    def rows(self) -> Mapping[int, Interval]:
        """Rows of the ledger that differ from what was last flushed: what the relay has reported, no more (law 3)."""
        key = (self._spans, self._returned)
        if self._reported is None or self._reported[0] != key:
            self._reported = key, self._metered(now=0)
        return {number: row for number, row in self._reported[1].items() if self._flushed.get(number) != row}

    def flushed(self, rows: Mapping[int, Interval]) -> None:
        self._flushed.update(rows)

    def bill(self, now: int) -> Bill:
        """What would be charged if the call ended now; the tick and the bill are this one function (law 9)."""
        key = (now, self.record, self.earlier, self._spans, self._returned)
        if self._billed is None or self._billed[0] != key:
            self._billed = key, bill(self.record, (*self.earlier, *self._metered(now).values()))
        return self._billed[1]

    def tick(self, now: int) -> list[Outcome]:
        """Warnings that are due, and whether time is up for one of the reasons that only time brings."""
        self._watch_loneliness(now)
        warns = self._due(now)
        self._warned |= {(w.reason, w.remaining_s) for w in warns}
        outcomes: list[Outcome] = [Warned(w.reason, schedule.remaining_s(self.record, now) if w.reason != "free_ending"
                                          else w.remaining_s) for w in warns]  # fmt: skip
        over = self._over(now)
        return [*outcomes, over] if over else outcomes

    def _due(self, now: int) -> Sequence[schedule.Warn]:
        if self.record.started_at is None or not self.record.open:
            return ()
        warns = list(schedule.ending(self.record, self.timers.warnings_s))
        if self.record.free_ms and self.running:
            warns += schedule.free_ending(self.record, self.bill(now).union_ms, now, self.timers.free_warnings_s)
        return schedule.due(warns, self._warned, now)

    def _over(self, now: int) -> End | None:
        record = self.record
        if not record.open:
            return None
        if record.deadline is not None and now >= record.deadline:
            return End(record.limit_reason, record.deadline)
        if self._apart_since is not None and now >= self._apart_since + self.timers.grace_ms:
            return End("connection_lost", now)
        if self._alone_since is not None and now >= self._alone_since + self.timers.lone_ms:
            return End("lone_party_timeout", now)
        missed = core.expiry(record, now, self._seated) if record.started_at is None else None
        return End(missed, now) if missed else None

    def figures(self, role: Role, now: int) -> dict[str, Any]:
        """The live figures of one side: seconds and minor units (R5)."""
        record, current = self.record, self.bill(now)
        started = record.started_at
        billing = "paused" if not self.running else "free" if current.union_ms < record.free_ms else "running"
        if not record.priced:
            billing = "free" if self.running else "paused"
        told = {
            "elapsed": 0 if started is None else max(0, min(now, record.ended_at or now) - started) // 1000,
            "billable": current.billable_seconds,
            "remaining": schedule.remaining_s(record, now),
            "billing": billing,
            "currency": record.currency,
        }
        if role == "client":
            return {**told, "cost": current.amount_total}
        return {**told, "earnings": current.shares.expert}
