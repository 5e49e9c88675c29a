"""A session's record for tests of the bridge's cores, and a worker without I/O that can be crashed at every point."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from typing import Any

from gateway.billing_bridge.calls import call_of
from gateway.billing_bridge.expiring import alarmed
from gateway.billing_bridge.order import order_of
from gateway.billing_bridge.payment import begun, concluded, look_at, next_step, opened, recovered
from gateway.billing_bridge.pricing import Terms
from gateway.billing_bridge.reconcile import Theirs, compare
from gateway.billing_bridge.record import Notice, Payment
from gateway.billing_bridge.results import applied
from gateway.money import split
from tests.billing_bridge.account import Account

NOW = 1_700_000_000_000
Session = dict[str, Any]


def session_doc(**changes: Any) -> Session:
    """A metered session as its record is kept: 3.00 a minute, 30 minutes, 5 free; both shares of the commission."""
    body: Session = {
        "id": "ses_1", "account": "acc_test", "livemode": False, "reference": None, "status": "created",
        "kind": "metered", "hold": "now", "currency": "usd", "unit_amount": 300,
        "commission_bps": 1000, "free_ms": 300_000, "limit_ms": 1_800_000, "waived": False, "started_at": None,
        "ended_at": None, "joined": {"client": None, "expert": None}, "bill": None,
        "client": {"id": "c1", "stripe_customer": "cus_1"}, "expert": {"id": "e1", "stripe_account": "acct_expert"},
        "ambassador": {"stripe_account": "acct_ambassador", "share_bps": 2000},
        "funding": {"attempt": 1, "payment_method": "pm_card_visa", "amount": 7500, "requested_at": NOW},
    }  # fmt: skip
    return body | changes


def other_card(session: Session, payment_method: str) -> None:
    funding = session["funding"]
    session["funding"] = {**funding, "attempt": funding["attempt"] + 1, "payment_method": payment_method}


def order_refund(session: Session, amount: int, charge_to: str = "shares") -> None:
    orders = session.setdefault("refunds", [])
    number = len(orders) + 1
    orders.append({"number": number, "id": f"ref_{number}", "amount": amount, "reason": "r", "charge_to": charge_to})


def news(session: Session, topic: str) -> None:
    """Stripe's event about a dispute, a refund or an account."""
    counts = session.setdefault("news", {})
    counts[topic] = counts.get(topic, 0) + 1


def recharge(session: Session, payment_method: str) -> None:
    """The client of a due bill names another card."""
    other_card(session, payment_method)
    session["funding"] |= {"recharge": True, "amount": session["bill"]["amount_total"]}


def live(session: Session) -> None:
    session |= {"status": "live", "started_at": NOW}


def finalize(session: Session, total: int, *, waived: int = 0, started: bool = True) -> None:
    bps = (session["ambassador"] or {}).get("share_bps", 0)
    shares = split(total, session["commission_bps"], bps)
    bill = {
        "amount_total": total, "amount_metered": total + waived, "amount_waived": waived,
        "amount_expert": shares.expert,
        "amount_platform": shares.platform, "amount_ambassador": shares.ambassador, "currency": session["currency"],
    }  # fmt: skip
    started_at = NOW if started else None
    session |= {"status": "finalized", "started_at": started_at, "ended_at": NOW + 60_000, "bill": bill}


def at_stripe(account: Account) -> Theirs:
    """All that it has, as it would be listed."""
    lists = (account.transfers, account.refunds, account.disputes)
    return Theirs(dict(account.intents), *({thing["id"]: thing for thing in things} for things in lists))


class Crash(Exception):
    """The process dies here."""


class Settling:
    """One session's money, from record to record. `faults` are given to the calls in turn; a `crash_before` or
    `crash_after` of the call kills the worker, and the next one starts from the record on disk."""

    def __init__(self, session: Session, account: Account | None = None, terms: Terms | None = None) -> None:
        self.session, self.account, self.terms = session, account or Account(), terms or Terms()
        self.disk = json.dumps(opened(session, NOW))
        self.notices: list[Notice] = []
        self.now, self.nudges = NOW, 0
        self.calls: list[str] = []

    @property
    def payment(self) -> Payment:
        return Payment.from_dict(json.loads(self.disk))

    @property
    def told(self) -> list[str]:
        return [notice.type for notice in self.notices]

    def run(self, faults: Iterable[str | None] = (), *, looks: int = 200) -> Payment:
        """Look again and again, as time passes, until nothing more is due by itself, or only the client's bank."""
        remaining = iter(faults)
        for _ in range(looks):
            try:
                again_at = self._look(remaining)
            except Crash:
                continue
            waiting = self.payment.status == "action_required" and not self.payment.open_steps
            if waiting or again_at is None or again_at - self.now > 3 * 86_400_000:
                return self.payment
            self.now = max(self.now, again_at)
        raise AssertionError("the money never came to rest")

    def look(self, *faults: str | None) -> int | None:
        """One look; gives when the next is due."""
        return self._look(iter(faults))

    def die(self, fault: str) -> None:
        """One look in which the worker dies before or after its first call."""
        with contextlib.suppress(Crash):
            self._look(iter([fault]))

    def rush(self, faults: Iterable[str | None], looks: int) -> None:
        """Some looks, as time passes, and no care for what is left open."""
        remaining = iter(faults)
        for _ in range(looks):
            with contextlib.suppress(Crash):
                again_at = self._look(remaining)
                self.now = min(max(self.now, again_at or 0), self.now + 3_600_000)

    def _look(self, faults: Any) -> int | None:
        payment = recovered(self.payment)
        self.session["debts"] = self.account.debts
        while True:
            order = order_of(self.session)
            payment, notices = concluded(order, payment, self.terms)
            payment, late = alarmed(payment, self.now)
            self.notices += (*notices, *late)
            step = next_step(order, payment, self.now, self.terms, expert_name="Expert", nudges=self.nudges)
            if step is not None:
                payment, step = begun(payment, step, self.now, self.nudges)
            self.disk = json.dumps(payment.to_dict())
            if any(notice.type == "session.settled" for notice in notices):
                assert self.account.unfinished() == [], "settled with money still on its way"
            if step is None:
                return look_at(order, payment, self.now, self.nudges)
            fault = next(faults, None)
            if fault == "crash_before":
                raise Crash
            self.account.now = self.now
            self.session["debts"] = self.account.debts
            call = call_of(step, self.now)
            self.calls.append(call.operation)
            outcome = self.account.send(call, fault)
            if fault == "crash_after":
                raise Crash
            payment, notices = applied(payment, step, outcome, self.now)
            self.notices += notices


def differences(*some: Settling, payment: Payment | None = None) -> list[str]:
    """What `reconcile` names of these sessions of one account; `payment`: in the place of the first one's record."""
    records = [(each.session, each.payment.to_dict()) for each in some]
    if payment is not None:
        records[0] = (some[0].session, payment.to_dict())
    return [each.what for each in compare(records, at_stripe(some[0].account))]
