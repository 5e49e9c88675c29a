"""Finds sessions: the lists by account, client, expert and reference, and whom a reference belongs to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

from redis.exceptions import RedisError

from gateway.bookings.booking import BookingRecord
from gateway.clock import Clock
from gateway.errors import Conflict, StoreUnavailable
from gateway.ids import born_ms
from gateway.journal import Journal
from gateway.keys import list_of, lists_of, reference_of
from gateway.session import SessionRecord

# Longer than a creation takes; after it a reference that belongs to no session is free.
MAKING_MS: Final = 30_000
PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose sessions, or bookings, are looked for; what is None does not matter."""

    account: str
    livemode: bool
    status: str | None = None
    expert: str | None = None
    client: str | None = None
    reference: str | None = None
    bookings: bool = False

    @property
    def key(self) -> str:
        """The shortest list that has them all."""
        base = list_of(self.account, self.livemode, bookings=self.bookings)
        for name, value in (("reference", self.reference), ("client", self.client), ("expert", self.expert)):
            if value:
                return f"{base}:{name}:{value}"
        return base

    def fits(self, body: Mapping[str, Any]) -> bool:
        found = (
            (self.status, body["status"]),
            (self.expert, body["expert"]["id"]),
            (self.client, body["client"]["id"]),
            (self.reference, body["reference"]),
        )
        return all(value is None or value == there for value, there in found)


class Directory:
    """Shell over Redis; every entry precedes its session, so a crash leaves entries that reading skips."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal, self._redis, self._clock = journal, journal.redis, clock

    async def claim_reference(self, account: str, reference: str | None, owner: str, former: str | None = None) -> None:
        """The reference is this session's, or this booking's, from now on; a continued session takes its `former`
        one's while that still runs. Raises Conflict `reference_in_use`."""
        if reference is None:
            return
        key = reference_of(account, reference)
        try:
            holder = cast("bytes | None", await self._redis.set(key, owner, nx=True, get=True))
            while holder is not None and holder.decode() != owner:
                if holder.decode() != former and await self._in_use(holder.decode()):
                    raise Conflict(
                        f"The reference belongs to {holder.decode()}, which has not ended.",
                        code="reference_in_use", param="reference", session=holder.decode(),
                    )  # fmt: skip
                holder = await self._take_over(key, holder, owner)
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error

    async def _in_use(self, session: str) -> bool:
        doc = (await self._journal.read(session, "session"))["session"]
        if doc is None:
            return self._being_made(session)
        if doc.body["kind"] == "booking":
            return any([await self._in_use(meeting) for meeting in doc.body["meetings"]])
        return SessionRecord.from_dict(doc.body).open

    def _being_made(self, session: str) -> bool:
        """A reference is taken before its session is there; one that never came was lost in a crash."""
        with suppress(ValueError):
            return self._clock.wall_ms() - born_ms(session) < MAKING_MS
        return False

    async def _take_over(self, key: str, holder: bytes, session: str) -> bytes | None:
        """Compare-and-set of a reference whose session is over; None when it is ours."""
        script = "local v = redis.call('GET', KEYS[1]); if v == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]); "
        script += "return false end; return v"
        holder_now: bytes | None = await self._redis.execute_command("EVAL", script, 1, key, holder, session)
        return holder_now

    async def enter(self, record: SessionRecord | BookingRecord) -> None:
        """Entries for listing. They precede the record, so a crash between leaves an entry that reading skips."""
        try:
            pipe = self._redis.pipeline(transaction=False)
            for key in lists_of(record.to_dict()):
                pipe.execute_command("ZADD", key, 0, record.id)
            await pipe.execute()
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error

    async def newest(self, wanted: Wanted, below: str | None) -> AsyncIterator[str]:
        """Ids that may be wanted, newest first, beginning after `below`; whether they are, their records say."""
        place = f"({below}" if below else "+"
        while True:
            ids = await self._redis.execute_command("ZRANGE", wanted.key, place, "-", "BYLEX", "REV", "LIMIT", 0, PAGE)
            for ident in ids:
                yield ident.decode()
            if len(ids) < PAGE:
                return
            place = f"({ids[-1].decode()}"
