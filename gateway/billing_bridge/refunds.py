"""What refunds, disputes and debts ask for: whose share is how much now, and the step that brings it there. Pure.

Shares are those of the *remaining* total by the same split, in the session's and in the settlement currency; what a
payee has above its share is taken back, and given once more when the bank returns a refund. As only the remaining
total counts, any series of refunds closes (5-money).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from gateway.billing_bridge.calls import forgive_step, owe_step, refund_step, restore_step, reversal_step
from gateway.billing_bridge.order import Order, RefundOrder
from gateway.billing_bridge.record import (
    PAID,
    Dispute,
    DisputeStatus,
    Notice,
    Payment,
    Refund,
    Status,
    Step,
    Transfer,
    told_dispute,
    told_refund,
    told_transfer,
)
from gateway.money import settled_share

Applied = tuple[Payment, tuple[Notice, ...]]

# The number of the refund that nobody orders because the terms of the booking do.
POLICY: Final = -1
# And of those that were not ordered here at all, but made at Stripe itself.
FOREIGN: Final = -2
# And of those whose order was lost, with all that we knew of them; only Stripe has it.
LOST: Final = -3
# Refusals of a reversal which say that the payee has not got the money: it is taken from the next transfers.
WANT_OF_BALANCE: Final = frozenset({"balance_insufficient", "insufficient_funds"})
# Reasons to withhold that an account's own change cannot cure.
NOT_THE_ACCOUNT: Final = frozenset({"no_account", "disputed"})
DISPUTE_STATUS: Final[Mapping[str, DisputeStatus]] = {
    "warning_needs_response": "open", "warning_under_review": "open", "needs_response": "open", "under_review": "open",
    "warning_closed": "won", "won": "won", "prevented": "won", "lost": "lost",
}  # fmt: skip
REFUND_STATUS: Final[Mapping[str, Any]] = {"succeeded": "succeeded", "failed": "failed", "canceled": "failed"}


def refunded(payment: Payment) -> int:
    """What the client got back, or is about to."""
    return sum(refund.amount for refund in payment.refunds if refund.counts)


def remaining(payment: Payment) -> int:
    """What is left of the total for the shares; a refund that the platform bears leaves them alone."""
    shared = sum(refund.amount for refund in payment.refunds if refund.counts and refund.charge_to == "shares")
    return payment.amount_captured - shared


def entitled(order: Order, payment: Payment, payee: str) -> tuple[int, int]:
    """A payee's share of what is left: in the settlement currency and in the session's. Of a meeting's fee no more is
    shared than its terms leave, even if the bank returned what they give back."""
    assert payment.settlement is not None
    left = remaining(payment)
    if order.booked and order.bill is not None:
        left = min(left, order.bill.total)
    share: int = getattr(order.shares_of(left), payee)
    return settled_share(payment.settlement.amount, share, payment.amount_captured), share


def excess(order: Order, payment: Payment, transfer: Transfer) -> int:
    """What a payee has been transferred above its share of what is left; never negative."""
    if not transfer.given or payment.settlement is None:
        return 0
    return max(0, transfer.kept - entitled(order, payment, transfer.to)[0])


def lack(order: Order, payment: Payment, transfer: Transfer) -> int:
    """What a payee has less than its share of what is left, as the bank returned a refund; never negative."""
    if not transfer.given or payment.settlement is None:
        return 0
    return max(0, entitled(order, payment, transfer.to)[0] - transfer.kept)


def outstanding(order: Order, payment: Payment) -> bool:
    """Whether a refund waits to be made, or money to be taken back or given once more."""
    ordered = any(refund.status == "ordered" for refund in payment.refunds)
    return ordered or any(
        excess(order, payment, transfer) or (lack(order, payment, transfer) and transfer.status != "withheld")
        for transfer in payment.transfers
    )


def standing(payment: Payment) -> Payment:
    """The record with the status that its refunds and its dispute give it."""
    payment = _bounded(payment)
    back = refunded(payment)
    status: Status = "partially_refunded" if back else "captured"
    if back >= payment.amount_captured:
        status = "refunded"
    if payment.dispute is not None and payment.dispute.status == "open":
        status = "disputed"
    return payment.to(status, amount_refunded=back)


def _bounded(payment: Payment) -> Payment:
    """A lost dispute takes at most what the refunds have left, also one that we hear of only later."""
    dispute = payment.dispute
    lost = next((refund for refund in payment.refunds if dispute is not None and refund.id == dispute.id), None)
    if dispute is None or lost is None:
        return payment
    others = sum(refund.amount for refund in payment.refunds if refund.counts and refund is not lost)
    return payment.with_refund(replace(lost, amount=min(dispute.amount, payment.amount_captured - others)))


def with_orders(order: Order, payment: Payment) -> Payment:
    """Refunds as they were ordered, each at most what is then left of the charge."""
    if payment.status not in PAID:
        return payment
    payment = _by_policy(order, payment)
    known = {refund.number for refund in payment.refunds}
    for wanted in order.refunds:
        if wanted.number not in known:
            payment = payment.with_refund(_ordered(wanted, payment))
    return payment


def _by_policy(order: Order, payment: Payment) -> Payment:
    """What does not stay of a meeting's fee is given back, as far as it is not otherwise (R14). Until Stripe takes it,
    it follows what became of the others: one that was ordered before it may be refused, a dispute may be lost."""
    mine = next((refund for refund in payment.refunds if refund.number == POLICY), None)
    decided = order.booked and (order.waived or order.finalized)
    if not decided or (mine is not None and (mine.status != "ordered" or _refunding(payment))):
        return payment
    stays = 0 if order.waived or order.bill is None else order.bill.total
    place = len(payment.refunds) if mine is None else payment.refunds.index(mine)
    before, later = _ordered_of(payment.refunds[:place]), _ordered_of(payment.refunds[place + 1 :])
    # What was ordered later is given of what stays.
    back = payment.amount_captured - refunded(payment) - before - max(stays, later)
    if back > 0:
        ident = order.session.replace("ses_", "ref_booking_", 1)
        return payment.with_refund(Refund(POLICY, ident, back, "booking_policy"))
    return payment if mine is None else payment.with_refund(replace(mine, status="failed", failure="given_otherwise"))


def _ordered_of(refunds: Iterable[Refund]) -> int:
    return sum(refund.amount for refund in refunds if refund.status == "ordered")


def _refunding(payment: Payment) -> bool:
    """Whether a refund is on its way to Stripe, with the amount that it was sent with."""
    return any(step.step == "refund" and step.open for step in payment.steps)


def _ordered(wanted: RefundOrder, payment: Payment) -> Refund:
    refund = Refund(wanted.number, wanted.id, wanted.amount, wanted.reason, wanted.charge_to)
    taken = sum(r.amount for r in payment.refunds if r.counts or r.status == "ordered")
    if refund.amount > payment.amount_captured - taken:
        return replace(refund, status="failed", failure="amount_too_large")
    return refund


def retargeted(order: Order, payment: Payment) -> Applied:
    """Transfers that were not made yet follow the shares, wait while the charge is disputed, and go on after."""
    notices: tuple[Notice, ...] = ()
    if payment.settlement is None:
        return payment, notices
    for transfer in payment.transfers:
        changed = _target(order, payment, transfer)
        if changed.status == "withheld" and transfer.status != "withheld":
            notices += (told_transfer("withheld", changed),)
        payment = payment.with_transfer(changed)
    if order.news.accounts > payment.reads.accounts:
        payment = replace(payment, reads=replace(payment.reads, accounts=order.news.accounts))
    return payment, notices


def _target(order: Order, payment: Payment, transfer: Transfer) -> Transfer:
    latest, offset = payment.latest(f"transfer_{transfer.to}"), payment.latest(f"offset_{transfer.to}")
    under_way = any(step is not None and step.open for step in (latest, offset))
    renewed = order.news.accounts > payment.reads.accounts and transfer.reason not in NOT_THE_ACCOUNT
    if transfer.status == "withheld" and transfer.given:
        return replace(transfer, status="paid", reason=None) if renewed else transfer
    if transfer.stripe_id or transfer.status in ("paid", "owed") or under_way:
        return transfer
    amount, share = entitled(order, payment, transfer.to)
    # So much was taken out of it for an older debt, and counts as had; what it is above the share is owed once more.
    transfer = replace(transfer, amount=max(amount, transfer.amount_offset), amount_share=share)
    if transfer.amount == 0:
        return replace(transfer, status="reversed", reason="refunded")
    if transfer.amount == transfer.amount_offset:
        return replace(transfer, status="paid", reason="offset")
    if payment.status == "disputed" and transfer.reason != "no_account":
        return replace(transfer, status="withheld", reason="disputed")
    if transfer.reason in ("disputed", "refunded") or (transfer.status == "withheld" and renewed):
        return replace(transfer, status="pending", reason=None)
    return transfer


def next_refund(order: Order, payment: Payment, now: int) -> Step | None:
    """The refund to send, one after the other. A charge under dispute takes none: it waits for the decision."""
    if payment.status == "disputed" or payment.rests("refund", now):
        return None
    refund = next((refund for refund in payment.refunds if refund.status == "ordered"), None)
    return None if refund is None else refund_step(order, payment, refund)


def next_reversal(order: Order, payment: Payment, now: int) -> Step | None:
    """What is to be taken back of a transfer; what Stripe refused for want of balance is written down as owed."""
    for transfer in payment.transfers:
        too_much = excess(order, payment, transfer)
        if too_much == 0 or _busy(payment, transfer, now):
            continue
        refused = _refused(payment, transfer)
        made = made_of(payment, transfer).items()
        ident, room = next(((ident, left) for ident, (_, left) in made if left > 0), ("", 0))
        if refused is not None or room == 0:
            return owe_step(order, payment, transfer, min(refused or too_much, too_much))
        return reversal_step(order, payment, transfer, ident, min(too_much, room))
    return None


def next_restore(order: Order, payment: Payment, now: int) -> Step | None:
    """What was taken back for a refund that the bank returned: what of it is still owed is so no more, the rest is
    given once more. Not while the charge is disputed."""
    if payment.status == "disputed" or order.news.disputes > payment.reads.disputes:
        return None
    for transfer in payment.transfers:
        too_little = lack(order, payment, transfer)
        if not too_little or transfer.status == "withheld" or _busy(payment, transfer, now):
            continue
        if transfer.amount_owed and order.debts.get(transfer.account or "", 0) > 0:
            return forgive_step(order, payment, transfer, min(too_little, transfer.amount_owed))
        return restore_step(order, payment, transfer, too_little)
    return None


def _busy(payment: Payment, transfer: Transfer, now: int) -> bool:
    """Whether a step about a payee is on its way, or was refused and waits for its next try."""
    names = ("reversal", "restore", "owe", "forgive", "transfer", "offset")
    steps = [payment.latest(f"{name}_{transfer.to}") for name in names]
    return any(step is not None and (step.open or step.rests(now)) for step in steps)


def made_of(payment: Payment, transfer: Transfer) -> dict[str, tuple[int, int]]:
    """The transfers that a payee got of this payment, by their ids at Stripe: amount, and what is left of it."""
    done = [step for step in payment.steps if step.state == "done"]
    made = {transfer.stripe_id: transfer.amount - transfer.amount_offset} if transfer.stripe_id else {}
    made |= {str((s.result or {})["id"]): int(s.params["amount"]) for s in done if s.step == f"restore_{transfer.to}"}
    back = Counter[str]()
    for step in done:
        if step.step == f"reversal_{transfer.to}":
            back[step.params["transfer"]] += int(step.params["amount"])
    return {ident: (amount, amount - back[ident]) for ident, amount in made.items()}


def _refused(payment: Payment, transfer: Transfer) -> int | None:
    """The amount of the latest reversal, if it was refused for want of balance and is not written down yet."""
    latest = payment.latest(f"reversal_{transfer.to}")
    if latest is None or latest.state != "failed" or (latest.result or {}).get("code") not in WANT_OF_BALANCE:
        return None
    noted = payment.latest(f"owe_{transfer.to}")
    return None if noted is not None and noted.why == latest.key else int(latest.params["amount"])


def refund_made(payment: Payment, step: Step, made: Mapping[str, Any]) -> Applied:
    """Stripe made the refund; `pending` and `requires_action` are on their way, and count."""
    refund = _of(payment, step)
    status = REFUND_STATUS.get(str(made.get("status")), "pending")
    refund = replace(refund, status=status, stripe_id=made["id"], failure=made.get("failure_reason"))
    payment = standing(payment.with_refund(refund))
    return payment, (told_refund(payment, refund),) if refund.counts else ()


def by_policy(payment: Payment, step: Step) -> bool:
    """Whether a refund is one that the terms of a booking give."""
    return _of(payment, step).number == POLICY


def refund_refused(payment: Payment, step: Step, code: str) -> Payment:
    return payment.with_refund(replace(_of(payment, step), status="failed", failure=code))


def _of(payment: Payment, step: Step) -> Refund:
    ident = step.params["metadata"]["refund"]
    return next(refund for refund in payment.refunds if refund.id == ident)


def reversed_by(amount: int, payment: Payment, payee: str) -> Applied:
    """`amount` of a transfer came back."""
    transfer = payment.transfer_to(payee)
    back = transfer.amount_reversed + amount
    whole = back + transfer.amount_offset >= transfer.amount + transfer.amount_restored
    transfer = replace(transfer, amount_reversed=back, status="reversed" if whole else transfer.status)
    return payment.with_transfer(transfer), (told_transfer("reversed", transfer),)


def restored_by(amount: int, payment: Payment, payee: str) -> Applied:
    """`amount` of what was taken back was transferred once more."""
    transfer = payment.transfer_to(payee)
    transfer = replace(transfer, amount_restored=transfer.amount_restored + amount, status="paid", reason=None)
    return payment.with_transfer(transfer), (told_transfer("created", transfer),)


def owed_by(amount: int, payment: Payment, payee: str) -> Applied:
    """The payee owes it; its next transfers will be the smaller."""
    transfer = payment.transfer_to(payee)
    transfer = replace(transfer, amount_owed=transfer.amount_owed + amount, status="owed")
    return payment.with_transfer(transfer), (told_transfer("reversed", transfer),)


def forgiven_by(amount: int, payment: Payment, payee: str) -> Applied:
    """So much of what the payee owed it owes no more; its share is the greater."""
    transfer = payment.transfer_to(payee)
    left = transfer.amount_owed - amount
    transfer = replace(transfer, amount_owed=left, status="owed" if left else "paid")
    return payment.with_transfer(transfer), (told_transfer("created", transfer),)


def offset_by(amount: int, payment: Payment, payee: str) -> Applied:
    """So much of a transfer was kept back for an older debt; with nothing left of it, it counts as paid."""
    transfer = replace(payment.transfer_to(payee), amount_offset=amount)
    if amount < transfer.amount:
        return payment.with_transfer(transfer), ()
    transfer = replace(transfer, status="paid", reason="offset")
    return payment.with_transfer(transfer), (told_transfer("created", transfer),)


def disputes_seen(payment: Payment, step: Step, listing: Mapping[str, Any]) -> Applied:
    """The charge's cases as Stripe lists them; a lost one is a refund that nobody ordered."""
    payment = replace(payment, reads=replace(payment.reads, disputes=step.attempt, tries=0))
    notices: tuple[Notice, ...] = ()
    for case in _that_count(payment, listing.get("data", ())):
        payment, told = _case(payment, case)
        notices += told
    return payment, notices


def unseen(payment: Payment, cases: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The cases against the charge that the record has not, or not as they stand."""
    return [case for case in _that_count(payment, cases) if not _has(payment, case)]


def dispute_of(payment: Payment, case: Mapping[str, Any]) -> Dispute:
    """A case as a payment's record keeps it: of a booking's charge a meeting has its part."""
    at_stake = case["amount"] if payment.part is None else payment.part.of(case["amount"])
    status = DISPUTE_STATUS.get(str(case["status"]), "open")
    return Dispute(case["id"], at_stake, status, case.get("reason"))


def _that_count(payment: Payment, cases: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Oldest first, and those still open last: the record keeps the last one only. Of what stands before that one only
    a lost case counts."""

    def place(case: Mapping[str, Any]) -> tuple[bool, int, str]:
        return DISPUTE_STATUS.get(str(case["status"]), "open") == "open", case.get("created", 0), case["id"]

    found = sorted(cases, key=place)
    kept = next((n for n, case in enumerate(found) if payment.dispute and case["id"] == payment.dispute.id), 0)
    return [case for n, case in enumerate(found) if n >= kept or case["status"] == "lost"]


def _has(payment: Payment, case: Mapping[str, Any]) -> bool:
    lost = any(refund.stripe_id == case["id"] for refund in payment.refunds)
    return lost or payment.dispute == dispute_of(payment, case)


def _case(payment: Payment, case: Mapping[str, Any]) -> Applied:
    if _has(payment, case):
        return payment, ()
    dispute = dispute_of(payment, case)
    payment = replace(payment, dispute=dispute)
    if dispute.status == "lost":
        lost = Refund(0, dispute.id, dispute.amount, "dispute", "shares", "succeeded", dispute.id)
        payment = payment.with_refund(lost)
    payment = standing(payment)
    return payment, (told_dispute(payment, dispute),)
