"""What a receipt stated of the money, and the document that follows when that is no longer true. Pure.

A refund, a lost dispute or a payment made late changes what a side paid or earned; a receipt that was issued is never
changed, so a numbered document in the same series takes its place. The figures are kept with each document, in the
session's currency (minor units): its page reads the same for ever, and it says by how much it differs from the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
class Refunded:
    """One refund: why, and when it was asked for (wall ms) where that is known; a bank's and Stripe's own have no time.
    `shared`: borne by the shares, and so the expert's business too."""

    amount: int
    why: str = ""
    at: int | None = None
    shared: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """`charged`: what the client was charged, or has still to pay while `due`; `refunded` of it came back, by these
    `refunds`; `shared` of it is left for the shares. `taken_back` and `kept_back`: the expert's transfer, in the
    settlement currency."""

    due: bool
    charged: int
    refunded: int
    shared: int
    taken_back: int = 0
    kept_back: int = 0
    refunds: tuple[Refunded, ...] = ()

    @property
    def paid(self) -> int:
        """What the client bears, or is to bear."""
        return self.charged - self.refunded

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Facts:
        """As a letter keeps them; the first ones kept of their refunds the sum and the last one's reason, as `why`."""
        body = dict(kept)
        summed = [{"amount": body["refunded"], "why": body.pop("why", "")}] if body["refunded"] else []
        return cls(**body | {"refunds": tuple(Refunded(**one) for one in body.get("refunds", summed))})

    @classmethod
    def of(
        cls,
        session: Mapping[str, Any],
        payment: Mapping[str, Any] | None,
        orders: Mapping[str, Any] | None = None,
    ) -> Facts:
        """As the records have it now; `orders` is the session's `refunds` document."""
        money = payment or {"status": "none"}
        due = money["status"] in ("due", "failed")
        total = charged(session["bill"], money, session["commission_bps"])["amount_total"]
        taken = total if due else money.get("amount_captured", 0)
        made = _refunds(money, orders)
        borne, transfer = sum(refund.amount for refund in made if refund.shared), _transfer(money)
        back = transfer.get("amount_reversed", 0) - transfer.get("amount_restored", 0)
        return cls(
            due, taken, money.get("amount_refunded", 0), taken - borne, back, transfer.get("amount_owed", 0), made,
        )  # fmt: skip


def _refunds(payment: Mapping[str, Any], orders: Mapping[str, Any] | None) -> tuple[Refunded, ...]:
    times = {order["id"]: order["at"] for order in (orders or {}).get("orders", ())}
    return tuple(
        Refunded(one["amount"], plain(one["reason"]), times.get(one["id"]), one["charge_to"] == "shares")
        for one in payment.get("refunds", ())
        if one["status"] in _COUNTED and one["amount"]
    )


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
    refunded = _refund_lines(now.refunded, now.refunds)
    return (Line("charged", now.charged), *refunded, Line("paid", now.paid), *_difference(before.paid, now.paid))


def _expert_lines(before: Facts, now: Facts, bps: int) -> tuple[Line, ...]:
    borne, net = now.charged - now.shared, split(now.shared, bps).expert
    refunded = _refund_lines(borne, [refund for refund in now.refunds if refund.shared])
    refunded += [Line("remaining", now.shared)] if borne else []
    commission = [Line("commission", net - now.shared, bps=bps)] if now.shared else []
    return (
        Line("total", now.charged), *refunded, *commission, Line("net", net),
        *_difference(split(before.shared, bps).expert, net),
    )  # fmt: skip


def _refund_lines(total: int, refunds: Sequence[Refunded]) -> list[Line]:
    """A line for each; where they are not what came back in all, one for all, and no reason that is only some's."""
    if not total:
        return []
    if sum(refund.amount for refund in refunds) == total:
        return [Line("refunded", -refund.amount, why=refund.why, at=refund.at) for refund in refunds]
    return [Line("refunded", -total, why=refunds[0].why if len(refunds) == 1 else "")]


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
