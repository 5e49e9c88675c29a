"""Asks Stripe which cards a client keeps there, for the pay page that waits for the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.billing_bridge.calls import Call
from gateway.billing_bridge.cards import supported
from gateway.billing_bridge.outcome import Busy, Done, Outcome, Unknown
from gateway.billing_bridge.pace import Rank
from gateway.billing_bridge.platform import Platform
from gateway.clock import Clock
from gateway.journal import Claim, Journal
from gateway.kept_cards import ASKED, KEPT_S, KEY, QUEUE, KeptCard, offered, written
from gateway.outbox import claims
from gateway.payees.routes import MAIN

LEASE_MS: Final = 60_000
AT_ONCE: Final = 16
# A client looks at an empty place meanwhile, but has the form for a card: holds go first.
WAITED_FOR: Final[Rank] = (0, 1)


class Wallets:
    """Shell; any number may run."""

    def __init__(self, journal: Journal, platforms: Mapping[str, Platform], clock: Clock) -> None:
        self._journal, self._platforms, self._clock = journal, platforms, clock

    async def run(self) -> None:
        await claims.work(self._journal, QUEUE, self.handle, lease_ms=LEASE_MS, at_once=AT_ONCE)

    async def handle(self, claim: Claim) -> None:
        """One wish; what is not known now is asked again by the page, not by us."""
        doc = (await self._journal.read(claim.session, "session"))["session"]
        cards = await self._cards(doc.body) if doc else None
        if cards is not None:
            redis = self._journal.redis
            await redis.set(self._journal.keys.of(claim.session, KEY), written(cards), ex=KEPT_S)
            await redis.publish(self._journal.channel, claim.session)
        await self._journal.done(claim)

    async def _cards(self, order: Mapping[str, Any]) -> tuple[KeptCard, ...] | None:
        """Those of the order's own customer; None: not known now."""
        customer, platform = order["client"].get("stripe_customer"), self._platforms.get(order.get("platform") or MAIN)
        if customer is None or platform is None:
            return ()
        params = {"customer": customer, "type": "card", "limit": ASKED}
        outcome: Outcome = await platform.send(Call("customers.payment_methods.list", params), WAITED_FOR)
        if isinstance(outcome, Busy | Unknown):
            return None
        if not isinstance(outcome, Done):
            return ()
        taken = [method for method in outcome.object["data"] if supported(method.get("card"))]
        return offered({"data": taken}, self._clock.wall_ms())
