"""The settlement of a charge: exchange, fee, net, and when it is available."""

from __future__ import annotations

from gateway.dev.sandbox.turn import Terms
from tests.dev.sandbox.conftest import START_MS, Bench


def test_the_fee_is_2_9_percent_and_30_cents(bench: Bench) -> None:
    settled = bench.read(f"balance_transactions/{bench.paid(9_000)['balance_transaction']}")
    assert (settled["amount"], settled["fee"], settled["net"]) == (9_000, 291, 8_709)
    assert settled["fee_details"][0]["amount"] == 291
    assert (settled["type"], settled["reporting_category"], settled["status"]) == ("charge", "charge", "pending")
    assert settled["available_on"] == START_MS // 1_000 + 2 * 86_400


def test_foreign_charges_are_exchanged_first(bench: Bench) -> None:
    settled = bench.read(f"balance_transactions/{bench.paid(10_000, 'eur')['balance_transaction']}")
    assert (settled["currency"], settled["amount"], settled["exchange_rate"]) == ("usd", 10_850, 1.085)
    assert settled["fee"] == 315 + 30


def test_it_becomes_available_after_two_days(bench: Bench) -> None:
    ident = bench.paid(9_000)["balance_transaction"]
    bench.pass_seconds(2 * 86_400)
    assert bench.read(f"balance_transactions/{ident}")["status"] == "available"
    assert bench.read("balance")["available"] == [{"amount": 8_709, "currency": "usd", "source_types": {"card": 8_709}}]


def test_fees_follow_the_terms() -> None:
    bench = Bench(Terms(fee_bps=150, fee_fixed=25))
    assert bench.read(f"balance_transactions/{bench.paid(10_000)['balance_transaction']}")["fee"] == 175
    bench.api.store.close()


def test_the_descriptor_on_the_statement(bench: Bench) -> None:
    held = bench.hold(statement_descriptor_suffix="EXPERT")
    assert bench.read(f"charges/{held['latest_charge']}")["calculated_statement_descriptor"] == "PARLEY* EXPERT"


def test_metadata_of_a_charge_is_its_own(bench: Bench) -> None:
    charge = bench.paid(metadata={"a": "1"})
    assert bench.ok(f"charges/{charge['id']}", metadata={"b": "2"})["metadata"] == {"a": "1", "b": "2"}
    assert bench.read(f"payment_intents/{charge['payment_intent']}")["metadata"] == {"a": "1"}
