"""Orders for faults: which request or event they meet, and how often."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dev.sandbox import faults
from gateway.dev.sandbox.refusals import Refusal

CAPTURE = "POST /v1/payment_intents/*/capture"


def book(**order: Any) -> faults.FaultBook:
    return faults.FaultBook([faults.parse({"match": CAPTURE, "kind": "500", **order})])


def test_an_order_meets_its_requests_and_is_used_up() -> None:
    orders = book(times=2, skip=1)
    subject = "POST /v1/payment_intents/pi_1/capture"
    assert orders.take("POST /v1/payment_intents/pi_1/cancel") is None
    met = [orders.take(subject) is not None for _ in range(5)]
    assert met == [False, True, True, False, False]
    assert orders.faults == []


@pytest.mark.parametrize("kind", sorted(faults.REQUEST_KINDS))
def test_every_kind_of_request_fault_can_be_ordered(kind: str) -> None:
    assert faults.parse({"match": CAPTURE, "kind": kind}).times == 1


@pytest.mark.parametrize(
    "order",
    [
        {"match": CAPTURE, "kind": "explode"},
        {"match": CAPTURE, "kind": "duplicate"},
        {"match": "event charge.captured", "kind": "500"},
        {"match": "everything", "kind": "500"},
        {"match": CAPTURE, "kind": "500", "often": 3},
        {},
    ],
)
def test_orders_that_make_no_sense_are_refused(order: dict[str, Any]) -> None:
    with pytest.raises(Refusal):
        faults.parse(order)


@pytest.mark.parametrize(
    ("order", "status", "code"),
    [
        ({"kind": "409"}, 409, "idempotency_key_in_use"),
        ({"kind": "429"}, 429, "rate_limit"),
        ({"kind": "429", "code": "lock_timeout"}, 429, "lock_timeout"),
        ({"kind": "500"}, 500, None),
    ],
)
def test_they_answer_as_stripe_does(order: dict[str, Any], status: int, code: str | None) -> None:
    refusal = faults.refusal(faults.parse({"match": CAPTURE, **order}))
    assert (refusal.status, refusal.stripe_code) == (status, code)
