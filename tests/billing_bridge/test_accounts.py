"""R17, R18 with everything real: the node's question, the bridge's answer from Stripe, and Stripe's events."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.billing_bridge.account_steps import FREE_AGAIN_MS, WITHHELD_LOOK_MS
from gateway.billing_bridge.accounts import Accounts
from gateway.billing_bridge.stripe_events import StripeEvents
from gateway.changes import Changes
from gateway.errors import InvalidRequest, StripeUnavailable
from gateway.payees.accounts import DOC, Connected, stream_of
from gateway.payees.payability import FRESH_MS, RESTRICTED_FRESH_MS, Payees
from gateway.payees.routes import MAIN, Payability, Platform, Schedule
from gateway.session import NewExpert
from gateway.webhooks.webhooks import owning
from tests.billing_bridge.fixtures import Till
from tests.billing_bridge.test_stripe_events import SECRET, At, signed
from tests.orders import order

STREAM = stream_of("acc_test", False, MAIN, "acct_demo")


@dataclass
class Desk:
    """What the node asks, beside a bridge that answers."""

    till: Till
    payees: Payees
    accounts: Accounts
    asked: dict[str, Any] = field(
        default_factory=lambda: {"account": "acc_test", "livemode": False, "expert": "e1", "currency": "usd"}
    )

    async def payability(self, country: str = "US", account: str = "acct_demo") -> Payability:
        return await self.payees.payability(country=country, stripe_account=account, **self.asked)

    async def record(self) -> Connected:
        doc = (await self.till.journal.read(STREAM, DOC))[DOC]
        assert doc is not None
        return Connected.from_dict(doc.body)

    async def told(self) -> list[str]:
        return [event["type"] for event in await self.till.journal.events(STREAM)]

    async def hear(self, ident: str, kind: str, **thing: Any) -> None:
        """An event of Stripe's about the demo account, and the bridge's look that follows from it."""
        body = {"id": ident, "object": "event", "type": kind, "account": "acct_demo", "data": {"object": thing}}
        payload = json.dumps(body).encode()
        await StripeEvents(self.till.journal, [SECRET], At()).receive(payload, signed(payload))
        await self.accounts.look(STREAM)


@pytest.fixture
async def desk(till: Till) -> AsyncIterator[Desk]:
    changes = Changes(till.journal)
    accounts = Accounts(till.journal, till.bridge.platforms, till.clock, "friday")
    tasks = [asyncio.create_task(accounts.run()), asyncio.create_task(changes.run())]
    await asyncio.sleep(0.05)  # both have subscribed: what follows is no matter of polling
    yield Desk(till, Payees(till.journal, changes, till.clock, [Platform(MAIN, "US", "usd")]), accounts)
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks)


async def test_r17_an_account_is_asked_about_once_while_its_answer_is_fresh(desk: Desk) -> None:
    assert (await desk.payability()).payable
    await desk.till.ask.post("accounts/acct_demo", restricted=True)
    assert (await desk.payability()).payable, "nobody told us: the event of this test's sandbox goes nowhere"
    desk.till.clock.ahead_ms += FRESH_MS
    found = await desk.payability()
    assert (found.payable, found.reason) == (False, "transfers_inactive")
    assert found.account is not None
    assert found.account.disabled_reason == "requirements.past_due"


async def test_r17_stripes_event_renews_the_answer_and_the_marketplace_is_told(desk: Desk) -> None:
    await desk.payability()
    await desk.till.ask.post("accounts/acct_demo", restricted=True)
    stale = {"id": "acct_demo", "object": "account", "capabilities": {"transfers": "active"}}
    await desk.hear("evt_1", "account.updated", **stale)
    assert not (await desk.payability()).payable, "the event said otherwise; Stripe itself is believed"
    assert await desk.told() == ["account.updated"]
    assert (await owning(desk.till.journal, STREAM) or {})["account"] == "acc_test"


async def test_r17_a_mended_account_is_seen_at_the_next_try_even_without_an_event(desk: Desk) -> None:
    assert not (await desk.payability(account="acct_demo_restricted")).payable
    await desk.till.ask.post("accounts/acct_demo_restricted", restricted=False)
    desk.till.clock.ahead_ms += RESTRICTED_FRESH_MS
    assert (await desk.payability(account="acct_demo_restricted")).payable


async def test_r17_an_account_of_another_platform_is_unknown(desk: Desk) -> None:
    assert (await desk.payability(account="acct_elsewhere")).reason == "account_unknown"


async def test_r17_a_creation_is_refused_with_the_reason_and_gets_its_platform_otherwise(desk: Desk) -> None:
    whose: Any = {"account": "acc_test", "livemode": False}
    assert await desk.payees.platform(order().expert, "usd", **whose) == MAIN
    cases = {
        "acct_demo_restricted": ("US", "transfers_inactive", "expert.stripe_account"),
        "acct_demo": ("AU", "no_platform_in_region", "expert.country"),
    }
    for account, (country, reason, param) in cases.items():
        with pytest.raises(InvalidRequest) as refused:
            await desk.payees.platform(NewExpert("e1", stripe_account=account, country=country), "usd", **whose)
        assert (refused.value.code, refused.value.extra["reason"], refused.value.param) == (
            "expert_not_payable", reason, param,
        )  # fmt: skip


async def test_r17_while_stripe_is_away_an_answer_of_today_will_do_and_without_one_nothing_is_promised(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.payees.payability.WAIT_S", 0.2)
    await desk.payability()
    await desk.till.ask.fault("GET /v1/accounts/*", "500", times=100)
    desk.till.clock.ahead_ms += FRESH_MS
    assert (await desk.payability()).payable
    desk.till.clock.ahead_ms += 24 * 3_600_000
    for account in ("acct_demo", "acct_demo_ambassador"):
        with pytest.raises(StripeUnavailable):
            await desk.payability(account=account)


async def test_r18_the_payout_schedule_is_set_and_payouts_are_passed_on_once(desk: Desk) -> None:
    await desk.payability()
    await desk.accounts.look(STREAM)
    found = (await desk.payability()).account
    assert found is not None
    assert found.schedule == Schedule("weekly", ("friday",))
    await desk.till.ask.post("balance", account="acct_demo", currency="usd", amount=8100)
    paid = await desk.till.ask.post("accounts/acct_demo/payouts")
    for number in (1, 2):
        await desk.hear(f"evt_{number}", "payout.paid", id=paid["id"], object="payout")
    events = await desk.till.journal.events(STREAM)
    assert [event["type"] for event in events if event["type"].startswith("payout")] == ["payout.paid"]
    assert (events[-1]["data"]["amount"], events[-1]["data"]["experts"]) == (8100, ["e1"])


# Transfers that wait for an account


async def withheld(desk: Desk, **changes: Any) -> None:
    """A paid session whose expert's account was restricted during the call."""
    await desk.till.ask.post("accounts/acct_demo", restricted=True)
    session = await desk.till.open(**changes)
    await desk.till.settle()
    await desk.till.finish(session, 4500)
    await desk.till.bridge.settle_once("ses_1")
    assert (await desk.till.payment()).transfer_to("expert").reason == "insufficient_capabilities_for_transfer"


async def test_r17_a_share_withheld_is_paid_once_the_account_may_receive_though_its_event_was_lost(desk: Desk) -> None:
    await withheld(desk)
    assert (await desk.record()).asked == 1, "nobody but the bridge wanted to know"
    looks_again = await desk.accounts.look(STREAM)
    await desk.till.ask.post("accounts/acct_demo", restricted=False)
    assert looks_again is not None
    desk.till.clock.ahead_ms += WITHHELD_LOOK_MS
    assert await desk.accounts.look(STREAM) is not None
    payment = await desk.till.settle()
    assert [(t.to, t.status) for t in payment.transfers] == [("expert", "paid"), ("ambassador", "paid")]
    assert payment.settled


async def test_r17_an_account_restricted_again_withholds_the_next_share_and_frees_both(desk: Desk) -> None:
    await withheld(desk)
    for number, restricted in enumerate((False, True, False)):
        await desk.till.ask.post("accounts/acct_demo", restricted=restricted)
        desk.till.clock.ahead_ms += FREE_AGAIN_MS
        thing = {"id": "acct_demo", "object": "account", "capabilities": {"transfers": "inactive"}}
        await desk.hear(f"evt_{number}", "account.updated", **thing)
        if restricted:
            session = await desk.till.open("ses_2")
            await desk.till.settle("ses_2")
            await desk.till.finish(session, 3000)
            await desk.till.bridge.settle_once("ses_2")
            assert (await desk.till.payment("ses_2")).transfer_to("expert").status == "withheld"
    for ident in ("ses_1", "ses_2"):
        assert (await desk.till.settle(ident)).transfer_to("expert").status == "paid"


async def test_what_stripe_refuses_for_another_reason_is_not_tried_again_and_again(desk: Desk) -> None:
    """An account with active transfers, in a country that the platform does not reach."""
    await desk.till.ask.post("accounts/acct_far", country="AU")
    expert = {"id": "e1", "stripe_account": "acct_far"}
    session = await desk.till.open(expert=expert)
    await desk.till.settle()
    await desk.till.finish(session, 4500)
    await desk.till.bridge.settle_once("ses_1")
    stream = stream_of("acc_test", False, MAIN, "acct_far")
    for _ in range(5):
        await desk.accounts.look(stream)
        await desk.till.bridge.settle_once("ses_1")
    payment = await desk.till.payment()
    assert payment.transfer_to("expert").status == "withheld"
    assert payment.attempts("transfer_expert") <= 2, "once, and once when the account was found able"


async def test_r19_an_ambassador_whom_the_platform_does_not_know_holds_up_nobody(desk: Desk) -> None:
    session = await desk.till.open(ambassador={"stripe_account": "acct_elsewhere", "share_bps": 2000})
    await desk.till.settle()
    await desk.till.finish(session, 4500)
    await desk.till.bridge.settle_once("ses_1")
    payment = await desk.till.payment()
    assert [(t.to, t.status, t.reason) for t in payment.transfers] == [
        ("expert", "paid", None), ("ambassador", "withheld", "resource_missing"),
    ]  # fmt: skip
    assert payment.settled, "no money step is open: the platform keeps the share for its payee"
