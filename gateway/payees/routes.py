"""Who can be paid, and from which platform account at Stripe: the table of R17's countries, and the answer given before
a card is taken. Pure.

Two facts of Stripe make the table (docs.stripe.com/connect/cross-border-payouts, read 2026-11-21):

- a platform account reaches connected accounts of its own country;
- platform accounts of the United States, the United Kingdom, the EEA, Canada and Switzerland reach each other's
  (*self-serve*); beyond that Stripe's sales must be asked, and what it then agrees to is named in the settings
  (`recipient_countries`).

So an expert elsewhere is paid by a platform account in the expert's own country, if the operator has one
(`[stripe.platforms.NAME]`); the client's card is then charged by that account. With none, the answer is `unsupported`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from gateway.money import CURRENCIES

Kind = Literal["transfer", "recipient", "platform_account", "unsupported"]
Reason = Literal[
    "own_country", "self_serve", "agreed_with_stripe", "regional_platform",
    "country_not_supported", "no_platform_in_region", "currency_not_supported",
    "account_required", "account_unknown", "account_out_of_reach", "transfers_inactive",
]  # fmt: skip

# The platform account of `[stripe]` itself.
MAIN: Final = "main"


# Countries whose platform accounts and connected accounts reach each other: those four and the EEA.
SELF_SERVE: Final = frozenset(
    "US GB CA CH AT BE BG HR CY CZ DK EE FI FR DE GR HU IS IE IT LV LI LT LU MT NL NO PL PT RO SK SI ES SE".split()  # noqa: SIM905 - a table
)


@dataclass(frozen=True, slots=True)
class Country:
    """A row of the table: the currency in which a platform account there is paid out, those of R1's that it may charge
    cards in, and what an operator should know before opening one."""

    currency: str
    note: str = ""
    charges: frozenset[str] = CURRENCIES


# R17's 23 countries, in its order.
COUNTRIES: Final[Mapping[str, Country]] = MappingProxyType(
    {
        "US": Country("usd"),
        "GB": Country("gbp"),
        # Outside of the self-serve regions: an Australian platform account pays Australian accounts.
        "AU": Country("aud"),
        "CA": Country("cad"),
        "DK": Country("dkk"),
        "FI": Country("eur"),
        "IE": Country("eur"),
        "NO": Country("nok"),
        "SE": Country("sek"),
        "AT": Country("eur"),
        "BE": Country("eur"),
        "FR": Country("eur"),
        "DE": Country("eur"),
        "IT": Country("eur"),
        # As Australia. The yen has no minor unit: shares there are floored to whole yen.
        "JP": Country("jpy", "settles in whole yen"),
        "LU": Country("eur"),
        "NL": Country("eur"),
        "ES": Country("eur"),
        # As Australia. Stripe's page on currencies and its support said in 2017 that Brazilian accounts charge in reais
        # only (github.com/mage2pro/stripe/issues/31, github.com/elementary/houston/issues/483). No later word of theirs
        # was found (2026-11-22), so none of R1's currencies is charged there until the operator, having asked Stripe,
        # names them in `currencies` of the platform.
        "BR": Country("brl", "ask Stripe which currencies such an account may charge", frozenset()),
        # As Australia. Its smallest charge, 10 pesos, is a number twenty times that of the others. Of its accounts the
        # same was said in 2017 as of Brazil's, for the time of a preview, which is over.
        "MX": Country("mxn"),
        "PT": Country("eur"),
        "SG": Country("sgd"),
        "CH": Country("chf"),
    }
)
SOURCE: Final = "https://docs.stripe.com/connect/cross-border-payouts"
AS_OF: Final = "2026-11-21"


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform account at Stripe. `currencies`: of sessions that it may charge; `recipients`: countries beyond its
    reach to which Stripe agreed."""

    name: str
    country: str
    settlement_currency: str
    currencies: frozenset[str] = CURRENCIES
    recipients: frozenset[str] = frozenset()

    def reaches(self, country: str) -> Reason | None:
        """Why money gets from here to an account there; None: it does not."""
        if country not in COUNTRIES:
            return None
        if country == self.country:
            return "own_country"
        if self.country in SELF_SERVE and country in SELF_SERVE:
            return "self_serve"
        return "agreed_with_stripe" if country in self.recipients else None


@dataclass(frozen=True, slots=True)
class Route:
    """How an expert of a country is paid; `platform` None: not at all."""

    kind: Kind
    reason: Reason
    platform: Platform | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """How Stripe pays an account out to its bank (R18). `own`: the expert decides it, in a Stripe dashboard of theirs,
    and not the platform."""

    interval: str
    days: tuple[str, ...] = ()
    own: bool = False


@dataclass(frozen=True, slots=True)
class Account:
    """A connected account as Stripe showed it at `seen_at` (wall ms). `exists` False: not on that platform."""

    id: str
    exists: bool
    seen_at: int
    country: str | None = None
    transfers: str = "inactive"
    payouts_enabled: bool = False
    disabled_reason: str | None = None
    due: tuple[str, ...] = ()
    schedule: Schedule | None = None

    @property
    def able(self) -> bool:
        return self.exists and self.transfers == "active"


@dataclass(frozen=True, slots=True)
class Payability:
    """The answer before a card is taken: whether, by which route, and the one reason."""

    payable: bool
    reason: Reason
    route: Route
    account: Account | None = None


def charges_in(country: str) -> frozenset[str]:
    """In which of R1's currencies a platform account there may charge cards, as far as is known."""
    return COUNTRIES[country].charges if country in COUNTRIES else CURRENCIES


def route(country: str, platforms: Sequence[Platform]) -> Route:
    """The route to accounts of a country: the main platform (the first) if it reaches them, else another that does."""
    if country not in COUNTRIES:
        return Route("unsupported", "country_not_supported")
    for number, platform in enumerate(platforms):
        reason = platform.reaches(country)
        if reason is not None and number > 0:
            return Route("platform_account", "regional_platform", platform)
        if reason is not None:
            return Route("recipient" if reason == "agreed_with_stripe" else "transfer", reason, platform)
    return Route("unsupported", "no_platform_in_region")


def answer(found: Route, currency: str, account: Account | None) -> Payability:
    """Whether a session in `currency` may be paid by that route to that account (None: not named, or not asked)."""
    if found.platform is None:
        return Payability(False, found.reason, found, account)
    if currency not in found.platform.currencies:
        return Payability(False, "currency_not_supported", found, account)
    if account is None:
        return Payability(False, "account_required", found)
    return Payability(*_verdict(found, found.platform, account), found, account)


def _verdict(found: Route, platform: Platform, account: Account) -> tuple[bool, Reason]:
    """The account's own country is the one that counts: what the order says may be a mistake."""
    if not account.exists:
        return False, "account_unknown"
    if account.country is not None and platform.reaches(account.country) is None:
        return False, "account_out_of_reach"
    return (True, found.reason) if account.able else (False, "transfers_inactive")


def account_of(thing: Mapping[str, Any], now: int) -> Account:
    """Stripe's Account object, as far as it matters here."""
    capabilities, requirements = thing.get("capabilities") or {}, thing.get("requirements") or {}
    return Account(
        id=thing["id"],
        exists=True,
        seen_at=now,
        country=thing.get("country"),
        transfers=capabilities.get("transfers") or "inactive",
        payouts_enabled=bool(thing.get("payouts_enabled")),
        disabled_reason=requirements.get("disabled_reason"),
        due=tuple(requirements.get("currently_due") or ()),
        schedule=schedule_of(thing),
    )


def schedule_of(thing: Mapping[str, Any]) -> Schedule | None:
    """The payout schedule in an Account object. It is the expert's own with a full dashboard, or an account that
    controls itself (docs.stripe.com/connect/manage-payout-schedule)."""
    payouts = (thing.get("settings") or {}).get("payouts") or {}
    schedule = payouts.get("schedule")
    if not schedule:
        return None
    controller = thing.get("controller") or {}
    dashboard = (controller.get("stripe_dashboard") or {}).get("type")
    own = dashboard == "full" or controller.get("type") == "account" or thing.get("type") == "standard"
    anchor = schedule.get("weekly_anchor")
    days = schedule.get("weekly_payout_days") or ([anchor] if anchor else [])
    return Schedule(schedule.get("interval") or "manual", tuple(days), own)
