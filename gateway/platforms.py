"""The platform accounts at Stripe that the settings name, made ready for those who use them: the first is `[stripe]`
itself, the others are `[stripe.platforms.NAME]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import redis.asyncio as aioredis

from gateway.billing_bridge.platform import Platform
from gateway.billing_bridge.pricing import minimum_charge
from gateway.billing_bridge.stripe_client import StripeClient
from gateway.billing_bridge.worker import BridgeSettings
from gateway.money import CURRENCIES
from gateway.payees import routes as payees
from gateway.payees.routes import MAIN
from gateway.settings import Settings


def bridge_settings(settings: Settings, platform: str = MAIN) -> BridgeSettings:
    """As that platform account has them: they differ in the currency that it settles in."""
    stripe = settings.stripe
    main = BridgeSettings(
        settlement_currency=stripe.settlement_currency,
        minimum_minor={str(currency): amount for currency, amount in stripe.minimum_minor.items()},
        foreign_margin_bps=stripe.foreign_margin_bps,
        descriptor_prefix_length=stripe.descriptor_prefix_length,
        requests_per_second=stripe.requests_per_second,
        requests_per_endpoint=stripe.requests_per_endpoint,
        # Back from the bank: the pay page goes on with what it knows, and tells others to go back to their call.
        return_url=f"{settings.pay.url}/pay?session={{session}}"
        if settings.pay.url
        else f"{settings.server.public_url}/call?session={{session}}",
        archives=settings.archive.location is not None,
    )
    return main if platform == MAIN else replace(main, settlement_currency=stripe.platforms[platform].settles_in)


def minimums(settings: Settings) -> dict[str, dict[str, int]]:
    """The smallest charge by platform account and currency of the session, in minor units."""
    terms = {name: bridge_settings(settings, name).terms for name in (MAIN, *settings.stripe.platforms)}
    return {name: {currency: minimum_charge(currency, each) for currency in CURRENCIES} for name, each in terms.items()}


def clients(settings: Settings) -> dict[str, StripeClient]:
    """A client of each platform account; close them all."""
    stripe = settings.stripe
    keys = {MAIN: stripe.api_key, **{name: platform.api_key for name, platform in stripe.platforms.items()}}
    return {name: StripeClient(key.get_secret_value(), stripe.api_base) for name, key in keys.items()}


def others(settings: Settings, redis: aioredis.Redis, stripe: Mapping[str, StripeClient]) -> dict[str, Platform]:
    """All but the first, as a bridge uses them."""
    return {
        name: bridge_settings(settings, name).platform(redis, client, name)
        for name, client in stripe.items()
        if name != MAIN
    }


def publishable_keys(settings: Settings) -> dict[str, str]:
    """Of each platform account, empty where the operator set none."""
    stripe = settings.stripe
    return {MAIN: stripe.publishable_key, **{name: each.publishable_key for name, each in stripe.platforms.items()}}


def webhook_secrets(settings: Settings) -> list[str]:
    """Of all endpoints at Stripe that send their events here."""
    stripe = settings.stripe
    found = [stripe.webhook_secret, stripe.connect_webhook_secret]
    for platform in stripe.platforms.values():
        found += [platform.webhook_secret, platform.connect_webhook_secret]
    return [secret.get_secret_value() for secret in found if secret is not None]


def payers(settings: Settings) -> tuple[payees.Platform, ...]:
    """What the table of payees must know of them; the first one first."""
    stripe = settings.stripe
    first = payees.Platform(
        MAIN, stripe.country, stripe.settlement_currency, payees.charges_in(stripe.country),
        frozenset(stripe.recipient_countries),
    )  # fmt: skip
    more = [
        payees.Platform(
            name, each.country, each.settles_in, frozenset(each.currencies or payees.charges_in(each.country))
        )
        for name, each in stripe.platforms.items()
    ]
    return (first, *more)
