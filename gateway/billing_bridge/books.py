"""Our own records against each other: bill, payment record, orders, shares, a booking and its meetings; and what should
have come to rest by now. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.billing_bridge.differences import Difference, unlike
from gateway.billing_bridge.order import Order, order_of
from gateway.billing_bridge.record import PAID, Payment
from gateway.billing_bridge.refunds import entitled, refunded

Document = Mapping[str, Any]

HOUR_MS: Final = 3_600_000
# What Stripe refuses is tried again every six hours at last: by then somebody should know.
DAY_MS: Final = 24 * HOUR_MS
OVER: Final = frozenset({"ended", "finalized", "booked"})


def at_odds(session: Document, payment: Payment, now: int) -> list[Difference]:
    """What is not right within one session's records (laws 5 and 6), and what is late."""
    if unsound := _unsound(session):
        return unsound  # nothing else follows from such a bill
    order = order_of(session)
    return [
        *_refunded(order, payment),
        *_billed(session, order, payment),
        *_shared(order, payment),
        *_late(session, order, payment, now),
    ]


def _unsound(session: Document) -> list[Difference]:
    bill = session.get("bill")
    parts = [bill[f"amount_{part}"] for part in ("expert", "platform", "ambassador")] if bill else []
    if bill is None or (sum(parts) == bill["amount_total"] and min(parts) >= 0):
        return []
    return [Difference(session["id"], "bill", "shares do not sum", parts, bill["amount_total"])]


def _refunded(order: Order, payment: Payment) -> list[Difference]:
    """The sum of the refunds, and each against its order."""
    ident, found = order.session, list[Difference]()
    if payment.amount_refunded > payment.amount_captured:
        odd = payment.amount_refunded, payment.amount_captured
        found.append(Difference(ident, "payment", "refunded above captured", *odd))
    found += unlike(ident, "payment", {"refunds do not sum": (payment.amount_refunded, refunded(payment))})
    made = {refund.number: refund.amount for refund in payment.refunds}
    for wanted in order.refunds if payment.status in PAID and payment.settled else ():
        found += unlike(ident, wanted.id, {"refund order": (made.get(wanted.number), wanted.amount)})
    return found


def _billed(session: Document, order: Order, payment: Payment) -> list[Difference]:
    """The bill against what was captured and stayed."""
    bill, ident, paid = session.get("bill"), order.session, payment.status in PAID
    if order.booking or (order.booked and bill is None):
        return []  # paid before, for meetings to come
    if bill is None:
        odd = {"captured without a bill": (payment.amount_captured, 0)}
        return unlike(ident, "payment", odd)
    total, left = bill["amount_total"], payment.amount_captured - payment.amount_refunded
    found = list[Difference]()
    if paid and not order.booked:
        found += unlike(ident, "payment", {"captured is not the bill": (payment.amount_captured, total)})
    if order.booked and payment.settled and left > total:
        found.append(Difference(ident, "payment", "kept above the bill", left, total))
    if not paid and payment.settled and total and not _let_off(order, payment):
        found.append(Difference(ident, "payment", "billed and not charged", payment.amount_captured, total))
    return found


def _let_off(order: Order, payment: Payment) -> bool:
    """Whether a record says why a bill was not charged: waived, made free, or too small for Stripe."""
    capture = payment.latest("capture")
    too_small = capture is not None and (capture.result or {}).get("code") == "amount_too_small"
    return order.waived or order.unpaid or too_small


def _shared(order: Order, payment: Payment) -> list[Difference]:
    """What each payee has, or waits for, against its share of what is left."""
    settlement, found = payment.settlement, list[Difference]()
    if settlement is None or order.booking or payment.status not in PAID:
        return found
    given = sum(transfer.amount for transfer in payment.transfers)
    if given > settlement.amount:
        found.append(Difference(order.session, "payment", "shares above the settled amount", given, settlement.amount))
    if not (payment.settled and order.finalized):
        return found
    for payee in ("expert", "ambassador"):
        has = sum(t.kept for t in payment.transfers if t.to == payee)
        waits = any(t.status == "withheld" for t in payment.transfers if t.to == payee)
        share = entitled(order, payment, payee)[0]
        if has > share or (has < share and not waits):
            found.append(Difference(order.session, payee, "share", has, share))
    return found


def _late(session: Document, order: Order, payment: Payment, now: int) -> list[Difference]:
    """What nobody seems to look after any more."""
    ended_at = session.get("ended_at") or 0
    if session["status"] not in OVER:
        by = _last_moment(session) + HOUR_MS
        return [Difference(order.session, "session", "not ended", session["status"], "ended")] if by < now else []
    if session["status"] == "ended" and ended_at + HOUR_MS < now:
        return [Difference(order.session, "bill", "not billed", None, session.get("end_reason"))]
    since = session.get("created", 0) if order.booking else ended_at
    moving = payment.status in PAID if order.booking else payment.status not in ("due", "disputed")
    if moving and order.finalized and not payment.settled and since + DAY_MS < now:
        return [Difference(order.session, "payment", "not settled", _stands(payment), "settled")]
    return []


def _last_moment(session: Document) -> int:
    """Wall ms; a call ends by itself at its limit, and one that never began when it expires."""
    if session.get("started_at"):
        return int(session["started_at"] + session["limit_ms"])
    return int(session.get("expires_at") or 1 << 62)


def _stands(payment: Payment) -> str:
    """Where a payment is stuck: its open steps, and what was refused of late, with Stripe's word."""
    latest = {step.step: step for step in payment.steps}.values()
    stuck = [step for step in latest if step.open or (step.state == "failed" and step.not_before)]
    named = [f"{step.step} {step.state} {(step.result or {}).get('code', '')}".strip() for step in stuck]
    return ", ".join([payment.status, *named])


def shared_out(records: Sequence[tuple[Document, Payment]]) -> list[Difference]:
    """Each paid booking against the parts that its meetings have of its charge; meetings that are in no record at hand
    say nothing."""
    here = {session["id"]: payment for session, payment in records}
    found: list[Difference] = []
    for session, payment in records:
        if session["kind"] != "booking" or payment.status not in PAID or not payment.settled:
            continue
        meetings = {ident: here[ident] for ident in session["meetings"] if ident in here}
        found += [
            Difference(ident, "payment", "no part of the charge", each.payment_intent, payment.payment_intent)
            for ident, each in meetings.items()
            if each.part is None or each.payment_intent != payment.payment_intent
        ]
        if len(meetings) == len(session["meetings"]):
            parts = sum(each.amount_captured for each in meetings.values())
            found += unlike(session["id"], "payment", {"parts do not sum": (parts, payment.amount_captured)})
    return found
