"""What a run covered, what it broke, and whether it was worth anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from gateway import session as core
from gateway.billing_bridge import record as payments
from tests.simulation.faults import KINDS
from tests.simulation.store import Rules

if TYPE_CHECKING:
    from tests.simulation.run import Simulation

FULL = 100_000  # sessions for which the absolute thresholds hold; fewer sessions owe less
ARROW_TIMES, FAULT_TIMES = 100, 1_000

# Arrows that nothing in the gateway can take yet.
NOT_YET_SESSION = frozenset({("created", "ring"), ("ringing", "accept"), ("ringing", "end")})


class Tally:
    """Counts over many sessions."""

    def __init__(self) -> None:
        self.sessions = self.booked = 0
        self.statuses: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.stories: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.faults_open: Counter[str] = Counter()
        self.session_arrows: Counter[tuple[str, str]] = Counter()
        self.payment_arrows: Counter[tuple[str, str]] = Counter()
        self.step_arrows: Counter[tuple[str, str]] = Counter()
        self.broken: list[tuple[str, list[str]]] = []
        self.cpu_s = 0.0

    def merge(self, other: Tally) -> None:
        """Add what another run counted, which comes after this one."""
        for name, counted in vars(other).items():
            setattr(self, name, getattr(self, name) + counted)

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for a file."""
        return {name: list(n.items()) if isinstance(n, Counter) else n for name, n in vars(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Tally:
        """What `as_dict` gave, also after a way through JSON, which knows no tuples."""
        tally = cls()
        for name, kept in vars(tally).items():
            value = values[name]
            if isinstance(kept, Counter):
                value = Counter({tuple(key) if isinstance(key, list) else key: n for key, n in value})
            elif name == "broken":
                value = [(seed, found) for seed, found in value]
            setattr(tally, name, value)
        return tally

    def add(self, one: Simulation, broken: list[str]) -> None:
        sessions = [rules.docs for name, rules in one.processes.streams.all.items() if name.startswith("ses_")]
        self.sessions += len(sessions)
        self.booked += len(sessions) if one.script.booking is not None else 0
        for docs in sessions:
            if "payment" in docs:
                self.statuses[docs["payment"].body["status"]] += 1
                self.reasons[str(docs["session"].body["end_reason"])] += 1
        self.stories[one.script.story] += 1
        self.faults.update(one.faults.happened_total)
        self.faults_open.update(one.faults.happened_open)
        if broken:
            self.broken.append((one.seed, broken))

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count every arrow that is taken in the tables of sessions, payments and steps."""
        move, to, step_to, commit = core._move, payments.Payment.to, payments.Step.to, Rules.commit

        def counted_move(record: Any, trigger: Any) -> Any:
            self.session_arrows[record.status, trigger] += 1
            return move(record, trigger)

        def counted_to(payment: Any, status: Any, **changes: Any) -> Any:
            self.payment_arrows[payment.status, status] += 1
            return to(payment, status, **changes)

        def counted_step(step: Any, state: Any, **changes: Any) -> Any:
            self.step_arrows[step.state, state] += 1
            return step_to(step, state, **changes)

        def counted_commit(rules: Any, session: str, put: Any, *more: Any) -> Any:
            there = rules.docs.get("payment") if {"session", "payment"} <= set(put) else None
            versions = commit(rules, session, put, *more)
            if there is not None and put["payment"][1]["status"] == "pending":  # another card was ordered
                self.payment_arrows[there.body["status"], "pending"] += 1
            return versions

        with ExitStack() as stack:
            for thing, name, counted in (
                (Rules, "commit", counted_commit), (core, "_move", counted_move),
                (payments.Payment, "to", counted_to), (payments.Step, "to", counted_step),
            ):  # fmt: skip
                stack.enter_context(mock.patch.object(thing, name, counted))
            yield

    # --- thresholds

    def shortfalls(self) -> list[str]:
        """What this run did not cover, so that its silence proves less than it seems."""
        share = min(1.0, self.sessions / FULL)
        found = []
        for name, least, part in self.shares():
            if part < least:
                found.append(f"only {part:.1%} of sessions were {name}")
        if sum(self.faults.values()) < self.sessions:
            found.append("less than one fault a session")
        tables = (
            ("session", core.TRANSITIONS, self.session_arrows, NOT_YET_SESSION),
            ("payment", _arrows(payments.TRANSITIONS), self.payment_arrows, frozenset()),
            ("step", _arrows(payments.STEP_TRANSITIONS), self.step_arrows, frozenset()),
        )
        for name, table, taken, excused in tables:
            for arrow in table:
                if arrow not in excused and taken[arrow] < _owed(ARROW_TIMES, share):
                    found.append(f"{name} {' -> '.join(arrow)} taken {taken[arrow]} times")
        for kind in KINDS:
            if self.faults_open[kind] < _owed(FAULT_TIMES, share):
                found.append(f"{kind} injected {self.faults_open[kind]} times while a money step was open")
        return found

    def shares(self) -> list[tuple[str, float, float]]:
        """What part of the sessions was captured, booked, refunded (wholly or in part); the least, and the real one."""
        captured = sum(self.statuses[status] for status in PAID)
        refunded = self.statuses["refunded"] + self.statuses["partially_refunded"]
        counts = (("captured", 0.6, captured), ("booked", 0.1, self.booked), ("refunded", 0.05, refunded))
        return [(name, least, count / max(1, self.sessions)) for name, least, count in counts]

    def report(self) -> str:
        lines = [f"sessions {self.sessions}, faults {sum(self.faults.values())}"]
        lines.append(", ".join(f"{name} {part:.1%}" for name, _, part in self.shares()))
        for title, counts in (("payments", self.statuses), ("end reasons", self.reasons)):
            lines.append(f"{title}: " + ", ".join(f"{name} {n}" for name, n in counts.most_common()))
        lines.append("faults by kind (while a money step was open):")
        lines += [f"  {kind:28} {self.faults[kind]:8} ({self.faults_open[kind]})" for kind in KINDS]
        for title, taken in (
            ("session", self.session_arrows), ("payment", self.payment_arrows), ("step", self.step_arrows)
        ):  # fmt: skip
            arrows = ", ".join(f"{a}->{b} {n}" for (a, b), n in taken.most_common())
            lines.append(f"{title} arrows: {arrows}")
        lines.append(f"sessions with a broken law: {len(self.broken)}")
        kinds = Counter(line.split(",")[0][:60] for _, found in self.broken for line in found)
        lines += [f"  {n:6} {line}" for line, n in kinds.most_common(20)]
        lines += [f"  seed {seed}: {'; '.join(found)[:400]}" for seed, found in self.broken[:20]]
        return "\n".join(lines)


def _owed(times: int, share: float) -> int:
    """What a part of a full run owes: its proportion, less what chance may take of so few."""
    wanted = times * share
    return times if share >= 1 else max(0, int(wanted - 2 * wanted**0.5))


def _arrows(table: Any) -> list[tuple[str, str]]:
    return [(one, two) for one, targets in table.items() for two in targets]


PAID = frozenset({"captured", "refunded", "partially_refunded", "disputed"})
