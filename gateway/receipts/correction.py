"""What a receipt stated of the money, and the document that follows when that is no longer true. Pure.

A refund, a lost dispute or a payment made late changes what a side paid or earned; a receipt that was issued is never
changed, so a numbered document in the same series takes its place. The figures are kept with each document, in the
session's currency (minor units): its page reads the same for ever, and it says by how much it differs from the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from gateway.money import split
from gateway.receipts.receipt import (
    Earnings,
    Line,
    Outcome,
    Receipt,
    Role,
    charged,
    foreign,
    iso_week,
    plain,
)

_COUNTED: Final = frozenset({"pending", "succeeded"})  # refunds that are on their way to the client, or there


@dataclass(frozen=True, slots=True)
class Facts:
    """`charged`: what the client was charged, or has still to pay while `due`; `refunded` of it came back, at last for
    the reason `why`; `shared` of it is left for the shares. `taken_back` and `kept_back`: the expert's transfer, in the
    settlement currency."""

    due: bool
    charged: int
    refunded: int
    shared: int
    taken_back: int = 0
    kept_back: int = 0
    why: str = ""

    @property
    def paid(self) -> int:
        """What the client bears, or is to bear."""
        return self.charged - self.refunded

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, session: Mapping[str, Any], payment: Mapping[str, Any] | None) -> Facts:
        """As the records have it now."""
        money = payment or {"status": "none"}
        due = money["status"] in ("due", "failed")
        total = charged(session["bill"], money, session["commission_bps"])["amount_total"]
        taken = total if due else money.get("amount_captured", 0)
        made = [refund for refund in money.get("refunds", ()) if refund["status"] in _COUNTED]
        borne = sum(refund["amount"] for refund in made if refund["charge_to"] == "shares")
        transfer, why = _transfer(money), plain(made[-1]["reason"]) if made else ""
        back = transfer.get("amount_reversed", 0) - transfer.get("amount_restored", 0)
        return cls(
            due, taken, money.get("amount_refunded", 0), taken - borne, back, transfer.get("amount_owed", 0), why,
        )  # fmt: skip


def differs(role: Role, before: Facts, now: Facts) -> bool:
    """Whether what a side was told is no longer true. What the platform bears is no business of the expert's."""
    if role == "client":
        return (before.due, before.charged, before.refunded) != (now.due, now.charged, now.refunded)
    return (before.due, before.shared) != (now.due, now.shared)


def at_rest(role: Role, payment: Mapping[str, Any] | None) -> bool:
    """Whether no step is open that may still change the side's figures: the client's wait for refunds alone, the
    expert's also until what is to be taken back was, or was written down as owed."""
    if payment is None:
        return True
    moving = any(
        step["step"] == "refund" and step["state"] in ("intent", "sent", "unknown") for step in payment.get("steps", ())
    )
    return not moving and (role == "client" or bool(payment.get("settled")) or payment["status"] == "due")


def corrected(
    receipt: Receipt, before: Facts, now: Facts, corrects: str, session: Mapping[str, Any],
    payment: Mapping[str, Any] | None,
) -> Receipt:  # fmt: skip
    """The document that takes the place of the one numbered `corrects`, which stated `before`."""
    client = receipt.role == "client"
    bps = session["commission_bps"]
    return replace(
        receipt,
        kind="payment" if before.due and not now.due else "correction",
        corrects=corrects,
        outcome=_outcome(now),
        amount_total=now.paid if client else now.shared,
        amount_waived=0,
        lines=_client_lines(before, now) if client else _expert_lines(before, now, bps),
        payment=receipt.payment and replace(receipt.payment, held=0, released=0, charged=now.charged, refunded=0),
        earnings=None if client else _earnings(receipt, before, now, bps, payment or {}),
    )


def _outcome(now: Facts) -> Outcome:
    if now.refunded <= 0:
        return "due" if now.due else "paid"
    return "refunded" if now.refunded >= now.charged else "partly_refunded"


def _client_lines(before: Facts, now: Facts) -> tuple[Line, ...]:
    refunded = [Line("refunded", -now.refunded, why=now.why)] if now.refunded else []
    return (Line("charged", now.charged), *refunded, Line("paid", now.paid), *_difference(before.paid, now.paid))


def _expert_lines(before: Facts, now: Facts, bps: int) -> tuple[Line, ...]:
    borne, net = now.charged - now.shared, split(now.shared, bps).expert
    refunded = [Line("refunded", -borne, why=now.why), Line("remaining", now.shared)] if borne else []
    commission = [Line("commission", net - now.shared, bps=bps)] if now.shared else []
    return (
        Line("total", now.charged), *refunded, *commission, Line("net", net),
        *_difference(split(before.shared, bps).expert, net),
    )  # fmt: skip


def _difference(before: int, now: int) -> tuple[Line, ...]:
    return (Line("stated", before), Line("difference", now - before)) if before != now else ()


def _earnings(receipt: Receipt, before: Facts, now: Facts, bps: int, payment: Mapping[str, Any]) -> Earnings:
    """A late payment is paid out in the week in which it came; what is taken back has no week of its own."""
    transfer, net = _transfer(payment), split(now.shared, bps).expert
    return Earnings(
        transfer=transfer.get("status") if before.due else None,
        settlement=foreign(receipt.currency, net, now.charged, payment.get("settlement")),
        payout=iso_week(receipt.issued_at) if before.due and now.shared else None,
        currency=transfer.get("currency", receipt.currency),
        taken_back=now.taken_back - before.taken_back,
        kept_back=now.kept_back - before.kept_back,
    )


def _transfer(payment: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((t for t in payment.get("transfers") or () if t["to"] == "expert"), {})
