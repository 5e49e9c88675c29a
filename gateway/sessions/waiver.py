"""Until when the expert may waive the fee: until the charge is sent to Stripe (R15; 5-money, Waiver). Pure.

The waiver is written together with the payment's record, which the charge's step is written to before it is sent: so of
the two, whichever comes first decides, and the other finds it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.errors import Conflict

# `capturing` with a step that Stripe refused outright: another follows, and the hold is not let go between them.
CHARGED: Final = frozenset({"capturing", "captured", "partially_refunded", "refunded", "disputed"})


def charge_sent(payment: Mapping[str, Any]) -> bool:
    """Whether the card is being charged, or was. A booking's charge is not its meeting's: that is given back."""
    if payment.get("part") is not None:
        return False
    charging = any(step["state"] != "failed" and _charges(step) for step in payment.get("steps", ()))
    return charging or payment["status"] in CHARGED


def _charges(step: Mapping[str, Any]) -> bool:
    """One that takes the money at once does, unless it was let go: its client never came back from the bank."""
    let_go = (step.get("result") or {}).get("status") in ("canceled", "missing")
    at_once = step["step"] == "hold" and step["params"].get("capture_method") == "automatic" and not let_go
    return bool(step["step"] == "capture" or at_once)


def check(payment: Mapping[str, Any]) -> None:
    """Raises Conflict `payment_state`."""
    if charge_sent(payment):
        raise Conflict("The card is being charged, or was charged already: refund it then.", code="payment_state")
