"""What is asked about experts over HTTP; every answer is held against the OpenAPI document."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from gateway.api.context import ApiContext
from gateway.api.routes import public_app
from gateway.errors import NotFound, StripeUnavailable
from gateway.payees import routes as payees
from gateway.payees.earned import Earned, totals
from tests.api.market import FULL, NOW, order
from tests.api.test_routes import documented

PATH = "/v1/experts/{expert}/payability"
Api = TestClient[Any, Any]


@dataclass
class KnownPayees:
    """Accounts by id; others are unknown to Stripe, `acct_away` gets no answer."""

    accounts: dict[str, payees.Account] = field(default_factory=dict)

    async def payability(self, *, country: str, currency: str, stripe_account: str | None, **_: Any) -> Any:
        if stripe_account == "acct_away":
            raise StripeUnavailable("Stripe did not say in time.")
        found = payees.route(country, [payees.Platform(payees.MAIN, "US", "usd")])
        account = None
        if stripe_account is not None and found.platform is not None:
            account = self.accounts.get(stripe_account, payees.Account(stripe_account, False, NOW))
        return payees.answer(found, currency, account)


@dataclass
class KnownEarnings:
    """Ten shares, one a minute."""

    rows: list[Earned] = field(default_factory=lambda: [share(n) for n in reversed(range(10))])
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def page(self, *whose: Any, since: int, until: int, limit: int, after: str | None) -> Any:
        self.asked.append({"since": since, "until": until})
        if after is not None and all(row.session != after for row in self.rows):
            raise NotFound("There is no such session.", code="session_not_found", param="starting_after")
        found = [row for row in self.rows if since <= row.ended_at < until and (after is None or row.session < after)]
        return found[:limit], len(found) > limit

    async def totals(self, *whose: Any, since: int, until: int) -> Any:
        return totals(row for row in self.rows if since <= row.ended_at < until)


def share(number: int) -> Earned:
    return Earned(
        f"ses_{number}", None, NOW + number * 60_000, "2026-W47", "usd", 900, "usd", 900, 0, 0, 0, "paid", None,
        "tr_1", "acct_1", "main",
    )  # fmt: skip


@pytest.fixture
async def market(context: ApiContext) -> AsyncIterator[Api]:
    own = payees.Schedule("daily", own=True)
    account = payees.Account("acct_demo", True, NOW, "DE", "active", True, schedule=own)
    known = KnownPayees({"acct_demo": account})
    app = public_app(replace(context, payees=known, earnings=KnownEarnings()))
    async with TestClient(TestServer(app), headers={"Authorization": f"Bearer {FULL}"}) as client:
        yield client


async def asked(market: Api, **query: str) -> Any:
    return await documented(await market.get("/v1/experts/e1/payability", params={"country": "DE"} | query), PATH)


async def test_r17_the_answer_names_route_platform_and_account(market: Api) -> None:
    body = await asked(market, stripe_account="acct_demo", currency="eur")
    assert (body["payable"], body["route"], body["reason"], body["platform"]) == (
        True,
        "transfer",
        "self_serve",
        "main",
    )
    assert (body["code"], body["detail"], body["eligible"]) == (None, None, None)
    assert body["stripe_account"]["seen_at"] == "2026-11-21T20:00:00.000Z"
    assert body["stripe_account"]["payout_schedule"] == {"interval": "daily", "days": [], "own": True}


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"country": "AU"}, "no_platform_in_region"),
        ({"country": "NZ"}, "country_not_supported"),
        ({}, "account_required"),
        ({"stripe_account": "acct_other"}, "account_unknown"),
    ],
)
async def test_r17_why_not_is_said_in_a_word_and_in_a_sentence(market: Api, query: Any, reason: str) -> None:
    body = await asked(market, **query)
    assert (body["payable"], body["code"], body["reason"]) == (False, "expert_not_payable", reason)
    assert body["detail"].endswith(".")


async def test_r16_with_the_rating_the_answer_covers_eligibility(market: Api) -> None:
    body = await asked(market, stripe_account="acct_demo", rating="3.4")
    assert (body["payable"], body["eligible"], body["code"]) == (True, False, "expert_not_eligible")
    assert (await asked(market, stripe_account="acct_demo", rating="3.5"))["code"] is None


async def test_without_an_account_it_is_that_of_the_experts_latest_session(market: Api) -> None:
    headers = {"Idempotency-Key": "k"}
    await market.post("/v1/sessions", json=order(), headers=headers)
    assert (await asked(market))["stripe_account"]["id"] == "acct_demo"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"currency": "aud"}, 400, "unknown_currency"),
        ({"country": "de"}, 400, "invalid_parameter"),
        ({"stripe_account": "acct_away"}, 503, "stripe_unavailable"),
    ],
)
async def test_a_bad_question_and_a_silent_stripe_are_told_apart(
    market: Api, query: Any, status: int, code: str
) -> None:
    answer = await market.get("/v1/experts/e1/payability", params={"country": "DE"} | query)
    assert (answer.status, (await documented(answer, PATH))["code"]) == (status, code)


EARNINGS = "/v1/experts/{expert}/earnings"


async def earnings(market: Api, **query: str) -> Any:
    return await documented(await market.get("/v1/experts/e1/earnings", params=query), EARNINGS)


async def test_r18_earnings_come_in_pages_with_the_sums_on_the_first(market: Api) -> None:
    first = await earnings(market, limit="6")
    assert [row["session"] for row in first["data"]] == [f"ses_{n}" for n in range(9, 3, -1)]
    assert (first["data"][0]["payout_week"], first["totals"][0]["amount"]) == ("2026-W47", 9000)
    rest = await earnings(market, limit="6", starting_after="ses_4")
    assert [row["session"] for row in rest["data"]] == [f"ses_{n}" for n in range(3, -1, -1)]
    assert (first["has_more"], rest["has_more"], rest["totals"]) == (True, False, None)


async def test_r18_earnings_are_those_of_the_time_asked_for(market: Api) -> None:
    some = await earnings(market, **{"from": "2026-11-21T20:02:00Z", "to": "2026-11-21T20:04:00Z"})
    assert [row["session"] for row in some["data"]] == ["ses_3", "ses_2"]
    assert (some["totals"][0]["sessions"], some["totals"][0]["paid"]) == (2, 1800)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"from": "yesterday"}, 400, "invalid_parameter"),
        ({"since": "2026-11-21T20:02:00Z"}, 400, "unknown_parameter"),
        ({"starting_after": "ses_x"}, 404, "session_not_found"),
    ],
)
async def test_a_bad_question_about_earnings_is_told(market: Api, query: Any, status: int, code: str) -> None:
    answer = await market.get("/v1/experts/e1/earnings", params=query)
    assert (answer.status, (await documented(answer, EARNINGS))["code"]) == (status, code)
