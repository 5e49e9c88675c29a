from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from gateway.api.schemas import (
    WANTED,
    CreateSession,
    Enter,
    EventFilter,
    Query,
    Request,
    SessionFilter,
    parse,
    read_json,
)
from gateway.errors import InvalidRequest
from tests.api.market import order


def refused(body: dict[str, Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(CreateSession, body)
    return caught.value


def test_the_contracts_example_is_valid() -> None:
    parsed = parse(CreateSession, order())
    assert parsed.rate is not None
    assert (parsed.reference, parsed.rate.unit_amount, parsed.client.payment_method) == (
        "order-123",
        300,
        "pm_card_visa",
    )


def test_what_is_left_out_has_the_contracts_defaults() -> None:
    parsed = parse(CreateSession, {name: order()[name] for name in ("client", "expert")})
    assert (parsed.kind, parsed.media, parsed.ring, parsed.hold) == ("metered", "video", False, "now")
    assert (parsed.free_minutes, parsed.max_minutes, parsed.if_not_eligible) == (0, None, "refuse")


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"client": ...}, "missing_field", "client"),
        ({"expert__email": ...}, "missing_field", "expert.email"),
        ({"priority": 1}, "unknown_field", "priority"),
        ({"rate__unit_amout": 1}, "unknown_field", "rate.unit_amout"),
        ({"rate__unit_amount": "300"}, "invalid_field", "rate.unit_amount"),
        ({"rate__unit_amount": 300.5}, "invalid_field", "rate.unit_amount"),
        ({"rate__unit_amount": -1}, "invalid_field", "rate.unit_amount"),
        ({"free_minutes": -1}, "invalid_field", "free_minutes"),
        ({"free_minutes": True}, "invalid_field", "free_minutes"),
        ({"max_minutes": 0}, "invalid_field", "max_minutes"),
        ({"ring": "yes"}, "invalid_field", "ring"),
        ({"kind": "gift"}, "invalid_field", "kind"),
        ({"media": "text"}, "invalid_field", "media"),
        ({"hold": "later"}, "invalid_field", "hold"),
        ({"client__email": "client"}, "invalid_field", "client.email"),
        ({"client__email": "a@b.example\nBcc: c@d.example"}, "invalid_field", "client.email"),
        ({"client__name": "Line\nbreak"}, "invalid_field", "client.name"),
        ({"client__name": "\u202egnp"}, "invalid_field", "client.name"),
        ({"client__name": ""}, "invalid_field", "client.name"),
        ({"client__locale": "English"}, "invalid_field", "client.locale"),
        ({"client__timezone": "Mars/Olympus"}, "invalid_field", "client.timezone"),
        ({"client__timezone": "../../etc/passwd"}, "invalid_field", "client.timezone"),
        ({"client__stripe_customer": "pm_1"}, "invalid_field", "client.stripe_customer"),
        ({"client__payment_method": "tok_visa"}, "invalid_field", "client.payment_method"),
        ({"expert__stripe_account": "demo"}, "invalid_field", "expert.stripe_account"),
        ({"expert__country": "de"}, "invalid_field", "expert.country"),
        ({"expert__rating": 5.1}, "invalid_field", "expert.rating"),
        ({"expert__rating": "4.6"}, "invalid_field", "expert.rating"),
        ({"ambassador__share_bps": 10_001}, "invalid_field", "ambassador.share_bps"),
        ({"expires_at": "tomorrow"}, "invalid_field", "expires_at"),
        ({"expires_at": "2026-11-22T20:00:00"}, "invalid_field", "expires_at"),
        ({"reference": "x" * 201}, "invalid_field", "reference"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], code: str, param: str) -> None:
    error = refused(order(**changes))
    assert (error.code, error.param) == (code, param)


def test_a_refusal_never_repeats_the_value() -> None:
    error = refused(order(client__email="not-an-address-but-private"))
    assert "private" not in error.detail + str(error.extra)


def test_all_wrong_fields_are_told() -> None:
    error = refused(order(media="text", kind="gift", priority=1, colour=2))
    assert {error.param, *error.extra["also"]} == {"media", "kind"}, "of one fault"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"client__locale": "German"}, "`client.locale`: Send a language tag such as `de`"),
        ({"expert__country": "usa"}, "`expert.country`: Send a country as two capital letters"),
        ({"client__stripe_customer": "c1"}, "`client.stripe_customer`: Send an id that begins with `cus_`."),
        ({"client__timezone": "here, now"}, "`client.timezone`: Send a time zone of the IANA database"),
    ],
)
def test_a_pattern_is_told_in_words(changes: dict[str, str], wanted: str) -> None:
    assert wanted in refused(order(**changes)).detail


def test_every_pattern_of_a_request_has_words() -> None:
    models = [model for kind in (Request, Query) for model in _below(kind)]
    patterns = {found for model in models for found in _patterns(model.model_json_schema())}
    unsaid = {one for one in patterns if one not in WANTED and not re.match(r"\^[a-z]+_\[", one)}
    assert unsaid == {r"^[A-Za-z0-9._~-]+$"}, "of our own pages' tokens, which nobody writes by hand"


def _below(kind: type[BaseModel]) -> list[type[BaseModel]]:
    return [one for child in kind.__subclasses__() for one in (child, *_below(child))]


def _patterns(schema: object) -> set[str]:
    if isinstance(schema, list):
        return {found for inner in schema for found in _patterns(inner)}
    if not isinstance(schema, dict):
        return set()
    own = {schema["pattern"]} if isinstance(schema.get("pattern"), str) else set()
    return own | {found for inner in schema.values() for found in _patterns(inner)}


def test_a_name_that_stands_twice_is_told() -> None:
    with pytest.raises(InvalidRequest, match="stands twice"):
        read_json(b'{"rate": 1, "rate": 2}')


@pytest.mark.parametrize("locale", ["en", "de", "pt-BR", "pt_BR", "zh-Hant-TW", "es-419"])
def test_locales_of_browsers_are_taken(locale: str) -> None:
    assert parse(CreateSession, order(client__locale=locale)).client.locale == locale


@pytest.mark.parametrize("email", ["a@b.example", "a.b+tag@sub.b.example", "o'neil@b.example", "a@localhost"])
def test_ordinary_addresses_are_taken(email: str) -> None:
    assert parse(CreateSession, order(client__email=email)).client.email == email


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[]", b"1", b'"x"', b"null", b"\xff", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"[" * 20_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000, b'{"a": ' + b"9" * 5_000 + b"}",
    ],
)  # fmt: skip
def test_what_is_not_one_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_json(body)
    assert caught.value.code == "invalid_json"


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_refusal(body: bytes) -> None:
    code = None
    try:
        assert isinstance(read_json(body), dict)
    except InvalidRequest as error:
        code = error.code
    assert code in (None, "invalid_json", "card_number_refused")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@given(st.sampled_from([CreateSession, Enter]), st.dictionaries(st.sampled_from([*order(), "secret"]), json_values))
def test_any_object_is_parsed_or_refused_by_name(model: type[Request], body: dict[str, Any]) -> None:
    refusal = None
    try:
        parse(model, body)
    except InvalidRequest as error:
        refusal = (error.code, bool(error.param))
    assert refusal in (None, ("missing_field", True), ("unknown_field", True), ("invalid_field", True))


def test_an_empty_body_is_an_empty_object() -> None:
    assert read_json(b"") == read_json(b" \n") == {}


def test_a_card_number_is_refused_by_path_wherever_it_stands() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_json(json.dumps(order(client__payment_method="4242424242424242")).encode())
    assert (caught.value.code, caught.value.param) == ("card_number_refused", "client.payment_method")
    assert "4242" not in caught.value.detail


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ({"colour": "red"}, "unknown_parameter", "colour"),
        ({"limit": "0"}, "invalid_parameter", "limit"),
        ({"limit": "101"}, "invalid_parameter", "limit"),
        ({"limit": "ten"}, "invalid_parameter", "limit"),
        ({"status": "gone"}, "invalid_parameter", "status"),
        ({"starting_after": "evt_1"}, "invalid_parameter", "starting_after"),
    ],
)
def test_a_wrong_parameter_is_named(query: dict[str, str], code: str, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(SessionFilter, query, query=True)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_parameters_are_converted_from_text() -> None:
    assert parse(EventFilter, {"session": "ses_1", "after": "7"}, query=True).after == 7
