"""Idempotency keys, refused parameters and error bodies, as the gateway relies on them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import stripe

from tests.stripe_contract.conftest import Platform

pytestmark = pytest.mark.stripe


async def test_a_key_gives_the_first_answer_again(platform: Platform) -> None:
    """docs.stripe.com/api/idempotent_requests"""
    options = {"idempotency_key": platform.mark}
    first = await platform.v1.payment_intents.create_async(platform.holding(), options)
    await platform.v1.payment_intents.capture_async(first.id)
    again = await platform.v1.payment_intents.create_async(platform.holding(), options)
    assert (again.id, again.status) == (first.id, "requires_capture")
    assert again.last_response.headers["Idempotent-Replayed"] == "true"


async def test_a_key_with_other_parameters_is_an_error(platform: Platform) -> None:
    """docs.stripe.com/api/idempotent_requests, docs.stripe.com/api/errors (idempotency_error)"""
    options = {"idempotency_key": platform.mark}
    await platform.v1.payment_intents.create_async(platform.holding(), options)
    error = await platform.refused(platform.v1.payment_intents.create_async(platform.holding(1_000), options))
    assert isinstance(error, stripe.IdempotencyError)
    assert error.http_status == 400


async def test_a_decline_is_kept_under_its_key(platform: Platform) -> None:
    """docs.stripe.com/api/idempotent_requests: saved regardless of whether it succeeds or fails"""
    options = {"idempotency_key": platform.mark}
    params = platform.holding(payment_method="pm_card_chargeDeclined")
    first = await platform.refused(platform.v1.payment_intents.create_async(params, options))
    again = await platform.refused(platform.v1.payment_intents.create_async(params, options))
    assert first.error.payment_intent.id == again.error.payment_intent.id  # type: ignore[union-attr]


async def test_failed_validation_is_not_kept(platform: Platform) -> None:
    """docs.stripe.com/api/idempotent_requests: results are saved once an endpoint began"""
    options = {"idempotency_key": platform.mark}
    await platform.refused(platform.v1.payment_intents.create_async({**platform.holding(), "amount": "much"}, options))
    held = await platform.v1.payment_intents.create_async(platform.holding(), options)
    assert held.status == "requires_capture"


async def test_two_at_once_under_one_key_make_one_payment(platform: Platform) -> None:
    """docs.stripe.com/error-codes#idempotency-key-in-use"""
    options = {"idempotency_key": platform.mark}

    async def attempt() -> Any:
        return await platform.v1.payment_intents.create_async(platform.holding(), options)

    results = await asyncio.gather(attempt(), attempt(), return_exceptions=True)
    made = {each.id for each in results if not isinstance(each, BaseException)}
    conflicts = [each for each in results if isinstance(each, stripe.StripeError)]
    assert len(made) == 1
    assert all(each.http_status == 409 for each in conflicts)


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"colour": "red"}, "parameter_unknown", "colour"),
        ({"amount": "12.5"}, "parameter_invalid_integer", "amount"),
        ({"amount": 0}, "parameter_invalid_integer", "amount"),
        ({"capture_method": "later"}, None, "capture_method"),
        ({"customer": "cus_none"}, "resource_missing", "customer"),
        ({"currency": ""}, "parameter_invalid_empty", "currency"),
        ({"payment_method_types": ["card"]}, "payment_method_types_no_longer_supported", None),
    ],
)
async def test_wrong_parameters_are_named(
    platform: Platform, change: dict[str, Any], code: str | None, param: str | None
) -> None:
    """docs.stripe.com/error-codes; for payment_method_types the changelog of 2026-09-30.endive"""
    error = await platform.refused(platform.v1.payment_intents.create_async({**platform.holding(), **change}))
    assert isinstance(error, stripe.InvalidRequestError)
    assert error.http_status == 400
    if code is not None:
        assert error.code == code
    if param is not None:
        assert error.param == param


async def test_a_missing_parameter_is_named(platform: Platform) -> None:
    """docs.stripe.com/error-codes#parameter-missing"""
    error = await platform.refused(platform.v1.payment_intents.create_async({"amount": 1_000}))
    assert (error.code, error.param) == ("parameter_missing", "currency")  # type: ignore[attr-defined]


async def test_what_does_not_exist_is_a_404(platform: Platform) -> None:
    """docs.stripe.com/error-codes#resource-missing"""
    error = await platform.refused(platform.v1.payment_intents.retrieve_async("pi_none"))
    assert (error.http_status, error.code) == (404, "resource_missing")


async def test_every_answer_names_its_request(platform: Platform) -> None:
    """docs.stripe.com/api/request_ids"""
    made = await platform.v1.customers.create_async()
    assert made.last_response.request_id.startswith("req_")
    error = await platform.refused(platform.v1.customers.retrieve_async("cus_none"))
    assert str(error.request_id).startswith("req_")


async def test_dashboard_methods_need_a_return_url(platform: Platform) -> None:
    """docs.stripe.com/upgrades/manage-payment-methods"""
    params = platform.holding(automatic_payment_methods={"enabled": True})
    del params["allowed_payment_method_types"]
    error = await platform.refused(platform.v1.payment_intents.create_async(params))
    assert "return_url" in str(error.user_message)
    params["automatic_payment_methods"]["allow_redirects"] = "never"
    assert (await platform.v1.payment_intents.create_async(params)).status == "requires_capture"
