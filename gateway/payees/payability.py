"""Asks who can be paid, before a card is taken (R17): the table's answer, and the account's as Stripe shows it.

Stripe is asked by the bridge alone; here a wish is left in the account's record, and its answer awaited. Stripe's
events keep the record fresh, so most answers cost one read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, cast

from redis.exceptions import RedisError

from gateway.changes import Changes
from gateway.clock import Clock
from gateway.errors import Conflict, GatewayError, InvalidRequest, StoreUnavailable, StripeUnavailable
from gateway.journal import NOW, Doc, Journal
from gateway.payees import routes as payees
from gateway.payees.accounts import DOC, QUEUE, Connected, asking
from gateway.payees.routes import Account, Payability, Platform
from gateway.session import NewExpert

# How old an answer may be: an event that was lost would leave a restricted account payable for so long.
FRESH_MS: Final = 3_600_000
# An account that could not receive may have been mended a moment ago, by an expert who waits for it.
RESTRICTED_FRESH_MS: Final = 5_000
# While Stripe is away an older answer will do: the transfer waits if it proves wrong.
STALE_MS: Final = 24 * 3_600_000
WAIT_S: Final = 5.0
# More lost races than this on one record mean a writer in a loop, not contention.
ATTEMPTS: Final = 50

PARAM: Final = {
    "country_not_supported": "expert.country", "no_platform_in_region": "expert.country",
    "currency_not_supported": "rate.currency",
}  # fmt: skip
DETAIL: Final = {
    "country_not_supported": "Experts of this country cannot be paid.",
    "no_platform_in_region": "Experts of this country are paid by a platform account of their own region; the gateway "
    "has none.",
    "currency_not_supported": "The platform account that pays this expert cannot charge this currency.",
    "account_required": "A paid session needs the expert's Stripe account.",
    "account_unknown": "The expert's Stripe account is not connected to the platform account that would pay it.",
    "account_out_of_reach": "The expert's Stripe account is in a country that the platform account does not reach.",
    "transfers_inactive": "The expert's Stripe account cannot receive transfers yet; Stripe still needs something.",
}


class Payees:
    """Shell. `platforms`: the main one first."""

    def __init__(self, journal: Journal, changes: Changes, clock: Clock, platforms: Sequence[Platform]) -> None:
        self._journal, self._changes, self._clock, self._platforms = journal, changes, clock, tuple(platforms)

    async def platform(self, expert: NewExpert, currency: str, *, account: str, livemode: bool) -> str:
        """The platform account that will pay the expert for a session in `currency`. Raises InvalidRequest
        `expert_not_payable`, StripeUnavailable, StoreUnavailable; no card was asked."""
        found = await self.payability(
            account=account, livemode=livemode, expert=expert.id, country=expert.country or "", currency=currency,
            stripe_account=expert.stripe_account,
        )  # fmt: skip
        if not found.payable or found.route.platform is None:
            raise _refusal(found)
        return found.route.platform.name

    async def payability(
        self, *, account: str, livemode: bool, expert: str, country: str, currency: str, stripe_account: str | None
    ) -> Payability:
        """Whether and how a session in `currency` of that expert can be paid. Raises StripeUnavailable when Stripe does
        not answer within five seconds and nothing from the last 24 hours is known, StoreUnavailable."""
        route = payees.route(country, self._platforms)
        if stripe_account is None or route.platform is None or currency not in route.platform.currencies:
            return payees.answer(route, currency, None)
        record = Connected(stripe_account, account, livemode, route.platform.name)
        return payees.answer(route, currency, await self._seen(record, expert))

    async def refresh(self, expert: NewExpert, *, platform: str, account: str, livemode: bool) -> None:
        """Have the expert's account looked at, if what is known of it has aged; without waiting for the answer. Raises
        StoreUnavailable."""
        if expert.stripe_account is None:
            return
        record = Connected(expert.stripe_account, account, livemode, platform)
        if await self._known(record, expert.id) is None:
            await self._ask(record, expert.id)

    async def _seen(self, wanted: Connected, expert: str) -> Account:
        """The account as Stripe showed it, recently enough."""
        if (known := await self._known(wanted, expert)) is not None:
            return known
        return await self._answer(wanted.stream, await self._ask(wanted, expert))

    async def _known(self, wanted: Connected, expert: str) -> Account | None:
        """What is known of it, unless that has aged, or the account is not known as the expert's."""
        doc = await self._read(wanted.stream)
        record = Connected.from_dict(doc.body) if doc else None
        fresh = record is not None and record.seen is not None and self._fresh(record.seen) and record.knows(expert)
        return record.seen if record is not None and fresh else None

    def _fresh(self, seen: Account) -> bool:
        age = self._clock.wall_ms() - seen.seen_at
        return age < (FRESH_MS if seen.able else RESTRICTED_FRESH_MS)

    async def _ask(self, wanted: Connected, expert: str) -> int:
        """Leave the wish; the number that its answer will have."""
        await enter(self._journal, wanted)
        number = await wish(self._journal, wanted.stream, new=replace(wanted, asked=0), expert=expert)
        assert number is not None
        return number

    async def _answer(self, stream: str, number: int) -> Account:
        async def look() -> Connected:
            doc = await self._read(stream)
            assert doc is not None, "an account's record is never deleted"
            return Connected.from_dict(doc.body)

        def said(record: Connected) -> bool:
            return record.answered >= number and record.seen is not None

        record = await self._changes.until(stream, look, said, WAIT_S)
        return record.seen if said(record) and record.seen is not None else self._stale(record)

    def _stale(self, record: Connected) -> Account:
        if record.seen is None or self._clock.wall_ms() - record.seen.seen_at > STALE_MS:
            raise StripeUnavailable("Stripe did not say in time whether the expert can be paid; try again.")
        return record.seen

    async def _read(self, stream: str) -> Doc | None:
        return (await self._journal.read(stream, DOC))[DOC]


async def enter(journal: Journal, record: Connected) -> None:
    """By which Stripe's events find the record; it precedes it, so a crash leaves an entry that does no harm. Raises
    StoreUnavailable."""
    try:
        await cast(Any, journal.redis.sadd(index_of(record.id), record.stream))
    except RedisError as error:
        raise StoreUnavailable("The session store is away; try again.") from error


async def wish(
    journal: Journal, stream: str, *, new: Connected | None = None, expert: str | None = None, payout: str | None = None
) -> int | None:
    """Have the bridge look at a connected account; the number that its answer will have. Without a record it is `new`;
    None if there is none at all. Raises StoreUnavailable."""
    for _ in range(ATTEMPTS):
        doc = (await journal.read(stream, DOC))[DOC]
        had = Connected.from_dict(doc.body) if doc else new
        if had is None:
            return None
        record = asking(had, expert, payout)
        try:
            await journal.commit(stream, {DOC: (doc.version if doc else 0, record.to_dict())}, due={QUEUE: NOW})
        except Conflict:
            continue
        return record.asked
    raise GatewayError(f"{stream} changes faster than it can be asked about.")


def index_of(ident: str) -> str:
    """The streams of a connected account."""
    return f"gateway:stripe:account:{ident}"


def detail_of(found: Payability) -> str | None:
    """Why not, for people; None if it can be paid."""
    return None if found.payable else DETAIL[found.reason]


def _refusal(found: Payability) -> InvalidRequest:
    return InvalidRequest(
        DETAIL[found.reason], code="expert_not_payable", param=PARAM.get(found.reason, "expert.stripe_account"),
        reason=found.reason, route=found.route.kind,
    )  # fmt: skip
