"""Which cards are taken, by their brand and by the country that issued them (R4). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Card = Mapping[str, Any]

EVERYWHERE: Final = frozenset({"visa", "mastercard", "amex"})
# Besides those: what only cards issued in that country may be.
ISSUED_IN: Final[Mapping[str, frozenset[str]]] = {"US": frozenset({"jcb", "discover", "diners"})}
NOT_SUPPORTED: Final = "card_brand_not_supported"


def shown(details: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Brand, last four and issuing country out of Stripe's details, as receipt and call page name the card."""
    return {name: details.get(name) for name in ("brand", "last4", "country")} if details else None


def supported(card: Card | None) -> bool:
    """Whether it may be held; None is a payment method that is no card."""
    if card is None:
        return False
    return card["brand"] in EVERYWHERE | ISSUED_IN.get(card["country"] or "", frozenset())
