"""Idempotency keys as Stripe keeps them (docs.stripe.com/api/idempotent_requests)."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dev.sandbox.api import Request
from gateway.dev.sandbox.faults import Fault
from tests.dev.sandbox.conftest import CARD, Bench

HOLD: dict[str, Any] = {
    "amount": 9_000, "currency": "usd", "confirm": True, "capture_method": "manual", "payment_method": "pm_card_visa",
    "allowed_payment_method_types": CARD,
}  # fmt: skip


def test_the_first_answer_comes_again_and_nothing_happens_twice(bench: Bench) -> None:
    first = bench.answer("POST", "payment_intents", HOLD, key="k")
    again = bench.answer("POST", "payment_intents", HOLD, key="k")
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Original-Request"] == first.headers["Request-Id"] != again.headers["Request-Id"]
    assert len(bench.read("payment_intents")["data"]) == 1


def test_a_replay_shows_the_past_not_the_present(bench: Bench) -> None:
    _status, first = bench.post("payment_intents", _key="k", **HOLD)
    bench.ok(f"payment_intents/{first['id']}/capture")
    assert bench.post("payment_intents", _key="k", **HOLD)[1]["status"] == "requires_capture"


def test_other_parameters_under_the_same_key_are_an_error(bench: Bench) -> None:
    bench.post("payment_intents", _key="k", **HOLD)
    status, body = bench.post("payment_intents", _key="k", **{**HOLD, "amount": 9_001})
    assert (status, body["error"]["type"]) == (400, "idempotency_error")
    assert "same parameters" in body["error"]["message"]


def test_another_endpoint_under_the_same_key_is_an_error(bench: Bench) -> None:
    bench.post("customers", _key="k")
    status, body = bench.post("payment_intents", _key="k", **HOLD)
    assert (status, body["error"]["type"]) == (400, "idempotency_error")
    assert "same endpoint" in body["error"]["message"]


def test_declines_and_refusals_by_state_are_kept(bench: Bench) -> None:
    declined = {**HOLD, "payment_method": "pm_card_chargeDeclined"}
    assert bench.post("payment_intents", _key="k", **declined) == bench.post("payment_intents", _key="k", **declined)
    held = bench.hold()
    path = f"payment_intents/{held['id']}"
    assert bench.post(f"{path}/capture", _key="c", amount_to_capture=99_999)[0] == 400
    bench.ok(f"{path}/capture")
    assert bench.post(f"{path}/capture", _key="c", amount_to_capture=99_999)[1]["error"]["code"] == "amount_too_large"


def test_failed_validation_is_not_kept(bench: Bench) -> None:
    assert bench.post("payment_intents", _key="k", amount="x", currency="usd")[0] == 400
    assert bench.post("payment_intents", _key="k", **HOLD)[0] == 200


def test_a_500_is_kept_and_told_not_to_be_retried(bench: Bench) -> None:
    failed = bench.answer("POST", "payment_intents", HOLD, key="k", fault=Fault("", "500"))
    again = bench.answer("POST", "payment_intents", HOLD, key="k")
    assert (failed.status, again.status) == (500, 500)
    assert failed.headers["stripe-should-retry"] == again.headers["stripe-should-retry"] == "false"
    assert bench.read("payment_intents")["data"] == []


def test_a_500_after_the_commit_hides_a_real_payment(bench: Bench) -> None:
    assert bench.answer("POST", "payment_intents", HOLD, key="k", fault=Fault("", "500_after_commit")).status == 500
    assert bench.answer("POST", "payment_intents", HOLD, key="k").status == 500
    assert [each["status"] for each in bench.read("payment_intents")["data"]] == ["requires_capture"]


@pytest.mark.parametrize("kind", ["409", "429"])
def test_conflicts_and_limits_are_not_kept(bench: Bench, kind: str) -> None:
    assert bench.answer("POST", "payment_intents", HOLD, key="k", fault=Fault("", kind)).status == int(kind)
    assert bench.answer("POST", "payment_intents", HOLD, key="k").status == 200


def test_a_key_under_way_is_a_conflict_until_its_request_ends(bench: Bench) -> None:
    request = Request("POST", "/v1/customers", "", "Bearer sk_test_x", key="k")
    assert bench.api.admit(request, bench.now_ms) is None
    conflict = bench.api.admit(request, bench.now_ms)
    assert conflict is not None
    assert (conflict.status, b"idempotency_key_in_use" in conflict.body) == (409, True)
    bench.api.abandon(request)
    assert bench.api.admit(request, bench.now_ms) is None


def test_keys_belong_to_one_account_and_only_to_posts(bench: Bench) -> None:
    bench.post("customers", _key="k")
    assert bench.post("customers", _key="k", _account="acct_demo", name="other")[0] == 200
    assert bench.answer("GET", "customers", {}, key="k").headers.get("Idempotent-Replayed") is None


def test_after_a_day_the_key_makes_a_new_request(bench: Bench) -> None:
    _status, first = bench.post("payment_intents", _key="k", **HOLD)
    bench.pass_seconds(86_399)
    assert bench.post("payment_intents", _key="k", **HOLD)[1]["id"] == first["id"]
    bench.pass_seconds(1)
    assert bench.post("payment_intents", _key="k", **HOLD)[1]["id"] != first["id"]


def test_keys_have_a_length(bench: Bench) -> None:
    assert bench.post("customers", _key="k" * 256)[0] == 400
    assert bench.post("customers", _key="k" * 255)[0] == 200
