"""The cards that a client keeps at Stripe, as the pay page offers them. Pure.

The node leaves a wish in the queue, the bridge puts the answer beside the session. It lies there for a minute and
nowhere else: cards are Stripe's to keep (R22).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

QUEUE: Final = "cards"
KEY: Final = "cards"
KEPT_S: Final = 60
# More would be a wall, and a client with more finds the newest ones here.
MOST: Final = 5
# Duplicates and cards that have run out are left out of so many.
ASKED: Final = 20


@dataclass(frozen=True, slots=True)
class KeptCard:
    """`id` is Stripe's, of the PaymentMethod."""

    id: str
    brand: str
    last4: str
    exp_month: int
    exp_year: int


def offered(listing: Mapping[str, Any], now: int) -> tuple[KeptCard, ...]:
    """Of Stripe's list of a customer's cards, newest first: each card once; none that has run out by `now` (wall ms; a
    card is good to the end of its month, somewhere on earth), or that was kept for another purpose only
    (docs.stripe.com/api/payment_methods/object#payment_method_object-allow_redisplay)."""
    today = datetime.fromtimestamp((now - 86_400_000) / 1000, UTC)
    found: dict[str, KeptCard] = {}
    for method in listing.get("data", ()):
        card = method.get("card")
        if card is None or method.get("allow_redisplay") == "limited":
            continue
        if (card["exp_year"], card["exp_month"]) < (today.year, today.month):
            continue
        kept = KeptCard(method["id"], card["brand"], card["last4"], card["exp_month"], card["exp_year"])
        found.setdefault(card.get("fingerprint") or method["id"], kept)
    return tuple(found.values())[:MOST]


def written(cards: Sequence[KeptCard]) -> str:
    return json.dumps([asdict(card) for card in cards], separators=(",", ":"))


def read(text: bytes) -> tuple[KeptCard, ...]:
    return tuple(KeptCard(**card) for card in json.loads(text))
