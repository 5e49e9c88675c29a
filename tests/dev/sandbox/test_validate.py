"""Requests are checked against the SDK's typed parameters: nested keys, enumerations, types, required keys."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dev.sandbox import form, routes, validate
from gateway.dev.sandbox.refusals import Refusal
from tests.dev.sandbox.conftest import flat

GOOD = {"amount": 100, "currency": "usd"}


def check(call: str, params: dict[str, Any]) -> dict[str, Any]:
    return validate.parameters(call)(form.decode(urlencode(flat(params))))


def refused(call: str, params: dict[str, Any]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        check(call, params)
    assert caught.value.status == 400
    assert not caught.value.saved, "a request that never began is not kept under its key"
    return caught.value


def test_values_come_out_typed() -> None:
    typed = check(
        "payment_intent_create", {**GOOD, "confirm": True, "metadata": {"a": "1"}, "expand": ["latest_charge"]}
    )
    assert typed == {**GOOD, "confirm": True, "metadata": {"a": "1"}, "expand": ["latest_charge"]}


@pytest.mark.parametrize("value", ["1.5", "abc", "1e3", "true"])
def test_integers(value: str) -> None:
    refusal = refused("payment_intent_create", {"amount": value, "currency": "usd"})
    assert (refusal.stripe_code, refusal.param) == ("parameter_invalid_integer", "amount")


def test_missing_required_parameters() -> None:
    refusal = refused("payment_intent_create", {"amount": 1})
    assert (refusal.stripe_code, refusal.param) == ("parameter_missing", "currency")
    assert refusal.detail == "Missing required param: currency."


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"colour": 1}, "colour"),
        ({"payment_method_options": {"card": {"colour": 1}}}, "payment_method_options[card][colour]"),
        ({"api_key": "x"}, "api_key"),
    ],
)
def test_unknown_parameters_at_any_depth(extra: dict[str, Any], param: str) -> None:
    refusal = refused("payment_intent_create", {**GOOD, **extra})
    assert (refusal.stripe_code, refusal.param) == ("parameter_unknown", param)


def test_payment_method_types_is_retired_with_its_own_code() -> None:
    refusal = refused("payment_intent_create", {**GOOD, "payment_method_types": ["card"]})
    assert refusal.stripe_code == "payment_method_types_no_longer_supported"


@pytest.mark.parametrize(
    ("call", "params", "param"),
    [
        ("payment_intent_create", {**GOOD, "capture_method": "later"}, "capture_method"),
        ("payment_intent_create", {**GOOD, "setup_future_usage": "sometimes"}, "setup_future_usage"),
        (
            "payment_intent_create",
            {**GOOD, "payment_method_options": {"card": {"request_three_d_secure": "please"}}},
            "payment_method_options[card][request_three_d_secure]",
        ),
        ("payment_intent_cancel", {"cancellation_reason": "bored"}, "cancellation_reason"),
        (
            "balance_settings_update",
            {"payments": {"payouts": {"schedule": {"interval": "fortnightly"}}}},
            "payments[payouts][schedule][interval]",
        ),
    ],
)  # fmt: skip
def test_enumerations_are_closed_though_the_sdk_leaves_them_open(call: str, params: dict[str, Any], param: str) -> None:
    refusal = refused(call, params)
    assert refusal.param == param
    assert "must be one of" in refusal.detail


def test_an_empty_string_unsets_only_what_can_be_unset() -> None:
    assert check("payment_intent_update", {"metadata": ""}) == {"metadata": ""}
    refusal = refused("payment_intent_create", {"amount": 100, "currency": ""})
    assert refusal.stripe_code == "parameter_invalid_empty"


def test_shapes_must_match() -> None:
    assert refused("payment_intent_create", {**GOOD, "metadata": "x"}).detail == "Invalid object"
    assert refused("payment_intent_create", {**GOOD, "expand": "x"}).detail == "Invalid array"
    assert refused("payment_intent_create", {**GOOD, "expand": {"a": "x"}}).detail == "Invalid array"
    assert "Invalid boolean" in refused("payment_intent_create", {**GOOD, "confirm": "yes"}).detail
    assert refused("payment_intent_create", {"amount": {"a": 1}, "currency": "usd"}).param == "amount"


@pytest.mark.parametrize(
    "metadata",
    [{"k" * 41: "v"}, {"k": "v" * 501}, {f"k{place}": "v" for place in range(51)}],
    ids=["key", "value", "count"],
)
def test_metadata_has_limits(metadata: dict[str, str]) -> None:
    refused("payment_intent_create", {**GOOD, "metadata": metadata})


@pytest.mark.parametrize("route", routes.ROUTES, ids=lambda route: f"{route.method} {route.call}")
def test_every_route_models_only_what_the_sdk_knows(route: routes.Route) -> None:
    refusal = None
    try:
        validate.parameters(route.call)(dict.fromkeys(route.models, "x"))
    except Refusal as caught:
        refusal = caught
    assert refusal is None or refusal.stripe_code != "parameter_unknown", refusal.detail


JSONISH = st.recursive(
    st.text(max_size=8), lambda inner: st.dictionaries(st.text("abc01", min_size=1, max_size=3), inner, max_size=3)
)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["amount", "currency", "confirm", "metadata", "expand", "off_session"]), JSONISH)
)
def test_whatever_comes_is_typed_or_refused(params: dict[str, Any]) -> None:
    try:
        typed = validate.parameters("payment_intent_create")(params)
    except Refusal:
        return
    assert isinstance(typed["amount"], int)
