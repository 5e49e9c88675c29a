"""The exact parameters of each step, and the call that carries it out, or that asks Stripe what became of it.

How an `unknown` step is asked:
- *hold*: the same POST with the same key and parameters, within the 24 h that Stripe keeps keys. It answers what the
  first one did, or does it now, or says that the first is still at work; and it pins the key, so that a request that
  still wanders through the network cannot place a hold that nobody knows of. A list could miss that one. Later than
  that: a list of the PaymentIntents made then, by metadata, and never a POST.
- *capture, release*: the PaymentIntent itself says whether it was captured or canceled.
- *transfer, restore*: the transfers of the session's `transfer_group`, by metadata; *refund*, *reversal*: those of
  the payment and of the transfer, likewise.
- *owe, offset, forgive, share_out*: nobody is asked. They go to our own account of debts, and to the records of a
  booking's meetings, where the same key does nothing twice.
If Stripe says that it was not done, the step is sent again, with the same key and parameters; one that has waited for
longer than Stripe keeps keys is asked about once more before. Only a key that is
*spent* (Stripe replayed a 5xx which it keeps under it) has a successor, after asking; that of a hold is the client's
next try.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.billing_bridge.order import Order
from gateway.billing_bridge.pricing import Terms, descriptor_suffix
from gateway.billing_bridge.record import Payment, Refund, Step, StepName, Transfer

# Stripe may forget a key after 24 h, and a POST would then be a new one. An hour is left for clocks and queues.
KEY_LIFE_MS: Final = 23 * 3_600_000
# How far around its time a lost PaymentIntent is looked for: `created` is Stripe's clock, ours may differ.
LIST_WINDOW_MS: Final = 15 * 60_000

OPERATION: Final[Mapping[StepName, str]] = {
    "hold": "payment_intents.create",
    "release": "payment_intents.cancel",
    "capture": "payment_intents.capture",
    "refund": "refunds.create",
    "transfer_expert": "transfers.create",
    "transfer_ambassador": "transfers.create",
    "reversal_expert": "transfers.reversals.create",
    "reversal_ambassador": "transfers.reversals.create",
    "restore_expert": "transfers.create",
    "restore_ambassador": "transfers.create",
    "owe_expert": "debts.owe",
    "owe_ambassador": "debts.owe",
    "offset_expert": "debts.take",
    "offset_ambassador": "debts.take",
    "forgive_expert": "debts.take",
    "forgive_ambassador": "debts.take",
    "share_out": "meetings.pay",
    "card": "payment_methods.retrieve",
    "check": "payment_intents.retrieve",
    "settlement": "payment_intents.retrieve",
    "disputes": "disputes.list",
    "refunds": "refunds.list",
    "lost": "transfers.list",
}


# Operations on our own records: not at Stripe, and without its limits.
OWN: Final = ("debts.", "meetings.")


@dataclass(frozen=True, slots=True)
class Call:
    """One request: an operation of `stripe_client`, its parameters (ids of the path among them) and our key."""

    operation: str
    params: Mapping[str, Any]
    key: str | None = None


def outlived(step: Step, now: int) -> bool:
    """Whether a step that waits to be sent again has outlived its key at Stripe: it must be asked about first."""
    return step.state == "intent" and step.tries > 0 and now - step.at >= KEY_LIFE_MS


def call_of(step: Step, now: int) -> Call:
    """What to send for a step: itself, or while it is unknown, the question."""
    if step.reads:
        return Call(OPERATION[step.step], step.params)
    if step.state != "unknown" or OPERATION[step.step].startswith(OWN):
        return Call(OPERATION[step.step], step.params, step.key)
    return _question(step, now)


def _question(step: Step, now: int) -> Call:
    if step.step == "hold":
        if now - step.at < KEY_LIFE_MS and not step.spent:
            return Call(OPERATION["hold"], step.params, step.key)
        return Call("payment_intents.list", _made_around(step))
    if step.step in ("capture", "release"):
        return Call("payment_intents.retrieve", retrieve_params(step.params["payment_intent"]))
    if step.step == "refund":
        return Call("refunds.list", {"payment_intent": step.params["payment_intent"], "limit": 100})
    if step.step.startswith("reversal"):
        return Call("transfers.reversals.list", {"transfer": step.params["transfer"], "limit": 100})
    return Call("transfers.list", {"transfer_group": step.params["transfer_group"], "limit": 100})


def _made_around(step: Step) -> dict[str, Any]:
    window = {"gte": (step.at - LIST_WINDOW_MS) // 1000, "lte": (step.at + LIST_WINDOW_MS) // 1000}
    params: dict[str, Any] = {"created": window, "limit": 100, "expand": ["data.latest_charge"]}
    if step.params.get("customer"):
        params["customer"] = step.params["customer"]
    return params


def key_of(session: str, step: str, attempt: int) -> str:
    return f"{session}:{step}:{attempt}"


def metadata_of(session: str, step: str, attempt: int) -> dict[str, str]:
    """On every object at Stripe, so that what the ledger forgot could be found from there (5-money, Durability)."""
    return {"session": session, "step": step, "attempt": str(attempt)}


def hold_step(order: Order, terms: Terms, expert_name: str) -> Step:
    """A manual-capture PaymentIntent for the most that the session may cost (R4), with the client present. For a bill
    that is due, one that takes it at once."""
    params: dict[str, Any] = {
        "amount": order.amount,
        "currency": order.currency,
        "capture_method": "automatic" if order.recharged else "manual",
        "confirm": True,
        "payment_method": order.payment_method,
        "allowed_payment_method_types": ["card"],
        "transfer_group": order.group,
        "metadata": metadata_of(order.session, "hold", order.attempt),
        "expand": ["latest_charge"],
    }
    if order.customer:
        params |= {"customer": order.customer, "setup_future_usage": "off_session"}
    if terms.return_url:
        params["return_url"] = terms.return_url.replace("{session}", order.session)
    if suffix := descriptor_suffix(expert_name, terms.descriptor_prefix_length):
        params["statement_descriptor_suffix"] = suffix
    return Step("hold", order.attempt, key_of(order.session, "hold", order.attempt), params)


def release_step(order: Order, payment: Payment, intent: str, why: str) -> Step:
    attempt = payment.attempts("release") + 1
    return Step(
        "release", attempt, key_of(order.session, "release", attempt),
        {"payment_intent": intent, "cancellation_reason": "abandoned"}, why=why,
    )  # fmt: skip


def capture_step(order: Order, payment: Payment, amount: int) -> Step:
    """What was used, never above the hold (law 5); the rest of the hold falls back to the card by itself."""
    assert payment.payment_intent is not None
    assert 0 < amount <= payment.amount_held
    params = {
        "payment_intent": payment.payment_intent,
        "amount_to_capture": amount,
        "expand": ["latest_charge.balance_transaction"],
    }
    attempt = payment.attempts("capture") + 1
    return Step("capture", attempt, key_of(order.session, "capture", attempt), params)


def transfer_step(order: Order, payment: Payment, transfer: Transfer) -> Step:
    """A payee's share, out of the charge itself: it waits for the charge's funds and must be in their currency."""
    name: StepName = "transfer_expert" if transfer.to == "expert" else "transfer_ambassador"
    attempt = payment.attempts(name) + 1
    params = {
        "amount": transfer.amount - transfer.amount_offset,
        "currency": transfer.currency,
        "destination": transfer.account,
        "source_transaction": payment.charge,
        "transfer_group": order.group,
        "metadata": metadata_of(order.session, name, attempt),
    }
    return Step(name, attempt, key_of(order.session, name, attempt), params)


def refund_step(order: Order, payment: Payment, refund: Refund) -> Step:
    """One refund of the charge. It leaves the transfers alone: those are reversed by steps of their own."""
    attempt = payment.attempts("refund") + 1
    metadata = metadata_of(order.session, "refund", attempt) | {"refund": refund.id, "charge_to": refund.charge_to}
    params = {
        "payment_intent": payment.payment_intent,
        "amount": refund.amount,
        "reason": "requested_by_customer",
        "metadata": metadata,
    }
    return Step("refund", attempt, key_of(order.session, "refund", attempt), params)


def reversal_step(order: Order, payment: Payment, transfer: Transfer, ident: str, amount: int) -> Step:
    """A part of a transfer, which is `ident` at Stripe, taken back."""
    name: StepName = "reversal_expert" if transfer.to == "expert" else "reversal_ambassador"
    attempt = payment.attempts(name) + 1
    params = {"transfer": ident, "amount": amount, "metadata": _turn_of(order, payment, name, attempt)}
    return Step(name, attempt, key_of(order.session, name, attempt), params)


def restore_step(order: Order, payment: Payment, transfer: Transfer, amount: int) -> Step:
    """What was taken back given once more, as the bank returned the refund. Out of our balance, into which its money
    came: of the charge Stripe lets no more be transferred than it was."""
    name: StepName = "restore_expert" if transfer.to == "expert" else "restore_ambassador"
    attempt = payment.attempts(name) + 1
    params = {
        "amount": amount,
        "currency": transfer.currency,
        "destination": transfer.account,
        "transfer_group": order.group,
        "metadata": _turn_of(order, payment, name, attempt),
    }
    return Step(name, attempt, key_of(order.session, name, attempt), params)


def _turn_of(order: Order, payment: Payment, name: StepName, attempt: int) -> dict[str, str]:
    """Metadata of what may happen more than once: `turn` tells it from those before it, also in Stripe's list."""
    mine = [step for step in payment.steps if step.step == name and not step.spent]
    latest = max((int(step.params["metadata"].get("turn", 0)) for step in mine), default=0)
    return {**metadata_of(order.session, name, attempt), "turn": str(max(latest, len(mine)) + 1)}


def owe_step(order: Order, payment: Payment, transfer: Transfer, amount: int) -> Step:
    """A reversal that the payee's balance did not allow (`reversal_owed`); `why` names it."""
    name: StepName = "owe_expert" if transfer.to == "expert" else "owe_ambassador"
    attempt, refused = payment.attempts(name) + 1, payment.latest(f"reversal_{transfer.to}")
    params = {"account": transfer.account, "currency": transfer.currency, "amount": amount}
    why = refused.key if refused is not None else ""
    return Step(name, attempt, key_of(order.session, name, attempt), params, why=why)


def offset_step(order: Order, transfer: Transfer) -> Step:
    """What the payee owes from before, kept back from this transfer; once for each transfer."""
    name: StepName = "offset_expert" if transfer.to == "expert" else "offset_ambassador"
    params = {"account": transfer.account, "currency": transfer.currency, "at_most": transfer.amount}
    return Step(name, 1, key_of(order.session, name, 1), params)


def forgive_step(order: Order, payment: Payment, transfer: Transfer, amount: int) -> Step:
    """A debt that nothing stands for any more, as far as it was not taken out of other transfers yet."""
    name: StepName = "forgive_expert" if transfer.to == "expert" else "forgive_ambassador"
    attempt = payment.attempts(name) + 1
    params = {"account": transfer.account, "currency": transfer.currency, "at_most": amount}
    return Step(name, attempt, key_of(order.session, name, attempt), params)


def share_out_step(order: Order, payment: Payment) -> Step:
    """The charge of a booking, written into the records of its meetings: a part for each."""
    params = {
        "booking": order.session,
        "meetings": list(order.meetings),
        "amount": payment.amount_captured,
        "payment_intent": payment.payment_intent,
        "charge": payment.charge,
        "card": payment.card,
    }
    return Step("share_out", 1, key_of(order.session, "share_out", 1), params)


def read_step(order: Order, payment: Payment, name: StepName) -> Step:
    """A look at Stripe. `attempt` says which news it answers, `why` for whom what it finds must be named."""
    if name == "card":
        return Step(name, payment.attempt, "", {"payment_method": order.payment_method})
    assert payment.payment_intent is not None
    if name in ("disputes", "refunds", "lost"):
        news: int = getattr(order.news, name)
        of = {"transfer_group": order.group} if name == "lost" else {"payment_intent": payment.payment_intent}
        return Step(name, news, "", {**of, "limit": 100}, why=order.session)
    return Step(name, 0, "", retrieve_params(payment.payment_intent))


def retrieve_params(intent: str) -> dict[str, Any]:
    return {"payment_intent": intent, "expand": ["latest_charge.balance_transaction"]}
