"""Measures each leg's uplink from RTP headers, which SRTP leaves readable: loss, jitter and rate (RFC 3550 A.3, A.8).

It listens in turns: for a while to some legs, then to the next ones, so that what it costs does not grow with the
traffic. A leg that is not listened to costs nothing. Loss is counted inside one turn only, from the first sequence
number heard to the highest, so that the silence between turns is no loss. Times are milliseconds; what they are too
coarse for (jitter below a millisecond) nobody hears.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final, Protocol

from gateway.sfu.stun import NEVER, Address, Buffer

PERIOD_MS: Final = 2_000
LISTEN_MS: Final = 250
"""Of each PERIOD_MS the legs of a turn are listened to so long; all the time while there are no others."""
BUDGET: Final = 128
"""Headers read a turn, about: 4 legs with video, or 10 with voice. Reading one costs about as much as forwarding a
packet: at 20,000 packets a second, all of them together about a hundredth of a microsecond a packet."""
ENOUGH: Final = 32
"""Headers of one leg that are worth reading in a turn, while others wait."""
SOURCE_LIMIT: Final = 12
"""Streams of one leg that are told apart: voice, a camera in three sizes, and their repetitions are eight."""
MAX_DROPOUT: Final = 3_000
MAX_MISORDER: Final = 100
"""Beyond these a sequence number is a new beginning (RFC 3550 A.1)."""
FADE: Final = 0.75
"""What a turn's counts weigh one turn later: a bad second is forgotten after some ten turns."""
CLOCKS: Final = (48_000, 90_000, 8_000, 16_000)
"""Of timestamps: Opus, video, G.711 and G.722, wideband. The relay knows no payload types, so it tells them by pace."""
CLOCK_MS: Final = 400
VIDEO_CLOCK: Final = 90_000
UNHEARD_MS: Final = 6_000
"""A muted leg still sends RTCP at least every 4.5 s (6-media, tried); one that sends nothing for longer is silent."""

ALL: Final = 1 << 30

_HEADER: Final = Struct("!BBHII")
HEADER_OCTETS: Final = 12
_WINDOW: Final = 1 << 16
_TIME: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class Uplink:
    """What came from a leg, by its own numbering: `loss` 0 to 1 of the packets sent, `kbps` thousands of bits."""

    loss: float | None = None
    jitter_ms: float | None = None
    kbps: int | None = None


def rtp(data: Buffer, at: int, size: int) -> tuple[int, int, int] | None:
    """Sequence number, timestamp and SSRC of an RTP packet of `size` at this offset; None for all else.

    RTCP on the same port is told by its packet types, 192 to 223, which RTP with rtcp-mux avoids (RFC 5761 section 4).
    """
    if size < HEADER_OCTETS:
        return None
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data, at)
    if first >> 6 != 2 or 192 <= second <= 223:
        return None
    return sequence, timestamp, ssrc


class Source:
    """One SSRC, as far as it was listened to."""

    __slots__ = (
        "_anchor", "_anchor_at", "_base", "_expected", "_highest", "_received", "_timed_at", "_timestamp", "clock",
        "heard_at", "jitter_ms",
    )  # fmt: skip

    def __init__(self, timestamp: int, now: int) -> None:
        self._anchor, self._anchor_at = timestamp, now
        self._timestamp = self._timed_at = NEVER
        self._base = self._highest = NEVER
        self._expected = self._received = 0
        self.clock: int | None = None
        self.jitter_ms: float | None = None
        self.heard_at = now

    def hear(self, sequence: int, timestamp: int, now: int) -> None:
        """A packet came. One that comes twice in a row counts once; A.3 counts both, which hides losses."""
        self.heard_at = now
        ahead = (sequence - self._highest) % _WINDOW
        if self._highest == NEVER or MAX_DROPOUT <= ahead < _WINDOW - MAX_MISORDER:
            self._begin(sequence, timestamp, now)
        elif ahead >= _WINDOW - MAX_MISORDER:
            self._received += self._highest + ahead - _WINDOW > self._base
        elif ahead:
            self._highest += ahead
            self._received += 1
            if timestamp != self._timestamp:
                self._time(timestamp, now)

    def _begin(self, sequence: int, timestamp: int, now: int) -> None:
        if self._highest != NEVER:
            self._expected += self._highest - self._base
        self._base = self._highest = sequence
        self._timestamp, self._timed_at = timestamp, now

    def take(self) -> tuple[int, int]:
        """Packets expected and received in the turn that ends now (A.3)."""
        expected = self._expected + (self._highest - self._base)
        received, self._expected, self._received = self._received, 0, 0
        self._base = self._highest = NEVER
        return expected, received

    def _time(self, timestamp: int, now: int) -> None:
        """A.8, per frame: packets of one picture have one timestamp, but leave one after the other."""
        if self.clock is None:
            self._tell_clock(timestamp, now)
        else:
            passed = (timestamp - self._timestamp) % _TIME * 1000 / self.clock
            deviation = min(abs(now - self._timed_at - passed), 1000.0)
            jitter = self.jitter_ms or 0.0
            self.jitter_ms = jitter + (deviation - jitter) / 16
        self._timestamp, self._timed_at = timestamp, now

    def _tell_clock(self, timestamp: int, now: int) -> None:
        elapsed = now - self._anchor_at
        if elapsed < CLOCK_MS:
            return
        pace = (timestamp - self._anchor) % _TIME * 1000 / elapsed
        self.clock = next((clock for clock in CLOCKS if abs(pace - clock) <= clock / 8), None)
        self._anchor, self._anchor_at = timestamp, now


class Ear:
    """What was heard of one leg."""

    __slots__ = ("_at", "_counted", "_expected", "_lost", "_sources", "kbps", "left", "packets_per_s")

    def __init__(self) -> None:
        self._sources: dict[int, Source] = {}
        self._expected = self._lost = 0.0
        self._counted, self._at = (0, 0), NEVER
        self.packets_per_s = 50
        self.kbps: int | None = None
        self.left = ALL
        """Headers that are still worth reading in this turn."""

    def begin(self, received: tuple[int, int], now: int) -> None:
        """A turn begins; `received`: packets and octets of the leg so far."""
        elapsed = now - self._at
        if self._at != NEVER and elapsed > 0:
            packets, octets = received[0] - self._counted[0], received[1] - self._counted[1]
            self.packets_per_s = packets * 1000 // elapsed
            self.kbps = octets * 8 // elapsed
        self._counted, self._at = received, now

    def hear(self, data: Buffer, at: int, size: int, now: int) -> None:
        """A datagram of `size` octets of this leg lies at this offset; anything but RTP is passed over."""
        header = rtp(data, at, size) if self.left > 0 else None
        if header is not None:
            self.left -= 1
            sequence, timestamp, ssrc = header
            (self._sources.get(ssrc) or self._admit(ssrc, timestamp, now)).hear(sequence, timestamp, now)

    def _admit(self, ssrc: int, timestamp: int, now: int) -> Source:
        if len(self._sources) >= SOURCE_LIMIT:
            del self._sources[min(self._sources, key=lambda one: self._sources[one].heard_at)]
        source = self._sources[ssrc] = Source(timestamp, now)
        return source

    def end(self) -> None:
        """The turn ends."""
        self._expected *= FADE
        self._lost *= FADE
        for source in self._sources.values():
            expected, received = source.take()
            self._expected += expected
            self._lost += max(0, expected - received)

    @property
    def uplink(self) -> Uplink:
        loss = self._lost / self._expected if self._expected >= 1 else None
        return Uplink(loss, self._jitter_ms(), self.kbps)

    def _jitter_ms(self) -> float | None:
        """Of the voice, if there is one: pictures are paced out by their sender, which is no jitter of the network."""
        timed = [source for source in self._sources.values() if source.jitter_ms is not None]
        voices = [source for source in timed if source.clock != VIDEO_CLOCK]
        return max(voices or timed, key=lambda source: source.heard_at).jitter_ms if timed else None


class Speaker(Protocol):
    """A leg, as far as it is listened to."""

    ear: Ear

    def received(self) -> tuple[int, int]:
        """Packets and octets so far."""

    def sources(self) -> Sequence[Address]:
        """Where it may speak from."""


class Listener:
    """Whose turn it is. `talking` tells the legs through which media passes, `aim` is told the addresses to listen to.

    A shell calls `turn` once `due_at` has come, when it has datagrams at hand anyway: silence needs no turns.
    """

    def __init__(self, talking: Callable[[], Sequence[Speaker]], aim: Callable[[Mapping[Address, Ear]], None]) -> None:
        self._talking, self._aim = talking, aim
        self._waiting: list[Speaker] = []
        self._ears: list[Ear] = []
        self._next_at = NEVER
        self.due_at = NEVER

    def turn(self, now: int) -> None:
        """End the turn that has lasted long enough, begin the next one if it is time."""
        for ear in self._ears:
            ear.end()
        self._ears = []
        if now >= self._next_at:
            self._begin(now)
        else:
            self.due_at = self._next_at
            self._aim({})

    def _begin(self, now: int) -> None:
        agents, alone = self._choose(now)
        self._ears = [agent.ear for agent in agents]
        for ear in self._ears:
            ear.left = ALL if alone else ENOUGH
        self._aim({address: agent.ear for agent in agents for address in agent.sources()})
        self._next_at = now + (PERIOD_MS if agents else LISTEN_MS)
        self.due_at = self._next_at if alone else now + LISTEN_MS

    def _choose(self, now: int) -> tuple[list[Speaker], bool]:
        """The legs of this turn, and whether there are no others."""
        self._waiting = self._waiting or list(self._talking())
        everyone, room = len(self._waiting), BUDGET
        chosen: list[Speaker] = []
        while self._waiting and (room > 0 or not chosen):
            agent = self._waiting.pop()
            agent.ear.begin(agent.received(), now)
            room -= min(agent.ear.packets_per_s * LISTEN_MS // 1000, ENOUGH) + 1
            chosen.append(agent)
        return chosen, len(chosen) == everyone and room >= BUDGET * 3 // 4
