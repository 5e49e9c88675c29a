"""The payment of one session: what its record says must happen next. Pure; `worker` does it, `results` applies it.

The order of one look at a session: `recovered` (a step found `sent` is unknown), `concluded` (what follows without
Stripe), `next_step` (what to call, or None), `begun` (to be persisted before the call), then `results.applied`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.billing_bridge.calls import (
    capture_step,
    hold_step,
    offset_step,
    outlived,
    read_step,
    release_step,
    share_out_step,
    transfer_step,
)
from gateway.billing_bridge.expiring import half_at
from gateway.billing_bridge.order import Order, order_of
from gateway.billing_bridge.pricing import Terms, minimum_charge
from gateway.billing_bridge.record import (
    FINAL,
    PAID,
    SERIAL,
    Notice,
    Payment,
    Reads,
    Settlement,
    Step,
    StepName,
    Transfer,
    public,
    told,
    told_transfer,
)
from gateway.billing_bridge.refunds import (
    next_refund,
    next_restore,
    next_reversal,
    outstanding,
    retargeted,
    with_orders,
)
from gateway.money import settled_shares

# Networks let a hold go at `capture_before`; Stripe cancels the intent a moment later.
EXPIRY_SLACK_MS = 5_000
# A client who has to confirm the payment of a due bill with the bank, and does not, has given it up after this long.
ACTION_LIFE_MS = 3_600_000


def opened(session: Mapping[str, Any], now: int = 0) -> dict[str, Any]:
    """The `payment` document that a session is created with: nothing to hold, a hold to make, or one to make later.

    The order in the session and this record are written in one durable step, before Stripe is called.
    """
    order, reads = order_of(session), Reads(not_before=now)
    if order.booked:
        return Payment("pending", order.currency, reads=reads).to_dict()  # until its booking is paid
    if not order.priced:
        return Payment("none", order.currency, reads=reads).to_dict()
    if order.payment_method is None:
        return Payment("failed", order.currency, decline_code="card_required", reads=reads).to_dict()
    if not order.can_hold:
        return Payment("awaiting_join", order.currency, reads=reads).to_dict()
    return Payment("pending", order.currency, attempt=order.attempt, reads=reads).to_dict()


def recovered(payment: Payment) -> Payment:
    """After a crash: what was sent may have been done, so it is asked about before anything else (law 5)."""
    for step in payment.steps:
        if step.state == "sent":
            payment = payment.with_step(step.to("unknown", not_before=0))
    return payment


def concluded(order: Order, payment: Payment, terms: Terms) -> tuple[Payment, tuple[Notice, ...]]:
    """All that follows from the session's record without asking Stripe, and the events that tell of it."""
    payment = _next_attempt(order, payment)
    payment = _without_unsent_holds(order, payment, terms)
    payment, due = _without_hold(order, payment, terms)
    payment, withheld = _with_transfers(order, payment)
    payment, waiting = retargeted(order, with_orders(order, payment))
    payment = _with_totals(order, payment, terms)
    payment, settled = _settled(order, payment)
    return payment, (*due, *withheld, *waiting, *settled)


def next_step(
    order: Order,
    payment: Payment,
    now: int,
    terms: Terms,
    *,
    expert_name: str = "",
    nudges: int = 0,
) -> Step | None:
    """The step whose time has come, or None. `nudges` counts Stripe's events about this session: one more than was
    seen means that Stripe knows something new. Steps on hold, release and capture go one after the other."""
    waiting = payment.open_steps
    ready = next((step for step in waiting if step.state != "sent" and step.not_before <= now), None)
    if ready is not None:
        return ready
    if any(step.step in SERIAL for step in waiting):
        return None
    return _planned(order, payment, now, terms, expert_name, nudges)


def begun(payment: Payment, step: Step, now: int, nudges: int = 0) -> tuple[Payment, Step]:
    """The record with the step on its way; it must be on disk before the call goes out, unless the step only asks."""
    if step.reads:
        return replace(payment, reads=replace(payment.reads, seen=nudges, tries=payment.reads.tries + 1)), step
    if outlived(step, now):
        step = step.to("unknown")
    if step.state == "unknown":
        step = replace(step, tries=step.tries + 1)
        return payment.with_step(step), step
    step = step.to("sent", at=step.at or now, tries=step.tries + 1)
    if step.step == "capture":
        payment = payment.to("capturing", amount_total=step.params["amount_to_capture"])
    return payment.with_step(step), step


def look_at(order: Order, payment: Payment, now: int, nudges: int = 0) -> int | None:
    """When something will be due without anyone asking (wall ms), or None."""
    times = [step.not_before for step in payment.steps if step.open or step.rests(now)]
    read = _read(order, payment, nudges)
    if read is not None:
        times.append(read[1])
    if (alarm := half_at(payment)) is not None and alarm > now:
        times.append(alarm)
    return min(times, default=None)


def owed(order: Order, terms: Terms) -> int:
    """What the bill asks of the client: nothing if waived, or smaller than the smallest charge (5-money)."""
    if order.bill is None or order.waived or order.bill.total < minimum_charge(order.currency, terms):
        return 0
    return order.bill.total


def nothing_due(order: Order, payment: Payment, terms: Terms) -> bool:
    """Whether the hold may go: waived, free by now, or billed at nothing. A capture under way decides. Before the bill
    is final only its owner can say whether the call was live: Redis may have lost the word of its start."""
    capture = payment.latest("capture")
    if capture is not None:
        return capture.state == "failed" and (capture.result or {}).get("code") == "amount_too_small"
    if order.waived or order.unpaid:
        return True
    return order.bill is not None and owed(order, terms) == 0


def _planned(order: Order, payment: Payment, now: int, terms: Terms, expert_name: str, nudges: int) -> Step | None:
    if payment.rests("release", now):
        return None
    for attempt, intent in payment.live_intents:
        if attempt != payment.attempt:
            return release_step(order, payment, intent, "superseded")  # at most one hold lives (5-money)
        if nothing_due(order, payment, terms):
            return release_step(order, payment, intent, "waived" if order.waived else "nothing_due")
        if order.finalized and (why := _given_up(payment, now)):
            return release_step(order, payment, intent, why)
    if payment.status in PAID and order.booking:
        return share_out_step(order, payment) if payment.latest("share_out") is None else None
    if payment.status in PAID:
        return _next_of_paid(order, payment, now, nudges)
    if _to_hold(order, payment) and payment.card is not None:
        return hold_step(order, terms, expert_name)
    due = payment.status in ("held", "capturing") and not payment.rests("capture", now)
    if due and (amount := owed(order, terms)):
        return capture_step(order, payment, min(amount, payment.amount_held))
    return _next_read(order, payment, now, nudges)


def _next_of_paid(order: Order, payment: Payment, now: int, nudges: int) -> Step | None:
    read = _next_read(order, payment, now, nudges)
    if read is not None or order.news.lost > payment.reads.lost:
        return read  # what we are about to do may be done, and our record of it lost: ask first
    return (
        next_refund(order, payment, now)
        or next_reversal(order, payment, now)
        or next_restore(order, payment, now)
        or _next_transfer(order, payment, now)
    )


def _to_hold(order: Order, payment: Payment) -> bool:
    """Whether a card waits to be asked. It is looked at before (R4, `cards`)."""
    return payment.status == "pending" and order.can_hold and payment.find("hold", order.attempt) is None


def _given_up(payment: Payment, now: int) -> str | None:
    """Why the card that was to pay a due bill is let go: declined, or its client never came back from the bank."""
    if payment.status == "failed":
        return "declined"
    hold = payment.find("hold", payment.attempt)
    overdue = hold is not None and hold.at + ACTION_LIFE_MS <= now
    return "abandoned" if payment.status == "action_required" and overdue else None


def _next_transfer(order: Order, payment: Payment, now: int) -> Step | None:
    if order.news.disputes > payment.reads.disputes:
        return None  # the charge may be disputed: ask first
    for transfer in payment.transfers:
        latest, offset = payment.latest(f"transfer_{transfer.to}"), payment.latest(f"offset_{transfer.to}")
        if transfer.status != "pending" or any(step is not None and step.open for step in (latest, offset)):
            continue
        if offset is None and order.debts.get(transfer.account or "", 0) > 0:
            return offset_step(order, transfer)
        if latest is None or (latest.state == "failed" and not latest.rests(now)):
            return transfer_step(order, payment, transfer)
    return None


def _next_read(order: Order, payment: Payment, now: int, nudges: int) -> Step | None:
    read = _read(order, payment, nudges)
    if read is None or read[1] > now:
        return None
    return read_step(order, payment, read[0])


def _read(order: Order, payment: Payment, nudges: int) -> tuple[StepName, int] | None:
    """What is worth asking Stripe, and from when: at once after a nudge, else as it becomes likely to have changed."""
    if _to_hold(order, payment) and payment.card is None and not payment.open_steps:
        return "card", payment.reads.not_before if payment.reads.tries else 0
    if payment.payment_intent is None or payment.open_steps or (order.booking and payment.status in PAID):
        return None
    nudged, at = nudges > payment.reads.seen, payment.reads.not_before
    if payment.status in PAID:
        return _read_of_paid(order, payment, nudged)
    if not any(attempt == payment.attempt for attempt, _ in payment.live_intents):
        return None
    if payment.status in ("pending", "action_required"):
        return "check", 0 if nudged else at
    if nudged and payment.status in ("held", "failed"):
        return "check", 0
    if payment.status == "held" and payment.hold_until is not None:
        return "check", max(at, payment.hold_until + EXPIRY_SLACK_MS)
    return None


def _read_of_paid(order: Order, payment: Payment, nudged: bool) -> tuple[StepName, int] | None:
    reads, news = payment.reads, order.news
    if payment.settlement is None:
        return "settlement", 0 if nudged else reads.not_before
    # What a lost dispute takes is what the refunds have left: they come first.
    if news.refunds > reads.refunds:
        return "refunds", reads.not_before
    if news.lost > reads.lost:
        return "lost", reads.not_before
    return ("disputes", reads.not_before) if news.disputes > reads.disputes else None


def _next_attempt(order: Order, payment: Payment) -> Payment:
    """Another card, or the first one whose time has come: pending again, and nothing left of the one before."""
    waiting = payment.status in ("awaiting_join", "pending", "action_required", "held", "failed", "due")
    if not (waiting and order.can_hold and order.attempt > payment.attempt):
        return payment
    if order.recharged and any(step.step == "hold" and step.open for step in payment.steps):
        return payment  # the card before may yet be charged: only when it was not is this one
    return payment.to(
        "pending", attempt=order.attempt, amount_held=0, payment_intent=None, charge=None, card=None, hold_until=None,
        client_secret=None, action_url=None, decline_code=None, reads=Reads(seen=payment.reads.seen),
    )  # fmt: skip


def _without_unsent_holds(order: Order, payment: Payment, terms: Terms) -> Payment:
    """A hold that Stripe surely never made, and nobody wants any more, is not made."""
    for step in payment.steps:
        over = order.over and not order.recharged
        unwanted = step.attempt != payment.attempt or over or nothing_due(order, payment, terms)
        if step.step == "hold" and step.state == "intent" and unwanted:
            payment = payment.with_step(step.to("failed", result={"code": "superseded"}))
    return payment


def _without_hold(order: Order, payment: Payment, terms: Terms) -> tuple[Payment, tuple[Notice, ...]]:
    """Where a payment ends that has no hold any more: nothing was due, or something still is."""
    unsent = order.can_hold and payment.status == "pending" and payment.find("hold", payment.attempt) is None
    if payment.open_steps or payment.live_intents or unsent:
        return payment, ()
    if payment.status in ("awaiting_join", "pending") and (order.waived or nothing_due(order, payment, terms)):
        return payment.to("none"), ()
    if payment.status == "due" and order.waived:
        payment = payment.to("released", amount_total=0)
        return payment, (told("released", payment),)
    if payment.status in ("pending", "failed") and owed(order, terms) and not order.booking:
        payment = payment.to("due", amount_total=owed(order, terms))
        return payment, (told("due", payment),)
    return payment, ()


def _with_transfers(order: Order, payment: Payment) -> tuple[Payment, tuple[Notice, ...]]:
    """The shares as transfers, once the charge's balance transaction is known (R3, R19, law 6)."""
    if payment.status not in PAID or payment.settlement is None or payment.transfers or not order.finalized:
        return payment, ()
    transfers = _transfers(order, payment.amount_captured, payment.settlement)
    withheld = tuple(told_transfer("withheld", transfer) for transfer in transfers if transfer.status == "withheld")
    return replace(payment, transfers=transfers), withheld


def _transfers(order: Order, captured: int, settlement: Settlement) -> tuple[Transfer, ...]:
    shares = order.shares_of(captured)
    settled = settled_shares(settlement.amount, shares)
    expert = Transfer("expert", order.expert_account, settled.expert, settlement.currency, shares.expert)
    ambassador = Transfer(
        "ambassador", order.ambassador_account, settled.ambassador, settlement.currency, shares.ambassador
    )
    wanted = [transfer for transfer in (expert, ambassador) if transfer.amount > 0]
    return tuple(t if t.account else replace(t, status="withheld", reason="no_account") for t in wanted)


def _with_totals(order: Order, payment: Payment, terms: Terms) -> Payment:
    """What the session cost in the end, and what was let off, once both are certain."""
    if not order.finalized or order.bill is None or payment.status not in FINAL:
        return payment
    taken = order.bill.total if order.booked else payment.amount_captured
    total = taken if payment.status in PAID else owed(order, terms) if payment.status == "due" else 0
    waived = order.bill.waived + max(0, order.bill.total - total)
    return replace(payment, amount_total=total, amount_waived=waived)


def _settled(order: Order, payment: Payment) -> tuple[Payment, tuple[Notice, ...]]:
    """No money step is open: nothing is on its way to Stripe, nothing held, nothing still to be paid by either side."""
    pending = any(transfer.status == "pending" for transfer in payment.transfers) or outstanding(order, payment)
    busy = payment.open_steps or payment.live_intents or pending
    if order.booking:
        return replace(payment, settled=_shared_out(order, payment) and not busy), ()
    unknown = payment.status in PAID and payment.settlement is None
    if payment.settled and busy:
        return replace(payment, settled=False), ()  # a refund was ordered, a dispute was lost
    if payment.settled or not order.finalized or busy or unknown or payment.status not in FINAL - {"due"}:
        return payment, ()
    payment = replace(payment, settled=True)
    data = public(payment) | {"transfers": [told_transfer("", transfer).data for transfer in payment.transfers]}
    return payment, (Notice("session.settled", data),)


def _shared_out(order: Order, payment: Payment) -> bool:
    """Whether a booking's money is with its meetings, which then settle it; or none will come any more."""
    if payment.status in PAID:
        step = payment.latest("share_out")
        return step is not None and step.state == "done"
    return order.waived and payment.status in FINAL
