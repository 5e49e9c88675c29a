"""Money in minor units: the price of a time, the hold for it, and its split. The live figure and the bill call these.

All of it is integer arithmetic; nothing rounds twice (5-money, The bill).
"""

from __future__ import annotations

from dataclasses import dataclass

CURRENCIES = frozenset({"usd", "gbp", "eur", "cad", "chf"})  # R1; all have two decimals
# Currencies in which experts are paid and which have no cents (docs.stripe.com/currencies#zero-decimal).
ZERO_DECIMAL = frozenset({"jpy"})
BPS = 10_000


def minor_units(currency: str) -> int:
    """How many minor units make one of the currency."""
    return 1 if currency.lower() in ZERO_DECIMAL else 100


def round_half_up(numerator: int, denominator: int) -> int:
    """numerator / denominator to the nearest integer, halves up; both must be >= 0 and the denominator > 0."""
    return (2 * numerator + denominator) // (2 * denominator)


def price(unit_amount: int, billable_seconds: int) -> int:
    """What `billable_seconds` cost at `unit_amount` minor units a minute (R1, R3)."""
    return round_half_up(unit_amount * billable_seconds, 60)


def billable_ms(union_ms: int, free_ms: int) -> int:
    """The paid part of a union of intervals: what lies beyond the free part (R2)."""
    return max(0, union_ms - free_ms)


def hold_amount(unit_amount: int, limit_ms: int, free_ms: int) -> int:
    """The most a session may cost: max(0, limit − free) × rate (R4). Never below any bill under that limit."""
    return price(unit_amount, billable_ms(limit_ms, free_ms) // 1000)


@dataclass(frozen=True, slots=True)
class Shares:
    """A total and its parts, in minor units of one currency; the parts always sum to the total (law 6)."""

    total: int
    expert: int
    platform: int
    ambassador: int

    def __post_init__(self) -> None:
        assert self.total == self.expert + self.platform + self.ambassador, "law 6: parts sum"
        assert min(self.total, self.expert, self.platform, self.ambassador) >= 0, "a share is never negative"


def split(total: int, commission_bps: int, ambassador_bps: int = 0) -> Shares:
    """Commission rounded once, the ambassador's part of it floored, the expert gets the rest (R3, R19)."""
    commission = round_half_up(total * commission_bps, BPS)
    ambassador = commission * ambassador_bps // BPS
    return Shares(total, total - commission, commission - ambassador, ambassador)


def settled_shares(balance_amount: int, shares: Shares) -> Shares:
    """The shares of a total, in the currency that its charge was settled in: parts floored, the platform keeps the
    rest, so that law 6 holds there too. `balance_amount` is the balance transaction's gross amount."""
    if shares.total == 0:
        return Shares(balance_amount, 0, balance_amount, 0)
    expert = settled_share(balance_amount, shares.expert, shares.total)
    ambassador = settled_share(balance_amount, shares.ambassador, shares.total)
    return Shares(balance_amount, expert, balance_amount - expert - ambassador, ambassador)


def settled_share(balance_amount: int, share: int, total: int) -> int:
    """One share of a charge of `total` that was settled as `balance_amount`: floored, at the charge's own rate."""
    return balance_amount * share // total
