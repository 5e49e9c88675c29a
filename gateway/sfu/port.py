"""The relay as the rest of the gateway sees it: desired state in, reports out.

The command is declarative. Control says what a call should be (`configure`), as often as it likes; the relay
makes it so. So commands are idempotent, a restarted relay is brought up by saying everything once more, and the
same values can cross a Unix socket to a worker process unchanged.

Times are integers of milliseconds on CLOCK_BOOTTIME of the relay's host; no wall clock crosses this boundary.
Legs are numbered 0 and 1: the relay knows nothing of clients, experts, sessions or money.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Leg = Literal[0, 1]
Transport = Literal["udp", "tcp"]
Gate = Literal["shut", "handshake", "open"]
SpanEnd = Literal["silence", "deadline", "until", "unfunded", "reset", "released", "lost"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """An ICE username fragment and password (RFC 8445 section 5.3); never logged."""

    ufrag: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An address on which the relay takes checks, as it stands in an `a=candidate` line (RFC 8839 section 5.1)."""

    address: str
    port: int
    transport: Transport = "udp"
    priority: int = 2130706431
    foundation: str = "1"

    def line(self) -> str:
        """The attribute without `a=`: host candidate, component 1; TCP ones are passive (RFC 6544)."""
        kind = " tcptype passive" if self.transport == "tcp" else ""
        return (
            f"candidate:{self.foundation} 1 {self.transport} {self.priority} {self.address} {self.port} typ host{kind}"
        )


@dataclass(frozen=True, slots=True)
class LegConfig:
    """What one leg may authenticate with.

    `local`: our credentials, newest first; older ones stay listed (and so valid) while their window lasts. None at all
    change nothing within an incarnation: control has just taken the call over and has made none yet.
    `remote`: the caller's own, from its SDP; without them its addresses cannot be challenged and so not selected.
    `inherits`: those that the relay had when control took over, which it cannot list, are valid still.
    """

    local: tuple[Credentials, ...] = ()
    remote: Credentials | None = None
    inherits: bool = False


@dataclass(frozen=True, slots=True)
class CallConfig:
    """The desired state of one call.

    `incarnation` rises when either side has a new DTLS identity: the gate shuts, hold buffers empty, budgets renew.
    `limit_ms`: how long the call may last, counted by the relay from its first span's start, when `deadline` is None.
    `deadline`: absolute cut (law 4). `until`: the same, but extended by control every second while it owns the call.
    `tag`: control's own words, given back in each report: whoever finds the call later knows whose it was.
    """

    call: str
    incarnation: int
    legs: tuple[LegConfig, LegConfig]
    funded: bool
    limit_ms: int
    until: int
    deadline: int | None = None
    tag: str = ""


@dataclass(frozen=True, slots=True)
class LegReport:
    """One leg as the relay observes it. `last_check` and `last_packet` are from the selected address.

    `loss` (0 to 1), `jitter_ms` and `kbps` are of the leg's uplink, by samples of RTP headers; None until measured.
    """

    selected: bool
    present: bool
    transport: Transport | None = None
    last_check: int | None = None
    last_packet: int | None = None
    rtt_ms: float | None = None
    packets_in: int = 0
    bytes_in: int = 0
    packets_out: int = 0
    bytes_out: int = 0
    loss: float | None = None
    jitter_ms: float | None = None
    kbps: int | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """One stretch of an open gate, `[start, end)`.

    `number` rises within a call, also over restarts of the relay. While `ended_by` is None the span is running and
    `end` is the report's own instant; "lost" is one that a relay's death ended, where it was last known to run. `heard`
    holds, per leg, the last arrival that counts for presence; for a span ended by silence `end` is the shutting of the
    gate and `min(heard)` the earlier leg's last arrival (6-media, tails).
    """

    number: int
    start: int
    end: int
    heard: tuple[int, int]
    ended_by: SpanEnd | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one call since it was configured; spans not older than the last 64, oldest first."""

    call: str
    at: int
    incarnation: int
    gate: Gate
    legs: tuple[LegReport, LegReport]
    spans: tuple[Span, ...] = ()
    deadline: int | None = None
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counters of the whole relay since its start, for metrics: drops by reason, packets and bytes by direction.

    `packets_in` counts every datagram: those forwarded, `checks`, `answers` to our own checks, `drops`, and `held`
    (DTLS waiting for the other leg, now). `legs` have a selected address. `address_switches`: a leg's selected address
    changed; `address_moves`: an address went from one leg to another.
    """

    calls: int
    legs: int
    open_gates: int
    packets_in: int
    packets_out: int
    bytes_in: int
    bytes_out: int
    checks: int
    address_switches: int
    drops: Mapping[str, int]
    answers: int = 0
    address_moves: int = 0
    held: int = 0
    queue_drops: int = 0
    """Datagrams that a full receive queue cost: the kernel's count, not part of `drops`."""
    occupancy: tuple[int, ...] = ()
    """At n: receive calls that brought fewer than 2^n messages, but not fewer than half as many."""
    messages: int = 0
    """Of all receive calls together; a message is a datagram or a train of them."""
    trains_in: int = 0
    trains_out: int = 0
    one_way_calls: int = 0
    """Open gates with one leg from which neither RTP nor RTCP has come for 6 s, now."""
    silent_legs: int = 0
    """Such legs, of calls with one or two of them."""
    connections: int = 0
    """TCP connections, now; and those ended without ever an authentic check."""
    connections_refused: int = 0


class RelayPort(Protocol):
    """What signaling needs of the relays of a node."""

    def candidates(self, call: str) -> Sequence[Candidate]:
        """Where the call's two callers can reach the relay that is to have it, best first; the same until `release`.

        Raises RelayUnavailable while no relay can take another call.
        """

    async def configure(self, config: CallConfig) -> None:
        """Make the call so; also extends `until`. Raises RelayUnavailable when the relay cannot be told."""

    async def release(self, call: str) -> Report | None:
        """Forget the call; its last report, with every span ended, or None if it was not known."""

    def reports(self) -> AsyncIterator[Report]:
        """Reports of all calls: every 250 ms while a gate is open, and at once when a gate or presence changes."""

    async def statistics(self) -> Statistics: ...
