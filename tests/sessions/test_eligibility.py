"""R16, R17: whether the expert may be paid is asked before each card, also weeks after the order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis.asyncio as aioredis

from gateway import session as core
from gateway.billing_bridge import payment
from gateway.billing_bridge.order import order_of
from gateway.billing_bridge.payment import concluded
from gateway.billing_bridge.pricing import Terms
from gateway.billing_bridge.record import Payment
from gateway.bookings.booking import NewBooking
from gateway.bookings.bookings import Bookings
from gateway.changes import Changes
from gateway.clock import SystemClock
from gateway.errors import InvalidRequest, StripeUnavailable
from gateway.ids import new_id
from gateway.journal import Journal
from gateway.meter.ledger import Ledger
from gateway.session import Consent, NewExpert
from gateway.sessions import sessions as module
from gateway.sessions.paying import PayDesk
from gateway.sessions.rules import Rules
from gateway.sessions.sessions import Sessions
from gateway.sessions.shown import Docs
from gateway.tokens import Tokens
from tests.orders import NOW, order
from tests.sessions.test_sessions import say_payment, types

ACCOUNT = "acc_test"
REFUSED = InvalidRequest("Stripe wants a passport.", code="expert_not_payable", reason="transfers_inactive")


@dataclass
class Verdict:
    """Stands in for the question at Stripe."""

    error: Exception | None = None
    asked: list[str] = field(default_factory=list)
    renewed: int = 0

    async def platform(self, expert: NewExpert, currency: str, *, account: str, livemode: bool) -> str:
        self.asked.append(f"{expert.stripe_account} {expert.country} {currency}")
        if self.error is not None:
            raise self.error
        return "main"

    async def refresh(self, expert: NewExpert, *, platform: str, account: str, livemode: bool) -> None:
        self.renewed += 1


@dataclass
class Desk:
    sessions: Sessions
    payees: Verdict

    async def order(self, **changes: Any) -> Docs:
        terms = order(**{"hold": "join"} | changes)
        return (await self.sessions.create(terms, account=ACCOUNT, livemode=False, session_id=new_id("ses"))).docs

    async def before_consent(self, docs: Docs) -> Docs:
        await self.sessions.before_consent((await self.sessions.records.read(docs.record.id)).record)
        return await self.sessions.records.read(docs.record.id)


@pytest.fixture
async def desk(redis: aioredis.Redis, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setattr(module, "HOLD_WAIT_S", 0.05)
    changes, payees = Changes(journal), Verdict()
    listening = asyncio.create_task(changes.run())
    asks: Any = payees
    yield Desk(
        Sessions(
            journal, Ledger(redis, journal.keys), Tokens(b"k" * 32), SystemClock(), changes, rules=Rules(),
            public_url="https://gateway.example", open_payment=payment.opened, payees=asks,
        ),
        payees,
    )  # fmt: skip
    listening.cancel()


async def test_r16_before_the_client_agrees_to_a_hold_that_was_put_off_the_expert_is_asked_about_anew(
    desk: Desk,
) -> None:
    made = await desk.order()
    await desk.before_consent(made)
    assert desk.payees.asked == ["acct_demo US usd"] * 2
    for desk.payees.error in (REFUSED, StripeUnavailable("away")):
        with pytest.raises(type(desk.payees.error)):
            await desk.before_consent(made)
    after = await desk.sessions.records.read(made.record.id)
    assert (after.session, after.payment["status"]) == (made.session, "awaiting_join")


async def test_r16_ordered_so_the_session_is_free_instead_and_the_money_step_is_closed(desk: Desk) -> None:
    made = await desk.order(if_not_eligible="free")
    desk.payees.error = REFUSED
    after = await desk.before_consent(made)
    assert (after.record.kind, after.record.status, after.record.funded) == ("free", "ready", True)
    assert await types(desk.sessions, made.record.id) == ["session.created", "session.made_free", "session.ready"]
    closed, _ = concluded(order_of(after.session), Payment.from_dict(after.payment), Terms("usd"))
    assert (closed.status, closed.steps) == ("none", ())
    await desk.before_consent(made)
    assert len(await types(desk.sessions, made.record.id)) == 3


async def test_r16_nobody_is_asked_where_no_card_will_be(desk: Desk) -> None:
    agreed = Consent(NOW, "1", "en", 10_000_000)
    made = await desk.order()
    await desk.sessions.records.apply(made.record.id, lambda record: core.joined(record, "client", NOW, agreed))
    for docs in (made, await desk.order(hold="now"), await desk.order(kind="pro_bono")):
        asked = len(desk.payees.asked)
        await desk.before_consent(docs)
        assert len(desk.payees.asked) == asked


async def test_r16_another_card_is_not_taken_for_an_expert_who_may_not_be_paid_meanwhile(desk: Desk) -> None:
    made = await desk.order(hold="now")
    session = made.record.id
    await say_payment(desk.sessions, session, status="failed", decline_code="generic_decline")
    desk.payees.error = REFUSED
    with pytest.raises(InvalidRequest) as refused:
        await desk.sessions.pay(ACCOUNT, session, "pm_card_visa")
    assert refused.value.extra["reason"] == "transfers_inactive"
    link = desk.sessions.doors._tokens.pay(session, expires_at=desk.sessions.clock.wall_ms() + 60_000)
    with pytest.raises(InvalidRequest) as shown:
        await PayDesk(desk.sessions, Bookings(desk.sessions, open_payment=payment.opened)).pay(link, "pm_card_visa", 1)
    assert "passport" not in shown.value.detail, "law 7: what Stripe wants of the expert is not the client's business"
    assert shown.value.extra == {}
    docs = await desk.sessions.records.read(session)
    assert (docs.payment["status"], docs.record.funding and docs.record.funding.attempt) == ("failed", 1)


async def test_r16_another_card_of_an_order_that_says_so_opens_a_free_session(desk: Desk) -> None:
    made = await desk.order(hold="now", if_not_eligible="free")
    await say_payment(desk.sessions, made.record.id, status="failed", decline_code="generic_decline")
    desk.payees.error = REFUSED
    after = await desk.sessions.pay(ACCOUNT, made.record.id, "pm_card_visa")
    assert (after.record.kind, after.record.funding, after.payment["status"]) == ("free", None, "pending")
    closed, _ = concluded(order_of(after.session), Payment.from_dict(after.payment), Terms("usd"))
    assert closed.status == "none"


async def test_r16_an_order_that_says_so_is_free_from_the_start(desk: Desk) -> None:
    desk.payees.error = REFUSED
    with pytest.raises(InvalidRequest):
        await desk.order()
    made = await desk.order(if_not_eligible="free", max_minutes=60)
    assert (made.record.kind, made.record.limit_ms, made.payment["status"]) == ("free", 900_000, "none")


async def test_r16_a_bill_for_what_was_held_is_taken_whatever_the_account_says_by_then(desk: Desk) -> None:
    made = await desk.order(hold="now")
    session = made.record.id
    await say_payment(desk.sessions, session, status="due")
    over = {"status": "finalized", "bill": {"amount_total": 7_500}}
    await desk.sessions.records.apply(
        session, lambda record: core.Step(core.SessionRecord.from_dict(record.to_dict() | over))
    )
    desk.payees.error = REFUSED
    after = await desk.sessions.pay(ACCOUNT, session, "pm_card_visa")
    assert after.record.funding is not None
    assert (after.record.funding.recharge, after.record.funding.amount) == (True, 7_500)


async def test_r14_a_bookings_other_card_asks_and_its_paid_meeting_only_renews_what_is_known(desk: Desk) -> None:
    bookings = Bookings(desk.sessions, open_payment=payment.opened, wait_s=0.05)
    booking = new_id("bkg")
    new = NewBooking(order().client, order().expert, 300, "usd", 30, (None,), desk.sessions.clock.wall_ms() + 7_200_000)
    booked = await bookings.create(new, account=ACCOUNT, livemode=False, booking_id=booking)
    asked = len(desk.payees.asked)
    await desk.before_consent(booked.meetings[0])
    assert (len(desk.payees.asked), desk.payees.renewed) == (asked, 1)
    await say_payment(desk.sessions, booking, status="failed")
    desk.payees.error = REFUSED
    with pytest.raises(InvalidRequest):
        await bookings.pay(ACCOUNT, False, booking, "pm_card_visa")
    assert (await bookings.get(ACCOUNT, False, booking)).payment["status"] == "failed"
