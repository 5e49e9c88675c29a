"""Whether the expert may be paid, asked each time before a card is taken: with the order, and anew where the card's
turn comes later (R16, R17). What is held by then stays held: should the account be restricted, its share waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from gateway import session as core
from gateway.errors import InvalidRequest
from gateway.payees.payability import Payees
from gateway.payees.routes import MAIN
from gateway.session import NewExpert, NewSession


class Priced(Protocol):
    """A session's record, or a booking's."""

    @property
    def account(self) -> str: ...

    @property
    def livemode(self) -> bool: ...

    @property
    def expert(self) -> Mapping[str, Any]: ...

    @property
    def currency(self) -> str: ...

    @property
    def platform(self) -> str: ...


class Eligibility:
    """`payees` None: nobody asks."""

    def __init__(self, payees: Payees | None) -> None:
        self._payees = payees

    async def platform(self, expert: NewExpert, currency: str, *, account: str, livemode: bool) -> str:
        """The platform account that pays. Raises InvalidRequest `expert_not_payable`, StripeUnavailable: then no card
        may be taken."""
        if self._payees is None:
            return MAIN
        return await self._payees.platform(expert, currency, account=account, livemode=livemode)

    async def of_order(self, terms: NewSession, *, account: str, livemode: bool) -> NewSession:
        """The order with the platform account that pays; without its price, if the expert may not be paid and it says
        so. Raises as `platform` does."""
        if not core.paid(terms):
            return terms
        try:
            platform = await self.platform(terms.expert, terms.currency, account=account, livemode=livemode)
        except InvalidRequest:
            if terms.if_not_eligible == "refuse":
                raise
            return replace(terms, kind="free")
        return replace(terms, platform=platform)

    async def check(self, record: Priced) -> None:
        """Raises as `platform` does."""
        await self.platform(_expert(record), record.currency, account=record.account, livemode=record.livemode)

    async def refresh(self, record: Priced) -> None:
        """Have the account looked at if what is known of it has aged; nobody waits for the answer."""
        if self._payees is not None:
            await self._payees.refresh(
                _expert(record), platform=record.platform, account=record.account, livemode=record.livemode
            )


def _expert(record: Priced) -> NewExpert:
    expert = record.expert
    return NewExpert(expert["id"], stripe_account=expert["stripe_account"], country=expert["country"])
