"""What a side is told of the session's records, as messages: the welcome, the payment, the end. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.session import Role, SessionRecord, other
from gateway.sessions.shown import Docs, payment_for, pricing, summary
from gateway.signaling import messages as wire
from gateway.signaling.call import Timers
from gateway.signaling.resume import Issued
from gateway.signaling.room import Joined


def welcome(
    docs: Docs,
    role: Role,
    joined: Joined,
    issued: Issued,
    timers: Timers,
    figures: Mapping[str, Any],
    servers: Sequence[wire.IceServer] = (),
) -> wire.Welcome:
    """`figures` as `Call.figures` gives them for this side."""
    record = docs.record
    peer = joined.peer.model_copy(update={"name": docs.people[other(role)]["name"]})
    return wire.Welcome(
        session=record.id, role=role, polite=joined.polite, offerer=joined.offerer, resume=issued.resume,
        nonce=issued.nonce, cap=record.cap_ms // 1000, limit=record.limit_ms // 1000,
        warnings=list(timers.warnings_s),
        timers=wire.Timers(lone=timers.lone_ms // 1000, grace=timers.grace_ms // 1000),
        pricing=wire.Pricing(**pricing(record, role)), peer=peer,
        generation=joined.generation, ice_servers=list(servers),
        status=record.status, elapsed=figures["elapsed"], billable=figures["billable"], media=record.media,
    )  # fmt: skip


def status(docs: Docs, role: Role) -> wire.Status:
    return wire.Status(status=docs.record.status, payment=payment_for(docs.payment, role))


def made_free(record: SessionRecord, role: Role) -> wire.Status:
    """The fee was waived, or the expert may not be paid any more: no price changes silently (5-money, R16)."""
    return wire.Status(status=record.status, pricing=wire.Pricing(**pricing(record, role)))


def ended(docs: Docs, role: Role, reason: str) -> wire.Ended:
    """Without a summary until the bill is final."""
    told = summary(docs, role)
    told["may_continue"] = told.pop("continue")
    final = wire.Summary(**told) if told["billable_seconds"] is not None else None
    return wire.Ended(reason=reason, summary=final)
