"""The cards that a client keeps at Stripe, asked of the bridge for the pay page."""

from __future__ import annotations

from functools import partial
from typing import Final, cast

import structlog
from redis.exceptions import RedisError

from gateway.changes import Changes
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
            if (known := await self._known(owner)) is None:
                await self._journal.schedule(QUEUE, owner, NOW)
                look = partial(self._known, owner)
                known = await self._changes.until(owner, look, lambda found: found is not None, WAIT_S)
        except RedisError as error:
            log.warning("cards_not_known", session=owner, error=type(error).__name__)
            return ()
        return known or ()

    async def _known(self, owner: str) -> tuple[KeptCard, ...] | None:
        text = cast("bytes | None", await self._journal.redis.get(self._journal.keys.of(owner, KEY)))
        return None if text is None else read(text)
