"""Keys, unknown addresses, headers, and what happens when an endpoint fails half-way."""

from __future__ import annotations

import pytest

from gateway.dev.sandbox.api import Request
from tests.dev.sandbox.conftest import Bench


@pytest.mark.parametrize(
    "key", [None, "", "Bearer sk_live_1234567890abcdef", "Bearer pk_test_1", "Bearer sk_test_", "nonsense"]
)
def test_only_secret_test_keys_open(bench: Bench, key: str | None) -> None:
    answer = bench.api.admit(Request("GET", "/v1/customers", "", key), bench.now_ms)
    assert answer is not None
    assert answer.status == 401
    assert b"1234567890" not in answer.body


@pytest.mark.parametrize("key", ["Bearer sk_test_1", "sk_test_1"])
def test_any_secret_test_key_opens(bench: Bench, key: str) -> None:
    assert bench.api.admit(Request("GET", "/v1/customers", "", key), bench.now_ms) is None


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "nonsense"), ("POST", "balance"), ("GET", ""), ("DELETE", "charges/ch_1")]
)
def test_unknown_addresses_are_404_in_stripes_words(bench: Bench, method: str, path: str) -> None:
    answer = bench.answer(method, path, {})
    assert answer.status == 404
    assert f"Unrecognized request URL ({method}: /v1/{path})".encode() in answer.body


def test_json_bodies_are_refused(bench: Bench) -> None:
    request = Request("POST", "/v1/customers", '{"name": "x"}', "Bearer sk_test_1", json=True)
    assert bench.api.execute(request, bench.now_ms).status == 400


def test_every_answer_has_its_request_id(bench: Bench) -> None:
    answers = [
        bench.answer("POST", "customers", {}),
        bench.answer("GET", "nonsense", {}),
        bench.answer("POST", "transfers", {}),
    ]
    assert len({answer.headers["Request-Id"] for answer in answers}) == 3


def test_a_refused_request_leaves_nothing_behind(bench: Bench) -> None:
    bench.refused("customers", payment_method="pm_none")
    assert bench.read("customers")["data"] == []
    assert bench.types() == []


def test_errors_name_their_documentation(bench: Bench) -> None:
    error = bench.refused("payment_intents", amount=1, currency="usd")
    assert error["doc_url"] == "https://stripe.com/docs/error-codes/amount-too-small"
    assert error["request_log_url"].startswith("https://dashboard.stripe.com/test/logs/req_")
