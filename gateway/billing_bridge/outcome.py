"""What can come of one call to Stripe, as values: the bridge decides on these and never on exceptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Done:
    """Stripe did it, or had done it before under the same key. `object` is its answer as plain values."""

    object: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Declined:
    """The card was refused (402). `intent` is the PaymentIntent that stays behind, if one was made."""

    code: str
    decline_code: str | None = None
    message: str = ""
    intent: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Stripe understood and will not (400, 401, 403, 404): nothing was done."""

    code: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Busy:
    """Come again later. Nothing was done by *this* request, except where `in_flight` says that one with the same
    key is still at work (409), whose outcome is open."""

    why: str
    retry_after_ms: int = 0
    in_flight: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody can say whether it was done: time-out, broken connection, 5xx. Ask before anything is tried again.

    `spent`: Stripe replayed a 5xx that it keeps under our key, so whatever was done, the key can do no more.
    """

    why: str
    spent: bool = False


Outcome = Done | Declined | Refused | Busy | Unknown


def name_of(outcome: Outcome) -> str:
    """The outcome's name in metrics and logs."""
    return type(outcome).__name__.lower()
