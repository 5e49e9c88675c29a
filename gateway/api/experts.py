"""What the API says about experts: whether and how they can be paid, and what they earned."""

from __future__ import annotations

from typing import Final

from gateway.api import answers, schemas, terms, views
from gateway.api.endpoint import Call, Endpoint
from gateway.errors import InvalidRequest, NotFound
from gateway.money import CURRENCIES
from gateway.payees.payability import detail_of

# As the ids in requests; longer ones name no expert.
ID_LENGTH: Final = 128
# Beyond any session's end; a Redis score is exact up to here.
FOR_EVER_MS: Final = 2**53 - 1


async def payability(call: Call) -> answers.Payability:
    """Without `stripe_account` it is the one of the expert's latest session."""
    if call.context.payees is None:
        raise NotFound("This gateway pays nobody.")
    query: schemas.PayabilityQuery = call.query
    if query.currency not in CURRENCIES:
        known = ", ".join(sorted(CURRENCIES))
        raise InvalidRequest(f"The currency must be one of {known}.", code="unknown_currency", param="currency")
    expert = expert_of(call)
    account = query.stripe_account or await _latest_account(call, expert)
    found = await call.context.payees.payability(
        account=call.account, livemode=call.livemode, expert=expert, country=query.country, currency=query.currency,
        stripe_account=account,
    )  # fmt: skip
    eligible = None if query.rating is None else terms.eligible(query.rating)
    return views.payability(expert, query.country, query.currency, found, eligible, detail_of(found))


async def earnings(call: Call) -> answers.EarningsPage:
    """The sums are made once, with the first page."""
    if call.context.earnings is None:
        raise NotFound("This gateway pays nobody.")
    query: schemas.EarningsQuery = call.query
    since = 0 if query.since is None else schemas.as_utc_ms(query.since)
    until = FOR_EVER_MS if query.until is None else schemas.as_utc_ms(query.until)
    expert, known = expert_of(call), call.context.earnings
    page, more = await known.page(
        call.account, call.livemode, expert, since=since, until=until, limit=query.limit, after=query.starting_after
    )
    first = query.starting_after is None
    totals = await known.totals(call.account, call.livemode, expert, since=since, until=until) if first else None
    return views.earnings(expert, page, more, totals)


async def _latest_account(call: Call, expert: str) -> str | None:
    page, _ = await call.context.sessions.list(
        call.account, livemode=call.livemode, status=None, expert=expert, client=None, reference=None, limit=1,
        starting_after=None,
    )  # fmt: skip
    return page[0].session["expert"].get("stripe_account") if page else None


def expert_of(call: Call) -> str:
    """The expert's id in the path. Raises NotFound when it cannot be one."""
    expert = call.request.match_info["expert"]
    if len(expert) > ID_LENGTH or not expert.isprintable():
        raise NotFound("There is no such expert.")
    return expert


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    Endpoint(
        "GET",
        "/v1/experts/{expert}/payability",
        "getPayability",
        "Experts",
        "Ask whether an expert can be paid",
        "Before a card is taken: by which route an expert of a country is paid, whether the Stripe account can receive "
        "the money now, and if not, why. Creating a paid session asks the same and is refused with the same `code` and "
        "`reason`. With route `platform_account` the client's card, customer and the expert's account must be those of "
        "the platform account that `platform` names.",
        payability,
        answers.Payability,
        scope="read",
        query=schemas.PayabilityQuery,
        problems=("unknown_currency", "stripe_unavailable"),
    ),
    Endpoint(
        "GET",
        "/v1/experts/{expert}/earnings",
        "listEarnings",
        "Experts",
        "List an expert's earnings",
        "The expert's share of each paid session that ended between `from` and `to`, newest first, with where the "
        "money is and the week in whose payout it is counted; the first page has the sums of the whole time. It "
        "changes in one step with the payment, so it never lags behind the session.",
        earnings,
        answers.EarningsPage,
        scope="read",
        query=schemas.EarningsQuery,
        problems=("session_not_found",),
    ),
)
