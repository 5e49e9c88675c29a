"""Connected accounts, their balance, payout schedule and payouts."""

from __future__ import annotations

import pytest

from gateway.dev.sandbox import accounts
from gateway.dev.sandbox.refusals import Refusal
from tests.dev.sandbox.conftest import Bench


def test_the_demo_accounts(bench: Bench) -> None:
    fine, stuck = bench.read("accounts/acct_demo"), bench.read("accounts/acct_demo_restricted")
    assert (fine["country"], fine["capabilities"]["transfers"]) == ("US", "active")
    assert fine["charges_enabled"]
    assert fine["payouts_enabled"]
    assert stuck["capabilities"]["transfers"] == "inactive"
    assert not stuck["payouts_enabled"]
    assert stuck["requirements"]["disabled_reason"] == "requirements.past_due"
    assert stuck["requirements"]["currently_due"]
    assert bench.read("accounts/acct_demo_ambassador")["charges_enabled"]
    assert {each["id"] for each in bench.read("accounts")["data"]} >= {"acct_demo", "acct_demo_restricted"}


def test_foreign_accounts_are_403_in_path_and_header(bench: Bench) -> None:
    for status, body in (bench.get("accounts/acct_none"), bench.get("balance", _account="acct_none")):
        assert (status, body["error"]["code"]) == (403, "account_invalid")


def test_a_change_of_an_account_is_told_as_its_own_event(bench: Bench) -> None:
    bench.api.work(bench.now_ms, lambda turn: accounts.put(turn, "acct_demo", {"restricted": True}))
    event = bench.api.store.find("event", account="acct_demo")[0]
    assert (event["type"], event["account"]) == ("account.updated", "acct_demo")
    assert event["data"]["object"]["capabilities"]["transfers"] == "inactive"


def test_a_created_account_can_do_nothing_yet(bench: Bench) -> None:
    made = bench.ok("accounts", type="express", country="DE", capabilities={"transfers": {"requested": True}})
    assert (made["capabilities"], made["charges_enabled"], made["default_currency"]) == (
        {"transfers": "inactive"},
        False,
        "eur",
    )
    bench.api.work(bench.now_ms, lambda turn: accounts.put(turn, made["id"], {"restricted": False}))
    assert bench.read(f"accounts/{made['id']}")["payouts_enabled"]


def test_a_weekly_schedule_needs_its_days(bench: Bench) -> None:
    """docs.stripe.com/connect/manage-payout-schedule"""
    path = {"_account": "acct_demo"}
    weekly = {"payouts": {"schedule": {"interval": "weekly"}}}
    assert bench.post("balance_settings", **path, payments=weekly)[0] == 400
    weekly["payouts"]["schedule"]["weekly_payout_days"] = ["friday"]  # type: ignore[assignment]
    status, body = bench.post("balance_settings", **path, payments=weekly)
    assert status == 200
    assert body["payments"]["payouts"]["schedule"]["weekly_payout_days"] == ["friday"]
    kept = bench.read("balance_settings", _account="acct_demo")
    assert kept["payments"]["payouts"]["schedule"]["interval"] == "weekly"
    assert (
        bench.read("balance_settings", _account="acct_demo_ambassador")["payments"]["payouts"]["schedule"]["interval"]
        == "daily"
    )


def test_the_older_way_to_a_weekly_schedule(bench: Bench) -> None:
    schedule = {"interval": "weekly", "weekly_anchor": "friday"}
    changed = bench.ok("accounts/acct_demo", settings={"payouts": {"schedule": schedule}})
    assert changed["settings"]["payouts"]["schedule"]["weekly_anchor"] == "friday"


@pytest.mark.parametrize("failed", [False, True])
def test_payouts_take_what_is_available(bench: Bench, failed: bool) -> None:
    charge = bench.paid()
    bench.ok("transfers", amount=8_100, currency="usd", destination="acct_demo", source_transaction=charge["id"])
    with pytest.raises(Refusal):
        bench.api.work(bench.now_ms, lambda turn: accounts.pay_out(turn, "acct_demo"))
    bench.pass_seconds(2 * 86_400)
    assert bench.read("balance", _account="acct_demo")["available"][0]["amount"] == 8_100
    payout = bench.api.work(bench.now_ms, lambda turn: accounts.pay_out(turn, "acct_demo", failed=failed))
    assert payout["status"] == ("failed" if failed else "paid")
    listed = bench.read("payouts", _account="acct_demo")["data"]
    assert [each["id"] for each in listed] == [payout["id"]]
    assert bench.read("payouts")["data"] == []
    assert bench.read("balance", _account="acct_demo")["available"][0]["amount"] == (8_100 if failed else 0)
    assert bench.types()[-1] == f"payout.{payout['status']}"
