"""What an outcome at Stripe does to the payment record, and which events tell of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, cast

from gateway.billing_bridge.cards import NOT_SUPPORTED, shown, supported
from gateway.billing_bridge.found import moves_seen, refunds_seen
from gateway.billing_bridge.intent import (
    Intent,
    action_url_of,
    card_of,
    charge_of,
    decline_of,
    hold_until_of,
    matching,
    settlement_of,
)
from gateway.billing_bridge.outcome import Busy, Declined, Done, Outcome, Refused, Unknown
from gateway.billing_bridge.record import (
    CLOSED_INTENT,
    Notice,
    Payment,
    Settlement,
    Step,
    Transfer,
    public,
    told,
    told_transfer,
)
from gateway.billing_bridge.refunds import (
    WANT_OF_BALANCE,
    by_policy,
    disputes_seen,
    forgiven_by,
    offset_by,
    owed_by,
    refund_made,
    refund_refused,
    restored_by,
    reversed_by,
)

Applied = tuple[Payment, tuple[Notice, ...]]

# Doubling from half a second: a client may be waiting for a hold, and Stripe asks for exponential backing off. The
# bound keeps a step that Stripe cannot answer for hours at twelve questions an hour.
BACKOFF_FIRST_MS: Final = 500
BACKOFF_LAST_MS: Final = 300_000
# A refusal that only time or an operator can cure (a wrong key, a balance too low): seldom, but never forgotten. With a
# new key each time, so it begins slower: each try stays in the record.
REFUSED_FIRST_MS: Final = 60_000
REFUSED_LAST_MS: Final = 6 * 3_600_000
# How often to look whether a client has finished 3-D Secure, should Stripe's event be lost.
POLL_FIRST_MS: Final = 2_000
POLL_LAST_MS: Final = 60_000

# Refusals which mean that the PaymentIntent is not in the state that the record believes: look at it.
STATE_MOVED: Final = frozenset(
    {
        "payment_intent_unexpected_state",
        "charge_expired_for_capture",
        "charge_already_captured",
        "charge_not_capturable",
    }
)
# Refusals before an endpoint begins: Stripe keeps nothing under the key, and the same one may be sent again.
NOT_KEPT: Final = frozenset({"authentication", "permission", "rate_limit"})
# Refusals of a transfer that say nothing about its destination.
TRANSFER_LATER: Final = NOT_KEPT | {"balance_insufficient"}
# The key was used for something else: by a step that our records have lost. The next one is beyond it.
KEY_TAKEN: Final = "idempotency_error"


def backoff_ms(tries: int, last_ms: int = BACKOFF_LAST_MS) -> int:
    return min(BACKOFF_FIRST_MS << min(max(tries - 1, 0), 24), last_ms)


def applied(payment: Payment, step: Step, outcome: Outcome, now: int) -> Applied:
    """The record after `outcome` of the call for `step` (as `begun` gave it), and what to tell."""
    if isinstance(outcome, Busy | Unknown):
        return _postponed(payment, step, outcome, now), ()
    match step.step:
        case "hold":
            return _hold(payment, step, outcome, now)
        case "release":
            return _release(payment, step, outcome, now)
        case "capture":
            return _capture(payment, step, outcome, now)
        case "transfer_expert" | "transfer_ambassador":
            return _transfer(payment, step, outcome, now)
        case "card":
            return _card(payment, outcome)
        case "check":
            return _check(payment, step, outcome, now)
        case "refund":
            return _refund(payment, step, outcome, now)
        case "reversal_expert" | "reversal_ambassador":
            return _reversal(payment, step, outcome, now)
        case "restore_expert" | "restore_ambassador":
            return _restore(payment, step, outcome, now)
        case (
            "owe_expert" | "owe_ambassador" | "offset_expert" | "offset_ambassador"
            | "forgive_expert" | "forgive_ambassador"
        ):  # fmt: skip
            return _debt(payment, step, outcome)
        case "settlement":
            return _settlement(payment, outcome, now), ()
        case "share_out":
            return _shared_out(payment, step, outcome)
        case "disputes" | "refunds" | "lost":
            return _listed(payment, step, outcome, now)


def _postponed(payment: Payment, step: Step, outcome: Busy | Unknown, now: int) -> Payment:
    """Not done or not known. A step once unknown stays so until Stripe answered, however busy it is."""
    asked_for = outcome.retry_after_ms if isinstance(outcome, Busy) else 0
    if step.reads:
        return _read_again(payment, now, max(backoff_ms(payment.reads.tries), asked_for))
    surely_not = isinstance(outcome, Busy) and not outcome.in_flight and step.state != "unknown"
    not_before = now + max(backoff_ms(step.tries), asked_for)
    state = "intent" if surely_not else "unknown"
    result: dict[str, Any] = {"code": outcome.why}
    if step.spent or (isinstance(outcome, Unknown) and outcome.spent):
        result |= {"spent": True}
    return payment.with_step(step.to(cast(Any, state), not_before=not_before, result=result))


def _again(payment: Payment, step: Step, code: str, now: int, last_ms: int = BACKOFF_LAST_MS) -> Payment:
    """Stripe says that it was not done: send it again, with the same key and parameters, a little later.

    A spent key would only be answered the same for a day: this step is over, and may have a successor.
    """
    if step.spent:
        return payment.with_step(step.to("failed", result={"code": code, "spent": True}))
    # Stripe has just been asked, so that its key counts from now.
    at = now if step.state == "unknown" else step.at
    again = step.to("intent", not_before=now + backoff_ms(step.tries, last_ms), result={"code": code}, at=at)
    return payment.with_step(again)


def _refused(payment: Payment, step: Step, code: str, now: int) -> Payment:
    """Stripe will not now, and surely did not. It keeps a refusal under the key like any answer, and would only repeat
    it for a day: the next try, after a while, is a successor with a key of its own."""
    if code in NOT_KEPT and not step.spent:
        return _again(payment, step, code, now, REFUSED_LAST_MS)
    wait = min(REFUSED_FIRST_MS << min(payment.attempts(step.step) - 1, 24), REFUSED_LAST_MS)
    return payment.with_step(step.to("failed", not_before=now + wait, result={"code": code, "spent": True}))


def _ask(payment: Payment, step: Step, code: str, now: int) -> Payment:
    wait = backoff_ms(step.tries) if step.state == "unknown" else 0
    result = {"code": code, "spent": True} if step.spent else {"code": code}
    return payment.with_step(step.to("unknown", not_before=now + wait, result=result))


def _card(payment: Payment, outcome: Done | Declined | Refused) -> Applied:
    """The card as Stripe knows it, before it is asked for anything."""
    if not isinstance(outcome, Done):
        return _no_hold(payment, outcome.code)
    card = shown(outcome.object.get("card"))
    payment = replace(payment, card=card, reads=replace(payment.reads, tries=0, not_before=0))
    return (payment, ()) if supported(card) else _no_hold(payment, NOT_SUPPORTED)


def _hold(payment: Payment, step: Step, outcome: Done | Declined | Refused, now: int) -> Applied:
    if isinstance(outcome, Done):
        intent = _made(outcome.object, step)
        if intent is not None:
            payment = payment.with_step(step.to("done", result=_brief(intent)))
            return _seen(_read_again(payment, now, POLL_FIRST_MS), step.attempt, intent)
        return _hold_failed(payment, step, {"code": "processing_error"})
    if isinstance(outcome, Declined):
        result = {"code": outcome.decline_code or outcome.code}
        if outcome.intent:
            result |= {"id": outcome.intent, "status": "requires_payment_method"}
        return _hold_failed(payment, step, result)
    if step.state == "unknown" and outcome.code in ("authentication", "permission"):
        return _ask(payment, step, outcome.code, now), ()
    return _hold_failed(payment, step, {"code": outcome.code})


def _made(answer: Mapping[str, Any], step: Step) -> Intent | None:
    if answer.get("object") != "list":
        return answer
    ours = step.params["metadata"]
    # What stays the same when a spent key has a successor: a payee's one transfer, a refund's id, a reversal's turn.
    names = ("session", "step", "attempt") if step.step == "hold" else ("session", "step", "refund", "turn")
    return matching(answer, {name: ours[name] for name in names if name in ours})


def _hold_failed(payment: Payment, step: Step, result: dict[str, Any]) -> Applied:
    payment = payment.with_step(step.to("failed", result=result))
    return _no_hold(payment, result["code"]) if step.attempt == payment.attempt else (payment, ())


def _no_hold(payment: Payment, code: str) -> Applied:
    payment = payment.to("failed", decline_code=code, action_url=None, client_secret=None)
    return payment, (told("failed", payment),)


def _seen(payment: Payment, attempt: int, intent: Intent) -> Applied:
    """Stripe shows an intent of ours: the hold's own record follows it, and the payment's if it is the current one."""
    hold = payment.find("hold", attempt)
    if hold is not None:
        payment = payment.with_step(replace(hold, result=_brief(intent)))
    if attempt != payment.attempt or payment.status not in ("pending", "action_required", "held", "failed"):
        return payment, ()
    before = payment.status
    payment = replace(payment, payment_intent=intent["id"], charge=charge_of(intent).get("id") or payment.charge)
    payment = _following(payment, intent)
    if payment.status == "captured":
        return payment, (told("captured", payment),)
    return payment, (told(payment.status, payment),) if payment.status not in (before, "pending") else ()


def _following(payment: Payment, intent: Intent) -> Payment:
    match intent["status"]:
        case "requires_capture":
            return payment.to(
                "held", amount_held=intent["amount_capturable"], card=card_of(intent), action_url=None,
                hold_until=hold_until_of(intent), client_secret=None, decline_code=None,
            )  # fmt: skip
        case "requires_action" | "requires_confirmation":
            return payment.to(
                "action_required", action_url=action_url_of(intent), client_secret=intent.get("client_secret")
            )
        case "requires_payment_method":
            return payment.to("failed", decline_code=decline_of(intent), action_url=None)
        case "succeeded":
            return _taken(payment, intent)
        case "canceled" | "missing":
            return payment.to("failed", decline_code="hold_lost", action_url=None, client_secret=None)
        case _:
            return payment


def _taken(payment: Payment, intent: Intent) -> Payment:
    captured = intent["amount_received"]
    return payment.to(
        "captured", amount_captured=captured, charge=charge_of(intent).get("id") or payment.charge,
        settlement=settlement_of(intent), card=card_of(intent) or payment.card, action_url=None, client_secret=None,
        reads=replace(payment.reads, tries=0, not_before=0),
    )  # fmt: skip


def _capture(payment: Payment, step: Step, outcome: Done | Declined | Refused, now: int) -> Applied:
    if isinstance(outcome, Done):
        return _capture_seen(payment, step, outcome.object, now)
    if outcome.code == "resource_missing":
        return _lost(payment, step, "missing")
    if step.state == "unknown":
        return _ask(payment, step, outcome.code, now), ()
    if outcome.code == "amount_too_small":
        payment = payment.with_step(step.to("failed", result={"code": outcome.code}))
        return payment.to("held", amount_total=0), ()
    if isinstance(outcome, Declined) or outcome.code in STATE_MOVED:
        return _ask(payment, step, outcome.code, now), ()
    return _refused(payment, step, outcome.code, now), ()


def _capture_seen(payment: Payment, step: Step, intent: Intent, now: int) -> Applied:
    match intent["status"]:
        case "succeeded":
            payment = _closed(payment.with_step(step.to("done", result=_brief(intent))), intent)
            payment = _taken(payment, intent)
            return payment, (told("captured", payment),)
        case "requires_capture":
            return _again(payment, step, "not_captured", now), ()
        case "canceled":
            return _lost(payment, step, "canceled")
        case _:
            return _ask(payment, step, str(intent["status"]), now), ()


def _lost(payment: Payment, step: Step, status: str) -> Applied:
    """The hold is gone and the bill is not paid: `due`, and never a silent new charge (5-money)."""
    payment = payment.with_step(step.to("failed", result={"code": "hold_lost"}))
    payment = _closed(payment, {"id": step.params["payment_intent"], "status": status})
    payment = payment.to("due", decline_code="hold_lost")
    return payment, (told("due", payment),)


def _release(payment: Payment, step: Step, outcome: Done | Declined | Refused, now: int) -> Applied:
    if isinstance(outcome, Done):
        return _release_seen(payment, step, outcome.object, now)
    if outcome.code == "resource_missing":
        missing = {"id": step.params["payment_intent"], "status": "missing"}
        return _released(payment.with_step(step.to("failed", result={"code": outcome.code})), step, missing)
    if step.state == "unknown" or outcome.code in STATE_MOVED:
        return _ask(payment, step, outcome.code, now), ()
    return _refused(payment, step, outcome.code, now), ()


def _release_seen(payment: Payment, step: Step, intent: Intent, now: int) -> Applied:
    if intent["status"] == "canceled":
        return _released(payment.with_step(step.to("done", result=_brief(intent))), step, intent)
    if intent["status"] != "succeeded":
        return _again(payment, step, "not_canceled", now), ()
    # Captured at Stripe behind our back, or confirmed with the bank at last: the record says what is true, and no other
    # card is asked.
    payment = _closed(payment.with_step(step.to("failed", result=_brief(intent))), intent)
    payment = _taken(replace(payment, payment_intent=intent["id"]), intent)
    return payment, (told("captured", payment),)


def _released(payment: Payment, step: Step, intent: Intent) -> Applied:
    payment = _closed(payment, intent)
    if intent["id"] != payment.payment_intent or payment.status == "failed":
        return payment, ()
    if step.why == "abandoned":
        return payment.to("failed", decline_code="authentication_abandoned", action_url=None, client_secret=None), ()
    payment = payment.to("released", action_url=None, client_secret=None)
    return payment, (told("released", payment),)


def _closed(payment: Payment, intent: Intent) -> Payment:
    assert intent["status"] in CLOSED_INTENT
    return payment.with_step(replace(payment.hold_of(intent["id"]), result=_brief(intent)))


def _transfer(payment: Payment, step: Step, outcome: Done | Declined | Refused, now: int) -> Applied:
    if isinstance(outcome, Done):
        made = _made(outcome.object, step)
        if made is None:
            return _again(payment, step, "not_transferred", now), ()
        payment = payment.with_step(step.to("done", result={"id": made["id"]}))
        return _told_of(payment, step, "created", status="paid", stripe_id=made["id"])
    if step.state == "unknown":
        return _ask(payment, step, outcome.code, now), ()
    return _transfer_refused(payment, step, outcome.code, now)


def _transfer_refused(payment: Payment, step: Step, code: str, now: int) -> Applied:
    if code in TRANSFER_LATER:
        return _refused(payment, step, code, now), ()
    if step.tries > 1:
        # Perhaps what Stripe kept of an earlier try; the account may receive by now, and its news be read: ask afresh.
        return payment.with_step(step.to("failed", result={"code": code, "spent": True})), ()
    # The key of what may happen once more is used up, that of the one transfer is not.
    used = {"spent": True} if step.step.startswith("restore") else {}
    payment = payment.with_step(step.to("failed", result={"code": code, **used}))
    return _told_of(payment, step, "withheld", status="withheld", reason=code)


def _told_of(payment: Payment, step: Step, kind: str, **changes: Any) -> Applied:
    payee = step.step.partition("_")[2]
    transfers = tuple(replace(t, **changes) if t.to == payee else t for t in payment.transfers)
    ours: Transfer = next(t for t in transfers if t.to == payee)
    return replace(payment, transfers=transfers), (told_transfer(kind, ours),)


def _refund(payment: Payment, step: Step, outcome: Done | Declined | Refused, now: int) -> Applied:
    if isinstance(outcome, Done):
        made = _made(outcome.object, step)
        if made is None:
            return _again(payment, step, "not_refunded", now), ()
        return refund_made(payment.with_step(step.to("done", result={"id": made["id"]})), step, made)
    if step.state == "unknown":
        return _ask(payment, step, outcome.code, now), ()
    if outcome.code in TRANSFER_LATER | {KEY_TAKEN} or by_policy(payment, step):
        # What the terms give back nobody orders again: it is owed until Stripe takes it.
        return _refused(payment, step, outcome.code, now), ()
    payment = payment.with_step(step.to("failed", result={"code": outcome.code}))
    return refund_refused(payment, step, outcome.code), ()


def _reversal(payment: Payment, step: Step, outcome: Done | Declined | Refused, now: int) -> Applied:
    """Only want of balance makes a debt of it; whatever else Stripe says is asked again, ever more seldom."""
    if isinstance(outcome, Done):
        made = _made(outcome.object, step)
        if made is None:
            return _again(payment, step, "not_reversed", now), ()
        payment = payment.with_step(step.to("done", result={"id": made["id"]}))
        return reversed_by(made["amount"], payment, step.step.removeprefix("reversal_"))
    if step.state == "unknown":
        return _ask(payment, step, outcome.code, now), ()
    if outcome.code in WANT_OF_BALANCE:
        return payment.with_step(step.to("failed", result={"code": outcome.code})), ()
    return _refused(payment, step, outcome.code, now), ()


def _restore(payment: Payment, step: Step, outcome: Done | Declined | Refused, now: int) -> Applied:
    if isinstance(outcome, Done):
        made = _made(outcome.object, step)
        if made is None:
            return _again(payment, step, "not_transferred", now), ()
        payment = payment.with_step(step.to("done", result={"id": made["id"]}))
        return restored_by(made["amount"], payment, step.step.removeprefix("restore_"))
    if step.state == "unknown":
        return _ask(payment, step, outcome.code, now), ()
    return _transfer_refused(payment, step, outcome.code, now)


def _debt(payment: Payment, step: Step, outcome: Done | Declined | Refused) -> Applied:
    assert isinstance(outcome, Done), "our own account of debts refuses nothing"
    kind, payee = step.step.split("_")
    amount = int(outcome.object["amount"])
    payment = payment.with_step(step.to("done", result={"amount": amount}))
    changed = {"owe": owed_by, "offset": offset_by, "forgive": forgiven_by}[kind]
    return changed(amount, payment, payee)


def _shared_out(payment: Payment, step: Step, outcome: Done | Declined | Refused) -> Applied:
    assert isinstance(outcome, Done), "our own records refuse nothing"
    payment = payment.with_step(step.to("done", result={"meetings": len(step.params["meetings"])}))
    return payment, (Notice("booking.paid", public(payment) | {"meetings": step.params["meetings"]}),)


def _listed(payment: Payment, step: Step, outcome: Done | Declined | Refused, now: int) -> Applied:
    if not isinstance(outcome, Done):
        return _read_again(payment, now, backoff_ms(payment.reads.tries)), ()
    if step.step == "disputes":
        return disputes_seen(payment, step, outcome.object)
    return (refunds_seen if step.step == "refunds" else moves_seen)(payment, step, outcome.object)


def _check(payment: Payment, step: Step, outcome: Done | Declined | Refused, now: int) -> Applied:
    intent: Intent
    if isinstance(outcome, Done):
        intent = outcome.object
    elif outcome.code == "resource_missing":
        intent = {"id": step.params["payment_intent"], "status": "missing"}
    else:
        return _read_again(payment, now, backoff_ms(payment.reads.tries)), ()
    before = payment.status
    payment, notices = _seen(payment, payment.attempt, intent)
    if payment.status != before:
        payment = replace(payment, reads=replace(payment.reads, tries=0))
    return _read_again(payment, now, min(POLL_FIRST_MS << min(payment.reads.tries, 8), POLL_LAST_MS)), notices


def _settlement(payment: Payment, outcome: Done | Declined | Refused, now: int) -> Payment:
    settlement = settlement_of(outcome.object) if isinstance(outcome, Done) else None
    if settlement is None:
        return _read_again(payment, now, backoff_ms(payment.reads.tries))
    return replace(payment, settlement=own_part(payment, settlement))


def own_part(payment: Payment, charge: Settlement) -> Settlement:
    """What of a charge's settlement is this payment's: all of it, or its part of a booking's."""
    if payment.part is None:
        return charge
    return replace(charge, amount=payment.part.of(charge.amount), fee=payment.part.of(charge.fee))


def _read_again(payment: Payment, now: int, wait_ms: int) -> Payment:
    return replace(payment, reads=replace(payment.reads, not_before=now + wait_ms))


def _brief(intent: Intent) -> dict[str, Any]:
    return {"id": intent["id"], "status": intent["status"]}
