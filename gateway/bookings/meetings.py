"""A booked meeting: when it opens, until when it must begin, and what of its fee stays (R14; 5-money, Booked). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from gateway.money import BPS, round_half_up

OPENS_BEFORE_MS: Final = 10 * 60_000
BEGINS_WITHIN_MS: Final = 15 * 60_000
# Interruptions that neither caller brought about; the API ends a session with either of the last two.
OURS: Final = frozenset({"node_lost", "ended_by_api", "canceled"})

CanceledBy = Literal["client", "expert", "platform"]
Absence = Literal["no_show_client", "no_show_expert", "connection_lost", "payment_failed", "expired"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What the client gets back of a meeting's fee, in basis points, frozen when it is booked: if the client cancels
    `notice_ms` before it or earlier, if later, and if the client does not come. What the expert or we are at fault for
    is given back whole. Interrupted by us, the missing seconds are, unless `held_bps` of the meeting were held."""

    notice_ms: int = 24 * 3_600_000
    early_bps: int = 10_000
    late_bps: int = 5_000
    client_absent_bps: int = 0
    held_bps: int = 8_000


@dataclass(frozen=True, slots=True)
class Meeting:
    """Which meeting of which booking; without `starts_at` (wall ms) it may be held at any time until it expires.
    `cancel_request`: which request called it off, so that the same one, repeated, is answered the same."""

    booking: str
    number: int
    starts_at: int | None = None
    policy: Policy = field(default_factory=Policy)
    canceled_by: CanceledBy | None = None
    cancel_request: str | None = None

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Meeting:
        return cls(**{**body, "policy": Policy(**body["policy"])})

    def to_dict(self) -> dict[str, Any]:
        """Without a request that there was none of: the seals of older meetings were made without it."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        if self.cancel_request is None:
            del fields["cancel_request"]
        return fields | {"policy": {name: getattr(self.policy, name) for name in self.policy.__slots__}}

    @property
    def opens_at(self) -> int:
        return 0 if self.starts_at is None else self.starts_at - OPENS_BEFORE_MS

    @property
    def begin_by(self) -> int | None:
        return None if self.starts_at is None else self.starts_at + BEGINS_WITHIN_MS


def absence(meeting: Meeting, *, funded: bool, client: bool, expert: bool) -> Absence:
    """Why a meeting ends that did not begin in time, by who is there. Whom nobody waited for is not absent: a meeting
    that neither came to is the expert's, and one that both came to and could not hold is ours."""
    if not funded:
        return "payment_failed"
    if meeting.starts_at is None:
        return "expired"
    if not expert:
        return "no_show_expert"
    return "connection_lost" if client else "no_show_client"


def back_bps(meeting: Meeting, end_reason: str | None, ended_at: int) -> int:
    """What goes back of the fee of a meeting that never began."""
    policy = meeting.policy
    if end_reason == "no_show_client":
        return policy.client_absent_bps
    if end_reason == "canceled" and meeting.canceled_by == "client" and meeting.starts_at is not None:
        return policy.early_bps if ended_at <= meeting.starts_at - policy.notice_ms else policy.late_bps
    return BPS


def kept(
    meeting: Meeting,
    fee: int,
    *,
    end_reason: str | None,
    ended_at: int | None,
    started: bool,
    held_ms: int,
    full_ms: int,
) -> int:
    """What stays of a meeting's `fee` (minor units): all of it while it is not over."""
    if ended_at is None:
        return fee
    if not started:
        return fee - round_half_up(fee * back_bps(meeting, end_reason, ended_at), BPS)
    if end_reason in OURS and held_ms * BPS < meeting.policy.held_bps * full_ms:
        return round_half_up(fee * (held_ms // 1000), full_ms // 1000)
    return fee
