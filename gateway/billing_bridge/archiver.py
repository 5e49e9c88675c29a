"""The archiver: takes sessions that have come to rest out of Redis into the archive, and back when they are wanted.

For each: read at one moment; written to the archive, on disk and read back; taken out of Redis if it is still the same;
then what stood outside of its slot is cleaned up. A crash between any two of these leaves it in Redis, or in the
archive, or in both alike, and the claim comes back: the same line is not written twice, and a session that changed
meanwhile gets a newer one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from prometheus_client import Counter, Histogram
from redis.exceptions import RedisError

from gateway.archive.archive import Archive, Retention
from gateway.archive.hot import QUEUE, Put, bring_back
from gateway.archive.segment import ArchiveDamaged
from gateway.archive.snapshot import Snapshot
from gateway.billing_bridge.debts import Debts
from gateway.billing_bridge.rest import BUSY_MS, WAITING_MS, rests_from
from gateway.clock import Clock
from gateway.errors import Conflict, GatewayError, NotFound
from gateway.journal import NOW, Journal
from gateway.receipts.mail_desk import UNDELIVERABLE
from gateway.receipts.register import Register
from gateway.webhooks.webhooks import DEAD

log = structlog.get_logger(__name__)

SESSIONS = Counter(
    "gateway_archive_sessions_total", "Sessions that the archiver looked at, by what came of it", ["outcome"]
)
SECONDS = Histogram("gateway_archive_seconds", "To write some sessions to the archive and read them back")
EXPIRED = Counter(
    "gateway_archive_expired_files_total", "Files of the archive that were removed as their time was over"
)

DAY_MS: Final = 86_400_000
LEASE_MS: Final = 60_000
# Sessions that are written together.
TOGETHER: Final = 500
# Of these, how many leave Redis at once: each waits for its disk.
AT_ONCE: Final = 32
ROUND_S: Final = 1.0
# Whose pass it is: one bridge at a time, and nobody between two passes.
TURN: Final = "gateway:archive:turn"
TURN_MS: Final = 60_000
PAID: Final = frozenset({"captured", "partially_refunded", "refunded", "disputed"})
ATTEMPTS: Final = 20


@dataclass(frozen=True, slots=True)
class ArchiverSettings:
    """`quiet_ms`: how long a settled session stays in Redis; `per_second`: about how many leave it in a second while a
    pass goes on; `every_ms`: how long after a pass the next one begins."""

    quiet_ms: int = 30 * 86_400_000
    per_second: int = 50
    every_ms: int = 3_600_000
    issuer: str = "default"
    retention: Retention = field(default_factory=Retention)


class Archiver:
    """Shell. Any number may run: the archive's lock and the comparison in Redis keep them apart."""

    def __init__(self, journal: Journal, archive: Archive, settings: ArchiverSettings, clock: Clock) -> None:
        self._journal, self._archive, self._settings, self._clock = journal, archive, settings, clock
        self._hot = journal.hot
        self._register = Register(journal.redis, settings.issuer)
        self._debts = Debts(journal.redis)

    async def run(self) -> None:
        """Work until cancelled; what cannot be done now (Redis or the archive away, the disk full) is tried again."""
        while True:
            try:
                if await self._journal.redis.set(TURN, 1, nx=True, px=TURN_MS):
                    await self.all_due()
            except (GatewayError, RedisError, OSError) as error:
                SESSIONS.labels("failed").inc()
                code = getattr(error, "code", type(error).__name__)
                log.warning("archive.put_off", error=code, why=getattr(error, "detail", None))
            await asyncio.sleep(ROUND_S)

    async def all_due(self) -> None:
        """A pass: all sessions whose time has come, and what was kept for its time. After a failure the turn comes
        again within a minute."""
        await self._register.note(self._archive)
        while moved := await self.round():
            await self._journal.redis.set(TURN, 1, px=TURN_MS)
            await asyncio.sleep(moved / self._settings.per_second)
        await self.expire()
        await self._journal.redis.set(TURN, 1, px=self._settings.every_ms)

    async def round(self) -> int:
        """Some of the sessions whose time has come; how many."""
        limit = max(1, TOGETHER // self._journal.keys.partitions)
        claims = {claim.session: claim for claim in await self._journal.due(QUEUE, lease_ms=LEASE_MS, limit=limit)}
        for session, again_at in (await self.archive(list(claims))).items():
            await self._journal.done(claims[session], again_at)
        return len(claims)

    async def archive(self, sessions: Sequence[str], quiet_ms: int | None = None) -> dict[str, int | None]:
        """Archive those that are at rest; gives when to look again at each (wall ms), None for never."""
        quiet = self._settings.quiet_ms if quiet_ms is None else quiet_ms
        now, ready, again = self._clock.wall_ms(), list[Snapshot](), dict[str, int | None]()
        for session in sessions:
            found = await self._hot.read(session)
            if found is None:
                await self._tidy(await self._archive.find(session))
                again[session] = None
                continue
            at = rests_from(found.snapshot, found.queues, now, quiet)
            if at is not None and await self._to_be_held(found.snapshot):
                at = now + WAITING_MS
            if at is None or at > now:
                SESSIONS.labels("waits").inc()
                again[session] = at
            else:
                ready.append(found.snapshot)
        kept = await self._kept(ready)
        for some in (kept[at : at + AT_ONCE] for at in range(0, len(kept), AT_ONCE)):
            left = await asyncio.gather(*(self._leave(snapshot) for snapshot in some))
            again |= {snapshot.session: at for snapshot, at in zip(some, left, strict=True)}
        return again

    async def _to_be_held(self, booking: Snapshot) -> bool:
        """Whether a booking has meetings to come: until then its reference is taken."""
        for meeting in booking.record.get("meetings", ()):
            doc = (await self._journal.read(meeting, "session"))["session"]
            if doc is not None and doc.body["status"] != "finalized":
                return True
        return False

    async def _kept(self, snapshots: Sequence[Snapshot]) -> Sequence[Snapshot]:
        """Those that are safe in the archive; a damaged line of one does not keep the others back."""
        if not snapshots:
            return ()
        try:
            with SECONDS.time():
                await self._archive.keep(snapshots)
        except ArchiveDamaged as fault:
            if len(snapshots) > 1:
                return [one for each in snapshots for one in await self._kept([each])]
            SESSIONS.labels("damaged").inc()
            log.error("archive.damaged", session=snapshots[0].session, fault=fault.detail)
            return ()
        return snapshots

    async def _leave(self, snapshot: Snapshot) -> int | None:
        if not await self._hot.take_out(snapshot):
            SESSIONS.labels("changed").inc()
            return self._clock.wall_ms() + BUSY_MS
        await self._tidy(snapshot)
        SESSIONS.labels("archived").inc()
        return None

    async def _tidy(self, snapshot: Snapshot | None) -> None:
        """What is not needed outside of a slot any more; again does no harm."""
        if snapshot is not None:
            await self._hot.leave_aside(snapshot)
            await self._register.forget(snapshot)
            await self._debts.forget((snapshot.doc("payment") or {}).get("steps", ()))

    async def expire(self) -> list[str]:
        """Remove what was kept for its time: files, and entries of the lists of what did not arrive."""
        now, retention = self._clock.wall_ms(), self._settings.retention
        gone = await self._archive.expire(now, retention)
        for listed in (DEAD, UNDELIVERABLE):
            await self._journal.redis.zremrangebyscore(listed, "-inf", now - retention.ticks * DAY_MS)
        EXPIRED.inc(len(gone))
        if gone:
            log.info("archive.expired", files=gone)
        return gone

    async def go_on(self) -> None:
        """Before sessions are restored: no receipt's number that Redis has lost is given out again."""
        await self._register.go_on(self._archive)

    async def restore(self, session: str) -> Put:
        """Back into Redis, as it was kept; Stripe is asked what it knows that we may not. Raises NotFound."""
        put = await bring_back(self._archive, self._hot, session, self._clock.wall_ms() + self._settings.quiet_ms)
        kept = await self._archive.find(session)
        if put is None or kept is None:
            raise NotFound(f"{session} is not in the archive.", code="session_not_found", param="id")
        await self._register.remember(kept)
        payment = kept.doc("payment") or {}
        if put in ("put", "replaced") and payment.get("status") in PAID:
            await self._ask_stripe(session)
        return put

    async def _ask_stripe(self, session: str) -> None:
        """Disputes and refunds that came after the archive's last word are found by asking, as after an event; and what
        lost steps of ours had taken back by then or given."""
        for _ in range(ATTEMPTS):
            doc = (await self._journal.read(session, "stripe"))["stripe"]
            body: dict[str, Any] = dict(doc.body) if doc else {"schema": 1}
            body |= {topic: body.get(topic, 0) + 1 for topic in ("count", "disputes", "refunds", "lost")}
            try:
                put = {"stripe": (doc.version if doc else 0, body)}
                await self._journal.commit(session, put, due={"money": NOW})
            except Conflict:
                continue
            return
