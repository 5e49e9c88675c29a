"""Settled sessions for the tests of receipts: the docs as session, bridge and edge leave them."""

from __future__ import annotations

from typing import Any

from gateway.money import billable_ms, price, split
from gateway.receipts.receipt import Issuer

START = 1_795_275_845_000  # 2026-11-21 15:44:05 UTC, a Saturday
SESSION = "ses_01kt0q8m3fe9w7r2c5x6y8z0ab"
LINK = "https://calls.example.com/r/0123456789abcdefghij"
ISSUER = Issuer(
    "Parley", address=("Example Street 1", "10115 Berlin"), tax_id="DE000000000", support="help@example.com"
)
HALF_HOUR = ((START, START + 1_800_000),)
INTERRUPTED = ((START, START + 512_300), (START + 520_400, START + 1_300_000))

Intervals = tuple[tuple[int, int], ...]


def bill(intervals: Intervals = HALF_HOUR, **changes: Any) -> dict[str, Any]:
    """A frozen bill over those intervals, at 3.00 a minute after five free minutes unless changed."""
    unit, free = changes.pop("unit_amount", 300), changes.pop("free_ms", 300_000)
    union = sum(end - start for start, end in intervals)
    seconds = billable_ms(union, free) // 1000
    metered = price(unit, seconds)
    total = changes.get("amount_total", metered)
    shares = split(total, 1000, 2000)
    return {
        "intervals": [list(one) for one in intervals],
        "union_ms": union,
        "free_seconds_used": min(union, free) // 1000,
        "billable_ms": billable_ms(union, free),
        "billable_seconds": seconds,
        "amount_metered": metered,
        "amount_total": total,
        "amount_waived": metered - total,
        "waived_reason": None,
        "amount_expert": shares.expert,
        "amount_platform": shares.platform,
        "amount_ambassador": shares.ambassador,
        "currency": "usd",
        "started_at": intervals[0][0] if intervals else None,
        "ended_at": intervals[-1][1] if intervals else START,
        "end_reason": "client_left",
    } | changes


def session(frozen: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "id": SESSION,
        "account": "acc_test",
        "livemode": True,
        "created": START - 60_000,
        "reference": "order-123",
        "kind": "metered",
        "media": "video",
        "status": "finalized",
        "client": {"id": "c1", "stripe_customer": "cus_secretcustomer"},
        "expert": {"id": "e1", "stripe_account": "acct_secretexpert"},
        "ambassador": {"stripe_account": "acct_secretambassador", "share_bps": 2000},
        "unit_amount": 300,
        "currency": "usd",
        "commission_bps": 1000,
        "free_ms": 300_000,
        "limit_ms": 5_400_000,
        "waived": False,
        "started_at": START,
        "ended_at": START + 1_800_000,
        "bill": bill() if frozen is None else frozen,
    } | changes


def payment(**changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "status": "captured",
        "currency": "usd",
        "amount_held": 25_500,
        "amount_captured": 7_500,
        "amount_refunded": 0,
        "amount_total": None,
        "amount_waived": 0,
        "card": {"brand": "visa", "last4": "4242", "country": "US"},
        "transfers": [
            {"to": "expert", "account": "acct_secretexpert", "amount": 6750, "currency": "usd", "status": "paid"},
            {
                "to": "ambassador",
                "account": "acct_secretambassador",
                "amount": 150,
                "currency": "usd",
                "status": "paid",
            },
        ],
        "settlement": {"currency": "usd", "amount": 7_500, "fee": 248, "exchange_rate": None},
        "settled": True,
        "steps": [],
    } | changes


def released(**changes: Any) -> dict[str, Any]:
    return payment(status="released", amount_captured=0, transfers=[], settlement=None) | changes


def refunded(amount: int, status: str = "succeeded", charge_to: str = "shares") -> dict[str, Any]:
    """One refund as the payment record has it."""
    return {"number": 1, "id": "ref_1", "amount": amount, "status": status, "charge_to": charge_to, "reason": "r"}


def people(client: dict[str, Any] | None = None, expert: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "schema": 1,
        "client": {"name": "Client One", "email": "client@example.com", "locale": "en", "timezone": "America/New_York"}
        | (client or {}),
        "expert": {"name": "Expert Two", "email": "expert@example.com", "locale": "de", "timezone": "Europe/Berlin"}
        | (expert or {}),
    }
