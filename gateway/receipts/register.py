"""The registers of receipt numbers, one for each issuer and series: a count without gaps.

While a session's receipts are being issued its row says which number it has, so that a crash burns none; once they are
kept with the session the row may go. The count itself must outlive everything: the archive is told how far it has come
at each pass, and after a loss it goes on well beyond that, and beyond the highest number of the sessions there. A gap
after a loss is better than a number twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, cast

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from gateway.archive.archive import Archive
from gateway.archive.snapshot import Snapshot
from gateway.errors import StoreUnavailable
from gateway.receipts import letters

# KEYS: a register, all registers. ARGV: a number that was given out
RAISE = """
if tonumber(ARGV[1]) > tonumber(redis.call('HGET', KEYS[1], 'last') or '0') then
  redis.call('HSET', KEYS[1], 'last', ARGV[1])
  redis.call('SADD', KEYS[2], KEYS[1])
end
return 1
"""

# Numbers left out after a loss: no more are given out in a series between two passes of the archiver.
MARGIN: Final = 10_000


class Register:
    """Shell over Redis. Raises StoreUnavailable."""

    def __init__(self, redis: aioredis.Redis, issuer: str) -> None:
        self._redis, self._issuer = redis, issuer

    async def forget(self, snapshot: Snapshot) -> None:
        """The rows of an archived session. Its receipts are kept, so nobody asks for its numbers again."""
        pipe = self._redis.pipeline(transaction=False)
        for name, series, _ in _numbers(snapshot):
            pipe.execute_command("HDEL", key_of(self._issuer, series), f"{snapshot.session}|{name}")
        await self._done(pipe)

    async def remember(self, snapshot: Snapshot) -> None:
        """Never give out the session's numbers again."""
        pipe = self._redis.pipeline(transaction=False)
        for _, series, count in _numbers(snapshot):
            self._raise(pipe, key_of(self._issuer, series), count)
        await self._done(pipe)

    async def note(self, archive: Archive) -> None:
        """Have the archive know how far each series has come. Raises ArchiveUnavailable."""
        try:
            found = sorted(await cast(Any, self._redis.smembers(registers_of(self._issuer))))
            lasts = [await cast(Any, self._redis.hget(key, "last")) for key in found]
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error
        await archive.note({key.decode(): int(last) for key, last in zip(found, lasts, strict=True) if last})

    async def go_on(self, archive: Archive) -> None:
        """Each count that is behind the archive's goes on beyond all that may have been given out since; the archive
        is told before. Call it before `remember`. Raises ArchiveUnavailable."""
        pipe = self._redis.pipeline(transaction=False)
        for key, count in (await archive.counts()).items():
            last = cast(bytes | None, await cast(Any, self._redis.hget(key, "last")))
            if int(last or 0) < count:
                await archive.note({key: count + MARGIN})
                self._raise(pipe, key, count + MARGIN)
        await self._done(pipe)

    def _raise(self, pipe: Any, key: str, count: int) -> None:
        pipe.execute_command("EVAL", RAISE, 2, key, registers_of(self._issuer), count)

    async def _done(self, pipe: Any) -> None:
        try:
            await pipe.execute()
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error


def key_of(issuer: str, series: str) -> str:
    return f"{{receipts:{issuer}}}:{series}"


def registers_of(issuer: str) -> str:
    """The set of an issuer's registers."""
    return f"{{receipts:{issuer}}}"


def _numbers(snapshot: Snapshot) -> Iterator[tuple[str, str, int]]:
    """Each letter's name, its series and its place in it."""
    kept = snapshot.doc("receipts") or {}
    for name in letters.names(kept):
        if kept[name]["number"] is not None:
            series, _, count = kept[name]["number"].rpartition("-")
            yield name, series, int(count)
