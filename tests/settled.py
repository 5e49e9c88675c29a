"""A settled session in a real Valkey, with everything that a whole life leaves behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.archive.archive import Archive
from gateway.archive.directory import Directory as ArchiveDirectory
from gateway.billing_bridge.record import Payment, Settlement, Step, Transfer
from gateway.clock import SystemClock
from gateway.ids import new_id
from gateway.journal import Event, Journal
from gateway.meter.chain import sealed
from gateway.meter.ledger import Ledger
from gateway.meter.record import bill
from gateway.receipts.register import key_of
from gateway.session import SessionRecord
from gateway.sessions.directory import Directory
from gateway.sessions.orders import people_of
from tests.orders import NOW, order, record

COMMENT = "Private words about the expert"
PERSONAL = ("client@example.com", "expert@example.com", COMMENT, "Descriptor Name", '"Client"', '"Expert"')
HOOK = "whe_1"


async def archive_in(folder: Path) -> Archive:
    """An archive in a directory, as most tests want one; made when it is not there."""
    archive = Archive(ArchiveDirectory(folder))
    await archive.made()
    return archive


async def settled(journal: Journal, ident: str | None = None, **changes: Any) -> str:
    """Ninety seconds at 3.00 a minute: paid, receipted, told and rated; all that was due is done."""
    session = replace(
        record(reference=f"order-{new_id('o')}"), id=ident or new_id("ses"), started_at=NOW, ended_at=NOW + 90_000,
        end_reason="client_left", status="ended", **changes,
    )  # fmt: skip
    directory = Directory(journal, SystemClock())
    await directory.claim_reference(session.account, session.reference, session.id)
    await directory.enter(session)
    await _metered(journal, session)
    await _receipted(journal, session.id)
    await journal.redis.hset(journal.keys.of(session.id, "deliveries"), f"c:{HOOK}", "4")  # type: ignore[misc]
    return session.id


async def _metered(journal: Journal, session: SessionRecord) -> None:
    ledger = Ledger(journal.redis, journal.keys)
    lease = await ledger.acquire(session.id, "node-a")
    # Redis clips rows to its own time, and the tests' is the past: so they are put as they would stand there.
    rows = {f"1:node-a:{n}": f"{NOW + n * 30_000}:{NOW + (n + 1) * 30_000}" for n in range(3)}
    await journal.redis.hset(journal.keys.of(session.id, "usage"), mapping=rows)  # type: ignore[misc]
    usage = await ledger.usage(session.id)
    final = bill(session, usage.intervals).to_dict()
    rating = {"stars": 4, "comment": COMMENT, "parameters": {}}
    done = replace(
        session, status="finalized", bill=final, chain=sealed(session, usage.sealed, final), ratings={"client": rating}
    )
    await journal.commit(
        session.id,
        {"session": (0, done.to_dict()), "payment": (0, paid(final)), "people": (0, people_of(order()))},
        events=[
            Event("session.created", {}), Event("session.finalized", final),
            Event("session.rated", {"by": "client", **rating}), Event("session.settled", {}),
        ],
        due={"outbox": None}, fence=lease.fence(usage.version), finalized={},
    )  # fmt: skip


def paid(final: dict[str, Any]) -> dict[str, Any]:
    total = final["amount_total"]
    hold = Step(
        "hold", 1, "k", {"amount": 9000, "statement_descriptor_suffix": "Descriptor Name"}, "done", {"id": "pi_1"}
    )
    return Payment(
        "captured", "usd", amount_held=9000, amount_captured=total, amount_total=total, attempt=1,
        payment_intent="pi_1", charge="ch_1", card={"brand": "visa", "last4": "4242", "country": "US"},
        transfers=(Transfer("expert", "acct_demo", 405, "usd", 405, "paid", "tr_1"),),
        settlement=Settlement("usd", total, 43), settled=True, steps=(hold,),
    ).to_dict()  # fmt: skip


async def _receipted(journal: Journal, session: str, series: str = "TEST-C-2023") -> None:
    body: dict[str, Any] = {"schema": 1}
    for role in ("client", "expert"):
        key = key_of("default", series)
        number = f"{series}-{await journal.redis.hincrby(key, 'last', 1):06d}"  # type: ignore[misc]
        await journal.redis.hset(key, f"{session}|{role}", f"{number}:{NOW}")  # type: ignore[misc]
        mail = {"status": "sent", "message_id": "<m>", "tries": 1, "sent_at": NOW, "error": None, "next_at": None}
        secret = f"{session[4:]}{role[0] * 32}"
        body[role] = {"number": number, "secret": secret, "issued_at": NOW, "mail": mail}
    await journal.commit(session, {"receipts": (0, body)})


async def traces(journal: Journal, session: str) -> set[str]:
    """Every key in Redis that knows of the session, by its name or in what it holds, and does not run out by itself.
    The stream for those who watch is left out: it holds its last hundred entries and no more."""
    found = set()
    async for raw in journal.redis.scan_iter("*", count=1000):
        key, kind = raw.decode(), (await journal.redis.type(raw)).decode()
        read = {
            "hash": ("HGETALL",), "zset": ("ZRANGE", 0, -1), "list": ("LRANGE", 0, -1), "string": ("GET",),
            "set": ("SMEMBERS",), "stream": ("XRANGE", "-", "+"),
        }[kind]  # fmt: skip
        if key.endswith(":finalized") or await journal.redis.ttl(key) >= 0:
            continue
        if session in key or session in str(await journal.redis.execute_command(read[0], key, *read[1:])):
            found.add(key)
    return found
