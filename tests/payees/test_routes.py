"""R17: who can be paid and where. Each row of the table, with and without a platform account of the region."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dev.sandbox.accounts import SELF_SERVE as SANDBOX_REACH
from gateway.money import CURRENCIES
from gateway.payees.routes import COUNTRIES, MAIN, SELF_SERVE, Account, Platform, account_of, answer, charges_in, route

DOC = (Path(__file__).parents[2] / "docs/stripe.md").read_text("utf-8")
US = Platform(MAIN, "US", "usd")
AU = Platform("au", "AU", "aud")
OWN_REGION = {"AU", "JP", "BR", "MX", "SG"}
ABLE = Account("acct_1", exists=True, seen_at=0, country="US", transfers="active", payouts_enabled=True)


def test_r17_the_table_has_the_23_countries_and_18_of_them_are_self_serve() -> None:
    assert len(COUNTRIES) == 23
    assert COUNTRIES.keys() - SELF_SERVE == OWN_REGION
    assert SELF_SERVE == SANDBOX_REACH, "the sandbox refuses what the table calls unreachable, and nothing else"


def test_the_document_has_the_same_table() -> None:
    paid, refused = re.findall(r"(?m)^\| ((?:[A-Z]{2}[,;]? ?)+)\| (?:paid|refused)", DOC)
    assert set(re.findall("[A-Z]{2}", paid)) == COUNTRIES.keys() - OWN_REGION
    assert set(re.findall("[A-Z]{2}", refused)) == OWN_REGION


@pytest.mark.parametrize("country", sorted(COUNTRIES))
def test_r17_each_row_has_its_answer_before_a_card_is_taken(country: str) -> None:
    found = route(country, [US])
    verdict = answer(found, "usd", replace(ABLE, country=country))
    if country in OWN_REGION:
        assert (found.kind, found.platform, verdict.payable) == ("unsupported", None, False)
        assert verdict.reason == "no_platform_in_region"
    else:
        assert (found.kind, found.platform, verdict.payable) == ("transfer", US, True)
        assert verdict.reason == ("own_country" if country == "US" else "self_serve")


@pytest.mark.parametrize("country", sorted(OWN_REGION))
def test_r17_a_platform_account_of_the_region_opens_its_row_and_no_other(country: str) -> None:
    own = Platform(country.lower(), country, COUNTRIES[country].currency)
    for other in COUNTRIES:
        found = route(other, [US, own])
        if other == country:
            assert (found.kind, found.platform) == ("platform_account", own)
            assert answer(found, "usd", replace(ABLE, country=country)).payable
        else:
            assert found == route(other, [US]), "the main platform stays the way to all that it reaches"


@pytest.mark.parametrize("country", sorted(OWN_REGION))
def test_r17_what_stripe_agreed_to_is_a_route_of_its_own(country: str) -> None:
    agreed = replace(US, recipients=frozenset({country}))
    found = route(country, [agreed])
    assert (found.kind, found.reason) == ("recipient", "agreed_with_stripe")
    assert answer(found, "usd", replace(ABLE, country=country)).payable


def test_a_main_platform_outside_of_the_regions_reaches_its_own_country_and_the_rest_by_another() -> None:
    polish = Platform("eu", "PL", "eur")
    assert (route("AU", [replace(AU, name=MAIN)]).kind, route("DE", [AU]).kind) == ("transfer", "unsupported")
    assert route("DE", [AU, polish]).platform == polish, "the EEA is larger than R17"
    assert route("PL", [polish]).reason == "country_not_supported", "but only R17's experts are paid"


@pytest.mark.parametrize(
    ("account", "reason"),
    [
        (None, "account_required"),
        (replace(ABLE, exists=False), "account_unknown"),
        (replace(ABLE, transfers="inactive"), "transfers_inactive"),
        (replace(ABLE, transfers="pending"), "transfers_inactive"),
        (replace(ABLE, country="AU"), "account_out_of_reach"),
        (replace(ABLE, country="NZ"), "account_out_of_reach"),
    ],
)
def test_r17_an_account_that_cannot_receive_is_told_with_its_reason(account: Account | None, reason: str) -> None:
    verdict = answer(route("US", [US]), "usd", account)
    assert (verdict.payable, verdict.reason) == (False, reason)


def test_an_account_in_another_country_within_reach_is_paid_all_the_same() -> None:
    assert answer(route("DE", [US]), "eur", ABLE).payable


def test_an_account_whose_payouts_are_paused_still_receives_its_share() -> None:
    assert answer(route("US", [US]), "usd", replace(ABLE, payouts_enabled=False)).payable


def test_a_platform_charges_the_currencies_that_it_may() -> None:
    brazil = Platform("br", "BR", "brl", currencies=frozenset({"usd"}))
    account = replace(ABLE, country="BR")
    assert answer(route("BR", [US, brazil]), "usd", account).payable
    assert answer(route("BR", [US, brazil]), "eur", account).reason == "currency_not_supported"


@given(
    country=st.sampled_from([*sorted(COUNTRIES), "NZ", "XX", "", "us"]),
    homes=st.lists(st.sampled_from([*sorted(COUNTRIES), "PL", "NZ"]), max_size=4),
    currency=st.sampled_from([*sorted(CURRENCIES), "aud"]),
    account=st.none() | st.builds(
        Account, st.just("acct_1"), st.booleans(), st.just(0), st.sampled_from([None, *sorted(COUNTRIES), "NZ"]),
        st.sampled_from(["active", "inactive", "pending"]),
    ),
)  # fmt: skip
def test_r17_whoever_is_payable_is_reached_by_the_platform_that_is_named(
    country: str, homes: list[str], currency: str, account: Account | None
) -> None:
    platforms = [Platform(f"p{n}", home, "usd") for n, home in enumerate(homes)]
    found = route(country, platforms)
    verdict = answer(found, currency, account)
    assert (found.platform is None) == (found.kind == "unsupported")
    if not verdict.payable:
        return
    assert found.platform is not None
    assert account is not None
    assert (account.exists, account.transfers, currency in CURRENCIES) == (True, "active", True)
    assert found.platform.reaches(account.country or country) is not None


def test_stripes_account_is_read_for_what_matters() -> None:
    thing = {
        "id": "acct_1", "country": "DE", "capabilities": {"transfers": "pending"}, "payouts_enabled": True,
        "requirements": {"disabled_reason": "requirements.past_due", "currently_due": ["external_account"]},
    }  # fmt: skip
    assert account_of(thing, 7) == Account(
        "acct_1", True, 7, "DE", "pending", True, "requirements.past_due", ("external_account",)
    )
    assert account_of({"id": "acct_2"}, 7) == Account("acct_2", True, 7), "what Stripe leaves out is not there"


def test_r17_a_brazilian_platform_charges_in_what_its_operator_names_and_in_nothing_else() -> None:
    brazil = Platform("br", "BR", "brl", charges_in("BR"))
    for currency in CURRENCIES:
        assert (
            answer(route("BR", [US, brazil]), currency, replace(ABLE, country="BR")).reason == "currency_not_supported"
        )
    named = replace(brazil, currencies=frozenset({"usd"}))
    assert answer(route("BR", [US, named]), "usd", replace(ABLE, country="BR")).payable
    assert all(charges_in(country) == CURRENCIES for country in (*COUNTRIES.keys() - {"BR"}, "PL"))
