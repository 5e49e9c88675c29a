"""A session: its record, and the one table of states and transitions. Everything that changes a status is here.

    created ─► ringing ─► ready ─► live ⇄ interrupted ─► ended ─► finalized
       └────────────────────┘        (any state but the last two) ─► ended

Pure: functions take a record and `now` (wall ms) and give a `Step`: the new record and the events that tell of it.
Why a session ended is `end_reason` alone (5-money, Order of things).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, cast

from gateway.bookings.meetings import CanceledBy, Meeting, absence
from gateway.errors import Conflict
from gateway.money import hold_amount
from gateway.payees.routes import MAIN

Role = Literal["client", "expert"]
Kind = Literal["metered", "booked", "pro_bono", "free"]
Media = Literal["voice", "video"]
HoldWhen = Literal["now", "join"]
IfNotEligible = Literal["refuse", "free"]
Status = Literal["created", "ringing", "ready", "live", "interrupted", "ended", "finalized"]
Trigger = Literal["ring", "accept", "fund", "together", "apart", "end", "finalize"]
EndReason = Literal[
    "client_left", "expert_left", "ended_by_api", "limit_reached", "cap_reached", "funds_reached",
    "lone_party_timeout", "connection_lost", "declined", "missed", "canceled", "expired", "no_show_client",
    "no_show_expert", "payment_failed", "node_lost",
]  # fmt: skip

ROLES: Final[tuple[Role, Role]] = ("client", "expert")
CAP_MINUTES: Final = 90  # R6
FREE_LIMIT_MINUTES: Final = 15  # R15, R16: a session nobody pays for
GO_ON_MS: Final = 300_000  # R6: from the five-minute warning on, both may order the session after this one

TRANSITIONS: Final[Mapping[tuple[Status, Trigger], Status]] = {
    ("created", "ring"): "ringing",
    ("created", "fund"): "ready",
    ("ringing", "accept"): "ready",
    ("ready", "together"): "live",
    ("live", "apart"): "interrupted",
    ("interrupted", "together"): "live",
    ("created", "end"): "ended",
    ("ringing", "end"): "ended",
    ("ready", "end"): "ended",
    ("live", "end"): "ended",
    ("interrupted", "end"): "ended",
    ("ended", "finalize"): "finalized",
}

OPEN: Final[frozenset[Status]] = frozenset({"created", "ringing", "ready", "live", "interrupted"})


@dataclass(frozen=True, slots=True)
class Party:
    """A side of a session as the marketplace names it; name, e-mail and locale go to the record of people (R22)."""

    id: str
    name: str = ""
    email: str | None = None
    locale: str = "en"
    timezone: str | None = None


@dataclass(frozen=True, slots=True)
class NewClient(Party):
    stripe_customer: str | None = None
    payment_method: str | None = None


@dataclass(frozen=True, slots=True)
class NewExpert(Party):
    stripe_account: str | None = None
    country: str | None = None
    rating_milli: int | None = None


@dataclass(frozen=True, slots=True)
class Ambassador:
    """Who referred the expert, and their part of the platform's commission in basis points (R19)."""

    stripe_account: str
    share_bps: int


@dataclass(frozen=True, slots=True)
class NewSession:
    """What the marketplace orders, already checked by the edge: amounts in minor units, rate per minute."""

    client: NewClient
    expert: NewExpert
    unit_amount: int
    currency: str
    reference: str | None = None
    kind: Kind = "metered"
    media: Media = "video"
    ring: bool = False
    hold: HoldWhen = "now"
    ambassador: Ambassador | None = None
    free_minutes: int = 0
    max_minutes: int = 30
    commission_bps: int = 1000
    expires_in_ms: int | None = None
    continues: str | None = None
    meeting: Meeting | None = None
    platform: str = MAIN
    if_not_eligible: IfNotEligible = "refuse"


@dataclass(frozen=True, slots=True)
class Funding:
    """The order to hold money: which card, how much, and the how-manieth card it is. With `recharge` it is charged at
    once, for a bill that is due. `request` is the one that named the card: repeated, it names no other."""

    attempt: int
    payment_method: str | None
    amount: int
    requested_at: int
    recharge: bool = False
    request: str | None = None


@dataclass(frozen=True, slots=True)
class Consent:
    """What the client agreed to before joining: the text's version, its language, the most it can cost."""

    at: int
    text_version: str
    locale: str
    amount_max: int


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """The record of a session, as it is kept. Times are wall ms, durations ms, amounts minor units; `platform` is the
    platform account at Stripe by which it is paid.

    Ids only: names and addresses of people are in the record beside it.
    """

    id: str
    account: str
    livemode: bool
    created: int
    expires_at: int
    kind: Kind
    media: Media
    ring: bool
    hold: HoldWhen
    client: dict[str, Any]
    expert: dict[str, Any]
    ambassador: dict[str, Any] | None
    unit_amount: int
    currency: str
    commission_bps: int
    free_ms: int
    limit_ms: int
    cap_ms: int
    amount_max: int
    funding: Funding | None
    reference: str | None = None
    status: Status = "created"
    end_reason: EndReason | None = None
    end_note: str | None = None
    funded: bool = False
    waived: bool = False
    started_at: int | None = None
    ended_at: int | None = None
    joined: dict[str, int | None] = field(default_factory=lambda: {"client": None, "expert": None})
    consent: Consent | None = None
    ratings: dict[str, Any] = field(default_factory=dict)
    continues: str | None = None
    continued_by: str | None = None
    bill: dict[str, Any] | None = None
    chain: dict[str, Any] | None = None
    meeting: Meeting | None = None
    platform: str = MAIN
    free_offer_ms: int = 0
    waived_after: int | None = None
    if_not_eligible: IfNotEligible = "refuse"
    # What former owners reported when it was over: on nobody's display by then, so not billed (law 9). From, to.
    unseen: tuple[tuple[int, int], ...] = ()
    schema: int = 1

    def to_dict(self) -> dict[str, Any]:
        """The document. It shares its mappings with the record, which nobody changes."""
        body = _fields(self)
        for name in ("funding", "consent"):
            if body[name] is not None:
                body[name] = _fields(body[name])
        if self.meeting is not None:
            body["meeting"] = self.meeting.to_dict()
        return body

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> SessionRecord:
        given = {**body}
        if (funding := given.get("funding")) is not None:
            given["funding"] = Funding(**funding)
        if (consent := given.get("consent")) is not None:
            given["consent"] = Consent(**consent)
        if (meeting := given.get("meeting")) is not None:
            given["meeting"] = Meeting.from_dict(meeting)
        given["unseen"] = tuple((start, end) for start, end in given.get("unseen", ()))
        return cls(**given)

    @property
    def open(self) -> bool:
        return self.status in OPEN

    @property
    def let_off(self) -> bool:
        """Whether the fee was waived, before the bill was frozen or after."""
        return self.waived or self.waived_after is not None

    @property
    def priced(self) -> bool:
        """Whether anything may be charged at all."""
        return self.kind in ("metered", "booked") and self.unit_amount > 0 and not self.waived

    @property
    def deadline(self) -> int | None:
        """When the limit is reached, once the session has started; interruptions do not move it (5-money)."""
        return None if self.started_at is None else self.started_at + self.limit_ms

    @property
    def begin_by(self) -> int:
        """Until when it must have begun; then it ends."""
        appointed = self.meeting.begin_by if self.meeting else None
        return self.expires_at if appointed is None else appointed

    @property
    def limit_reason(self) -> EndReason:
        return "cap_reached" if self.limit_ms >= self.cap_ms else "limit_reached"


def _fields(record: SessionRecord | Funding | Consent) -> dict[str, Any]:
    """Flat, unlike `dataclasses.asdict`, which copies whatever is in it."""
    return {name: getattr(record, name) for name in record.__slots__}


Told = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Step:
    """A change of a session: its new record and the events to tell, type and data. Unchanged: `changed` is False."""

    record: SessionRecord
    events: tuple[Told, ...] = ()
    changed: bool = True


def unchanged(record: SessionRecord) -> Step:
    return Step(record, changed=False)


def paid(new: NewSession) -> bool:
    """Whether it costs anything."""
    return new.kind in ("metered", "booked") and new.unit_amount > 0


def opened(
    new: NewSession, *, id: str, account: str, livemode: bool, now: int, cap_ms: int, expires_ms: int,
    granted_ms: int | None = None, minimum: int = 0,
) -> Step:  # fmt: skip
    """A new session from an order. The limit is min(cap, what was chosen); unpaid kinds have R15's limit. Of the free
    part that the order offers it has `granted_ms`, or all of it if that is None. What could at most cost less than
    `minimum`, the smallest charge, will never be charged: nothing is held for it."""
    limit_ms = min(new.max_minutes * 60_000, cap_ms)
    if new.kind in ("free", "pro_bono"):
        limit_ms = min(limit_ms, FREE_LIMIT_MINUTES * 60_000)
    free_ms = min(new.free_minutes * 60_000 if granted_ms is None else granted_ms, limit_ms)
    amount = hold_amount(new.unit_amount, limit_ms, free_ms) if new.kind in ("metered", "booked") else 0
    if new.meeting is None and amount < minimum:
        amount = 0
    # A meeting's fee is a part of its booking's charge.
    funding = Funding(1, new.client.payment_method, amount, now) if amount and new.meeting is None else None
    record = SessionRecord(
        id=id, account=account, livemode=livemode, created=now, expires_at=now + (new.expires_in_ms or expires_ms),
        kind=new.kind, media=new.media, ring=new.ring, hold=new.hold,
        client={"id": new.client.id, "stripe_customer": new.client.stripe_customer},
        expert={
            "id": new.expert.id, "stripe_account": new.expert.stripe_account, "country": new.expert.country,
            "rating_milli": new.expert.rating_milli,
        },
        ambassador=None if new.ambassador is None else asdict(new.ambassador),
        unit_amount=new.unit_amount, currency=new.currency, commission_bps=new.commission_bps, free_ms=free_ms,
        limit_ms=limit_ms, cap_ms=cap_ms, amount_max=amount, funding=funding, reference=new.reference,
        continues=new.continues, meeting=new.meeting, platform=new.platform,
        free_offer_ms=new.free_minutes * 60_000, if_not_eligible=new.if_not_eligible,
    )  # fmt: skip
    told: list[Told] = [("session.created", summary(record))]
    if funding is None and new.meeting is None:
        record = replace(record, funded=True)
        if not record.ring:
            record, more = _move(record, "fund")
            told += more
    return Step(record, tuple(told))


def summary(record: SessionRecord) -> dict[str, Any]:
    """What every event about a session says of it."""
    return {
        "reference": record.reference,
        "kind": record.kind,
        "status": record.status,
        "client": record.client["id"],
        "expert": record.expert["id"],
        "end_reason": record.end_reason,
        "end_note": record.end_note,
    }


def _move(record: SessionRecord, trigger: Trigger) -> tuple[SessionRecord, list[Told]]:
    target = TRANSITIONS.get((record.status, trigger))
    if target is None:
        raise Conflict(f"A session that is {record.status} cannot {trigger}.", code="session_state")
    first = target == "live" and record.status != "interrupted"
    record = replace(record, status=target)
    name = "session.started" if first else "session.resumed" if target == "live" else f"session.{target}"
    return record, [(name, summary(record))]


def may(record: SessionRecord, trigger: Trigger) -> bool:
    return (record.status, trigger) in TRANSITIONS


def funded(record: SessionRecord) -> Step:
    """The money is held (or none is needed): the session may go live. Idempotent."""
    if record.funded or not record.open:
        return unchanged(record)
    record = replace(record, funded=True)
    if record.status != "created" or record.ring:
        return Step(record)
    record, told = _move(record, "fund")
    return Step(record, tuple(told))


def unfunded(record: SessionRecord) -> Step:
    """What was held is lost: no call until another card is held (R4, law 2)."""
    if not (record.funded and record.open and record.priced) or record.funding is None:
        return unchanged(record)
    return Step(replace(record, funded=False))


def other_card(record: SessionRecord, payment_method: str, now: int, request: str | None = None) -> Step:
    """Another card for the hold; each attempt is a new intent (5-money). Raises Conflict when it is too late."""
    if not record.open or record.funding is None:
        raise Conflict("This session takes no payment now.", code="session_state")
    attempt = Funding(record.funding.attempt + 1, payment_method, record.funding.amount, now, request=request)
    return Step(replace(record, funding=attempt))


def recharged(record: SessionRecord, payment_method: str, now: int, request: str | None = None) -> Step:
    """Another card for a bill whose hold was lost: charged at once, and only because its owner asks (5-money)."""
    if record.status != "finalized" or record.bill is None or record.funding is None or record.waived:
        raise Conflict("This session takes no payment now.", code="session_state")
    amount = int(record.bill["amount_total"])
    if amount == 0:
        raise Conflict("Nothing is due for this session.", code="session_state")
    funding = Funding(record.funding.attempt + 1, payment_method, amount, now, recharge=True, request=request)
    return Step(replace(record, funding=funding))


def joined(record: SessionRecord, role: Role, now: int, consent: Consent | None = None) -> Step:
    """A side took its seat for the first time, or came back. Where the hold waits for it, only a consent to all that
    the session may cost is one (5-money, Price before money)."""
    if not record.open:
        raise Conflict("The session has ended.", code="session_ended")
    if record.hold == "join" and consent is not None and consent.amount_max < record.amount_max:
        consent = None
    fresh = record.joined[role] is None
    if not fresh and (consent is None or record.consent is not None):
        return unchanged(record)
    record = replace(
        record,
        joined={**record.joined, role: record.joined[role] or now},
        consent=record.consent or consent,
    )
    return Step(record, (("participant.joined", {"role": role, **summary(record)}),) if fresh else ())


def lacks_consent(record: SessionRecord) -> bool:
    """Whether the client must agree to the price before anything is held."""
    return record.hold == "join" and record.funding is not None and record.consent is None and not record.let_off


def together(record: SessionRecord, at: int) -> Step:
    """Both legs are heard and forwarded since `at`: live, for the first time or again."""
    if record.status == "live" or not may(record, "together"):
        return unchanged(record)
    moved, told = _move(record, "together")
    return Step(replace(moved, started_at=record.started_at or at), tuple(told))


def remembered(stored: SessionRecord, own: SessionRecord) -> SessionRecord:
    """The stored record with the start that its owner knows of: Redis may have lost it, or was away. Not one that
    someone ended before it, or a meeting that was called off by then."""
    if stored.started_at is not None or own.started_at is None or stored.status == "finalized":
        return stored
    canceled = stored.meeting is not None and stored.meeting.canceled_by is not None
    if canceled or (stored.ended_at is not None and stored.ended_at <= own.started_at):
        return stored
    return replace(stored, started_at=own.started_at)


def began(record: SessionRecord, at: int) -> Step:
    """Both were together at `at` already, says the usage of a former owner, whose word of the start was lost: cap and
    limit count from there (R6, law 4)."""
    if not record.open or record.started_at is None or record.started_at <= at:
        return unchanged(record)
    return Step(replace(record, started_at=at))


def restated(record: SessionRecord) -> Step:
    """The record as its owner knows it, put again after Redis lost something."""
    return Step(record)


def apart(record: SessionRecord) -> Step:
    """A leg fell silent: nothing is forwarded or billed until both are back."""
    if not may(record, "apart"):
        return unchanged(record)
    record, told = _move(record, "apart")
    return Step(record, tuple(told))


def warned(record: SessionRecord, reason: str, remaining_seconds: int) -> Step:
    return Step(record, (("session.warning", {"reason": reason, "remaining": remaining_seconds}),))


def waived(record: SessionRecord, now: int) -> Step:
    """The expert waives the fee. Before it is live: R15's limit; after the bill is final, which stays as it is, what it
    asks is let off. Whether the charge is sent already is `waiver`'s matter (5-money). Raises Conflict."""
    if record.let_off:
        return unchanged(record)
    if record.status == "finalized":
        if record.meeting is not None:
            raise Conflict("The meeting is over; refund it instead.", code="session_state")
        return Step(replace(record, waived_after=now))
    limit_ms = record.limit_ms
    if record.started_at is None:
        limit_ms = min(limit_ms, FREE_LIMIT_MINUTES * 60_000)
    record = replace(record, waived=True, limit_ms=limit_ms)
    return funded(record) if not record.funded and record.open else Step(record)


def made_free(record: SessionRecord, reason: str) -> Step:
    """The expert may not be paid any more, and the order says what then: no price, under R15's limits (R16). Told by
    its own event, for a price never changes silently; never once both have been together."""
    if record.funding is None or record.funded or not record.open or record.started_at is not None:
        return unchanged(record)
    limit_ms = min(record.limit_ms, FREE_LIMIT_MINUTES * 60_000)
    record = replace(record, kind="free", funding=None, amount_max=0, limit_ms=limit_ms, free_ms=0)
    step = funded(record)
    return Step(step.record, (("session.made_free", {"reason": reason, **summary(record)}), *step.events))


def rated(record: SessionRecord, role: Role, rating: Mapping[str, Any]) -> Step:
    """One side rates the other (R20); the last word counts."""
    record = replace(record, ratings={**record.ratings, role: dict(rating)})
    return Step(record, (("session.rated", {"by": role, **rating}),))


def may_continue(record: SessionRecord, now: int) -> bool:
    """Whether both may go on in a new session: shortly before this one's limit, or after it ran to it (5-money)."""
    if record.open:
        return record.deadline is not None and record.deadline - now <= GO_ON_MS
    return record.end_reason in ("limit_reached", "cap_reached")


def continued(record: SessionRecord, successor: str) -> Step:
    """The id of the session after this one, written down before that is made: so that it is made once. The first
    stays."""
    if record.continued_by is not None:
        return unchanged(record)
    return Step(replace(record, continued_by=successor))


def carried(record: SessionRecord, free_ms: int) -> Step:
    """What the session before this one left of the free part (5-money, Free part once). The hold stays; the most that
    it can cost falls. Never once it has started: nobody's figures change in the call."""
    if record.started_at is not None or not record.open or free_ms <= record.free_ms:
        return unchanged(record)
    free_ms = min(free_ms, record.limit_ms)
    amount = hold_amount(record.unit_amount, record.limit_ms, free_ms) if record.kind == "metered" else 0
    return Step(replace(record, free_ms=free_ms, amount_max=amount))


def ended(record: SessionRecord, reason: EndReason, at: int, *, note: str | None = None) -> Step:
    """The session is over, for `reason`, at `at`; `note` is the marketplace's own word. Idempotent: the first stays."""
    if not record.open:
        return unchanged(record)
    at = max(at, record.started_at or record.created)
    record, told = _move(replace(record, end_reason=reason, end_note=note, ended_at=at), "end")
    return Step(record, tuple(told))


def finalized(record: SessionRecord, bill: Mapping[str, Any], chain: Mapping[str, Any] | None = None) -> Step:
    """Usage and bill are frozen, sealed by `chain`; exactly one `session.finalized` per session (law 8)."""
    if record.status == "finalized":
        return unchanged(record)
    record, _ = _move(replace(record, bill=dict(bill), chain=None if chain is None else dict(chain)), "finalize")
    head = None if chain is None else chain["head"]
    return Step(record, (("session.finalized", {**summary(record), **bill, "ledger_head": head}),))


def canceled(
    record: SessionRecord, by: CanceledBy, at: int, *, request: str | None = None, note: str | None = None
) -> Step:
    """A booked meeting is called off by a `request`. Idempotent. Raises Conflict `meeting_state` once it has begun, and
    for its client once its time has come: whether the client was absent is then another rule's matter."""
    meeting = record.meeting
    if meeting is None:
        raise Conflict("This session was not booked.", code="meeting_state")
    if meeting.canceled_by is not None:
        return unchanged(record)
    late = by == "client" and meeting.starts_at is not None and at >= meeting.starts_at
    if not record.open or record.started_at is not None or late:
        raise Conflict("The meeting has begun, or is over.", code="meeting_state", session=record.id)
    record = replace(record, meeting=replace(meeting, canceled_by=by, cancel_request=request))
    return ended(record, "canceled", at, note=note)


def expiry(record: SessionRecord, now: int, here: Mapping[Role, bool] | None = None) -> EndReason | None:
    """The reason to end a session that did not begin, if its time has come. `here`: who is; else who ever joined."""
    if record.status not in ("created", "ringing", "ready") or now < record.begin_by:
        return None
    if record.meeting is None:
        return "expired"
    came = here if here and any(here.values()) else {role: at is not None for role, at in record.joined.items()}
    return absence(record.meeting, funded=record.funded, client=came["client"], expert=came["expert"])


def party(record: SessionRecord, role: Role) -> dict[str, Any]:
    return cast(dict[str, Any], getattr(record, role))


def other(role: Role) -> Role:
    return "expert" if role == "client" else "client"
