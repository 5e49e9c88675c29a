"""Keeps the records of connected accounts: asks Stripe for those that somebody wants to know about, has it pay them out
weekly, passes on their payouts, and frees the transfers that waited for one that can receive again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import structlog

from gateway.billing_bridge.account_steps import applied, freeing, look_at, next_call
from gateway.billing_bridge.calls import Call
from gateway.billing_bridge.index import Index
from gateway.billing_bridge.nudges import nudge
from gateway.billing_bridge.pace import Rank
from gateway.billing_bridge.platform import Platform
from gateway.clock import Clock
from gateway.errors import Conflict
from gateway.journal import Claim, Doc, Event, Journal
from gateway.outbox import claims
from gateway.payees.accounts import DOC, QUEUE, Connected
from gateway.payees.payability import enter, wish
from gateway.payees.routes import MAIN

log = structlog.get_logger(__name__)

# Somebody may wait for the answer before a card is taken.
ASKED: Final[Rank] = (0, 0)
LEASE_MS: Final = 60_000
AT_ONCE: Final = 16


class Accounts:
    """Shell; any number may run. `weekday`: on which Stripe shall pay out ("": as it is)."""

    def __init__(self, journal: Journal, platforms: Mapping[str, Platform], clock: Clock, weekday: str = "") -> None:
        self._journal, self._platforms, self._clock, self._weekday = journal, platforms, clock, weekday
        self._index = Index(journal.redis)

    async def run(self) -> None:
        await claims.work(self._journal, QUEUE, self.handle, lease_ms=LEASE_MS, at_once=AT_ONCE)

    async def handle(self, claim: Claim) -> None:
        """One claimed look; gives the claim back. Raises StoreUnavailable."""
        await self._journal.done(claim, await self.look(claim.session))

    async def look(self, stream: str) -> int | None:
        """All that can be done for an account now; gives when to look again (wall ms), None for never."""
        while True:
            doc = (await self._journal.read(stream, DOC))[DOC]
            if doc is None:
                return None
            record = Connected.from_dict(doc.body)
            if record.platform not in self._platforms:
                log.warning("accounts.platform_gone", platform=record.platform, stripe_account=record.id)
                return None
            waiting, now = await self._index.withheld(record.id), self._clock.wall_ms()
            call = next_call(record, now, self._weekday, withheld=bool(waiting))
            if call is not None:
                record = await self._ask(doc, record, call, waiting)
            if call is None or record.tries:
                return look_at(record, now, withheld=bool(waiting))

    async def _ask(self, doc: Doc, record: Connected, call: Call, waiting: Sequence[str]) -> Connected:
        """One request, and its answer written down. Nothing is, when somebody asked for more meanwhile: then it is
        asked again, which harms nobody."""
        outcome = await self._platforms[record.platform].send(call, ASKED)
        now = self._clock.wall_ms()
        record, notices = applied(record, call, outcome, now)
        if waiting and freeing(record, call, now):
            record = replace(record, freed_at=now)
            for session in waiting:
                await nudge(self._journal, session, "accounts", {"type": "account.retrieved"})
        events = [Event(notice.type, notice.data) for notice in notices]
        with suppress(Conflict):
            await self._journal.commit(record.stream, {DOC: (doc.version, record.to_dict())}, events=events)
        return record


async def watch(journal: Journal, session: Mapping[str, Any], ident: str) -> None:
    """A transfer of the session waits for a connected account: have it looked at until it can receive, whoever's it
    is. Raises StoreUnavailable."""
    record = Connected(ident, session["account"], session["livemode"], session.get("platform") or MAIN, asked=0)
    await enter(journal, record)
    await wish(journal, record.stream, new=record)
