"""Our records against Stripe's: payment records and what Stripe has, with every difference named. Pure.

Both are given as plain documents, so that one comparison serves the command, the sweep and the tests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final, Literal

from gateway.billing_bridge.books import at_odds, shared_out
from gateway.billing_bridge.differences import Difference, unlike
from gateway.billing_bridge.intent import settlement_of
from gateway.billing_bridge.record import CLOSED_INTENT, PAID, Payment, Step, Transfer
from gateway.billing_bridge.refunds import FOREIGN, dispute_of, made_of, unseen
from gateway.billing_bridge.results import own_part
from gateway.ids import OWNERS

Kind = Literal["payment_intent", "transfer", "refund", "dispute"]
KINDS: Final[Sequence[Kind]] = ("payment_intent", "transfer", "refund", "dispute")
Document = Mapping[str, Any]

# What a record's status may be while its latest PaymentIntent is in one of Stripe's.
STATUS: Final[Mapping[str, frozenset[str]]] = {
    "requires_capture": frozenset({"held", "capturing"}),
    "succeeded": PAID,
    "requires_action": frozenset({"action_required", "pending"}),
    "requires_confirmation": frozenset({"action_required", "pending"}),
    "requires_payment_method": frozenset({"failed", "due", "pending"}),
    "canceled": frozenset({"released", "failed", "due"}),
    "processing": frozenset({"pending"}),
}


@dataclass(frozen=True, slots=True)
class Theirs:
    """What Stripe listed, by id."""

    payment_intent: Mapping[str, Document] = field(default_factory=dict)
    transfer: Mapping[str, Document] = field(default_factory=dict)
    refund: Mapping[str, Document] = field(default_factory=dict)
    dispute: Mapping[str, Document] = field(default_factory=dict)

    def of(self, kind: Kind) -> Mapping[str, Document]:
        found: Mapping[str, Document] = getattr(self, kind)
        return found

    def all(self) -> Iterator[Document]:
        return chain.from_iterable(self.of(kind).values() for kind in KINDS)

    def by_intent(self, kind: Kind) -> Mapping[str, list[Document]]:
        """What was made of each PaymentIntent."""
        found: dict[str, list[Document]] = defaultdict(list)
        for thing in self.of(kind).values():
            found[thing.get("payment_intent") or ""].append(thing)
        return found


@dataclass(frozen=True, slots=True)
class Known:
    """What our records know: ids of Stripe's objects by kind; and whose each PaymentIntent, charge, group is."""

    ids: dict[Kind, set[str]] = field(default_factory=lambda: defaultdict(set))
    owner: dict[str, str] = field(default_factory=dict)


def compare(ours: Iterable[tuple[Document, Document]], theirs: Theirs, now: int = 0) -> list[Difference]:
    """All differences between (session, payment) documents and Stripe's lists, in the order of the sessions; `now`
    (wall ms) decides what should have come to rest. A session has the orders of its refunds with it, as `order_of`
    reads them."""
    records = [(session, Payment.from_dict(body)) for session, body in ours]
    known, cases, found = Known(), theirs.by_intent("dispute"), list[Difference]()
    for session, payment in records:
        _note(known, session, payment)
        found += at_odds(session, payment, now)
        for one in (_intents, _settlement, _transfers, _refunds):
            found += one(session["id"], payment, theirs, known.ids)
        found += _disputes(session["id"], payment, cases.get(payment.payment_intent or "-", ()), known.ids)
    return found + shared_out(records) + _parted(records, theirs) + strays(known, theirs)


def _note(known: Known, session: Document, payment: Payment) -> None:
    ident = str(session["id"])
    known.owner[ident] = ident
    if payment.part is None:  # that of a meeting is its booking's
        mine = {(step.result or {})["id"] for step in _holds(payment)} | ({payment.charge} if payment.charge else set())
        known.owner.update(dict.fromkeys(mine, ident))


def strays(known: Known, theirs: Theirs) -> list[Difference]:
    """What Stripe has of ours, and no record knows: under a session's name, or of a charge of ours, as somebody makes
    it at Stripe itself."""
    return [
        Difference(session, ident, f"unknown {kind}", None, thing.get("status") or thing["amount"])
        for kind in KINDS
        for ident, thing in theirs.of(kind).items()
        if ident not in known.ids[kind] and (session := named_in(thing) or _owner(known, thing))
    ]


def _owner(known: Known, thing: Document) -> str:
    names = (thing.get(name) for name in ("payment_intent", "charge", "source_transaction", "transfer_group"))
    return next((known.owner[name] for name in names if name in known.owner), "")


def _holds(payment: Payment) -> list[Step]:
    return [step for step in payment.steps if step.step == "hold" and step.result and step.result.get("id")]


def _intents(session: str, payment: Payment, theirs: Theirs, known: dict[Kind, set[str]]) -> list[Difference]:
    found: list[Difference] = []
    for step in _holds(payment):
        ident = (step.result or {})["id"]
        known["payment_intent"].add(ident)
        thing = theirs.payment_intent.get(ident)
        if thing is None:
            found.append(Difference(session, ident, "missing payment_intent", payment.status, None))
        elif ident == payment.payment_intent:
            found += _intent(session, payment, thing)
        else:
            found += _older(session, step, thing, theirs, known)
    return found


def _intent(session: str, payment: Payment, thing: Document) -> list[Difference]:
    pairs: dict[str, tuple[Any, Any]] = {
        "captured": (payment.amount_captured, thing["amount_received"]),
        "currency": (payment.currency, thing["currency"]),
    }
    if payment.status not in STATUS.get(thing["status"], frozenset()):
        pairs = {"status": (payment.status, thing["status"]), **pairs}
    elif payment.status == "held":
        pairs["held"] = (payment.amount_held, thing["amount_capturable"])
    return unlike(session, thing["id"], pairs)


def _older(session: str, step: Step, thing: Document, theirs: Theirs, known: dict[Kind, set[str]]) -> list[Difference]:
    """A card's that was tried before another one."""
    status, ours = thing["status"], (step.result or {}).get("status")
    if status == "succeeded":
        back = {ident: each for ident, each in theirs.refund.items() if each.get("payment_intent") == thing["id"]}
        known["refund"] |= back.keys()
        left = thing["amount_received"] - sum(each["amount"] for each in back.values() if not _failed(each))
        return [Difference(session, thing["id"], "an older card was charged", 0, left)] if left else []
    if status == "requires_capture" or (status != "canceled" and ours in CLOSED_INTENT):
        return [Difference(session, thing["id"], "an older card's hold lives", "canceled", status)]
    return []


def _settlement(session: str, payment: Payment, theirs: Theirs, known: dict[Kind, set[str]]) -> list[Difference]:
    """What Stripe credited for the charge, or a meeting's part of it."""
    thing = theirs.payment_intent.get(payment.payment_intent or "")
    credited = None if thing is None else settlement_of(thing)
    if credited is None or payment.settlement is None:
        return []
    own, other = payment.settlement, own_part(payment, credited)
    pairs = {"settlement": ((own.amount, own.fee, own.currency), (other.amount, other.fee, other.currency))}
    return unlike(session, payment.payment_intent or "", pairs)


def _transfers(session: str, payment: Payment, theirs: Theirs, known: dict[Kind, set[str]]) -> list[Difference]:
    found: list[Difference] = []
    for transfer in payment.transfers:
        for ident, (amount, left) in made_of(payment, transfer).items():
            known["transfer"].add(ident)
            found += _transfer(session, ident, transfer, (amount, left), theirs.transfer.get(ident))
    return found


def _transfer(
    session: str, ident: str, transfer: Transfer, made: tuple[int, int], thing: Document | None
) -> list[Difference]:
    amount, left = made
    if thing is None:
        return [Difference(session, ident, "missing transfer", amount, None)]
    pairs = {
        "transfer amount": (amount, thing["amount"]),
        "transfer reversed": (amount - left, thing["amount_reversed"]),
        "transfer currency": (transfer.currency, thing["currency"]),
        "transfer destination": (transfer.account, thing["destination"]),
    }
    return unlike(session, ident, pairs)


def _refunds(session: str, payment: Payment, theirs: Theirs, known: dict[Kind, set[str]]) -> list[Difference]:
    found: list[Difference] = []
    for refund in payment.refunds:
        if refund.stripe_id is None or refund.number == 0:
            continue
        known["refund"].add(refund.stripe_id)
        thing = theirs.refund.get(refund.stripe_id)
        if thing is None:
            found.append(Difference(session, refund.stripe_id, "missing refund", refund.amount, None))
            continue
        if payment.part is None or refund.number != FOREIGN:
            found += unlike(session, refund.stripe_id, {"refund amount": (refund.amount, thing["amount"])})
        found += unlike(session, refund.stripe_id, {"refund failed": (refund.status == "failed", _failed(thing))})
    return found


def _parted(records: Sequence[tuple[Document, Payment]], theirs: Theirs) -> list[Difference]:
    """Refunds made at Stripe itself of a booking's charge, which its meetings bear together. Meetings that are in no
    record at hand say nothing."""
    made, bookings = theirs.by_intent("refund"), defaultdict[str, list[tuple[str, Payment]]](list)
    for session, payment in records:
        if payment.part is not None and payment.payment_intent in made:
            bookings[session["meeting"]["booking"]].append((session["id"], payment))
    return [
        each
        for booking, meetings in bookings.items()
        for thing in made[meetings[0][1].payment_intent or ""]
        if not named_in(thing) and not _failed(thing)
        for each in _borne(booking, meetings, thing)
    ]


def _borne(booking: str, meetings: Sequence[tuple[str, Payment]], thing: Document) -> list[Difference]:
    ident, parts = thing["id"], [payment.part for _, payment in meetings if payment.part]
    borne = {session: r.amount for session, payment in meetings for r in payment.refunds if r.stripe_id == ident}
    if not borne:
        return []  # named as the booking's
    if len(meetings) == parts[0].count == len(borne):
        return unlike(booking, ident, {"refund not borne": (sum(borne.values()), thing["amount"])})
    return [
        Difference(session, ident, "unknown refund", None, thing["status"])
        for session, _ in meetings
        if session not in borne
    ]


def _failed(refund: Document) -> bool:
    return refund["status"] in ("failed", "canceled")


def _disputes(
    session: str, payment: Payment, against: Iterable[Document], known: dict[Kind, set[str]]
) -> list[Difference]:
    """A case that we know, as Stripe has it; one that we do not; and what a lost one took. Those of a booking's charge
    are its meetings', each by its part."""
    if payment.latest("share_out") is not None:
        return []
    cases = {case["id"]: case for case in against}
    known["dispute"] |= cases.keys()
    taken = {refund.stripe_id: refund.amount for refund in payment.refunds if refund.number == 0}
    ours = {str(ident) for ident in taken} | ({payment.dispute.id} if payment.dispute else set())
    found = [Difference(session, ident, "missing dispute", _stands(payment), None) for ident in sorted(ours - {*cases})]
    for case in unseen(payment, cases.values()):
        found += _case(session, payment, case)
    for ident, amount in taken.items():
        if ident in cases:
            found += _lost(session, payment, cases[str(ident)], amount)
    return found


def _stands(payment: Payment) -> str:
    return payment.dispute.status if payment.dispute else "lost"


def _case(session: str, payment: Payment, case: Document) -> list[Difference]:
    """One that the record has not as it stands."""
    own, other = payment.dispute, dispute_of(payment, case)
    if other.status == "lost":
        return [Difference(session, other.id, "dispute not taken back", own and own.status, other.amount)]
    if own is None or own.id != other.id:
        return [Difference(session, other.id, "unknown dispute", None, case["status"])]
    pairs = {"dispute status": (own.status, other.status), "dispute amount": (own.amount, other.amount)}
    return unlike(session, other.id, pairs)


def _lost(session: str, payment: Payment, case: Document, amount: int) -> list[Difference]:
    """What was taken back for a lost case: all of it, as far as the client had not got it back before."""
    other = dispute_of(payment, case)
    before = sum(r.amount for r in payment.refunds if r.counts and r.stripe_id != case["id"])
    at_stake = min(other.amount, payment.amount_captured - before)
    pairs = {"dispute status": ("lost", other.status), "dispute amount": (amount, at_stake)}
    return unlike(session, other.id, pairs)


def named_in(thing: Document) -> str:
    """The session that an object of Stripe names; "" for those that others made on the same account."""
    named = (thing.get("metadata") or {}).get("session")
    return named if isinstance(named, str) and named.startswith(OWNERS) else ""
