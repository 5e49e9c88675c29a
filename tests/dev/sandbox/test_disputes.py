"""Disputes take the money at once and give it back when won (docs.stripe.com/disputes)."""

from __future__ import annotations

import pytest

from gateway.dev.sandbox import disputes
from tests.dev.sandbox.conftest import Bench


def opened(bench: Bench) -> tuple[str, str]:
    charge = bench.paid(9_000)
    dispute = bench.api.work(bench.now_ms, lambda turn: disputes.start(turn, turn.get("charge", charge["id"])))
    return charge["id"], dispute["id"]


@pytest.mark.parametrize("verdict", ["won", "lost"])
def test_a_dispute_from_opening_to_verdict(bench: Bench, verdict: str) -> None:
    charge, dispute = opened(bench)
    assert bench.read(f"charges/{charge}")["disputed"]
    assert bench.refused("refunds", charge=charge)["code"] == "charge_disputed"
    closed = bench.api.work(bench.now_ms, lambda turn: disputes.decide(turn, dispute, verdict))
    assert closed["status"] == verdict
    moved = [each["amount"] for each in closed["balance_transactions"]]
    assert moved == ([-9_000, 9_000] if verdict == "won" else [-9_000])
    assert bench.types()[-1] == "charge.dispute.closed"
    assert ("charge.dispute.funds_reinstated" in bench.types()) == (verdict == "won")


def test_the_card_that_is_disputed_as_it_pays(bench: Bench) -> None:
    charge = bench.paid(method="pm_card_createDispute")
    found = bench.read("disputes", charge=charge["id"])["data"]
    assert [(each["status"], each["reason"]) for each in found] == [("needs_response", "fraudulent")]
    assert bench.types()[-2:] == ["charge.dispute.created", "charge.dispute.funds_withdrawn"]


@pytest.mark.parametrize(
    ("text", "status"), [("winning_evidence", "won"), ("losing_evidence", "lost"), ("hm", "under_review")]
)
def test_test_evidence_decides(bench: Bench, text: str, status: str) -> None:
    """docs.stripe.com/testing#evidence"""
    _charge, dispute = opened(bench)
    assert bench.ok(f"disputes/{dispute}", evidence={"uncategorized_text": text})["status"] == status


def test_closing_accepts_the_loss_and_is_final(bench: Bench) -> None:
    _charge, dispute = opened(bench)
    assert bench.ok(f"disputes/{dispute}/close")["status"] == "lost"
    bench.refused(f"disputes/{dispute}/close")
