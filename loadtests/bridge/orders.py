"""Sessions as the gateway leaves them in the journal: ordered, then over with their final bill."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import aiohttp

from gateway import session as core
from gateway.billing_bridge.payment import opened
from gateway.billing_bridge.record import Payment
from gateway.ids import new_id
from gateway.journal import NOW, Event, Journal
from gateway.meter.chain import sealed
from gateway.meter.record import bill
from gateway.session import Ambassador, NewClient, NewExpert, NewSession, SessionRecord
from gateway.sessions.orders import people_of

CALL_MS: Final = 25 * 60_000
AT_ONCE: Final = 64


@dataclass
class Orders:
    """Sessions of one run. `transfers`: 1 (the expert's) or 2 (the ambassador's too)."""

    journal: Journal
    records: list[SessionRecord]

    @classmethod
    async def place(cls, journal: Journal, stripe_url: str, count: int, transfers: int) -> Orders:
        """Write them down; a bridge will hold their money."""
        client = NewClient("c1", "Client", "client@example.com", stripe_customer=await _customer(stripe_url),
                           payment_method="pm_card_visa")  # fmt: skip
        expert = NewExpert("e1", "Expert", "expert@example.com", stripe_account="acct_demo", country="US")
        terms = NewSession(client, expert, 300, "usd",
                           ambassador=Ambassador("acct_demo_ambassador", 2000) if transfers == 2 else None)  # fmt: skip
        now = time.time_ns() // 1_000_000
        steps = [
            core.opened(terms, id=new_id("ses"), account="acc_bench", livemode=False, now=now - CALL_MS,
                        cap_ms=5_400_000, expires_ms=86_400_000)
            for _ in range(count)
        ]  # fmt: skip
        people = people_of(terms)
        await some_at_once([_opened(journal, step.record, people) for step in steps])
        return cls(journal, [step.record for step in steps])

    async def payments(self) -> list[Payment]:
        docs = await some_at_once([self.journal.read(record.id, "payment") for record in self.records])
        return [Payment.from_dict(doc["payment"].body) for doc in docs]

    async def finish(self) -> None:
        """All end: their bills are final."""
        now = time.time_ns() // 1_000_000
        await some_at_once([self._finish(record, now) for record in self.records])

    async def _finish(self, record: SessionRecord, now: int) -> None:
        start = now - CALL_MS
        record = core.together(core.funded(record).record, start).record
        record = core.ended(record, "client_left", now).record
        final = bill(record, [(start, now)], minimum=50).to_dict()
        chain = sealed(record, [(1, "node", 1, start, now)], final)
        step = core.finalized(record, final, chain)
        doc = (await self.journal.read(record.id, "session"))["session"]
        assert doc is not None
        await self.journal.commit(
            record.id, {"session": (doc.version, step.record.to_dict())}, finalized=step.record.to_dict(),
            events=[Event(kind, data) for kind, data in step.events], due={"money": NOW, "mail": NOW},
        )  # fmt: skip

    async def let_go_before(self, order: Sequence[int]) -> None:
        """Holds that are lost at different times, an hour apart by `order`."""

        async def put(record: SessionRecord, place: int) -> None:
            doc = (await self.journal.read(record.id, "payment"))["payment"]
            assert doc is not None
            sooner = replace(Payment.from_dict(doc.body), hold_until=doc.body["hold_until"] - place * 60_000)
            await self.journal.commit(record.id, {"payment": (doc.version, sooner.to_dict())})

        await some_at_once([put(record, place) for record, place in zip(self.records, order, strict=True)])


async def _opened(journal: Journal, record: SessionRecord, people: dict[str, Any]) -> None:
    body = record.to_dict()
    docs = {"session": (0, body), "payment": (0, opened(body)), "people": (0, people)}
    await journal.commit(record.id, docs, due={"money": NOW})


async def _customer(stripe_url: str) -> str:
    async with aiohttp.ClientSession() as http:
        headers = {"Authorization": "Bearer sk_test_bench"}
        async with http.post(f"{stripe_url}/v1/customers", headers=headers) as answer:
            return str((await answer.json())["id"])


async def some_at_once(works: Sequence[Awaitable[Any]]) -> list[Any]:
    """What all come to; as many at a time as the store's client has connections for."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(work: Awaitable[Any]) -> Any:
        async with slots:
            return await work

    return await asyncio.gather(*(one(work) for work in works))
