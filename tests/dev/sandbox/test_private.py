"""The sandbox's own routes, and the summary that the demo page and tests read."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dev.sandbox import private
from gateway.dev.sandbox.refusals import Refusal
from tests.dev.sandbox.conftest import Bench


def ask(bench: Bench, path: str, method: str = "POST", query: dict[str, str] | None = None, **body: Any) -> Any:
    return private.handle(bench.api, method, f"/sandbox/{path}", body, query or {}, bench.now_ms)


def state(bench: Bench, **query: str) -> Any:
    return ask(bench, "state", "GET", query)


def test_the_summary_adds_up_by_currency(bench: Bench) -> None:
    bench.hold(25_500)
    charge = bench.paid(9_000, transfer_group="ses_1")
    bench.paid(5_000, "eur")
    bench.ok("refunds", charge=charge["id"], amount=1_000)
    transfer = bench.ok(
        "transfers", amount=8_100, currency="usd", destination="acct_demo", source_transaction=charge["id"]
    )
    bench.ok(f"transfers/{transfer['id']}/reversals", amount=100)
    totals = state(bench)["totals"]
    fees = 291 + (157 + 30)
    assert totals["usd"] == {
        "held": 25_500, "captured": 9_000, "refunded": 1_000, "transferred": 8_100, "reversed": 100, "fees": fees,
    }  # fmt: skip
    assert totals["eur"]["captured"] == 5_000


def test_the_summary_can_be_narrowed_to_one_session(bench: Bench) -> None:
    charge = bench.paid(transfer_group="ses_1")
    bench.paid(transfer_group="ses_2")
    seen = state(bench, transfer_group="ses_1")
    assert [each["id"] for each in seen["payment_intents"]] == [charge["payment_intent"]]
    assert len(state(bench, limit="1")["charges"]) == 1


def test_faults_are_ordered_listed_and_forgotten(bench: Bench) -> None:
    ask(bench, "faults", match="POST /v1/transfers", kind="429", times=2)
    assert [each["kind"] for each in ask(bench, "faults", "GET")["data"]] == ["429"]
    assert state(bench)["faults"][0]["times"] == 2
    assert ask(bench, "faults", "DELETE")["data"] == []


def test_accounts_in_any_country_and_condition(bench: Bench) -> None:
    made = ask(bench, "accounts/acct_fr", country="FR")
    assert (made["default_currency"], made["capabilities"]["transfers"]) == ("eur", "active")
    assert ask(bench, "accounts/acct_fr", transfers="inactive")["capabilities"]["transfers"] == "inactive"


def test_money_in_and_out_of_any_balance(bench: Bench) -> None:
    ask(bench, "balance", amount=10_000)
    assert bench.ok("transfers", amount=10_000, currency="usd", destination="acct_demo")["amount"] == 10_000
    ask(bench, "balance", account="acct_demo", amount=-10_000)
    with pytest.raises(Refusal):
        ask(bench, "accounts/acct_demo/payouts")


def test_disputes_expiry_and_failed_refunds_on_order(bench: Bench) -> None:
    charge = bench.paid()
    dispute = ask(bench, "disputes", payment_intent=charge["payment_intent"], amount=100)
    assert ask(bench, f"disputes/{dispute['id']}", status="won")["status"] == "won"
    refund = bench.ok("refunds", charge=charge["id"])
    assert ask(bench, f"refunds/{refund['id']}/fail")["status"] == "failed"
    held = bench.hold()
    assert ask(bench, f"payment_intents/{held['id']}/expire")["cancellation_reason"] == "expired"
    asked = bench.hold(method="pm_card_threeDSecure2Required")
    assert ask(bench, f"payment_intents/{asked['id']}/authenticate", approved=True)["status"] == "requires_capture"


def test_limits_on_order(bench: Bench) -> None:
    ask(bench, "limits", per_second=1)
    assert [bench.get("customers")[0] for _ in range(2)] == [200, 429]
    ask(bench, "limits")
    assert bench.get("customers")[0] == 200


@pytest.mark.parametrize("path", ["nonsense", "disputes/du_1/x"])
def test_unknown_private_routes(bench: Bench, path: str) -> None:
    with pytest.raises(Refusal):
        ask(bench, path)
