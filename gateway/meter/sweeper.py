"""The orphan sweeper: sessions that nobody hosts are moved on, ended when their time has come, and finalized.

It works the queue `watch`. Any node runs one; what it does is fenced by the session's lease, so many do no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import structlog
from prometheus_client import Counter
from redis.exceptions import RedisError

from gateway import session as core
from gateway.clock import Clock
from gateway.errors import Conflict, GatewayError, NotFound, StoreUnavailable
from gateway.journal import Claim, Fence, Journal
from gateway.meter.ledger import LeaseState, Ledger
from gateway.session import SessionRecord, Step

log = structlog.get_logger(__name__)

SWEPT = Counter("gateway_sweeper_sessions_total", "Sessions that the sweeper finalized, by end reason.", ["reason"])

CLAIM_MS: Final = 15_000
POLL_S: Final = 0.25
AT_ONCE: Final = 1
# How soon to look again at a session whose owner lives: longer, and a dead owner's session waits longer for its end;
# shorter, and every live session costs a look for nothing.
OWNED_MS: Final = 15_000


class Found(Protocol):
    """A session's records as they were read."""

    @property
    def record(self) -> SessionRecord: ...


class Records(Protocol):
    """What the sweeper needs of the sessions (`gateway.sessions.records.Records`)."""

    async def apply_payment(self, session: str) -> Found: ...

    async def apply(
        self, session: str, change: Callable[[SessionRecord], Step], *, fence: Fence | None = None
    ) -> SessionRecord: ...

    async def finalize(self, session: str, fence: Fence) -> SessionRecord: ...


class Sweeper:
    """Shell. `owner` is this node's nonce; `gone` tells whether another owner's heartbeat has stopped, `settling`
    whether Redis came back so lately that its owners had no time to renew their leases."""

    def __init__(
        self, journal: Journal, ledger: Ledger, records: Records, clock: Clock, *, owner: str, grace_ms: int,
        gone: Callable[[str], Awaitable[bool]], settling: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self._journal, self._ledger, self._records, self._clock = journal, ledger, records, clock
        self._owner, self._grace_ms, self._gone, self._settling = owner, grace_ms, gone, settling

    async def run(self) -> None:
        """Sweep until cancelled; Redis being away is waited out."""
        while True:
            try:
                await self._round(await self._claimed())
            except (StoreUnavailable, RedisError) as error:
                log.warning("sweep_failed", error=type(error).__name__)
                await asyncio.sleep(1)
            await asyncio.sleep(POLL_S)

    async def _claimed(self) -> Sequence[Claim]:
        """What is due now. A claim that is under way when this node leaves is given back when it is there."""
        claiming = asyncio.ensure_future(self._journal.due("watch", lease_ms=CLAIM_MS))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            await self._give_back(await claiming)
            raise

    async def _round(self, claims: Sequence[Claim]) -> None:
        for place, claim in enumerate(claims):
            try:
                await self._safely(claim)
            except asyncio.CancelledError:
                await self._give_back(claims[place:])
                raise

    async def _give_back(self, claims: Sequence[Claim]) -> None:
        """A node that leaves must not keep from the others what it has claimed."""
        for claim in claims:
            await self._journal.done(claim, AT_ONCE)

    async def _safely(self, claim: Claim) -> None:
        """One session that cannot be moved must not keep the others waiting; its claim comes back by itself."""
        try:
            await self._journal.done(claim, await self.look(claim.session))
        except NotFound:
            await self._journal.done(claim)
        except Conflict as error:
            log.info("sweep_lost_race", session=claim.session, code=error.code)
        except StoreUnavailable:
            raise
        except GatewayError as error:
            log.error("sweep_stuck", session=claim.session, code=error.code)

    async def look(self, session: str) -> int | None:
        """Do what is due for one session; when to look again (wall ms), or None if never."""
        record = (await self._records.apply_payment(session)).record
        if record.status == "finalized":
            return None
        now = self._clock.wall_ms()
        state = await self._ledger.state(session)
        if state is not None and await self._owned(state, now):
            return max(now + OWNED_MS, state.until)
        if record.open and record.started_at is None:
            return await self._waiting(record, now)
        return await self._orphan(record, now)

    async def _owned(self, state: LeaseState, now: int) -> bool:
        if state.owner and self._settling():
            return True
        if state.owner in ("", self._owner):
            return state.owner == self._owner and state.until > now
        return state.until > now and not await self._gone(state.owner)

    async def _waiting(self, record: SessionRecord, now: int) -> int | None:
        reason = core.expiry(record, now)
        if reason is None:
            return record.begin_by
        await self._finish(record.id, reason, now)
        return None

    async def _orphan(self, record: SessionRecord, now: int) -> int | None:
        """A session that ran when its owner died: it ends once the grace for a takeover is over, counted from the last
        instant that the ledger knows of."""
        if record.open:
            usage = await self._ledger.usage(record.id)
            last = max((row.end for row in usage.rows), default=record.started_at or now)
            if now < last + self._grace_ms:
                return last + self._grace_ms
        await self._finish(record.id, "node_lost", now)
        return None

    async def _finish(self, session: str, reason: core.EndReason, now: int) -> None:
        lease = await self._ledger.acquire(session, self._owner, owner_gone=True)
        fence = lease.fence()
        await self._records.apply(session, lambda record: core.ended(record, reason, now), fence=fence)
        final = await self._records.finalize(session, fence)
        SWEPT.labels(final.end_reason).inc()
