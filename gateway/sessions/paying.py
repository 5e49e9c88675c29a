"""The client's pay page: what it shows of a session or a booking, and a card tried for it. The card itself never comes
here: the page sends the id under which Stripe keeps it (5-money, People and cards; SAQ A)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from gateway.bookings.bookings import Bookings
from gateway.errors import Conflict, InvalidRequest
from gateway.sessions import asked
from gateway.sessions.sessions import Sessions
from gateway.sessions.wallet import Wallet

# Someone with a link could try out stolen cards with it; nobody honest has so many.
MOST_CARDS: Final = 20


class PayDesk:
    """Shell over the use cases. Each raises Unauthorized `link_invalid` or `link_expired`."""

    def __init__(self, sessions: Sessions, bookings: Bookings) -> None:
        self._sessions, self._bookings = sessions, bookings
        self._wallet = Wallet(sessions.journal, sessions.changes)

    async def open(self, secret: str) -> dict[str, Any]:
        """What the page shows now."""
        return await self._asked(self._sessions.doors.payer(secret))

    async def pay(self, secret: str, payment_method: str, attempt: int) -> dict[str, Any]:
        """Try a card, unless another was tried after `attempt`; waits for its first word.

        Raises Conflict `payment_state`, `session_state`, `too_many_cards`, InvalidRequest `expert_not_payable`,
        StripeUnavailable."""
        owner = self._sessions.doors.payer(secret)
        if attempt >= MOST_CARDS:
            raise Conflict("Too many cards were tried for this session.", code="too_many_cards")
        try:
            await self._try(owner, payment_method, attempt)
        except InvalidRequest as error:  # why is the expert's own business
            raise InvalidRequest("The expert cannot be paid now; the card was not asked.", code=error.code) from error
        return await self._asked(owner)

    async def _asked(self, owner: str) -> dict[str, Any]:
        shown = await self._shown(owner)
        cards = await self._wallet.cards(owner) if shown["state"] in asked.WAITING else ()
        return {**shown, "cards": [asdict(card) for card in cards]}

    async def _shown(self, owner: str) -> dict[str, Any]:
        if owner.startswith("bkg_"):
            found = await self._bookings.read(owner)
            return asked.of_booking(found.booking, found.payment, found.meetings)
        return asked.of_session(await self._sessions.records.read(owner))

    async def _try(self, owner: str, payment_method: str, attempt: int) -> None:
        if owner.startswith("bkg_"):
            record = (await self._bookings.read(owner)).booking
            await self._bookings.pay(record.account, record.livemode, owner, payment_method, after=attempt)
        else:
            account = (await self._sessions.records.read(owner)).record.account
            await self._sessions.pay(account, owner, payment_method, after=attempt)
