"""A connected account's record: what to ask or set at Stripe next, and what its answer does to it. Pure.

R18: the platform has Stripe pay out weekly, where the schedule is the platform's to set; where the expert has a Stripe
dashboard with that choice, it is the expert's own and only shown.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from gateway.billing_bridge.calls import Call
from gateway.billing_bridge.outcome import Busy, Declined, Done, Outcome, Refused, Unknown
from gateway.billing_bridge.record import Notice
from gateway.billing_bridge.results import backoff_ms
from gateway.payees.accounts import PAYOUTS, Connected, about, same, shown
from gateway.payees.routes import Account, Schedule, account_of

# Refusals that say nothing about the account: the platform's own key is wrong, or may not do this.
OURS: Final = frozenset({"authentication", "permission", "rate_limit", "api_key_expired"})
# How soon a schedule that Stripe refused, or that did not stay, is tried again.
SET_AGAIN_MS: Final = 24 * 3_600_000
# Transfers that wait are tried again at most so often: what Stripe refuses for another reason, it will refuse again.
FREE_AGAIN_MS: Final = 600_000
# How old the state of an account may be for which transfers wait.
WITHHELD_LOOK_MS: Final = 6 * 3_600_000
TOLD: Final = frozenset({"paid", "failed"})

Applied = tuple[Connected, tuple[Notice, ...]]


def next_call(record: Connected, now: int, weekday: str, *, withheld: bool) -> Call | None:
    """The request whose time has come. `weekday` "" leaves payout schedules as they are; `withheld`: transfers wait for
    the account, so it is looked at without being asked, should Stripe's event be lost."""
    overdue = record.seen is None or (withheld and now - record.seen.seen_at >= WITHHELD_LOOK_MS)
    if record.waiting or overdue or record.seen is None:
        return Call("accounts.retrieve", {"account": record.id})
    if not record.seen.exists:
        return None
    if record.open:
        return Call("payouts.retrieve", {"payout": record.open[0], "stripe_account": record.id})
    payee = weekday and record.experts  # an ambassador's account is not ours to arrange
    if payee and _differs(record.seen, weekday) and now - record.set_at >= SET_AGAIN_MS:
        schedule = {"interval": "weekly", "weekly_payout_days": [weekday]}
        params = {"payments": {"payouts": {"schedule": schedule}}, "stripe_account": record.id}
        return Call("balance_settings.update", params, f"{record.stream}:schedule:{record.attempt + 1}")
    return None


def applied(record: Connected, call: Call, outcome: Outcome, now: int) -> Applied:
    """The record after `outcome`, and what to tell. Busy or Unknown leave it to be asked again: nothing here moves
    money, and setting a schedule twice sets it once."""
    if isinstance(outcome, Busy | Unknown) or (isinstance(outcome, Refused) and outcome.code in OURS):
        return replace(record, tries=record.tries + 1), ()
    record = replace(record, tries=0)
    if call.operation == "accounts.retrieve":
        return _retrieved(record, outcome, now)
    if call.operation == "payouts.retrieve":
        return _payout(record, outcome)
    return _set(record, outcome, now), ()


def look_at(record: Connected, now: int, *, withheld: bool) -> int | None:
    """When to look again without being asked (wall ms), or None."""
    if record.tries:
        return now + backoff_ms(record.tries)
    return now + WITHHELD_LOOK_MS if withheld else None


def freeing(record: Connected, call: Call, now: int) -> bool:
    """Whether transfers that wait for the account may be tried again, after this call was answered."""
    able = record.seen is not None and record.seen.able and not record.tries
    return call.operation == "accounts.retrieve" and able and now - record.freed_at >= FREE_AGAIN_MS


def _differs(seen: Account, weekday: str) -> bool:
    schedule = seen.schedule
    return schedule is not None and not schedule.own and schedule != Schedule("weekly", (weekday,))


def _retrieved(record: Connected, outcome: Done | Declined | Refused, now: int) -> Applied:
    if isinstance(outcome, Done):
        seen = account_of(outcome.object, now)
    else:
        seen = Account(record.id, exists=False, seen_at=now)
    changed = not same(record.seen, seen)
    record = replace(record, answered=record.asked, seen=seen)
    return record, (Notice("account.updated", shown(record)),) if changed else ()


def _payout(record: Connected, outcome: Done | Declined | Refused) -> Applied:
    ident, *rest = record.open
    record = replace(record, open=tuple(rest))
    if not isinstance(outcome, Done):
        return record, ()
    payout, status = outcome.object, str(outcome.object.get("status"))
    if status not in TOLD or record.told.get(ident) == status:
        return record, ()
    told = dict([*((k, v) for k, v in record.told.items() if k != ident), (ident, status)][-PAYOUTS:])
    data = {
        **about(record), "payout": ident, "amount": payout["amount"], "currency": payout["currency"],
        "status": status, "automatic": bool(payout.get("automatic")), "arrival_date": payout.get("arrival_date"),
        "failure_code": payout.get("failure_code"),
    }  # fmt: skip
    return replace(record, told=told), (Notice(f"payout.{status}", data),)


def _set(record: Connected, outcome: Done | Declined | Refused, now: int) -> Connected:
    record = replace(record, set_at=now, attempt=record.attempt + 1)
    if not isinstance(outcome, Done) or record.seen is None:
        return replace(record, refused=None if isinstance(outcome, Done) else outcome.code)
    payouts = ((outcome.object.get("payments") or {}).get("payouts")) or {}
    schedule = payouts.get("schedule") or {}
    days = tuple(schedule.get("weekly_payout_days") or ())
    weekly = Schedule(schedule.get("interval") or "manual", days)
    return replace(record, refused=None, seen=replace(record.seen, schedule=weekly))
