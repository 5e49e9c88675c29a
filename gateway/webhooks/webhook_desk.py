"""What an account may do with its webhooks: its endpoints, their secrets, its events, and sending them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gateway.errors import Conflict, NotFound
from gateway.journal import Journal
from gateway.webhooks.endpoints import Endpoint, Endpoints
from gateway.webhooks.webhooks import Webhooks, owning

# Events read at a time; those of other accounts are skipped, so a page may take several reads.
PAGE: Final = 100


class WebhookDesk:
    """Shell. Each raises NotFound for what is not the account's, StoreUnavailable."""

    def __init__(self, journal: Journal, endpoints: Endpoints, webhooks: Webhooks) -> None:
        self._journal, self._endpoints, self._webhooks = journal, endpoints, webhooks

    async def endpoints(self, account: str) -> list[Endpoint]:
        """The account's own, and those of the configuration, which get everything."""
        return await self._endpoints.list(account)

    async def add(self, account: str, url: str, types: Sequence[str]) -> Endpoint:
        """Raises InvalidRequest."""
        return await self._endpoints.add(url, types, account)

    async def remove(self, account: str, endpoint: str) -> Endpoint:
        """Raises Conflict `endpoint_configured`."""
        found = await self._own(account, endpoint)
        await self._endpoints.remove(endpoint)
        return found

    async def rotate(self, account: str, endpoint: str) -> Endpoint:
        """Raises Conflict `endpoint_configured`."""
        await self._own(account, endpoint)
        return await self._endpoints.rotate(endpoint)

    async def enable(self, account: str, endpoint: str) -> Endpoint:
        """On again after its 410, for events from now on."""
        await self._own(account, endpoint)
        return await self._endpoints.enable(endpoint)

    async def events(
        self, account: str, livemode: bool, *, since: int, after: str, limit: int
    ) -> tuple[list[dict[str, Any]], bool]:
        """The account's events made at `since` (wall ms) or later, oldest first, and whether there are more."""
        found: list[dict[str, Any]] = []
        while page := await self._journal.events_since(since, after, PAGE):
            for event, session, sequence in page:
                if await self._is_of(session, account, livemode):
                    if len(found) == limit:
                        return found, True
                    found += (await self._journal.events(session, sequence - 1))[:1]
                after = event
        return found, False

    async def resend(self, account: str, livemode: bool, event: str, endpoint: str | None) -> int:
        """One event to all endpoints that want it, or to one. Raises NotFound `event_not_found`, Conflict."""
        place = await self._journal.event_place(event)
        if place is None or not await self._is_of(place[0], account, livemode):
            raise NotFound("There is no such event.", code="event_not_found")
        if endpoint is not None:
            await self._own_enabled(account, endpoint)
        started = await self._webhooks.resend(event, place[0], endpoint)
        await self._journal.disk.confirmed()
        return started

    async def resend_since(self, account: str, since: int, endpoint: str) -> int:
        """All of the account's events made at `since` or later, to one endpoint. Returns how many. Raises Conflict."""
        await self._own_enabled(account, endpoint)
        started = await self._webhooks.resend_since(since, endpoint, account)
        await self._journal.disk.confirmed()
        return started

    async def _own(self, account: str, endpoint: str) -> Endpoint:
        found = await self._endpoints.get(endpoint)
        if found.account not in (None, account):
            raise NotFound("There is no such webhook endpoint.", code="endpoint_not_found")
        return found

    async def _own_enabled(self, account: str, endpoint: str) -> None:
        if not (await self._own(account, endpoint)).enabled:
            raise Conflict("The endpoint is disabled: enable it first.", code="endpoint_disabled")

    async def _is_of(self, session: str, account: str, livemode: bool) -> bool:
        body = await owning(self._journal, session)
        return body is not None and body["account"] == account and body["livemode"] is livemode
