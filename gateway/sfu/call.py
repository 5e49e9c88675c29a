"""One call's gate: what may pass between its two legs, since when, until when (law 2, law 4; 6-media, Gate).

    shut ──DTLS, both legs present──► handshake ──SRTP, funded──► open ──absence, deadline, until, unfunded──► shut

The gate is evaluated late without harm: every change of state happens *at* its instant (last arrival + 7 s, deadline,
`until`, opening + 1 s), whenever `advance` is called. So a worker that was stopped, or that has no packets to look at,
reports the same spans as one that was watching.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from gateway.sfu.activity import NO_RATE, UNKNOWN, Leg, leg_report
from gateway.sfu.agent import Agent
from gateway.sfu.hold import Hold, Pool
from gateway.sfu.path import GRID_MS, Path, Table
from gateway.sfu.port import CallConfig, Gate, LegReport, Report, Span, SpanEnd, Transport
from gateway.sfu.stun import NEVER

HANDSHAKE_OCTETS: Final = 65_536
HANDSHAKE_DATAGRAMS: Final = 200
HANDSHAKE_MS: Final = 30_000
"""What passes a direction before the gate is open, from the first DTLS datagram forwarded: several handshakes with
post-quantum key shares and losses, but no free data channel (6-media)."""
OPEN_OCTETS: Final = 65_536
OPEN_OCTETS_PER_S: Final = 32_768
"""DTLS a direction while the gate is open: late repetitions, data channels with chat and keys, not files."""
MUTUAL_MS: Final = 1_000
"""A span starts when each leg's first packet was forwarded, but at most this long after the gate opened. One side's
late start is the callers' benefit; without the bound a leg could listen for free by never sending."""
UNTIL_MS: Final = 30_000
"""`until` is never further ahead, so that a worker without its control stops by itself (law 4)."""
ORPHAN_MS: Final = 900_000
"""A call that nobody extended for so long is forgotten. Until then a control that comes back finds its spans."""
REPORT_MS: Final = 250
SPAN_LIMIT: Final = 64
FAR: Final = 1 << 60
_CUTS: Final = frozenset({"deadline", "until", "unfunded", "released"})
"""After these not even what is on its way may arrive; absence is no such end, there the receiver is gone."""


def next_report(now: int) -> int:
    """When a running call is reported again: within REPORT_MS."""
    return now + REPORT_MS - now % GRID_MS


class Direction:
    """DTLS from one leg to the other: what is held back for it, and what it may still send."""

    __slots__ = ("datagrams", "hold", "level", "level_at", "octets")

    def __init__(self, pool: Pool) -> None:
        self.hold = Hold(pool)
        self.renew()

    def renew(self) -> None:
        self.datagrams, self.octets = HANDSHAKE_DATAGRAMS, HANDSHAKE_OCTETS
        self.level, self.level_at = OPEN_OCTETS, NEVER

    def spend_handshake(self, octets: int) -> bool:
        if self.datagrams < 1 or self.octets < octets:
            return False
        self.datagrams -= 1
        self.octets -= octets
        return True

    def spend_open(self, octets: int, now: int) -> bool:
        refill = (now - self.level_at) * OPEN_OCTETS_PER_S // 1000
        if refill:
            self.level, self.level_at = min(OPEN_OCTETS, self.level + refill), now
        if self.level < octets:
            return False
        self.level -= octets
        return True


class Call:
    """A configured call: two legs, the gate between them, and the spans in which it was open."""

    __slots__ = (
        "changed", "config", "deadline", "directions", "first", "gate", "handshake_at", "id", "legs", "mark", "number",
        "opened_at", "present", "report_at", "running", "safe_until", "seen", "serial", "span_at", "spans",
        "started_at", "table", "ufrags", "until", "wake",
    )  # fmt: skip

    def __init__(
        self, config: CallConfig, table: Table, random_bytes: Callable[[int], bytes], now: int, number: int = 0
    ) -> None:
        self.id = config.call
        self.table = table
        self.config = config
        self.legs = (Agent(self, 0, table, random_bytes), Agent(self, 1, table, random_bytes))
        self.ufrags: tuple[str, ...] = ()
        self.directions = (Direction(table.pool), Direction(table.pool))
        self.gate: Gate = "shut"
        self.deadline: int | None = None
        self.until = now
        self.handshake_at: int | None = None
        self.opened_at = 0
        self.first = [False, False]
        self.span_at: int | None = None
        self.started_at: int | None = None
        self.number = number
        self.spans: deque[Span] = deque(maxlen=SPAN_LIMIT)
        self.present = (False, False)
        self.seen: tuple[object, ...] = (False, False, None, None)
        self.changed = False
        self.safe_until = NEVER
        """Before this instant nothing happens to an open gate by itself."""
        # Reports: the call's name in short ones, whether it is among the running ones, when its turn is, and `stirred`
        # at the last.
        self.serial = 0
        self.running = False
        self.report_at = now
        self.mark = -1
        self.wake = FAR

    # --- desired state

    def configure(self, config: CallConfig, now: int) -> None:
        """Make the call so. The past up to `now` is settled by the old config."""
        self.advance(now)
        if config.incarnation != self.config.incarnation:
            self._shut(now, "reset")
            self.handshake_at = None
            for direction in self.directions:
                direction.renew()
        elif self.gate == "open" and not config.funded:
            self._shut(now, "unfunded")
        before = self.config.incarnation, self.config.tag, self.deadline
        self.config = config
        self.until = min(config.until, now + UNTIL_MS)
        self.deadline = config.deadline
        if self.deadline is None and self.started_at is not None:
            self.deadline = self.started_at + config.limit_ms
        if self.gate != "shut" and (config.incarnation, config.tag, self.deadline) != before:
            self.changed = True

    def extend(self, config: CallConfig, now: int) -> bool:
        """`configure`, if nothing but time is different: the usual case by far. False if more is."""
        old = self.config
        if (config.legs, config.funded, config.incarnation) != (old.legs, old.funded, old.incarnation):
            return False
        self.configure(config, now)
        return True

    def prolong(self, until: int, now: int) -> None:
        """Only `until` is new."""
        if now >= self.safe_until:
            self.advance(now)
        self.until = min(until, now + UNTIL_MS)

    def release(self, now: int) -> None:
        self.advance(now)
        self._shut(now, "released")

    # --- the gate

    def cut(self) -> tuple[int, SpanEnd]:
        """The instant at which an open gate shuts as things are, and why; law 4's instants before silence."""
        at, why = self.until, "until"
        if self.deadline is not None and self.deadline <= at:
            at, why = self.deadline, "deadline"
        one, two = self.legs[0].present_until, self.legs[1].present_until
        silence = one if one < two else two
        return (silence, "silence") if silence < at else (at, why)  # type: ignore[return-value]

    def advance(self, now: int) -> None:
        """Let everything happen that is due by `now`, each at its own instant."""
        if self.gate == "open":
            if (
                self.span_at is None
                and self.opened_at + MUTUAL_MS <= now
                and self.opened_at + MUTUAL_MS < self.cut()[0]
            ):
                self._start_span(self.opened_at + MUTUAL_MS)
            at, why = self.cut()
            if at <= now:
                self._shut(at, why)
        elif self.gate == "handshake" and self._handshake_end() <= now:
            self._shut(now, "silence")
        self.look(now)
        if self.table.pool.datagrams:
            self._expire_holds(now)

    def media(self, leg: int, now: int, *, heard: bool = True) -> str | None:
        """A packet of 128-191 came from a valid address of `leg`: the reason if it must not pass; may open the gate.

        `heard`: it is RTP. RTCP opens the gate too, but reports may precede the first sound by a second.
        """
        if self.gate != "open":
            refused = self.closed(now)
            if refused is not None:
                return refused
            if not self.config.funded:
                return "unfunded"
            self._open(now)
        if self.span_at is None:
            self.first[leg] = self.first[leg] or heard
            if self.first[0] and self.first[1]:
                self._start_span(now)
        return None

    def handshake(self, leg: int, octets: int, now: int) -> str | None:
        """DTLS of `octets` wants to pass from `leg`: the reason if it must not; may begin the handshake.

        "hold" means that the other leg cannot take it yet.
        """
        direction = self.directions[leg]
        if self.gate == "open":
            return None if direction.spend_open(octets, now) else "budget"
        if now >= self.until or (self.deadline is not None and now >= self.deadline):
            return "over_deadline"
        if self.handshake_at is not None and now >= self.handshake_at + HANDSHAKE_MS:
            return "budget"
        if self.closed(now) is not None:
            return "hold" if self.legs[leg].present_until > now else "absent"
        if not direction.spend_handshake(octets):
            return "budget"
        if self.handshake_at is None:
            self.handshake_at = now
        if self.gate == "shut":
            self.gate, self.changed = "handshake", True
        return None

    def closed(self, now: int) -> str | None:
        """Why nothing at all may pass between the legs now, or None."""
        if now >= self.until or (self.deadline is not None and now >= self.deadline):
            return "over_deadline"
        if self.legs[0].present_until <= now or self.legs[1].present_until <= now:
            return "gate_shut"
        return None

    def _open(self, now: int) -> None:
        self.gate, self.changed = "open", True
        self.opened_at = now
        self.first = [False, False]
        self.span_at = None

    def _start_span(self, at: int) -> None:
        self.number += 1
        self.span_at = at
        self.changed = True
        if self.started_at is None:
            self.started_at = at
        if self.deadline is None:
            self.deadline = self.started_at + self.config.limit_ms

    def _shut(self, at: int, why: SpanEnd) -> None:
        if self.span_at is not None:
            self.spans.append(self._span(at, why))
        if self.gate != "shut":
            self.changed = True
        if self.gate == "open" and why in _CUTS:
            for leg in self.legs:
                if leg.selected is not None:
                    self.table.index.cut(leg.selected)
        self.gate, self.span_at = "shut", None
        for direction in self.directions:
            self.table.drop("held_freed", len(direction.hold.take()))

    def _span(self, end: int, why: SpanEnd | None) -> Span:
        assert self.span_at is not None
        heard = (self.legs[0].arrived, self.legs[1].arrived)
        return Span(self.number, self.span_at, end, heard, why)

    def _handshake_end(self) -> int:
        return min(self.cut()[0], (self.handshake_at or 0) + HANDSHAKE_MS)

    def look(self, now: int) -> None:
        """Notice what changed in presence and selection, so that it is reported."""
        one, two = self.legs
        self.present = (one.present_until > now, two.present_until > now)
        seen = (*self.present, one.selected, two.selected)
        if seen != self.seen:
            self.seen, self.changed = seen, True

    def _expire_holds(self, now: int) -> None:
        for direction in self.directions:
            expires_at = direction.hold.expires_at()
            if expires_at is not None and expires_at <= now:
                self.table.drop("held_freed", len(direction.hold.take()))

    # --- rows, timer, report

    def arm(self) -> None:
        """Write both legs' rows: towards each other while the gate is open and a span runs, else nowhere."""
        one, two = self.legs[0].selected, self.legs[1].selected
        armed = self.gate == "open" and self.span_at is not None
        cut = self.cut()[0] if armed else 0
        self.safe_until = cut if armed else NEVER
        for path, other in ((one, two), (two, one)):
            if path is not None:
                path.to = other if armed else None
                path.cut = cut

    def get_timer(self) -> int:
        """The next instant at which something happens without a datagram."""
        at, held = self.until + ORPHAN_MS, self.table.pool.datagrams
        for leg in self.legs:
            timer = leg.get_timer()
            if timer is not None and timer < at:
                at = timer
            if self.present[leg.number] and leg.present_until < at:
                at = leg.present_until
            expires_at = self.directions[leg.number].hold.expires_at() if held else None
            if expires_at is not None and expires_at < at:
                at = expires_at
        if self.gate == "open":
            at = min(at, self.cut()[0])
            if self.span_at is None:
                at = min(at, self.opened_at + MUTUAL_MS)
        elif self.gate == "handshake":
            at = min(at, self._handshake_end())
        return at

    def silent_legs(self, now: int) -> int:
        """How many legs of an open gate nothing is heard of; one of two is a one-way call."""
        return sum(leg.silent(self.opened_at, now) for leg in self.legs) if self.gate == "open" else 0

    def stirred(self) -> int:
        """Rises with everything that arrives from the selected addresses."""
        one, two = self.legs[0].selected, self.legs[1].selected
        return (one.packets + one.checked if one else 0) + (two.packets + two.checked if two else 0)

    def activity(self) -> tuple[Leg, Leg]:
        """What goes on in both legs; see the module of that name."""
        one, two = self.legs
        of_one, of_two = one.received(), two.received()
        return self._activity(one, two, of_one, of_two), self._activity(two, one, of_two, of_one)

    def _activity(self, leg: Agent, other: Agent, own: tuple[int, int], others: tuple[int, int]) -> Leg:
        selected, uplink = leg.selected, leg.ear.uplink
        checked, heard, rtt = (selected.checked, selected.heard, selected.rtt_ms) if selected else (NEVER, NEVER, None)
        return (
            checked, heard, leg.arrived, *own, others[0] - other.refused_packets, others[1] - other.refused_octets,
            UNKNOWN if rtt is None else rtt, UNKNOWN if uplink.loss is None else uplink.loss,
            UNKNOWN if uplink.jitter_ms is None else uplink.jitter_ms, NO_RATE if uplink.kbps is None else uplink.kbps,
        )  # fmt: skip

    def report(self, now: int) -> Report:
        """What became of the call up to `now`; counts as told."""
        self.changed = False
        spans = tuple(self.spans)
        if self.span_at is not None:
            spans = (*spans, self._span(now, None))[-SPAN_LIMIT:]
        one, two = self.activity()
        legs = (self._leg_report(0, one), self._leg_report(1, two))
        return Report(self.id, now, self.config.incarnation, self.gate, legs, spans, self.deadline, self.config.tag)

    def _leg_report(self, number: int, activity: Leg) -> LegReport:
        selected = self.legs[number].selected
        return leg_report(selected is not None, self.present[number], _transport(selected), activity)


def _transport(path: Path | None) -> Transport | None:
    if path is None:
        return None
    return "tcp" if path.stream else "udp"
