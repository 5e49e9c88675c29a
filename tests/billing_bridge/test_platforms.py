"""R17: sessions paid by a further platform account, in each region that needs one; nothing of it touches the first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from gateway.billing_bridge.audit import YOUNG_S, Sweep, reconciled
from gateway.billing_bridge.outcome import Done
from gateway.billing_bridge.record import Payment
from gateway.billing_bridge.stripe_client import StripeClient
from gateway.billing_bridge.worker import Bridge
from gateway.dev.sandbox import PlatformConfig, Sandbox
from gateway.errors import GatewayError
from gateway.payees.routes import COUNTRIES, MAIN, SELF_SERVE
from tests.billing_bridge.fixtures import AskStripe, Till

OWN_REGION = sorted(COUNTRIES.keys() - SELF_SERVE)


@dataclass
class Abroad:
    """A till whose bridges know one more platform account, `far`."""

    till: Till
    far: StripeClient
    key: str
    currency: str

    @property
    def bridge(self) -> Bridge:
        till = self.till
        far = replace(till.settings, settlement_currency=self.currency).platform(till.journal.redis, self.far, "far")
        return Bridge(till.journal, till.stripe, till.settings, till.clock, {"far": far})

    async def paid(self, total: int, ident: str = "ses_1") -> Payment:
        """A session of the far platform account, from its hold to its settlement."""
        customer = await self.ask.customer()
        session = await self.till.open(
            ident, platform="far", ambassador=None, expert={"id": "e1", "stripe_account": "acct_demo_far"},
            client={"id": "c1", "stripe_customer": customer},
        )  # fmt: skip
        await self.bridge.settle_once(ident)
        await self.till.finish(session, total)
        await self.bridge.settle_once(ident)
        return await self.till.payment(ident)

    @property
    def ask(self) -> AskStripe:
        return AskStripe(self.till.ask.url, self.till.ask.http, self.key)


@pytest.fixture(params=OWN_REGION)
async def abroad(request: Any, sandbox: Sandbox, till: Till) -> AsyncIterator[Abroad]:
    country, key = request.param, f"sk_test_{request.param}"
    currency = COUNTRIES[country].currency
    sandbox.add_platform(PlatformConfig("far", key, country, (currency,)))
    async with StripeClient(key, sandbox.url, timeout_s=1.0) as far:
        yield Abroad(till, far, key, currency)


async def test_r17_a_session_is_held_captured_and_shared_where_its_expert_lives(abroad: Abroad) -> None:
    payment = await abroad.paid(4500)
    assert payment.settlement is not None
    assert (payment.status, payment.settled, payment.settlement.currency) == ("captured", True, abroad.currency)
    [share] = payment.transfers
    assert (share.currency, share.status) == (abroad.currency, "paid")
    assert share.amount == payment.settlement.amount * 4050 // 4500, "law 6, in that currency's own minor units"
    there, here = await abroad.ask.state(), await abroad.till.ask.state()
    assert [(t["destination"], t["amount"]) for t in there["transfers"]] == [("acct_demo_far", share.amount)]
    assert (here["payment_intents"], here["transfers"]) == ([], [])


async def test_r17_refunds_and_the_comparison_speak_to_the_account_that_was_paid(abroad: Abroad) -> None:
    await abroad.paid(4500)
    await abroad.till.refund(4500)
    await abroad.bridge.settle_once("ses_1")
    payment = await abroad.till.payment()
    assert (payment.status, payment.transfers[0].status) == ("refunded", "reversed")
    assert await reconciled(abroad.till.journal, {MAIN: abroad.till.stripe, "far": abroad.far}, 0) == (1, [])
    count, [found] = await reconciled(abroad.till.journal, {MAIN: abroad.till.stripe}, 0)
    assert (count, found.what, found.ours) == (1, "no platform account", "far")


async def test_r17_a_bill_below_that_accounts_smallest_charge_is_waived(abroad: Abroad) -> None:
    payment = await abroad.paid(79)
    assert (payment.status, payment.amount_waived) == ("released", 79)
    assert (await abroad.ask.state())["totals"][payment.currency]["held"] == 0


@pytest.mark.parametrize("abroad", ["AU"], indirect=True)
async def test_the_sweep_looks_at_each_platform_account_on_its_own(abroad: Abroad) -> None:
    await abroad.paid(4500)
    hold = {
        "amount": 7500, "currency": "usd", "capture_method": "manual", "confirm": True,
        "payment_method": "pm_card_visa", "allowed_payment_method_types": ["card"],
        "metadata": {"session": "ses_1", "step": "hold", "attempt": "7"},
    }  # fmt: skip
    made = await abroad.far.send("payment_intents.create", hold, "stray")
    assert isinstance(made, Done)
    abroad.till.clock.ahead_ms += (YOUNG_S + 60) * 1000
    assert await Sweep(abroad.till.journal, abroad.till.stripe, abroad.till.clock).once() == []
    far = Sweep(abroad.till.journal, abroad.far, abroad.till.clock, platform="far")
    assert await far.once() == [made.object["id"]]
    assert await far.once() == []


@pytest.mark.parametrize("abroad", ["AU"], indirect=True)
async def test_a_session_whose_platform_account_left_the_settings_waits_for_it(abroad: Abroad) -> None:
    session = await abroad.till.open(
        platform="far", client={"id": "c1", "stripe_customer": await abroad.ask.customer()}
    )
    with pytest.raises(GatewayError, match=r"stripe\.platforms\.far"):
        await abroad.till.bridge.settle_once("ses_1")
    assert (await abroad.till.payment()).status == "pending"
    await abroad.bridge.settle_once(session["id"])
    assert (await abroad.till.payment()).status == "held"
