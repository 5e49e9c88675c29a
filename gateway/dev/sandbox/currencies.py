"""Currencies as Stripe treats them: decimals, smallest charges, how amounts read in messages, and fixed test rates.

docs.stripe.com/currencies. The rates are the sandbox's own and never change, so that tests can compute with them.
"""

from __future__ import annotations

from fractions import Fraction

ZERO_DECIMAL = frozenset({"jpy"})

# Smallest charge, in minor units of the *settlement* currency
# (docs.stripe.com/currencies#minimum-and-maximum-charge-amounts).
MINIMUM = {
    "usd": 50, "aud": 50, "brl": 50, "cad": 50, "chf": 50, "dkk": 250, "eur": 50, "gbp": 30, "jpy": 50, "mxn": 1000,
    "nok": 300, "sek": 300, "sgd": 50,
}  # fmt: skip
MAXIMUM = 99_999_999  # eight digits

_SIGNS = {
    "usd": "$", "eur": "€", "gbp": "£", "cad": "CA$", "aud": "A$", "brl": "R$", "mxn": "MX$", "sgd": "SGD", "jpy": "¥",
    "chf": "CHF", "dkk": "DKK", "nok": "NOK", "sek": "SEK",
}  # fmt: skip

# US dollars per unit, in millionths.
_RATES = {
    "usd": 1_000_000, "eur": 1_085_000, "gbp": 1_270_000, "cad": 730_000, "chf": 1_130_000, "aud": 655_000,
    "brl": 180_000, "mxn": 55_000, "sgd": 745_000, "jpy": 6_700, "dkk": 145_500, "nok": 93_000, "sek": 95_000,
}  # fmt: skip

KNOWN = frozenset(_RATES)


def shown(amount: int, currency: str) -> str:
    """`$12.34`, as Stripe's messages write it."""
    number = f"{amount:,}" if currency in ZERO_DECIMAL else f"{amount // 100:,}.{amount % 100:02d}"
    return f"{_SIGNS.get(currency, currency.upper())}{number}"


def rate(source: str, target: str) -> float | None:
    """`exchange_rate` of a balance transaction: target per source unit; None when nothing is exchanged."""
    return None if source == target else round(_RATES[source] / _RATES[target], 6)


def exchanged(amount: int, source: str, target: str) -> int:
    """Minor units of `target` for minor units of `source`, rounded half up."""
    if source == target:
        return amount
    worth = Fraction(amount * _RATES[source], _RATES[target]) / _decimals(source) * _decimals(target)
    return (2 * worth.numerator + worth.denominator) // (2 * worth.denominator)


def _decimals(currency: str) -> int:
    return 1 if currency in ZERO_DECIMAL else 100
