"""Customers and payment methods: who may charge which card."""

from __future__ import annotations

from tests.dev.sandbox.conftest import CARD, Bench


def kept_card(bench: Bench, name: str = "pm_card_visa") -> tuple[str, str]:
    """A customer with one attached card."""
    customer = bench.ok("customers", email="client@example.com")["id"]
    return customer, bench.ok(f"payment_methods/{name}/attach", customer=customer)["id"]


def test_a_test_id_on_a_customer_becomes_a_card_of_its_own(bench: Bench) -> None:
    customer, card = kept_card(bench)
    assert card != "pm_card_visa"
    assert card.startswith("pm_")
    kept = bench.read(f"payment_methods/{card}")
    assert (kept["customer"], kept["card"]["brand"], kept["card"]["last4"]) == (customer, "visa", "4242")
    assert [doc["id"] for doc in bench.read("payment_methods", customer=customer, type="card")["data"]] == [card]
    assert bench.read(f"customers/{customer}/payment_methods/{card}")["id"] == card
    assert bench.types()[-1] == "payment_method.attached"


def test_a_kept_card_needs_its_customer_and_no_other(bench: Bench) -> None:
    customer, card = kept_card(bench)
    stranger = bench.ok("customers")["id"]
    basic = {
        "amount": 900,
        "currency": "usd",
        "confirm": True,
        "allowed_payment_method_types": CARD,
        "payment_method": card,
    }
    assert "must provide the customer" in bench.refused("payment_intents", **basic)["message"]
    assert bench.refused("payment_intents", **basic, customer=stranger)["code"] == "resource_missing"
    assert bench.ok("payment_intents", **basic, customer=customer)["status"] == "succeeded"
    assert bench.ok("payment_intents", **basic, customer=customer)["status"] == "succeeded"


def test_a_loose_card_pays_once(bench: Bench) -> None:
    card = bench.ok("payment_methods", type="card", card={"token": "tok_visa"})["id"]
    bench.hold(method=card)
    basic = {
        "amount": 900,
        "currency": "usd",
        "confirm": True,
        "allowed_payment_method_types": CARD,
        "payment_method": card,
    }
    assert "may not be used again" in bench.refused("payment_intents", **basic)["message"]


def test_setup_future_usage_keeps_the_card(bench: Bench) -> None:
    customer = bench.ok("customers")["id"]
    held = bench.hold(customer=customer, setup_future_usage="off_session")
    assert bench.read(f"payment_methods/{held['payment_method']}")["customer"] == customer
    loose = bench.hold(customer=customer)
    assert bench.read(f"payment_methods/{loose['payment_method']}")["customer"] is None


def test_a_detached_card_is_gone_for_good(bench: Bench) -> None:
    customer, card = kept_card(bench)
    assert bench.ok(f"payment_methods/{card}/detach")["customer"] is None
    bench.refused(f"payment_methods/{card}/attach", customer=customer)
    bench.refused(f"payment_methods/{card}/detach")


def test_deleting_a_customer_takes_the_cards_along(bench: Bench) -> None:
    customer, card = kept_card(bench)
    answer = bench.answer("DELETE", f"customers/{customer}", {})
    assert (answer.status, b'"deleted": true' in answer.body) == (200, True)
    assert bench.get(f"customers/{customer}")[0] == 404
    assert bench.read(f"payment_methods/{card}")["customer"] is None


def test_customers_are_found_and_changed(bench: Bench) -> None:
    first = bench.ok("customers", email="a@example.com", name="A", metadata={"k": "v"})
    bench.ok("customers", email="b@example.com")
    assert [doc["id"] for doc in bench.read("customers", email="a@example.com")["data"]] == [first["id"]]
    changed = bench.ok(f"customers/{first['id']}", name="AA", metadata={"k": ""})
    assert (changed["name"], changed["metadata"]) == ("AA", {})


def test_missing_objects_are_400_as_a_parameter_and_404_in_the_path(bench: Bench) -> None:
    error = bench.refused("payment_intents", amount=900, currency="usd", customer="cus_none")
    assert (error["code"], error["param"]) == ("resource_missing", "customer")
    error = bench.refused("payment_intents", amount=900, currency="usd", payment_method="pm_none")
    assert (error["code"], error["param"]) == ("resource_missing", "payment_method")
    status, body = bench.get("payment_intents/pi_none")
    assert (status, body["error"]["code"], body["error"]["message"]) == (
        404, "resource_missing", "No such payment_intent: 'pi_none'",
    )  # fmt: skip


def test_card_numbers_are_not_taken(bench: Bench) -> None:
    bench.refused(
        "payment_methods", 402, type="card", card={"number": "4242424242424242", "exp_month": 1, "exp_year": 2030}
    )


def test_a_card_that_always_declines_cannot_be_kept_but_0341_can(bench: Bench) -> None:
    customer = bench.ok("customers")["id"]
    assert (
        bench.refused("payment_methods/pm_card_chargeDeclined/attach", 402, customer=customer)["code"]
        == "card_declined"
    )
    card = bench.ok("payment_methods/pm_card_chargeCustomerFail/attach", customer=customer)["id"]
    bench.refused(
        "payment_intents", 402, amount=900, currency="usd", confirm=True, customer=customer, payment_method=card,
        allowed_payment_method_types=CARD,
    )  # fmt: skip
