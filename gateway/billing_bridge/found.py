"""What Stripe has and our records have not: refunds made there by hand, and what our own lost steps had made. Pure.

Records are older than Stripe's when Redis was lost and the archive, or a backup, took its place. A refund, a reversal
or a restored share that carries our session's name and that no step knows is then written down as the done step that it
was: it counts, and its attempt and key are taken. Nothing new is refunded, taken back or given before that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, Literal, cast

from gateway.billing_bridge.calls import key_of
from gateway.billing_bridge.record import ChargeTo, Notice, Payment, Refund, Step, StepName, told_refund
from gateway.billing_bridge.refunds import (
    FOREIGN,
    LOST,
    REFUND_STATUS,
    Applied,
    made_of,
    restored_by,
    reversed_by,
    standing,
)

Thing = Mapping[str, Any]

# Of a record that was found to be older than Stripe's: whatever was asked before, its lost steps are asked for anew.
UNASKED: Final = -1


def refunds_seen(payment: Payment, step: Step, listing: Thing) -> Applied:
    """What became of the refunds at the bank: one may come back days later. One that somebody made at Stripe itself is
    adopted, and borne like any other by the shares; one of a lost order, by whom that order said."""
    payment = replace(payment, reads=replace(payment.reads, refunds=step.attempt, tries=0))
    theirs = {item["id"]: item for item in listing.get("data", ())}
    for refund in payment.refunds:
        item = theirs.get(refund.stripe_id or "")
        if item is not None:
            payment = payment.with_refund(_as_at_the_bank(refund, item))
    notices: tuple[Notice, ...] = ()
    for item in _foreign(payment, theirs.values()):
        payment, told = _adopted(payment, Refund(FOREIGN, item["id"], _borne(payment, item["amount"])), item)
        notices += told
    for item in [item for item in theirs.values() if is_lost_refund(payment, step.why, item)]:
        payment, told = _adopted(_with_lost_refund(payment, step.why, item), _order_of(item), item)
        notices += told
    return standing(payment), notices


def moves_seen(payment: Payment, step: Step, listing: Thing) -> Applied:
    """What lost steps took back of the payees' transfers, and gave once more. `listing`: the transfers of the session's
    group; each has its ten newest reversals with it."""
    payment = replace(payment, reads=replace(payment.reads, lost=step.attempt, tries=0))
    transfers, notices = list(listing.get("data", ())), list[Notice]()
    for thing in transfers:
        if is_lost_restore(payment, step.why, thing):
            payment, told = _restored(payment, step.why, thing)
            notices += told
    for thing in transfers:
        for reversal in reversed((thing.get("reversals") or {}).get("data", ())):  # the oldest first
            payment, told = _reversed(payment, step.why, thing, reversal)
            notices += told
    return payment, tuple(notices)


def to_ask_for(payment: Payment, session: str, thing: Thing) -> Literal["refunds", "lost"] | None:
    """What the bridge has to read so that it finds something that it has lost; None if it would not."""
    if thing["object"] == "refund" and is_lost_refund(payment, session, thing):
        return "refunds"
    return "lost" if thing["object"] == "transfer" and is_lost_restore(payment, session, thing) else None


def is_lost_refund(payment: Payment, session: str, item: Thing) -> bool:
    """Whether a step of the session made it and the record knows neither. One that is just being made is known: its
    order is in the record before its step."""
    named = _named(item, session)
    known = {ident for refund in payment.refunds for ident in (refund.id, refund.stripe_id)}
    return named.get("step") == "refund" and bool(named.get("refund")) and not known & {item["id"], named["refund"]}


def is_lost_restore(payment: Payment, session: str, thing: Thing) -> bool:
    step, payees = _named(thing, session).get("step"), {transfer.to for transfer in payment.transfers}
    return step in {f"restore_{payee}" for payee in payees} and not _under_way(payment, step, thing)


def _under_way(payment: Payment, step: str, thing: Thing) -> bool:
    """Whether a step has made it, or may have and is going to ask."""
    mine = [one for one in payment.steps if one.step == step]
    return any(one.open or (one.result or {}).get("id") == thing["id"] for one in mine)


def _foreign(payment: Payment, items: Iterable[Thing]) -> list[Thing]:
    """Those that were made at Stripe itself, and that no record has yet."""
    known = {refund.stripe_id for refund in payment.refunds}
    return [item for item in items if item["id"] not in known and not (item.get("metadata") or {}).get("session")]


def _adopted(payment: Payment, refund: Refund, item: Thing) -> Applied:
    refund = _as_at_the_bank(replace(refund, stripe_id=item["id"]), item)
    payment = standing(payment.with_refund(refund))
    return payment, (told_refund(payment, refund),) if refund.counts and refund.amount else ()


def _as_at_the_bank(refund: Refund, item: Thing) -> Refund:
    status = REFUND_STATUS.get(str(item["status"]), "pending")
    return replace(refund, status=status, failure=item.get("failure_reason"))


def _borne(payment: Payment, amount: int) -> int:
    """What a payment bears of a refund made at Stripe itself. Of a booking's charge nobody can say which meeting it was
    for: each bears its part, as of a dispute, and no more than it has left."""
    if payment.part is None:
        return amount
    gone = sum(refund.amount for refund in payment.refunds if refund.counts or refund.status == "ordered")
    return min(payment.part.of(amount), max(0, payment.amount_captured - gone))


def _order_of(item: Thing) -> Refund:
    """Its order as far as Stripe knows it; a refund that does not say `charge_to` there is borne by the shares."""
    named = item["metadata"]
    charge_to: ChargeTo = "platform" if named.get("charge_to") == "platform" else "shares"
    return Refund(LOST, named["refund"], item["amount"], None, charge_to)


def _with_lost_refund(payment: Payment, session: str, item: Thing) -> Payment:
    params = {"payment_intent": item["payment_intent"], "amount": item["amount"], "metadata": item["metadata"]}
    payment = _with_done(payment, session, "refund", params, item)
    return replace(payment, reads=replace(payment.reads, lost=UNASKED))


def _restored(payment: Payment, session: str, thing: Thing) -> Applied:
    step = cast(StepName, thing["metadata"]["step"])
    names = ("amount", "currency", "destination", "transfer_group", "metadata")
    payment = _with_done(payment, session, step, {name: thing[name] for name in names}, thing)
    return restored_by(thing["amount"], payment, step.removeprefix("restore_"))


def _reversed(payment: Payment, session: str, thing: Thing, reversal: Thing) -> Applied:
    step = _named(reversal, session).get("step")
    payee = next((t.to for t in payment.transfers if thing["id"] in made_of(payment, t)), None)
    if payee is None or step != f"reversal_{payee}" or _under_way(payment, step, reversal):
        return payment, ()
    params = {"transfer": thing["id"], "amount": reversal["amount"], "metadata": reversal["metadata"]}
    payment = _with_done(payment, session, cast(StepName, step), params, reversal)
    return reversed_by(reversal["amount"], payment, payee)


def _with_done(payment: Payment, session: str, name: StepName, params: Thing, made: Thing) -> Payment:
    """The record with the step that made it, under the attempt that it had, if no other step has it by now."""
    told = str(params["metadata"].get("attempt"))
    attempt = int(told) if told.isdecimal() and payment.find(name, int(told)) is None else payment.attempts(name) + 1
    at = int(made.get("created") or 0) * 1000
    step = Step(name, attempt, key_of(session, name, attempt), params, "done", {"id": made["id"]}, at, 1, why="found")
    return payment.with_step(step)


def _named(thing: Thing, session: str) -> dict[str, str]:
    """What the metadata of an object says, if that is of the session."""
    named = thing.get("metadata") or {}
    return dict(named) if named.get("session") == session else {}
