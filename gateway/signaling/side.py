"""One side of a room: its page, its leg, and what it said that still waits for the other side.

Plain state; `gateway.signaling.room` decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gateway.session import Role
from gateway.sfu.port import Credentials
from gateway.signaling.leg import Leg
from gateway.signaling.messages import Description, MediaState, PeerIs, Sas


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer that waits for its answer. `renews_*`: that leg's pending credentials become current with the answer."""

    sdp: str
    remote: Credentials
    forwarded: Description
    renews_own: bool
    renews_peer: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """The last negotiation that a side began, in case its answer got lost on the way."""

    offer: str
    answer: Description


@dataclass(slots=True)
class Side:
    """One side. Everything from `described` on belongs to the present incarnation."""

    role: Role
    online: bool = False
    arrived: bool = False
    left: bool = False
    page: int = 0  # the incarnation that its page was told of last
    media: MediaState | None = None
    shown: tuple[PeerIs, MediaState | None, int] | None = None  # what it knows of the other side
    leg: Leg = field(default_factory=Leg)
    described: bool = False
    aware: bool = False  # what it sends from now on is meant for this incarnation
    present: bool = False
    was_present: bool = False
    offer: Offer | None = None
    answered: Answered | None = None
    unheard: Description | None = None  # an answer that met no socket
    agreed: str | None = None  # its last description that became part of an agreement
    setup: Literal["active", "passive"] = "active"
    fingerprint: str | None = None
    sas: dict[str, Sas] = field(default_factory=dict)

    def begin(self, incarnation: int, credentials: Credentials) -> None:
        self.leg.begin(credentials)
        self.page = incarnation if self.online else self.page
        self.described = self.aware = self.present = self.was_present = False
        self.offer = self.answered = self.unheard = self.agreed = self.fingerprint = None
        self.sas = {}

    @property
    def state(self) -> PeerIs:
        """As the other side is told it. Media without a socket goes on, so presence counts first (6-media, Secrets)."""
        if self.left:
            return "left"
        if self.present:
            return "connected"
        if self.online and not self.was_present:
            return "joined"
        return "reconnecting" if self.arrived else "absent"
