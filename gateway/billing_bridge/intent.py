"""Reading Stripe's PaymentIntent and what hangs on it: the charge, the card, until when it holds, how it settled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.billing_bridge.cards import shown
from gateway.billing_bridge.record import Settlement

Intent = Mapping[str, Any]


def charge_of(intent: Intent) -> Mapping[str, Any]:
    """The latest charge; only its id if the answer did not expand it, empty if there is none."""
    charge = intent.get("latest_charge")
    if isinstance(charge, str):
        return {"id": charge}
    return charge or {}


def card_of(intent: Intent) -> dict[str, Any] | None:
    """Brand, last four and issuing country, as the receipt and the call page name the card."""
    return shown(_card_details(intent))


def hold_until_of(intent: Intent) -> int | None:
    """When the network lets the hold go, in wall ms: `capture_before`, never a figure of our own."""
    before = _card_details(intent).get("capture_before")
    return None if before is None else int(before) * 1000


def settlement_of(intent: Intent) -> Settlement | None:
    """The charge's balance transaction, if the answer has it expanded and Stripe has made it yet."""
    balance = charge_of(intent).get("balance_transaction")
    if not isinstance(balance, Mapping):
        return None
    rate = balance.get("exchange_rate")
    return Settlement(balance["currency"], balance["amount"], balance["fee"], None if rate is None else str(rate))


def action_url_of(intent: Intent) -> str | None:
    """Where the client confirms with the bank (3-D Secure by redirection)."""
    action = intent.get("next_action") or {}
    return (action.get("redirect_to_url") or {}).get("url")


def decline_of(intent: Intent) -> str:
    error = intent.get("last_payment_error") or {}
    return str(error.get("decline_code") or error.get("code") or "card_declined")


def matching(listing: Mapping[str, Any], metadata: Mapping[str, str]) -> Mapping[str, Any] | None:
    """The one object of a list whose metadata is ours."""
    for item in listing.get("data", ()):
        theirs = item.get("metadata") or {}
        if all(theirs.get(name) == value for name, value in metadata.items()):
            return dict(item)
    return None


def _card_details(intent: Intent) -> Mapping[str, Any]:
    details = charge_of(intent).get("payment_method_details") or {}
    return details.get("card") or {}
