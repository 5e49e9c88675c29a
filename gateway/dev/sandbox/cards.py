"""Stripe's test payment methods and what each does (docs.stripe.com/testing)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Card:
    """One test card. `challenge`: always = asks at every on-session payment; unless_set_up = only until it was set up.

    `outcome` is (code, decline_code, message) of a refusal, or None.
    """

    token: str
    last4: str
    brand: str = "visa"
    country: str = "US"
    funding: str = "credit"
    challenge: str | None = None
    outcome: tuple[str, str | None, str] | None = None
    dispute: str | None = None
    refund: str | None = None
    available_at_once: bool = False
    blocked: bool = False

    @property
    def fingerprint(self) -> str:
        """Stripe's stays the same for the same number; ours leads back to the card."""
        return "fp" + "".join(ch for ch in self.token.removeprefix("pm_card_") if ch.isalnum())


_DECLINED = "Your card was declined."


def _declined(decline_code: str, message: str = _DECLINED) -> tuple[str, str | None, str]:
    return ("card_declined", decline_code, message)


_TABLE = (
    Card("visa", "4242"),
    Card("visa_debit", "5556", funding="debit"),
    Card("mastercard", "4444", "mastercard"),
    Card("mastercard_debit", "8210", "mastercard", funding="debit"),
    Card("mastercard_prepaid", "5100", "mastercard", funding="prepaid"),
    Card("amex", "0005", "amex"),
    Card("discover", "1117", "discover"),
    Card("diners", "0004", "diners"),
    Card("jcb", "0505", "jcb", country="JP"),
    Card("unionpay", "0005", "unionpay", country="CN"),
    Card("us", "4242"),
    Card("ca", "0000", country="CA"),
    Card("br", "0002", country="BR"),
    Card("mx", "8012", country="MX"),
    Card("gb", "0000", country="GB"),
    Card("de", "0016", country="DE"),
    Card("fr", "0003", country="FR"),
    Card("it", "0008", country="IT"),
    Card("es", "0007", country="ES"),
    Card("nl", "0002", country="NL"),
    Card("ch", "0009", country="CH"),
    Card("at", "0008", country="AT"),
    Card("be", "0004", country="BE"),
    Card("dk", "0001", country="DK"),
    Card("fi", "0001", country="FI"),
    Card("ie", "0005", country="IE"),
    Card("lu", "0006", country="LU"),
    Card("no", "0000", country="NO"),
    Card("pt", "0007", country="PT"),
    Card("se", "0008", country="SE"),
    Card("au", "0006", country="AU"),
    Card("jp", "3530", country="JP"),
    Card("sg", "0003", country="SG"),
    Card("bypassPending", "0077", available_at_once=True),
    Card("chargeDeclined", "0002", outcome=_declined("generic_decline")),
    Card("visa_chargeDeclined", "0002", outcome=_declined("generic_decline")),
    Card(
        "chargeDeclinedInsufficientFunds",
        "9995",
        outcome=_declined("insufficient_funds", "Your card has insufficient funds."),
    ),
    Card(
        "visa_chargeDeclinedInsufficientFunds",
        "9995",
        outcome=_declined("insufficient_funds", "Your card has insufficient funds."),
    ),
    Card("chargeDeclinedLostCard", "9987", outcome=_declined("lost_card")),
    Card("visa_chargeDeclinedLostCard", "9987", outcome=_declined("lost_card")),
    Card("chargeDeclinedStolenCard", "9979", outcome=_declined("stolen_card")),
    Card("visa_chargeDeclinedStolenCard", "9979", outcome=_declined("stolen_card")),
    Card("chargeDeclinedFraudulent", "0019", outcome=_declined("fraudulent")),
    Card("chargeDeclinedVelocityLimitExceeded", "6975", outcome=_declined("card_velocity_exceeded")),
    Card("chargeDeclinedExpiredCard", "0069", outcome=("expired_card", None, "Your card has expired.")),
    Card(
        "chargeDeclinedIncorrectCvc", "0127", outcome=("incorrect_cvc", None, "Your card's security code is incorrect.")
    ),
    Card(
        "chargeDeclinedProcessingError",
        "0119",
        outcome=("processing_error", None, "An error occurred while processing your card. Try again in a little bit."),
    ),
    Card("chargeCustomerFail", "0341", outcome=_declined("generic_decline")),
    Card("radarBlock", "0101", outcome=_declined("fraudulent"), blocked=True),
    Card("authenticationRequired", "3184", challenge="always"),
    Card("authenticationRequiredOnSetup", "3155", challenge="unless_set_up"),
    Card("authenticationRequiredSetupForOffSession", "3155", challenge="unless_set_up"),
    Card(
        "authenticationRequiredChargeDeclinedInsufficientFunds",
        "0178",
        challenge="always",
        outcome=_declined("insufficient_funds", "Your card has insufficient funds."),
    ),
    Card("threeDSecure2Required", "3220", challenge="always"),
    Card("threeDSecureRequired", "3063", challenge="always"),
    Card("threeDSecureRequiredChargeDeclined", "1629", challenge="always", outcome=_declined("generic_decline")),
    Card("threeDSecureOptional", "3055"),
    Card("createDispute", "0259", dispute="fraudulent"),
    Card("createDisputeProductNotReceived", "2685", dispute="product_not_received"),
    Card("pendingRefund", "7726", refund="pending"),
    Card("refundFail", "5126", refund="fails"),
)

CARDS = {f"pm_card_{card.token}": card for card in _TABLE}
_BY_FINGERPRINT = {card.fingerprint: card for card in _TABLE}


def card_of(method: dict[str, Any]) -> Card:
    """The test card behind a PaymentMethod object."""
    return _BY_FINGERPRINT[method["card"]["fingerprint"]]
