"""Money at the border of Stripe: the smallest charge, and the words on a card's statement."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from gateway.money import BPS

# Stripe's smallest charges by settlement currency (docs.stripe.com/currencies); CAD and CHF are taken to be like USD
# until confirmed.
MINIMUM_MINOR: Final[Mapping[str, int]] = MappingProxyType(
    {
        "usd": 50, "gbp": 30, "eur": 50, "cad": 50, "chf": 50, "dkk": 250, "nok": 300, "sek": 300, "aud": 50,
        "jpy": 50, "brl": 50, "mxn": 1000, "sgd": 50,
    }
)  # fmt: skip
# A charge in another currency must reach the minimum after conversion, at a rate that nobody knows beforehand. 60 %
# covers every pair of our five currencies down to 0.625; what it misses, Stripe refuses and is waived alike.
FOREIGN_MARGIN_BPS: Final = 6_000
# How many units of these make at least one of any of the five, so that their minimums can be compared.
SMALL_UNITS: Final[Mapping[str, int]] = MappingProxyType({"dkk": 4, "nok": 6, "sek": 6, "mxn": 10})

DESCRIPTOR_LENGTH: Final = 22  # Stripe's bound for prefix, "* " and suffix together
DESCRIPTOR_REFUSED: Final = frozenset("<>\\'\"*")


@dataclass(frozen=True, slots=True)
class Terms:
    """What the operator configured that decides about money or reaches a call to Stripe.

    `return_url` is where the client comes back from 3-D Secure, `{session}` in it standing for the session's id;
    `descriptor_prefix_length` is how much of the 22 characters of a card statement the account's own prefix takes.
    """

    settlement_currency: str = "usd"
    minimum_minor: Mapping[str, int] = field(default_factory=lambda: MINIMUM_MINOR)
    foreign_margin_bps: int = FOREIGN_MARGIN_BPS
    return_url: str = ""
    descriptor_prefix_length: int = 10


def minimum_charge(currency: str, terms: Terms) -> int:
    """The smallest total worth charging, in minor units of `currency`; anything below is waived (5-money)."""
    settled = terms.minimum_minor[terms.settlement_currency]
    if currency == terms.settlement_currency:
        return settled
    settled //= SMALL_UNITS.get(terms.settlement_currency, 1)
    own = terms.minimum_minor.get(currency, settled)
    return -(-max(own, settled) * (BPS + terms.foreign_margin_bps) // BPS)


def descriptor_suffix(name: str, prefix_length: int = 10) -> str | None:
    """An expert's name as it may stand on a card statement, or None if nothing usable is left of it.

    Latin letters without accents, none of Stripe's five refused characters, at least one letter, and no longer than
    what the account's prefix and the separator leave.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    kept = "".join(" " if c.isspace() else c for c in plain if c.isprintable() and c not in DESCRIPTOR_REFUSED)
    room = max(0, DESCRIPTOR_LENGTH - prefix_length - 2)
    suffix = " ".join(kept.split())[:room].strip()
    return suffix.upper() if any(c.isalpha() for c in suffix) else None
