"""Deliberate bugs, each of which the laws must catch: proof that the simulator can fail.

A mutant is a function that patches the gateway (or, for what is written in Lua, the model of its rules) by a stack of
patches. It is caught as soon as one session breaks a law that the unharmed gateway keeps on the same seeds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest import mock

from gateway import money
from gateway import session as core
from gateway.billing_bridge import calls, found, payment, record, refunds, results, worker
from gateway.billing_bridge.calls import Call as Request
from gateway.billing_bridge.outcome import Done, Unknown
from gateway.meter import record as bills
from gateway.meter import schedule
from gateway.meter.flusher import Flusher
from gateway.meter.ledger import Usage
from gateway.meter.sweeper import Sweeper
from gateway.money import Shares
from gateway.signaling import call as course
from gateway.signaling import hosted
from tests.simulation import gateway as processes
from tests.simulation.run import simulate
from tests.simulation.store import JournalModel, Rules
from tests.simulation.tally import Tally

BUDGET = 12_000  # sessions that a mutant may survive; most fall within ten, the rarest needs some thousands

Mutation = Callable[[Callable[..., None]], None]
MUTANTS: dict[str, Mutation] = {}


def mutant(mutation: Mutation) -> Mutation:
    MUTANTS[mutation.__name__.replace("_", " ")] = mutation
    return mutation


# --- toward Stripe


@mutant
def drop_the_idempotency_key(swap: Callable[..., None]) -> None:
    real = worker.call_of
    swap(worker, "call_of", lambda step, now: replace(real(step, now), key=None))


@mutant
def a_new_key_for_each_try(swap: Callable[..., None]) -> None:
    real = worker.call_of

    def fresh(step: Any, now: int) -> Request:
        call = real(step, now)
        return call if call.key is None else replace(call, key=f"{call.key}:{step.tries}")

    swap(worker, "call_of", fresh)


@mutant
def retry_without_asking_after_a_crash(swap: Callable[..., None]) -> None:
    def forgotten(p: Any) -> Any:
        for step in p.steps:
            if step.state == "sent":
                p = p.with_step(replace(step, state="intent"))
        return p

    swap(worker, "recovered", forgotten)


@mutant
def lose_the_unknown_state(swap: Callable[..., None]) -> None:
    real = results._postponed

    def sure(p: Any, step: Any, outcome: Any, now: int) -> Any:
        after = real(p, step, outcome, now)
        kept = None if step.reads else after.find(step.step, step.attempt)
        return after if kept is None or kept.state != "unknown" else after.with_step(replace(kept, state="intent"))

    swap(results, "_postponed", sure)


@mutant
def take_a_time_out_for_a_failure(swap: Callable[..., None]) -> None:
    real = results._postponed

    def pessimist(p: Any, step: Any, outcome: Any, now: int) -> Any:
        if isinstance(outcome, Unknown) and not step.reads:
            return p.with_step(step.to("failed", result={"code": "timeout"}))
        return real(p, step, outcome, now)

    swap(results, "_postponed", pessimist)


@mutant
def take_a_time_out_of_a_transfer_for_done(swap: Callable[..., None]) -> None:
    real = worker.applied

    def optimist(p: Any, step: Any, outcome: Any, now: int) -> Any:
        if isinstance(outcome, Unknown) and step.step.startswith("transfer"):
            outcome = Done({"id": "tr_hoped", "object": "transfer"})
        return real(p, step, outcome, now)

    swap(worker, "applied", optimist)


@mutant
def capture_twice(swap: Callable[..., None]) -> None:
    real = results._capture_seen

    def deaf(p: Any, step: Any, intent: Any, now: int) -> Any:
        if intent["status"] == "succeeded" and step.tries < 2:
            return p.with_step(replace(step, state="intent", key=step.key + "x", tries=2)), ()
        return real(p, step, intent, now)

    swap(results, "_capture_seen", deaf)


@mutant
def capture_more_than_the_hold(swap: Callable[..., None]) -> None:
    _capture_of(swap, lambda p, amount: p.amount_held + 1)


@mutant
def capture_the_whole_hold(swap: Callable[..., None]) -> None:
    _capture_of(swap, lambda p, amount: p.amount_held)


@mutant
def capture_a_cent_less(swap: Callable[..., None]) -> None:
    _capture_of(swap, lambda p, amount: amount - 1)


def _capture_of(swap: Callable[..., None], other: Callable[[Any, int], int]) -> None:
    real = payment.capture_step

    def wrong(o: Any, p: Any, amount: int) -> Any:
        step = real(o, p, amount)
        return replace(step, params={**step.params, "amount_to_capture": other(p, amount)})

    swap(payment, "capture_step", wrong)


@mutant
def release_after_capture(swap: Callable[..., None]) -> None:
    swap(record, "CLOSED_INTENT", frozenset({"canceled", "missing"}))
    swap(payment, "nothing_due", lambda o, p, t: p.status == "captured")


@mutant
def transfer_before_capture(swap: Callable[..., None]) -> None:
    real = worker.next_step

    def hasty(order: Any, p: Any, now: int, terms: Any, **more: Any) -> Any:
        if p.status == "held" and order.bill and p.find("transfer_expert", 1) is None:
            params = {"amount": 1, "currency": "usd", "destination": "acct_exp", "source_transaction": p.charge,
                      "transfer_group": order.session, "metadata": {}}  # fmt: skip
            return record.Step("transfer_expert", 1, "hasty", params)
        return real(order, p, now, terms, **more)

    swap(worker, "next_step", hasty)


@mutant
def transfer_twice(swap: Callable[..., None]) -> None:
    real = payment.transfer_step

    def twice(o: Any, p: Any, transfer: Any) -> Any:
        step = real(o, p, transfer)
        return replace(step, params={**step.params, "amount": step.params["amount"] // 2 or 1})

    swap(payment, "transfer_step", twice)


@mutant
def hold_under_another_key_when_unknown(swap: Callable[..., None]) -> None:
    real = calls._question

    def fresh(step: Any, now: int) -> Request:
        call = real(step, now)
        return replace(call, key=f"{call.key}:again") if call.key else call

    swap(calls, "_question", fresh)


@mutant
def forget_the_hold_of_the_card_before(swap: Callable[..., None]) -> None:
    real = record.Payment.live_intents.fget
    assert real is not None
    swap(record.Payment, "live_intents", property(lambda p: tuple(i for i in real(p) if i[0] == p.attempt)))


@mutant
def never_release(swap: Callable[..., None]) -> None:
    swap(payment, "nothing_due", lambda *_: False)


@mutant
def settle_while_money_is_open(swap: Callable[..., None]) -> None:
    real = payment._settled

    def early(o: Any, p: Any) -> Any:
        if o.finalized and not p.settled and p.status == "held":
            return replace(p, settled=True), ()
        return real(o, p)

    swap(payment, "_settled", early)


@mutant
def never_settle(swap: Callable[..., None]) -> None:
    swap(payment, "_settled", lambda o, p: (p, ()))


@mutant
def forget_a_lost_hold(swap: Callable[..., None]) -> None:
    real = payment._without_hold
    swap(payment, "_without_hold", lambda o, p, t: p if p.status == "failed" else real(o, p, t))


# --- shares


@mutant
def shares_in_the_wrong_currency(swap: Callable[..., None]) -> None:
    swap(payment, "settled_shares", lambda balance, shares: shares)
    swap(refunds, "settled_share", lambda balance, share, total: share)


@mutant
def shares_rounded_up(swap: Callable[..., None]) -> None:
    real = payment.settled_shares

    def generous(balance: int, shares: Shares) -> Shares:
        s = real(balance, shares)
        return Shares(s.total, s.expert + 1, s.platform - 1, s.ambassador) if s.platform else s

    swap(payment, "settled_shares", generous)
    swap(refunds, "settled_share", lambda balance, share, total: -(-balance * share // total))


@mutant
def commission_rounded_down(swap: Callable[..., None]) -> None:
    def floor(total: int, bps: int, ambassador_bps: int = 0) -> Shares:
        commission = total * bps // 10_000
        ambassador = commission * ambassador_bps // 10_000
        return Shares(total, total - commission, commission - ambassador, ambassador)

    swap(bills, "split", floor)


@mutant
def ambassador_paid_out_of_the_total(swap: Callable[..., None]) -> None:
    def wrong(total: int, bps: int, ambassador_bps: int = 0) -> Shares:
        commission = money.round_half_up(total * bps, 10_000)
        ambassador = min(commission, total * ambassador_bps // 10_000)
        return Shares(total, total - commission, commission - ambassador, ambassador)

    swap(bills, "split", wrong)


@mutant
def ambassador_forgotten(swap: Callable[..., None]) -> None:
    kept = payment._transfers
    swap(payment, "_transfers", lambda *given: tuple(t for t in kept(*given) if t.to != "ambassador"))


@mutant
def a_refund_that_came_back_gives_nobody_anything(swap: Callable[..., None]) -> None:
    swap(refunds, "lack", lambda *_: 0)


@mutant
def a_debt_that_nothing_stands_for_stays(swap: Callable[..., None]) -> None:
    real = refunds.next_restore
    swap(payment, "next_restore", lambda o, p, now: real(replace(o, debts={}), p, now))


# --- time and its price


@mutant
def round_twice(swap: Callable[..., None]) -> None:
    swap(bills, "price", lambda unit, s: money.round_half_up(unit * money.round_half_up(s * 10, 60), 10))


@mutant
def round_the_price_up(swap: Callable[..., None]) -> None:
    swap(bills, "price", lambda unit, s: -(-unit * s // 60))


@mutant
def bill_started_minutes(swap: Callable[..., None]) -> None:
    swap(bills, "price", lambda unit, s: unit * (-(-s // 60)))


@mutant
def floor_per_interval(swap: Callable[..., None]) -> None:
    swap(bills, "length", lambda intervals: sum((e - s) // 1000 * 1000 for s, e in intervals))


@mutant
def union_counted_twice(swap: Callable[..., None]) -> None:
    swap(bills, "clip", lambda rows, start, end: tuple((max(a, start), min(b, end)) for a, b in rows if a < end))
    swap(bills, "length", lambda intervals: sum(max(0, e - s) + 1 for s, e in intervals))


@mutant
def bill_the_interruptions(swap: Callable[..., None]) -> None:
    real = bills.clip

    def whole(rows: Any, start: int, end: int) -> Any:
        held = real(rows, start, end)
        return ((held[0][0], held[-1][1]),) if held else ()

    swap(bills, "clip", whole)


@mutant
def bill_the_grace_time(swap: Callable[..., None]) -> None:
    swap(course, "metered", lambda stretches, returned: tuple((s.start, s.end + 5_000) for s in stretches))


@mutant
def bill_a_stretch_until_it_is_noticed(swap: Callable[..., None]) -> None:
    real = course.Call.heard

    def late(self: Any, report: Any, now: int) -> Any:
        spans = tuple(replace(s, end=s.end + 700, heard=(s.end + 700,) * 2) for s in report.spans)
        return real(self, replace(report, spans=spans), now)

    swap(course.Call, "heard", late)
    swap(course.Call, "learn", lambda self, report: self._spans.update({s.number: s for s in report.spans}))


@mutant
def free_part_forgotten(swap: Callable[..., None]) -> None:
    swap(bills, "billable_ms", lambda union, free: union)


@mutant
def free_part_per_interval(swap: Callable[..., None]) -> None:
    seen: list[Any] = [()]

    def length(intervals: Any) -> int:
        seen[0] = tuple(intervals)
        return sum(e - s for s, e in seen[0])

    swap(bills, "length", length)
    swap(bills, "billable_ms", lambda union, free: sum(max(0, e - s - free) for s, e in seen[0]))


@mutant
def limit_ignored(swap: Callable[..., None]) -> None:
    late = property(lambda self: None if self.started_at is None else self.started_at + self.limit_ms + 20_000)
    swap(core.SessionRecord, "deadline", late)
    swap(hosted, "CallConfig", lambda **c: mock.Mock(**{**c, "limit_ms": c["limit_ms"] + 20_000}))


@mutant
def waiver_ignored(swap: Callable[..., None]) -> None:
    real = bills._charged
    swap(bills, "_charged", lambda metered, r, minimum: real(metered, replace(r, waived=False), minimum))


@mutant
def minimum_ignored(swap: Callable[..., None]) -> None:
    real = bills._charged
    swap(bills, "_charged", lambda metered, r, minimum: real(metered, r, 0))


@mutant
def hold_too_small(swap: Callable[..., None]) -> None:
    swap(core, "hold_amount", lambda unit, limit, free: money.hold_amount(unit, limit, free) // 2)


@mutant
def warn_never(swap: Callable[..., None]) -> None:
    swap(schedule, "due", lambda *_: ())


@mutant
def display_less_than_is_billed(swap: Callable[..., None]) -> None:
    real = course.Call.figures

    def low(self: Any, role: str, now: int) -> Any:
        told = real(self, role, now)
        return {**told, "cost": max(0, told["cost"] - 1)} if "cost" in told else told

    swap(course.Call, "figures", low)
    swap(processes.Processes, "displayed", lambda *_: None)


# --- ownership, records, events


@mutant
def forget_the_epoch_check(swap: Callable[..., None]) -> None:
    real = Rules.commit
    swap(Rules, "commit", lambda self, s, put, events, due, fence, final: real(self, s, put, events, due, None, final))


@mutant
def forget_the_usage_version_at_the_freeze(swap: Callable[..., None]) -> None:
    real = Rules.commit

    def loose(self: Any, s: str, put: Any, events: Any, due: Any, fence: Any, final: Any) -> Any:
        fence = None if fence is None else replace(fence, usage=None)
        return real(self, s, put, events, due, fence, final)

    swap(Rules, "commit", loose)
    swap(Rules, "ledger", lambda self: replace(_ledger(self), rows=_ledger(self).rows[:-1]))


_ledger = Rules.ledger


@mutant
def forget_the_record_version(swap: Callable[..., None]) -> None:
    real = Rules.commit

    def last_wins(self: Any, s: str, put: Any, events: Any, due: Any, fence: Any, final: Any) -> Any:
        there = {name: self.docs[name].version if name in self.docs else 0 for name in put}
        put = {name: (there[name], body) for name, (_, body) in put.items()}
        return real(self, s, put, events, due, fence, final)

    swap(Rules, "commit", last_wins)


@mutant
def double_finalized(swap: Callable[..., None]) -> None:
    real = core.finalized

    def twice(*given: Any) -> Any:
        step = real(*given)
        return replace(step, events=step.events * 2)

    swap(core, "finalized", twice)


@mutant
def gap_in_the_sequence(swap: Callable[..., None]) -> None:
    real = Rules.commit

    def gap(self: Any, *given: Any) -> Any:
        before = len(self.events)
        versions = real(self, *given)
        for event in self.events[before:]:
            event["sequence"] += event["type"] == "session.ended"
        return versions

    swap(Rules, "commit", gap)


@mutant
def forget_the_outbox(swap: Callable[..., None]) -> None:
    real = Rules.commit

    def silent(self: Any, s: str, put: Any, events: Any, due: Any, fence: Any, final: Any) -> Any:
        due = {queue: at for queue, at in due.items() if queue != "outbox" or final is None}
        return real(self, s, put, events, due, fence, final)

    swap(Rules, "commit", silent)
    swap(Rules, "done", lambda self, queue, until, again, left: self.queues.pop(queue, None))


@mutant
def a_refused_webhook_counts_as_delivered(swap: Callable[..., None]) -> None:
    real = processes.attempted
    swap(
        processes, "attempted", lambda d, answer, now, jitter: replace(real(d, answer, now, jitter), state="delivered")
    )


@mutant
def a_wish_is_lost_when_the_claim_ends(swap: Callable[..., None]) -> None:
    swap(Rules, "done", lambda self, queue, until, again, left: self.queues.pop(queue, 0) if again is None else None)


@mutant
def intent_persisted_after_the_call(swap: Callable[..., None]) -> None:
    real = JournalModel.commit

    async def lazy(self: Any, session: str, put: Any, **more: Any) -> Any:
        steps = put["payment"][1]["steps"] if set(put) == {"payment"} else ()
        if any(step["state"] == "sent" for step in steps):
            kept = [{**step, "state": "intent"} if step["state"] == "sent" else step for step in steps]
            put = {"payment": (put["payment"][0], {**put["payment"][1], "steps": kept})}
        return await real(self, session, put, **more)

    swap(JournalModel, "commit", lazy)


@mutant
def freeze_without_the_last_usage(swap: Callable[..., None]) -> None:
    async def impatient(*_: Any) -> None: ...

    swap(Flusher, "settle", impatient)


@mutant
def bill_what_nobody_was_shown(swap: Callable[..., None]) -> None:
    swap(Usage, "unseen", lambda *_: ())


@mutant
def a_refund_made_at_stripe_itself_is_nobodys(swap: Callable[..., None]) -> None:
    swap(found, "_foreign", lambda p, theirs: [])


@mutant
def a_look_is_over_although_redis_lost_it(swap: Callable[..., None]) -> None:
    real = Rules.done
    swap(Rules, "done", lambda self, queue, until, again, left: real(self, queue, until, again))


@mutant
def a_task_that_ends_by_itself_keeps_its_tab(swap: Callable[..., None]) -> None:
    async def bare(self: Any, work: Any, _: Any) -> None:
        await self._host.relay.release(self.session)

    swap(hosted.Hosted, "_leave", lambda self: bare(self, None, None))


@mutant
def forward_before_the_money_is_held(swap: Callable[..., None]) -> None:
    real = hosted.CallConfig
    swap(hosted, "CallConfig", lambda **c: real(**{**c, "funded": True}))


@mutant
def begin_although_the_hold_was_lost(swap: Callable[..., None]) -> None:
    swap(core, "unfunded", core.unchanged)


@mutant
def sweep_sessions_whose_owner_lives(swap: Callable[..., None]) -> None:
    async def nobody(*_: Any) -> bool:
        return False

    swap(Sweeper, "_owned", nobody)


@mutant
def never_expire(swap: Callable[..., None]) -> None:
    swap(core, "expiry", lambda r, now: None)


@mutant
def end_without_cutting(swap: Callable[..., None]) -> None:
    real = hosted.Hosted._cut

    async def lax(self: Any, end: Any) -> None:
        relay = self._host.relay
        release, relay.release = relay.release, _keep
        try:
            await real(self, end)
        finally:
            relay.release = release

    swap(hosted.Hosted, "_cut", lax)
    swap(hosted.Hosted, "_keep_relay", _keep)


async def _keep(*_: Any) -> None: ...


@mutant
def tell_the_client_secret(swap: Callable[..., None]) -> None:
    real = results.told

    def loose(kind: str, p: Any) -> Any:
        notice = real(kind, p)
        return replace(notice, data={**notice.data, "client_secret": p.client_secret})

    swap(results, "told", loose)


def catches(name: str, seed: int, budget: int = BUDGET) -> tuple[int, str] | None:
    """After how many sessions a mutant was caught, and by what; None if it survived."""
    tally = Tally()
    with ExitStack() as patches:

        def swap(thing: Any, attribute: str, new: Any) -> None:
            patches.enter_context(mock.patch.object(thing, attribute, new))

        MUTANTS[name](swap)
        simulate(budget, seed, tally, until=lambda: bool(tally.broken))
    return (tally.sessions, tally.broken[0][1][0]) if tally.broken else None


def catch_all(seed: int, names: tuple[str, ...] = ()) -> int:
    """Prints each mutant and how it fared; the exit code."""
    caught, began = 0, time.process_time()
    chosen = names or tuple(MUTANTS)
    for name in chosen:
        found = catches(name, seed)
        caught += found is not None
        text = f"caught after {found[0]:4} sessions: {found[1].splitlines()[0][:90]}" if found else "SURVIVED"
        print(f"{name:45} {text}")
        sys.stdout.flush()
    print(f"{time.process_time() - began:.0f} s of one core")
    print(f"caught {caught} of {len(chosen)}")
    return 0 if caught == len(chosen) else 1
