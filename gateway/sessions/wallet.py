"""The cards that a client keeps at Stripe, asked of the bridge for the pay page."""

from __future__ import annotations

import asyncio
from typing import Final, cast

import structlog
from redis.exceptions import RedisError

from gateway.changes import Changes, changed_before
from gateway.journal import NOW, Journal
from gateway.kept_cards import KEY, QUEUE, KeptCard, read

log = structlog.get_logger(__name__)

# The page is not shown meanwhile; without an answer it has the form alone.
WAIT_S: Final = 2.0


class Wallet:
    """Shell over Redis."""

    def __init__(self, journal: Journal, changes: Changes) -> None:
        self._journal, self._changes = journal, changes

    async def cards(self, owner: str) -> tuple[KeptCard, ...]:
        """Those of the client of a session or booking; none, if that is not known in time."""
        try:
            async with self._changes.of(owner) as changed:
                known = await self._known(owner)
                if known is None:
                    await self._journal.schedule(QUEUE, owner, NOW)
                until = asyncio.get_running_loop().time() + WAIT_S
                while known is None and await changed_before(until, changed):
                    changed.clear()
                    known = await self._known(owner)
        except RedisError as error:
            log.warning("cards_not_known", session=owner, error=type(error).__name__)
            return ()
        return known or ()

    async def _known(self, owner: str) -> tuple[KeptCard, ...] | None:
        text = cast("bytes | None", await self._journal.redis.get(self._journal.keys.of(owner, KEY)))
        return None if text is None else read(text)
