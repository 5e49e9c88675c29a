"""Holds, captures, cancellations and declines, as the gateway relies on them."""

from __future__ import annotations

import pytest

from tests.stripe_contract.conftest import Platform

pytestmark = pytest.mark.stripe
DAY = 86_400


async def test_a_hold_is_requires_capture_with_the_amount_capturable(platform: Platform) -> None:
    """docs.stripe.com/payments/place-a-hold-on-a-payment-method"""
    held = await platform.hold(transfer_group=platform.mark, expand=["latest_charge"])
    assert (held.status, held.amount_capturable, held.amount_received) == ("requires_capture", 25_500, 0)
    charge = held.latest_charge
    assert (charge.captured, charge.amount_captured, charge.transfer_group) == (False, 0, platform.mark)
    assert charge.metadata["mark"] == platform.mark


async def test_capture_before_says_how_long_the_hold_lasts(platform: Platform) -> None:
    """docs.stripe.com/payments/place-a-hold-on-a-payment-method#auth-validity (7 days with the client present)"""
    held = await platform.hold(expand=["latest_charge"])
    seconds = held.latest_charge.payment_method_details.card.capture_before - held.created
    assert abs(seconds - 7 * DAY) <= DAY


async def test_part_of_a_hold_is_captured_and_the_rest_released(platform: Platform) -> None:
    """docs.stripe.com/changelog/basil/2025-03-31/remove-refund-from-partial-capture-and-payment-cancellation-flow"""
    held = await platform.hold()
    taken = await platform.v1.payment_intents.capture_async(
        held.id, {"amount_to_capture": 9_000, "expand": ["latest_charge"]}
    )
    assert (taken.status, taken.amount_received, taken.amount_capturable) == ("succeeded", 9_000, 0)
    charge = taken.latest_charge
    assert (charge.amount, charge.amount_captured, charge.amount_refunded, charge.refunded) == (25_500, 9_000, 0, False)
    assert (await platform.v1.refunds.list_async({"payment_intent": held.id})).data == []


async def test_latest_charge_is_an_id_unless_expanded(platform: Platform) -> None:
    """docs.stripe.com/expand"""
    held = await platform.hold()
    assert isinstance(held.latest_charge, str)
    again = await platform.v1.payment_intents.retrieve_async(held.id, {"expand": ["latest_charge"]})
    assert again.latest_charge.id == held.latest_charge


async def test_a_second_capture_is_refused(platform: Platform) -> None:
    """docs.stripe.com/payments/place-a-hold-on-a-payment-method: an authorized payment is captured once"""
    held = await platform.hold()
    await platform.v1.payment_intents.capture_async(held.id, {"amount_to_capture": 5_000})
    error = await platform.refused(platform.v1.payment_intents.capture_async(held.id, {"amount_to_capture": 100}))
    assert (error.http_status, error.code) == (400, "payment_intent_unexpected_state")


async def test_more_than_the_hold_is_refused(platform: Platform) -> None:
    """docs.stripe.com/error-codes#amount-too-large"""
    held = await platform.hold(1_000)
    error = await platform.refused(platform.v1.payment_intents.capture_async(held.id, {"amount_to_capture": 1_001}))
    assert (error.http_status, error.code) == (400, "amount_too_large")


async def test_a_canceled_hold_is_gone(platform: Platform) -> None:
    """docs.stripe.com/api/payment_intents/cancel"""
    held = await platform.hold()
    gone = await platform.v1.payment_intents.cancel_async(
        held.id, {"cancellation_reason": "abandoned", "expand": ["latest_charge"]}
    )
    assert (gone.status, gone.cancellation_reason, gone.amount_capturable) == ("canceled", "abandoned", 0)
    assert (gone.latest_charge.captured, gone.latest_charge.amount_captured) == (False, 0)
    for call in (platform.v1.payment_intents.capture_async, platform.v1.payment_intents.cancel_async):
        assert (await platform.refused(call(held.id))).code == "payment_intent_unexpected_state"


async def test_a_captured_payment_cannot_be_canceled(platform: Platform) -> None:
    """docs.stripe.com/api/payment_intents/cancel"""
    taken = await platform.paid()
    error = await platform.refused(platform.v1.payment_intents.cancel_async(taken.id))
    assert error.code == "payment_intent_unexpected_state"


async def test_automatic_capture_takes_the_money_at_once(platform: Platform) -> None:
    """docs.stripe.com/payments/paymentintents/lifecycle"""
    paid = await platform.hold(4_500, capture_method="automatic")
    assert (paid.status, paid.amount_received) == ("succeeded", 4_500)


@pytest.mark.parametrize(
    ("method", "code", "decline_code"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
        ("pm_card_chargeDeclinedProcessingError", "processing_error", None),
    ],
)
async def test_declines(platform: Platform, method: str, code: str, decline_code: str | None) -> None:
    """docs.stripe.com/testing#declined-payments, docs.stripe.com/declines/codes"""
    error = await platform.refused(platform.hold(payment_method=method))
    assert (error.http_status, error.code) == (402, code)
    if decline_code is not None:
        assert error.error.decline_code == decline_code  # type: ignore[union-attr]
    intent = await platform.v1.payment_intents.retrieve_async(error.error.payment_intent.id)  # type: ignore[union-attr]
    assert (intent.status, intent.last_payment_error.code) == ("requires_payment_method", code)


async def test_another_card_after_a_decline(platform: Platform) -> None:
    """docs.stripe.com/payments/paymentintents/lifecycle: a failed attempt returns to requires_payment_method"""
    error = await platform.refused(platform.hold(payment_method="pm_card_chargeDeclined"))
    ident = error.error.payment_intent.id  # type: ignore[union-attr]
    held = await platform.v1.payment_intents.confirm_async(ident, {"payment_method": "pm_card_visa"})
    assert held.status == "requires_capture"


@pytest.mark.parametrize(
    ("method", "brand", "country"),
    [("pm_card_visa", "visa", "US"), ("pm_card_amex", "amex", "US"), ("pm_card_discover", "discover", "US"),
     ("pm_card_de", "visa", "DE"), ("pm_card_unionpay", "unionpay", "CN")],
)  # fmt: skip
async def test_a_card_says_its_brand_and_where_it_was_issued(
    platform: Platform, method: str, brand: str, country: str
) -> None:
    card = (await platform.v1.payment_methods.retrieve_async(method)).card
    assert card is not None
    assert (card.brand, card.country, len(card.last4)) == (brand, country, 4)


@pytest.mark.parametrize("method", ["pm_card_authenticationRequired", "pm_card_threeDSecure2Required"])
async def test_3ds_sends_the_client_to_a_page(platform: Platform, method: str) -> None:
    """docs.stripe.com/payments/3d-secure/authentication-flow"""
    asked = await platform.hold(payment_method=method, return_url="https://example.com/back")
    assert (asked.status, asked.next_action.type) == ("requires_action", "redirect_to_url")
    assert asked.next_action.redirect_to_url.return_url == "https://example.com/back"
    assert asked.next_action.redirect_to_url.url.startswith("http")
    gone = await platform.v1.payment_intents.cancel_async(asked.id)
    assert gone.status == "canceled"


async def test_3ds_without_the_client_is_declined(platform: Platform) -> None:
    """docs.stripe.com/testing#regulatory-cards, docs.stripe.com/error-codes#authentication-required"""
    customer = await platform.customer()
    kept = await platform.v1.payment_methods.attach_async("pm_card_authenticationRequired", {"customer": customer})
    error = await platform.refused(platform.hold(payment_method=kept.id, customer=customer, off_session=True))
    assert (error.http_status, error.code) == (402, "authentication_required")


async def test_a_payment_can_keep_its_card_for_later(platform: Platform) -> None:
    """docs.stripe.com/payments/save-during-payment (setup_future_usage)"""
    customer = await platform.customer()
    held = await platform.hold(customer=customer, setup_future_usage="off_session")
    kept = await platform.v1.payment_methods.retrieve_async(held.payment_method)
    assert (kept.customer, kept.card.brand, kept.card.last4, kept.card.country) == (customer, "visa", "4242", "US")
    again = await platform.hold(customer=customer, payment_method=kept.id, off_session=True)
    assert again.status == "requires_capture"


async def test_a_customers_kept_cards_are_listed_newest_first(platform: Platform) -> None:
    """docs.stripe.com/api/payment_methods/customer_list"""
    customer, stranger = await platform.customer(), await platform.customer()
    for owner, card in ((customer, "pm_card_visa"), (stranger, "pm_card_amex"), (customer, "pm_card_mastercard")):
        await platform.v1.payment_methods.attach_async(card, {"customer": owner})
    listed = await platform.v1.customers.payment_methods.list_async(customer, {"type": "card", "limit": 20})
    assert [(kept.card.brand, kept.customer) for kept in listed.data] == [("mastercard", customer), ("visa", customer)]
    assert all(kept.card.fingerprint and kept.card.exp_year > 2000 for kept in listed.data)


async def test_a_kept_card_belongs_to_its_customer(platform: Platform) -> None:
    """docs.stripe.com/payments/payment-methods#reusable-payment-methods"""
    kept = await platform.v1.payment_methods.attach_async("pm_card_visa", {"customer": await platform.customer()})
    stranger = await platform.customer()
    for more in ({}, {"customer": stranger}):
        error = await platform.refused(platform.hold(payment_method=kept.id, **more))
        assert error.http_status == 400


async def test_amounts_below_the_minimum_are_refused(platform: Platform) -> None:
    """docs.stripe.com/currencies#minimum-and-maximum-charge-amounts"""
    error = await platform.refused(platform.hold(10))
    assert (error.http_status, error.code) == (400, "amount_too_small")


async def test_payments_are_listed_by_customer_and_time(platform: Platform) -> None:
    """docs.stripe.com/api/payment_intents/list, docs.stripe.com/api/pagination"""
    customer = await platform.customer()
    made = [(await platform.hold(customer=customer)).id for _ in range(3)]
    first = await platform.v1.payment_intents.list_async({"customer": customer, "limit": 2})
    assert ([each.id for each in first.data], first.has_more) == (made[:0:-1], True)
    rest = await platform.v1.payment_intents.list_async({"customer": customer, "starting_after": made[1]})
    assert ([each.id for each in rest.data], rest.has_more) == (made[:1], False)
    later = first.data[0].created + 3_600
    assert (await platform.v1.payment_intents.list_async({"customer": customer, "created": {"gte": later}})).data == []


async def test_metadata_is_merged_and_unset(platform: Platform) -> None:
    """docs.stripe.com/api/metadata"""
    held = await platform.hold(metadata={"a": "1", "b": "2"})
    changed = await platform.v1.payment_intents.update_async(held.id, {"metadata": {"a": "", "c": "3"}})
    assert changed.metadata.to_dict() == {"b": "2", "c": "3"}


async def test_events_tell_of_the_hold_and_the_capture(platform: Platform) -> None:
    """docs.stripe.com/api/events/types"""
    taken = await platform.paid()
    for kind in ("payment_intent.created", "payment_intent.amount_capturable_updated", "payment_intent.succeeded"):
        assert (await platform.event(kind, taken.id)) is not None
    captured = await platform.event("charge.captured", taken.latest_charge.id)
    assert captured.data.object["amount_captured"] == 9_000
