"""A difference between two accounts of the same money, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_KEY = "Stripe has no such thing: is the API key that of this account and of this mode?"
_CHANGED = "No step of the gateway writes this: somebody changed the record. Compare `gateway evidence` with a backup."
_SWEPT = "The sweep asks Stripe within half an hour; if this stays, resend the event at Stripe: "

# What may differ, and what an operator does then.
TODO: Final[Mapping[str, str]] = {
    # Holds and charges
    "missing payment_intent": _KEY,
    "unknown payment_intent": "No record asked for it. If it only holds, cancel it at Stripe; if it was paid, refund "
    "it there, or `gateway restore` its session, should Redis have been lost.",
    "status": "Resend its latest event at Stripe, and the bridge asks. If ours is over already, refund or cancel at "
    "Stripe what should not be there.",
    "captured": "Somebody captured at Stripe. More than the bill: refund the difference there. Less: it is lost.",
    "held": "Somebody changed the hold at Stripe. What is above it cannot be captured.",
    "currency": "Refund it at Stripe: the session has another currency.",
    "an older card's hold lives": "Cancel it at Stripe: the client's money is held twice.",
    "an older card was charged": "Refund it at Stripe: the client paid twice.",
    "settlement": "(Amount, fee, currency.) The shares were made of ours. Compare the charge's balance transaction.",
    # Transfers
    "missing transfer": _KEY,
    "unknown transfer": "A payee got it beside what the record gives. Reverse it at Stripe, unless it was meant so.",
    "transfer amount": "Transfer or reverse the difference at Stripe.",
    "transfer reversed": "Somebody reversed it at Stripe. If theirs is more, the payee lacks the difference: transfer "
    "it at Stripe; if it is less, reverse the rest there.",
    "transfer currency": "Reverse it at Stripe, and transfer the share once more there.",
    "transfer destination": "Somebody else has the share. Reverse it at Stripe, and transfer it to the right account.",
    # Refunds
    "missing refund": _KEY,
    "unknown refund": f"Somebody refunded at Stripe itself. {_SWEPT}`refund.created`.",
    "refund amount": "If theirs is less, order the rest as one more refund; if it is more, that is the platform's.",
    "refund not borne": "Some meetings had not so much left: the rest is the platform's. Order refunds of a booking by "
    "meeting.",
    "refund failed": "The bank has changed its mind. Resend `refund.updated` at Stripe, and the bridge asks.",
    # Disputes
    "missing dispute": _KEY,
    "unknown dispute": f"Until it is known, transfers go on. {_SWEPT}`charge.dispute.created`.",
    "dispute status": f"{_SWEPT}`charge.dispute.closed`.",
    "dispute amount": f"If it is lost already, the difference is the platform's. {_SWEPT}`charge.dispute.updated`.",
    "dispute not taken back": f"It is lost, and the shares still stand. {_SWEPT}`charge.dispute.closed`.",
    # Bill and payment record
    "captured without a bill": _CHANGED,
    "captured is not the bill": "`gateway replay` gives the bill by the ledger. Order a refund of what is above it.",
    "billed and not charged": "The bridge let it off, and no record says why. Have nodes and bridges the same "
    "`[stripe] minimum_minor`?",
    "kept above the bill": "The client has not got back what the terms give. Order a refund of the difference.",
    "refunded above captured": _CHANGED,
    "refunds do not sum": _CHANGED,
    "refund order": "Ordered, and not so in the payment record. If it has none: does a bridge run?",
    "shares do not sum": _CHANGED,
    "shares above the settled amount": _CHANGED,
    "share": "The payee's part is not its share of what is left. Transfer or reverse the difference at Stripe.",
    "no part of the charge": "Its booking is paid, and it does not know. Is its record old? `gateway restore` it.",
    "parts do not sum": _CHANGED,
    # The ledger
    "another bill by the ledger": "(Frozen, and by the ledger.) `gateway replay` shows both. If the client paid too "
    "much, order a refund of it.",
    "not as it was sealed": "Somebody changed ledger, terms or bill after it was frozen. Compare with a backup.",
    "half a record": "Its other documents are gone. `gateway restore` it, or bring back Redis's backup.",
    # What nobody looks after
    "no platform account": "Put its `[stripe.platforms.NAME]` back: its money waits for it, and was not compared.",
    "not ended": "Its time is over, and nobody ended it. Does a node run, and reach Redis?",
    "not billed": "It is over, and nobody froze its bill. Does a node run, and reach Redis? Its hold runs out.",
    "not settled": "A day after its end money is still on its way; ours names the steps, with Stripe's last word. "
    "`balance_insufficient`: top up the platform's balance. No step: does a bridge run?",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """`ours` is the payment record's word, `theirs` Stripe's, or that of another record of ours; None where a side has
    nothing at all. `session` "" is no session of ours."""

    session: str
    object: str
    what: str
    ours: Any
    theirs: Any

    def __post_init__(self) -> None:
        assert self.what in TODO, self.what

    @property
    def todo(self) -> str:
        return TODO[self.what]

    def __str__(self) -> str:
        return f"{self.session or '-'} {self.object} {self.what}: ours {self.ours}, theirs {self.theirs}. {self.todo}"


def unlike(session: str, ident: str, pairs: Mapping[str, tuple[Any, Any]]) -> list[Difference]:
    """Of (ours, theirs) by name, those that differ."""
    return [Difference(session, ident, what, own, other) for what, (own, other) in pairs.items() if own != other]
