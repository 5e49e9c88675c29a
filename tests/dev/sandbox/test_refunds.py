"""Refunds never exceed what was captured (docs.stripe.com/api/refunds/create)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.dev.sandbox.conftest import Bench


def test_parts_then_the_rest_then_nothing_more(bench: Bench) -> None:
    charge = bench.paid(9_000)
    part = bench.ok("refunds", payment_intent=charge["payment_intent"], amount=2_000, metadata={"step": "refund"})
    assert (part["status"], part["charge"], part["metadata"]) == ("succeeded", charge["id"], {"step": "refund"})
    error = bench.refused("refunds", charge=charge["id"], amount=7_001)
    assert error["message"] == "Refund amount ($70.01) is greater than unrefunded amount on charge ($70.00)"
    assert bench.ok("refunds", charge=charge["id"])["amount"] == 7_000
    assert bench.refused("refunds", charge=charge["id"])["code"] == "charge_already_refunded"
    after = bench.read(f"charges/{charge['id']}")
    assert (after["refunded"], after["amount_refunded"]) == (True, 9_000)
    assert [doc["amount"] for doc in bench.read("refunds", payment_intent=charge["payment_intent"])["data"]] == [
        7_000,
        2_000,
    ]
    assert bench.types()[-2:] == ["refund.created", "charge.refunded"]


def test_more_than_the_charge(bench: Bench) -> None:
    charge = bench.paid(9_000)
    error = bench.refused("refunds", charge=charge["id"], amount=9_001)
    assert error["message"] == "Refund amount ($90.01) is greater than charge amount ($90.00)"


def test_of_a_partial_capture_only_the_captured_part_can_come_back(bench: Bench) -> None:
    held = bench.hold(25_500)
    bench.ok(f"payment_intents/{held['id']}/capture", amount_to_capture=9_000)
    bench.refused("refunds", payment_intent=held["id"], amount=9_001)
    assert bench.ok("refunds", payment_intent=held["id"])["amount"] == 9_000
    assert bench.read(f"charges/{held['latest_charge']}")["refunded"]


def test_nothing_captured_nothing_to_refund(bench: Bench) -> None:
    held = bench.hold()
    assert "does not have a successful charge" in bench.refused("refunds", payment_intent=held["id"])["message"]
    assert "does not have a successful charge" in bench.refused("refunds", charge=held["latest_charge"])["message"]
    fresh = bench.ok("payment_intents", amount=900, currency="usd")
    bench.refused("refunds", payment_intent=fresh["id"])


def test_one_of_charge_and_intent_is_needed(bench: Bench) -> None:
    charge = bench.paid()
    bench.refused("refunds")
    bench.refused("refunds", charge=charge["id"], payment_intent=charge["payment_intent"])


def test_a_pending_refund_succeeds_later(bench: Bench) -> None:
    charge = bench.paid(method="pm_card_pendingRefund")
    refund = bench.ok("refunds", charge=charge["id"])
    assert refund["status"] == "pending"
    bench.pass_seconds(5)
    assert bench.read(f"refunds/{refund['id']}")["status"] == "succeeded"
    assert bench.types()[-1] == "refund.updated"


def test_a_refund_that_fails_gives_the_money_back_to_us(bench: Bench) -> None:
    charge = bench.paid(method="pm_card_refundFail")
    before = bench.read("balance")
    refund = bench.ok("refunds", charge=charge["id"])
    bench.pass_seconds(5)
    failed = bench.read(f"refunds/{refund['id']}")
    assert (failed["status"], failed["failure_balance_transaction"][:4]) == ("failed", "txn_")
    assert bench.read("balance") == before
    assert bench.read(f"charges/{charge['id']}")["amount_refunded"] == 0
    assert bench.types()[-1] == "refund.failed"


@settings(max_examples=30, deadline=None)
@given(st.integers(50, 5_000), st.lists(st.integers(1, 3_000), max_size=8))
def test_no_series_of_refunds_returns_more_than_was_captured(captured: int, asked: list[int]) -> None:
    bench = Bench()
    charge = bench.paid(captured)
    for amount in asked:
        bench.post("refunds", charge=charge["id"], amount=amount)
    returned = sum(refund["amount"] for refund in bench.read("refunds", limit=100)["data"])
    after = bench.read(f"charges/{charge['id']}")
    assert after["amount_refunded"] == returned <= captured
    assert after["refunded"] == (returned == captured)
    bench.api.store.close()
