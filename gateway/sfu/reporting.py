"""Which calls are to be reported when, how much of each, and sums over all of them that take no walk to tell."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from operator import add, sub
from typing import Final

from gateway.sfu import activity
from gateway.sfu.call import Call, next_report
from gateway.sfu.port import Report

News = tuple[Call, Report | bytes | None]
"""Of a call, as of one instant: all of it, its activity alone, or None: it runs on and nothing has arrived."""
Share = tuple[int, int, int, int, int, int]
"""Of one call: packets and octets received, packets and octets forwarded, legs with a selected address, open gates."""
NOTHING: Final[Share] = (0, 0, 0, 0, 0, 0)


class Reporting:
    """Calls that changed are due at once; those with a gate not shut every 250 ms, in the order of their instants.

    A call's share in the sums is as of its last report. `after(call, now)` puts a call in order that was found changed.
    """

    def __init__(self, after: Callable[[Call, int], None]) -> None:
        self._after = after
        self._due: dict[Call, None] = {}
        self.running: deque[Call] = deque()
        """Calls with a gate not shut, and some that shut it within the last 250 ms."""
        self._sums: Share = NOTHING
        self._uncounted: dict[Call, None] = {}
        self._shares: dict[Call, Share] = {}
        self._silent: dict[Call, int] = {}

    # --- when

    @property
    def waiting(self) -> bool:
        return bool(self._due)

    def note(self, call: Call, now: int) -> None:
        """Something may have changed about the call."""
        if call.changed:
            self._due[call] = None
        if call.gate != "shut" and not call.running:
            call.running, call.report_at = True, next_report(now)
            self.running.append(call)

    def survey(self, call: Call) -> None:
        """Have all of the call reported, changed or not."""
        call.changed = True
        self._due[call] = None

    def forget(self, call: Call) -> None:
        self._due.pop(call, None)
        self._uncounted.pop(call, None)
        self._replace(call, NOTHING)
        self._shares.pop(call, None)
        self._silent.pop(call, None)

    def get_timer(self) -> int | None:
        running = self.running
        while running and running[0].gate == "shut":
            running.popleft().running = False
        return running[0].report_at if running else None

    def handle_timer(self, now: int) -> None:
        """Let the running calls be due whose time has come."""
        while (at := self.get_timer()) is not None and at <= now:
            call = self.running.popleft()
            call.report_at = next_report(now)
            self.running.append(call)
            self._due[call] = None

    def take(self, limit: int) -> list[Call]:
        """At most so many of the due ones, those that wait longest."""
        calls = list(islice(self._due, limit))
        for call in calls:
            del self._due[call]
        return calls

    # --- what

    def tell(self, call: Call, now: int) -> Report | bytes | None:
        """No more than is new."""
        if call.changed or now >= call.safe_until:
            before = call.gate, call.span_at
            call.advance(now)
            if call.changed or (call.gate, call.span_at) != before:
                return self.report(call, now)
        self._listen(call, now)
        stirred = call.stirred()
        if stirred == call.mark:
            return None
        call.mark, legs = stirred, call.activity()
        self._count(call, legs)
        return activity.pack(*legs)

    def report(self, call: Call, now: int) -> Report:
        """All of it."""
        call.advance(now)
        report = call.report(now)
        self._after(call, now)
        self._listen(call, now)
        self._count(call, call.activity())
        call.mark = call.stirred()
        return report

    # --- sums

    def count(self, calls: Iterable[Call]) -> None:
        """Bring these calls' shares up to date."""
        for call in calls:
            self._count(call, call.activity())

    def stir(self, call: Call) -> None:
        """Something came for the call that did not just pass: no report may follow, but `sums` shall have it."""
        self._uncounted[call] = None

    def sums(self) -> Share:
        """Of all calls."""
        self.count(self._uncounted)
        self._uncounted.clear()
        return self._sums

    def _count(self, call: Call, legs: tuple[activity.Leg, activity.Leg]) -> None:
        totals = tuple(map(add, legs[0][activity.COUNTERS], legs[1][activity.COUNTERS]))
        there = (call.legs[0].selected is not None) + (call.legs[1].selected is not None)
        self._replace(call, (*totals, there, int(call.gate == "open")))

    def _replace(self, call: Call, share: Share) -> None:
        before = self._shares.get(call, NOTHING)
        if share != before:
            self._shares[call] = share
            self._sums = tuple(map(sub, map(add, self._sums, share), before))

    def listen(self, now: int) -> tuple[int, int]:
        """`silence`, as of now."""
        for call in self.running:
            self._listen(call, now)
        return self.silence()

    def silence(self) -> tuple[int, int]:
        """One-way calls, and silent legs in all."""
        silent = list(self._silent.values())
        return silent.count(1), sum(silent)

    def _listen(self, call: Call, now: int) -> None:
        silent = call.silent_legs(now)
        if silent:
            self._silent[call] = silent
        elif self._silent:
            self._silent.pop(call, None)
