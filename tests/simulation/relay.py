"""The gate of one call on one relay: open while both legs are heard, the call is funded and no deadline is past.

A coarse double of `gateway.sfu.call`: packets are not simulated, only from when to when a leg is heard. What passed is
written down apart from what is reported: that is the truth the meter is held against (laws 2, 3, 4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.sfu.port import CallConfig, LegReport, Report, Span, SpanEnd
from tests.simulation.world import START, World

PRESENCE_MS = 7_000
UNTIL_MS = 30_000
FAR = 1 << 60


class Truth:
    """What was really forwarded, over all relays: stretches of open gate in true time, and why each ended."""

    def __init__(self) -> None:
        self.stretches: list[tuple[int, int, int]] = []  # from, to, and until when both legs were heard
        self.opened: Callable[[], None] = lambda: None


class Gate:
    """Boot time is true time less `START`."""

    def __init__(self, world: World, truth: Truth, call: str) -> None:
        self._world, self._truth, self.call = world, truth, call
        self.config: CallConfig | None = None
        self.deadline: int | None = None
        self.until = 0
        self.alive = [False, False]
        self.heard = [-FAR, -FAR]
        self.selected = [False, False]
        self.spans: list[Span] = []
        self.span_at: int | None = None
        self.started_at: int | None = None
        self.number = 0
        self.changed: Callable[[], None] = lambda: None

    def now(self) -> int:
        return self._world.now - START

    def configure(self, config: CallConfig) -> None:
        now = self.now()
        self.advance(now)
        if self.span_at is not None and not config.funded:
            self._shut(now, "unfunded")
        self.config, self.until = config, min(config.until, now + UNTIL_MS)
        self.deadline = config.deadline
        if self.deadline is None and self.started_at is not None:
            self.deadline = self.started_at + config.limit_ms
        self._maybe_open(now)

    def leg(self, number: int, alive: bool) -> None:
        """A leg's packets begin to arrive, or stop."""
        now = self.now()
        self.advance(now)
        if alive == self.alive[number]:
            return
        self.alive[number] = alive
        self.heard[number] = now
        if alive:
            self.selected[number] = True
        self._maybe_open(now)
        if not alive:
            self._world.at(self._world.now + PRESENCE_MS + 1, self._silence)

    def _silence(self) -> None:
        self.advance(self.now())

    def present_until(self, number: int) -> int:
        return FAR if self.alive[number] else self.heard[number] + PRESENCE_MS

    def advance(self, now: int) -> None:
        if self.span_at is None:
            return
        at, why = self.until, "until"
        if self.deadline is not None and self.deadline <= at:
            at, why = self.deadline, "deadline"
        silence = min(self.present_until(0), self.present_until(1))
        if silence < at:
            at, why = silence, "silence"
        if at <= now:
            self._shut(at, why)  # type: ignore[arg-type]

    def _maybe_open(self, now: int) -> None:
        config = self.config
        if config is None or self.span_at is not None or not config.funded or not (self.alive[0] and self.alive[1]):
            return
        if now >= self.until or (self.deadline is not None and now >= self.deadline):
            return
        self.number += 1
        self.span_at = now
        if self.started_at is None:
            self.started_at = now
        if self.deadline is None:
            self.deadline = now + config.limit_ms
        self._world.say("gate opens")
        self._truth.opened()
        self._world.at(self._world.now + min(self.deadline, self.until) - now, self._silence)
        self.changed()

    def _shut(self, at: int, why: SpanEnd) -> None:
        assert self.span_at is not None
        self.spans.append(self._span(at, why))
        self.note(at)
        self.span_at = None
        self._world.say(f"gate shuts: {why}")
        self.changed()

    def note(self, at: int) -> None:
        """Into the truth, up to `at`."""
        assert self.span_at is not None
        heard = max(self.span_at, min(at, *(at if self.alive[n] else self.heard[n] for n in (0, 1))))
        self._truth.stretches.append((self.span_at, at, heard))

    def _span(self, end: int, why: SpanEnd | None) -> Span:
        heard = tuple(end if self.alive[n] else min(end, self.heard[n]) for n in (0, 1))
        return Span(self.number, self.span_at or 0, end, heard, why)  # type: ignore[arg-type]

    def report(self) -> Report:
        now = self.now()
        self.advance(now)
        spans = self.spans[-64:]
        if self.span_at is not None:
            spans = [*spans, self._span(now, None)]
        legs = tuple(LegReport(self.selected[n], self.present_until(n) > now) for n in (0, 1))
        gate: Any = "shut" if self.span_at is None else "open"
        return Report(self.call, now, 1, gate, legs, tuple(spans), self.deadline)  # type: ignore[arg-type]

    def die(self) -> None:
        """The relay's process is gone, and with it the forwarding."""
        now = self.now()
        self.advance(now)
        if self.span_at is not None:
            self.note(now)
            self.span_at = None


class RelayModel:
    """`gateway.sfu.port.RelayPort` for the one call of a world."""

    candidates = ()

    def __init__(self, world: World, truth: Truth) -> None:
        self._world, self._truth = world, truth
        self.gates: dict[str, Gate] = {}

    def gate(self, call: str) -> Gate:
        if call not in self.gates:
            self.gates[call] = Gate(self._world, self._truth, call)
        return self.gates[call]

    async def configure(self, config: CallConfig) -> None:
        self.gate(config.call).configure(config)

    async def release(self, call: str) -> Report | None:
        gate = self.gates.pop(call, None)
        if gate is None:
            return None
        now = gate.now()
        gate.advance(now)
        if gate.span_at is not None:
            gate._shut(now, "released")
        gate.config = None
        return gate.report()

    def die(self) -> None:
        for gate in self.gates.values():
            gate.die()
        self.gates.clear()
