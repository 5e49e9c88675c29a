"""From a refund, a dispute or a late payment at Stripe to the mails that tell of it: bridge, sandbox, mailer, SMTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.receipts.mailer import Mailer
from tests.billing_bridge.clocks import StandingClock, look
from tests.billing_bridge.fixtures import Till
from tests.receipts.post import Sink, settings_for, sunk
from tests.receipts.receipt_cases import people, session


@dataclass
class Office:
    """A till whose mailer looks whenever its queue says so."""

    till: Till
    mailer: Mailer
    clock: StandingClock
    sink: Sink
    session: dict[str, Any] = field(default_factory=dict)

    async def paid(self, lost: bool = False) -> None:
        """A session of 75.00 is over; charged, unless its hold was lost."""
        opened = await self.till.open()
        doc = (await self.till.journal.read("ses_1", "people"))["people"]
        assert doc is not None
        await self.till.journal.commit("ses_1", {"people": (doc.version, people(expert={"locale": "en"}))})
        held = await self.till.settle()
        if lost:
            await self.till.ask.post(f"payment_intents/{held.payment_intent}/expire")
        kept = ("id", "client", "expert", "ambassador", "funding", "hold", "joined")
        self.session = session(livemode=False) | {name: opened[name] for name in kept}
        await self.till.put(self.session)
        await self.till.settle()

    async def mails(self) -> list[str]:
        """The first words of the mails that went out since last asked, once nothing is due any more."""
        before = len(self.sink.mails)
        while await self.till.queued("mail") is not None:
            self.clock.now += 86_400_000
            await look(self.till.journal, "mail", self.mailer.handle, self.clock.now)
        return [" ".join(mail["Subject"].split()[2:4]) for mail in self.sink.mails[before:]]


@pytest.fixture
async def office(till: Till) -> AsyncIterator[Office]:
    async with sunk() as sink:
        clock = StandingClock(till.clock.wall_ms())
        mailer = Mailer(till.journal, settings_for(sink), clock)
        yield Office(till, mailer, clock, sink)
        await mailer._post.close()


async def test_r07_a_refund_at_stripe_corrects_both_receipts_once(office: Office) -> None:
    await office.paid()
    assert await office.mails() == ["Your receipt", "Your receipt"]
    await office.till.refund(2_500)
    await office.till.settle()
    assert await office.mails() == ["Correction TEST-C-2026-000002", "Correction TEST-E-2026-000002"]
    await office.till.refund(None)
    await office.till.settle()
    assert await office.mails() == ["Correction TEST-C-2026-000003", "Correction TEST-E-2026-000003"]
    assert await office.mails() == []


async def test_a_refund_that_the_platform_bears_is_told_to_the_client_alone(office: Office) -> None:
    await office.paid()
    assert await office.mails() == ["Your receipt", "Your receipt"]
    await office.till.refund(2_500, charge_to="platform")
    await office.till.settle()
    assert await office.mails() == ["Correction TEST-C-2026-000002"]


async def test_a_late_payment_is_told_to_both(office: Office) -> None:
    await office.paid(lost=True)
    assert await office.mails() == ["Your receipt", "Your receipt"]
    funding = office.session["funding"] | {"attempt": 2, "payment_method": "pm_card_mastercard", "recharge": True}
    await office.till.put(office.session | {"funding": funding})
    assert (await office.till.settle()).status == "captured"
    assert await office.mails() == ["Payment received,", "Payment received,"]
    text = office.sink.mails[2].get_body(("plain",))
    assert text is not None
    assert "Mastercard" in text.get_content()
