"""What is kept of a person, and the end of it (R22): export and erasure, in Redis and in the archive alike.

A person is an id that an account gave, on whichever side of its sessions. Erased are name, e-mail, language, time zone,
what they wrote about others, and an expert's name on card statements. What laws on bookkeeping want stays, with the id
alone: times, amounts, card brand and last four digits, receipts' numbers; and it goes when its own time is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from redis.exceptions import RedisError

from gateway.archive.person import Person, roles_in
from gateway.archive.snapshot import Snapshot
from gateway.errors import Conflict, StoreUnavailable
from gateway.journal import Journal
from gateway.keys import list_of
from gateway.session import Role

OVER: Final = ("finalized", "booked")


class People:
    """Shell over the journal and its archive. Raises StoreUnavailable, ArchiveUnavailable."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def erase(self, person: Person) -> int:
        """Take somebody's personal data out of everything; out of how many sessions. Again, it finds nothing.

        Raises Conflict `person_in_use` with the sessions that are still to be held or paid; then nothing was erased.
        """
        here = await self._here(person)
        if open_ := [snapshot.session for snapshot in here if not _over(snapshot)]:
            raise Conflict(
                "Sessions of this person are still to be held or paid; end them first, or wait until they are settled.",
                code="person_in_use", param="id", sessions=open_[:100],
            )  # fmt: skip
        # A session may be on its way. Into the archive: it is there before it leaves Redis. Back: who brings it looks
        # into the archive again when it is in Redis. So one of these three looks meets it, or that one does.
        done = await self._erase_here(person)
        if self._journal.archive is not None:
            done |= set(await self._journal.archive.erase(person))
            done |= await self._erase_here(person)
        return len(done)

    async def _erase_here(self, person: Person) -> set[str]:
        found = set()
        for snapshot in await self._here(person):
            for role in roles_in(snapshot.record, person):
                if await self._journal.hot.erase(snapshot.session, role):
                    found.add(snapshot.session)
        return found

    async def export(
        self, person: Person, *, limit: int, starting_after: str | None = None
    ) -> tuple[list[dict[str, Any]], bool]:
        """Everything that is kept of somebody, a page of sessions, oldest first; and whether there are more."""
        after = starting_after or ""
        ids = set(await self._listed(person))
        if self._journal.archive is not None:
            ids |= set(await self._journal.archive.naming(person))
        found: list[dict[str, Any]] = []
        for session in sorted(ident for ident in ids if ident > after and ident.startswith("ses_")):
            snapshot = await self._snapshot(session)
            for role in roles_in(snapshot.record, person) if snapshot else ():
                if len(found) >= limit and found[-1]["session"] != session:
                    return found, True
                found.append(kept_of(cast(Snapshot, snapshot), role))
        return found, False

    async def _here(self, person: Person) -> list[Snapshot]:
        found = [await self._journal.hot.read(session) for session in await self._listed(person)]
        return [each.snapshot for each in found if each is not None and roles_in(each.snapshot.record, person)]

    async def _listed(self, person: Person) -> list[str]:
        """The sessions in Redis on whose lists the person stands."""
        base = list_of(person.account, person.livemode)
        try:
            lists = [
                cast("list[bytes]", await self._journal.redis.zrange(f"{base}:{role}:{person.id}", 0, -1))
                for role in ("client", "expert")
            ]
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error
        return sorted({ident.decode() for some in lists for ident in some})

    async def _snapshot(self, session: str) -> Snapshot | None:
        found = await self._journal.hot.read(session)
        return await self._journal.archived(session) if found is None else found.snapshot


def _over(snapshot: Snapshot) -> bool:
    payment = snapshot.doc("payment") or {}
    return snapshot.record["status"] in OVER and bool(payment.get("settled"))


def kept_of(snapshot: Snapshot, role: Role) -> dict[str, Any]:
    """What one session keeps of the person on that side; nothing of the other side's, and no secret (law 7)."""
    record, payment = snapshot.record, snapshot.doc("payment") or {}
    person = (snapshot.doc("people") or {}).get(role) or {}
    bill = record.get("bill") or {}
    return {
        "session": snapshot.session,
        "role": role,
        **{name: person.get(name) for name in ("name", "email", "locale", "timezone")},
        **{name: record.get(name) for name in ("created", "reference", "kind", "media", "status", "end_reason")},
        "joined_at": record["joined"][role],
        "started_at": record.get("started_at"),
        "ended_at": record.get("ended_at"),
        "connected": [list(span) for span in bill.get("intervals", ())],
        "rating_given": (record.get("ratings") or {}).get(role),
        "receipts": _receipts(snapshot.doc("receipts") or {}, role),
        "money": _client_money(record, payment) if role == "client" else _expert_money(record, payment, bill),
    }


def _client_money(record: Mapping[str, Any], payment: Mapping[str, Any]) -> dict[str, Any]:
    names = ("status", "amount_held", "amount_captured", "amount_refunded", "card", "decline_code")
    told = {name: payment.get(name) for name in names}
    return {
        **told, "currency": record["currency"], "stripe_customer": record["client"].get("stripe_customer"),
        "consent": record.get("consent"),
    }  # fmt: skip


def _expert_money(record: Mapping[str, Any], payment: Mapping[str, Any], bill: Mapping[str, Any]) -> dict[str, Any]:
    names = ("amount", "currency", "status", "amount_reversed", "amount_owed", "amount_restored", "stripe_id")
    return {
        "amount_expert": bill.get("amount_expert"),
        "currency": record["currency"],
        "stripe_account": record["expert"].get("stripe_account"),
        "country": record["expert"].get("country"),
        "rating_milli": record["expert"].get("rating_milli"),
        "transfers": [
            {name: transfer.get(name) for name in names}
            for transfer in payment.get("transfers", ())
            if transfer["to"] == "expert"
        ],
    }


def _receipts(letters: Mapping[str, Any], role: Role) -> list[dict[str, Any]]:
    """The role's own documents: the first has its name, its corrections begin with it."""
    return [
        {"number": letter["number"], "issued_at": letter["issued_at"], "mail": letter["mail"]["status"]}
        for name, letter in letters.items()
        if name.partition(".")[0] == role
    ]
