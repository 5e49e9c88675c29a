"""The alarm of a hold that is being lost: half of its time is over, and nothing was captured or released. Pure.

Networks let a hold go at `capture_before`, after five to seven days as a rule; a session and its capture take hours.
One that is still held at half of that time is stuck, and there is as much time again to see to it.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.billing_bridge.record import Notice, Payment, told


def half_at(payment: Payment) -> int | None:
    """When to give the alarm (wall ms); None if there is no hold to lose, or it was given for this one."""
    hold = payment.find("hold", payment.attempt)
    held = payment.status in ("held", "capturing") and payment.hold_until is not None
    if not held or hold is None or payment.alarmed == payment.attempt:
        return None
    assert payment.hold_until is not None
    return hold.at + max(0, payment.hold_until - hold.at) // 2


def alarmed(payment: Payment, now: int) -> tuple[Payment, tuple[Notice, ...]]:
    """The record with its alarm given, and the event of it, once for each hold; unchanged before its time."""
    at = half_at(payment)
    if at is None or at > now:
        return payment, ()
    payment = replace(payment, alarmed=payment.attempt)
    return payment, (told("hold_expiring", payment),)
