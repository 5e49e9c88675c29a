"""A marketplace's view for the tests: keys, an order, and sessions kept in memory behind the API."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway import session as core
from gateway.api import examples
from gateway.api.auth import ApiKey
from gateway.api.examples import Records, Way
from gateway.errors import Conflict, NotFound, Unauthorized
from gateway.session import NewSession
from gateway.sessions.refunds import NewRefund

NOW = examples.NOW
FULL = "pg_test_full"
READER = "pg_test_reader"
CALLER = "pg_test_caller"
CASHIER = "pg_test_cashier"
LIVE = "pg_live_full"
STRANGER = "pg_test_stranger"
KEYS = (
    ApiKey.of(FULL, "acc_dev"),
    ApiKey.of(READER, "acc_dev", ["read"]),
    ApiKey.of(CALLER, "acc_dev", ["sessions"]),
    ApiKey.of(CASHIER, "acc_dev", ["money"]),
    ApiKey.of(LIVE, "acc_dev"),
    ApiKey.of(STRANGER, "acc_other"),
)


def order(**changes: Any) -> dict[str, Any]:
    """The contract's example of a creation. `client__name="x"` changes a member of a member."""
    body = copy.deepcopy(examples.CREATE)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = body
        for parent in parents:
            place = place[parent]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return body


class FixedClock:
    def wall_ms(self) -> int:
        return NOW

    def boot_ms(self) -> int:
        return 0


@dataclass
class Made:
    docs: Records
    client: Way
    expert: Way


@dataclass
class MemorySessions:
    """Use cases over a dictionary: enough for what HTTP adds to them."""

    kept: dict[str, Records] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    gate: asyncio.Event | None = None
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    fails: Exception | None = None
    fails_after: Exception | None = None
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    async def create(self, terms: NewSession, *, account: str, livemode: bool, session_id: str) -> Made:
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        if session_id not in self.kept:
            self.opened.append(session_id)
            self.kept[session_id] = self._records(terms, account, livemode, session_id)
        if self.fails_after is not None:
            raise self.fails_after
        return Made(self.kept[session_id], self._way(session_id, "client"), self._way(session_id, "expert"))

    def _records(self, terms: NewSession, account: str, livemode: bool, id: str) -> Records:
        step = core.opened(
            terms, id=id, account=account, livemode=livemode, now=NOW, cap_ms=5_400_000, expires_ms=86_400_000
        )
        people = {
            role: {"name": p.name, "email": p.email, "locale": p.locale, "timezone": p.timezone}
            for role, p in (("client", terms.client), ("expert", terms.expert))
        }
        payment = {
            "status": "held" if step.record.amount_max else "none",
            "amount_held": step.record.amount_max,
            "attempt": 1,
            "card": {"brand": "visa", "last4": "4242", "country": "US"},
            "transfers": [],
        }
        return Records(core.funded(step.record).record.to_dict(), payment, people)

    def _way(self, session: str, role: str) -> Way:
        return Way(f"token-{role}", f"https://gateway.example/call#{session}-{role}")

    async def get(self, account: str, session: str) -> Records:
        docs = self.kept.get(session)
        if docs is None or docs.session["account"] != account:
            raise NotFound("There is no such session.", code="session_not_found", param="id")
        return docs

    async def list(self, account: str, **wanted: Any) -> tuple[list[Records], bool]:
        self.calls.append(("list", account, wanted))
        mode = wanted["livemode"]
        mine = (d for d in self.kept.values() if (d.session["account"], d.session["livemode"]) == (account, mode))
        page = sorted(mine, key=lambda d: d.session["id"])
        return page[: wanted["limit"]], len(page) > wanted["limit"]

    async def end(self, account: str, session: str, reason: str | None) -> Records:
        self.calls.append(("end", session, reason))
        docs = await self.get(account, session)
        record = core.ended(core.SessionRecord.from_dict(docs.session), "ended_by_api", NOW + 1).record
        self.kept[session] = replace(docs, session=record.to_dict())
        return self.kept[session]

    async def tokens_for(self, account: str, session: str, role: str) -> Way:
        if (await self.get(account, session)).session["status"] == "ended":
            raise Conflict("The session has ended.", code="session_ended")
        return self._way(session, role)

    async def usage(self, account: str, session: str) -> Mapping[str, Any]:
        bill = examples.finalized().session["bill"]
        start, end = bill["intervals"][0]
        rows = [{"epoch": 1, "number": 1, "start": start, "end": end}]
        return {"rows": rows, "bill": bill, "arithmetic": "1500 s × 300 ÷ 60 = 7500"}

    async def pay(self, account: str, session: str, payment_method: str, *, request: str | None = None) -> Records:
        self.calls.append(("pay", session, payment_method))
        return await self.get(account, session)

    async def refund(self, account: str, session: str, new: NewRefund) -> tuple[Records, dict[str, Any]]:
        self.calls.append(("refund", session, new.amount, new.reason, new.charge_to))
        order = {"number": 1, "id": new.id, "amount": new.amount or 7500, "reason": new.reason, "at": NOW}
        return await self.get(account, session), {**order, "charge_to": new.charge_to}

    async def waive(self, account: str, session: str) -> Records:
        self.calls.append(("waive", session))
        return await self.get(account, session)

    async def enter(self, secret: str) -> Mapping[str, Any]:
        codes = {"expired": "link_expired", "unknown": "link_invalid"}
        if secret in codes:
            raise Unauthorized("This link does not open a session.", code=codes[secret])
        return {
            "session": examples.ID, "role": "client", "token": "t", "signal": "wss://x/v1/signal", "status": "ready",
            "pricing": {"currency": "usd"},
        }  # fmt: skip

    async def events(self, account: str, session: str, after: int) -> Sequence[Mapping[str, Any]]:
        await self.get(account, session)
        return self.told[after:]


def event(sequence: int, session: str) -> dict[str, Any]:
    return {
        "id": f"evt_{sequence}", "type": "session.created", "api_version": "2026-11-01", "created": NOW,
        "session": session, "sequence": sequence, "data": {},
    }  # fmt: skip
