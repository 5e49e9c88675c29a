"""Our records against Stripe's: bill, payment record, and what Stripe has, with every difference named. Pure.

Both are given as plain documents, so that one comparison serves the command, the sweep and the tests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final, Literal

from gateway.billing_bridge.record import PAID, Payment
from gateway.billing_bridge.refunds import made_of
from gateway.ids import OWNERS

Kind = Literal["payment_intent", "transfer", "refund"]
Document = Mapping[str, Any]

# What a record's status may be while its latest PaymentIntent is in one of Stripe's.
STATUS: Final[Mapping[str, frozenset[str]]] = {
    "requires_capture": frozenset({"held", "capturing"}),
    "succeeded": PAID,
    "requires_action": frozenset({"action_required", "pending"}),
    "requires_payment_method": frozenset({"failed", "due", "pending"}),
    "canceled": frozenset({"released", "failed", "due"}),
    "processing": frozenset({"pending"}),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """`ours` and `theirs` are None where the one side has nothing at all. `session` "" is no session of ours."""

    session: str
    object: str
    what: str
    ours: Any
    theirs: Any

    def __str__(self) -> str:
        return f"{self.session or '-'} {self.object} {self.what}: ours {self.ours}, theirs {self.theirs}"


@dataclass(frozen=True, slots=True)
class Theirs:
    """What Stripe listed, by id. `whole`: whether the lists reach back far enough to say that something is missing."""

    payment_intent: Mapping[str, Document] = field(default_factory=dict)
    transfer: Mapping[str, Document] = field(default_factory=dict)
    refund: Mapping[str, Document] = field(default_factory=dict)

    def all(self) -> Iterator[Document]:
        return chain(self.payment_intent.values(), self.transfer.values(), self.refund.values())


def compare(ours: Iterable[tuple[Document, Document]], theirs: Theirs) -> list[Difference]:
    """All differences between (session, payment) documents and Stripe's lists, in the order of the sessions."""
    found: list[Difference] = []
    known: dict[Kind, set[str]] = defaultdict(set)
    charged: dict[str, str] = {}
    for session, body in ours:
        payment = Payment.from_dict(body)
        found += _within(session, payment)
        found += _intents(session["id"], payment, theirs, known["payment_intent"])
        found += _transfers(session["id"], payment, theirs, known["transfer"])
        found += _refunds(session["id"], payment, theirs, known["refund"])
        charged |= dict.fromkeys(_charges(payment), str(session["id"]))
    return found + strays(known, theirs) + unordered(charged, known["refund"], theirs)


def strays(known: Mapping[Kind, set[str]], theirs: Theirs) -> list[Difference]:
    """What Stripe has under a session's name, and no record knows."""
    kinds: Sequence[Kind] = ("payment_intent", "transfer", "refund")
    return [
        Difference(named_in(thing), ident, f"unknown {kind}", None, thing.get("status") or thing["amount"])
        for kind in kinds
        for ident, thing in getattr(theirs, kind).items()
        if ident not in known.get(kind, set()) and named_in(thing)
    ]


def _charges(payment: Payment) -> set[str]:
    """The PaymentIntents that a record made itself; that of a meeting is its booking's."""
    steps = (step for step in payment.steps if step.step == "hold" and step.result and step.result.get("id"))
    return {str((step.result or {})["id"]) for step in steps}


def unordered(charged: Mapping[str, str], known: set[str], theirs: Theirs) -> list[Difference]:
    """Refunds of our charges that somebody made at Stripe itself, and no record has adopted."""
    return [
        Difference(charged[thing["payment_intent"]], ident, "unknown refund", None, thing["amount"])
        for ident, thing in theirs.refund.items()
        if thing.get("payment_intent") in charged and ident not in known and not named_in(thing)
    ]


def _within(session: Document, payment: Payment) -> list[Difference]:
    """The bill against the payment record, and both against themselves (laws 5 and 6)."""
    bill, ident, booked = session.get("bill"), session["id"], bool(session.get("meeting"))
    found: list[Difference] = []
    if payment.amount_refunded > payment.amount_captured:
        found.append(
            Difference(ident, "payment", "refunded above captured", payment.amount_refunded, payment.amount_captured)
        )
    if session["kind"] == "booking" or (booked and bill is None):
        return found  # paid before, for meetings to come
    if bill is None:
        if payment.amount_captured:
            found.append(Difference(ident, "payment", "captured without a bill", payment.amount_captured, None))
        return found
    parts = bill["amount_expert"] + bill["amount_platform"] + bill["amount_ambassador"]
    if parts != bill["amount_total"]:
        found.append(Difference(ident, "bill", "shares do not sum", parts, bill["amount_total"]))
    if payment.status in PAID and payment.amount_captured != bill["amount_total"] and not booked:
        found.append(
            Difference(ident, "payment", "captured is not the bill", payment.amount_captured, bill["amount_total"])
        )
    if booked and payment.settled and payment.amount_captured - payment.amount_refunded > bill["amount_total"]:
        left = payment.amount_captured - payment.amount_refunded
        found.append(Difference(ident, "payment", "kept above the bill", left, bill["amount_total"]))
    if payment.settlement is not None and sum(t.amount for t in payment.transfers) > payment.settlement.amount:
        given = sum(transfer.amount for transfer in payment.transfers)
        found.append(Difference(ident, "payment", "shares above the settled amount", given, payment.settlement.amount))
    return found


def _intents(session: str, payment: Payment, theirs: Theirs, known: set[str]) -> list[Difference]:
    found: list[Difference] = []
    for step in payment.steps:
        ident = (step.result or {}).get("id") if step.step == "hold" else None
        if ident is None:
            continue
        known.add(ident)
        thing = theirs.payment_intent.get(ident)
        if thing is None:
            found.append(Difference(session, ident, "missing payment_intent", payment.status, None))
        elif ident == payment.payment_intent:
            found += _intent(session, payment, thing)
        elif thing["status"] in ("requires_capture", "succeeded"):
            found.append(Difference(session, ident, "an older card's hold lives", "canceled", thing["status"]))
    return found


def _intent(session: str, payment: Payment, thing: Document) -> list[Difference]:
    found: list[Difference] = []
    if payment.status not in STATUS.get(thing["status"], frozenset()):
        found.append(Difference(session, thing["id"], "status", payment.status, thing["status"]))
    if payment.amount_captured != thing["amount_received"]:
        found.append(Difference(session, thing["id"], "captured", payment.amount_captured, thing["amount_received"]))
    if payment.status == "held" and payment.amount_held != thing["amount_capturable"]:
        found.append(Difference(session, thing["id"], "held", payment.amount_held, thing["amount_capturable"]))
    return found


def _transfers(session: str, payment: Payment, theirs: Theirs, known: set[str]) -> list[Difference]:
    found: list[Difference] = []
    for transfer in payment.transfers:
        for ident, (amount, left) in made_of(payment, transfer).items():
            known.add(ident)
            thing = theirs.transfer.get(ident)
            if thing is None:
                found.append(Difference(session, ident, "missing transfer", amount, None))
                continue
            pairs = {
                "amount": (amount, thing["amount"]),
                "reversed": (amount - left, thing["amount_reversed"]),
                "currency": (transfer.currency, thing["currency"]),
                "destination": (transfer.account, thing["destination"]),
            }
            found += _unlike(session, ident, pairs)
    return found


def _refunds(session: str, payment: Payment, theirs: Theirs, known: set[str]) -> list[Difference]:
    found: list[Difference] = []
    for refund in payment.refunds:
        if refund.stripe_id is None or refund.number == 0:
            continue
        known.add(refund.stripe_id)
        thing = theirs.refund.get(refund.stripe_id)
        if thing is None:
            found.append(Difference(session, refund.stripe_id, "missing refund", refund.amount, None))
            continue
        failed = thing["status"] in ("failed", "canceled")
        pairs = {"amount": (refund.amount, thing["amount"]), "failed": (refund.status == "failed", failed)}
        found += _unlike(session, refund.stripe_id, pairs)
    return found


def _unlike(session: str, ident: str, pairs: Mapping[str, tuple[Any, Any]]) -> list[Difference]:
    return [Difference(session, ident, what, own, other) for what, (own, other) in pairs.items() if own != other]


def named_in(thing: Document) -> str:
    """The session that an object of Stripe names; "" for those that others made on the same account."""
    named = (thing.get("metadata") or {}).get("session")
    return named if isinstance(named, str) and named.startswith(OWNERS) else ""
