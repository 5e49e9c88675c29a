"""The states of a PaymentIntent, and what each refuses (docs.stripe.com/payments/paymentintents/lifecycle)."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dev.sandbox import intents
from gateway.dev.sandbox.cards import CARDS
from tests.dev.sandbox.conftest import CARD, Bench

BASIC: dict[str, Any] = {"amount": 9_000, "currency": "usd", "allowed_payment_method_types": CARD}
DAY = 86_400


def test_the_hold_then_the_capture_of_a_part(bench: Bench) -> None:
    held = bench.hold(25_500, transfer_group="ses_1", metadata={"session": "ses_1"})
    assert (held["status"], held["amount_capturable"], held["amount_received"]) == ("requires_capture", 25_500, 0)
    taken = bench.ok(f"payment_intents/{held['id']}/capture", amount_to_capture=9_000)
    assert (taken["status"], taken["amount_capturable"], taken["amount_received"]) == ("succeeded", 0, 9_000)
    charge = bench.read(f"charges/{taken['latest_charge']}")
    assert (charge["amount"], charge["amount_captured"], charge["amount_refunded"]) == (25_500, 9_000, 0)
    assert charge["captured"]
    assert not charge["refunded"]
    assert (charge["transfer_group"], charge["metadata"]) == ("ses_1", {"session": "ses_1"})
    assert bench.read("refunds")["data"] == []
    assert bench.types() == [
        "payment_intent.created", "charge.succeeded", "payment_intent.amount_capturable_updated", "charge.captured",
        "payment_intent.succeeded",
    ]  # fmt: skip


def test_automatic_capture_takes_the_money_at_once(bench: Bench) -> None:
    intent = bench.ok(
        "payment_intents", **BASIC, confirm=True, payment_method="pm_card_visa", capture_method="automatic"
    )
    assert (intent["status"], intent["amount_received"]) == ("succeeded", 9_000)
    assert bench.read(f"charges/{intent['latest_charge']}")["balance_transaction"].startswith("txn_")


def test_automatic_async_learns_its_balance_transaction_a_moment_later(bench: Bench) -> None:
    intent = bench.ok("payment_intents", **BASIC, confirm=True, payment_method="pm_card_visa")
    assert intent["capture_method"] == "automatic_async"
    assert bench.read(f"charges/{intent['latest_charge']}")["balance_transaction"] is None
    bench.pass_seconds(1)
    assert bench.read(f"charges/{intent['latest_charge']}")["balance_transaction"].startswith("txn_")
    assert bench.types()[-1] == "charge.updated"


def test_confirm_in_a_second_step(bench: Bench) -> None:
    intent = bench.ok("payment_intents", **BASIC, capture_method="manual")
    assert intent["status"] == "requires_payment_method"
    error = bench.refused(f"payment_intents/{intent['id']}/confirm")
    assert error["code"] == "payment_intent_unexpected_state"
    assert (
        bench.ok(f"payment_intents/{intent['id']}/confirm", payment_method="pm_card_visa")["status"]
        == "requires_capture"
    )
    assert bench.refused(f"payment_intents/{intent['id']}/confirm")["code"] == "payment_intent_unexpected_state"


def test_an_update_with_a_card_waits_for_its_confirmation(bench: Bench) -> None:
    intent = bench.ok("payment_intents", **BASIC)
    changed = bench.ok(
        f"payment_intents/{intent['id']}", payment_method="pm_card_visa", amount=9_100, metadata={"a": "1"}
    )
    assert (changed["status"], changed["amount"], changed["metadata"]) == ("requires_confirmation", 9_100, {"a": "1"})
    assert bench.ok(f"payment_intents/{intent['id']}/confirm")["amount_received"] == 9_100
    error = bench.refused(f"payment_intents/{intent['id']}", amount=9_200)
    assert error["code"] == "payment_intent_unexpected_state"
    assert bench.ok(f"payment_intents/{intent['id']}", metadata={"a": "", "b": "2"})["metadata"] == {"b": "2"}


def test_impossible_captures_are_refused(bench: Bench) -> None:
    held = bench.hold()
    path = f"payment_intents/{held['id']}/capture"
    error = bench.refused(path, amount_to_capture=25_501)
    assert (error["code"], error["param"]) == ("amount_too_large", "amount_to_capture")
    assert bench.refused(path, amount_to_capture=0)["code"] == "parameter_invalid_integer"
    assert bench.refused(path, amount_to_capture=49)["code"] == "amount_too_small"
    bench.ok(path, amount_to_capture=50)
    again = bench.refused(path)
    assert again["code"] == "payment_intent_unexpected_state"
    assert "already been captured" in again["message"]


def test_capture_after_cancel_is_refused(bench: Bench) -> None:
    held = bench.hold()
    gone = bench.ok(f"payment_intents/{held['id']}/cancel", cancellation_reason="abandoned")
    assert (gone["status"], gone["cancellation_reason"], gone["amount_capturable"]) == ("canceled", "abandoned", 0)
    assert bench.refused(f"payment_intents/{held['id']}/capture")["code"] == "payment_intent_unexpected_state"
    assert bench.refused(f"payment_intents/{held['id']}/cancel")["code"] == "payment_intent_unexpected_state"
    assert bench.refused(f"payment_intents/{held['id']}/confirm")["code"] == "payment_intent_unexpected_state"
    charge = bench.read(f"charges/{held['latest_charge']}")
    assert (charge["captured"], charge["refunded"], charge["amount_refunded"]) == (False, False, 0)
    assert bench.types()[-1] == "payment_intent.canceled"


def test_cancel_after_capture_is_refused_and_names_the_states(bench: Bench) -> None:
    intent = bench.paid()["payment_intent"]
    error = bench.refused(f"payment_intents/{intent}/cancel")
    assert error["payment_intent"]["status"] == "succeeded"
    assert all(state in error["message"] for state in intents.CANCELABLE)


@pytest.mark.parametrize(
    ("method", "off_session", "seconds"),
    [
        ("pm_card_visa", False, 7 * DAY),
        ("pm_card_visa", True, 4 * DAY + 18 * 3_600),
        ("pm_card_mastercard", True, 7 * DAY),
    ],
)
def test_a_hold_is_lost_at_its_capture_before(bench: Bench, method: str, off_session: bool, seconds: int) -> None:
    customer = bench.ok("customers")["id"]
    held = bench.hold(method=method, customer=customer, **({"off_session": True} if off_session else {}))
    charge = bench.read(f"charges/{held['latest_charge']}")
    assert charge["payment_method_details"]["card"]["capture_before"] == held["created"] + seconds
    bench.pass_seconds(seconds - 1)
    assert bench.read(f"payment_intents/{held['id']}")["status"] == "requires_capture"
    bench.pass_seconds(1)
    gone = bench.read(f"payment_intents/{held['id']}")
    assert (gone["status"], gone["cancellation_reason"]) == ("canceled", "expired")
    assert bench.types()[-2:] == ["charge.expired", "payment_intent.canceled"]


@pytest.mark.parametrize("name", [name for name, card in CARDS.items() if card.outcome and not card.challenge])
def test_every_declining_card_leaves_a_failed_charge_and_says_why(bench: Bench, name: str) -> None:
    code, decline_code, message = CARDS[name].outcome or ("", "", "")
    error = bench.refused("payment_intents", 402, **BASIC, confirm=True, payment_method=name)
    assert (error["type"], error["code"], error.get("decline_code"), error["message"]) == (
        "card_error", code, decline_code, message,
    )  # fmt: skip
    intent = bench.read(f"payment_intents/{error['payment_intent']['id']}")
    assert (intent["status"], intent["payment_method"]) == ("requires_payment_method", None)
    assert intent["last_payment_error"]["code"] == code
    charge = bench.read(f"charges/{error['charge']}")
    assert (charge["status"], charge["paid"], charge["failure_code"]) == ("failed", False, code)
    assert bench.types()[-2:] == ["charge.failed", "payment_intent.payment_failed"]


def test_another_card_after_a_decline(bench: Bench) -> None:
    error = bench.refused("payment_intents", 402, **BASIC, confirm=True, payment_method="pm_card_chargeDeclined")
    ident = error["payment_intent"]["id"]
    paid = bench.ok(f"payment_intents/{ident}/confirm", payment_method="pm_card_visa")
    assert (paid["status"], paid["last_payment_error"]) == ("succeeded", None)


@pytest.mark.parametrize("name", ["pm_card_authenticationRequired", "pm_card_threeDSecure2Required"])
def test_3ds_asks_by_redirect_when_it_knows_the_way_back(bench: Bench, name: str) -> None:
    asked = bench.hold(method=name, return_url="https://example.com/back")
    assert asked["status"] == "requires_action"
    action = asked["next_action"]
    assert action["type"] == "redirect_to_url"
    assert action["redirect_to_url"]["return_url"] == "https://example.com/back"
    assert asked["latest_charge"] is None
    assert bench.types()[-1] == "payment_intent.requires_action"
    by_sdk = bench.hold(method=name)
    assert by_sdk["next_action"]["type"] == "use_stripe_sdk"
    assert (
        bench.hold(method=name, return_url="https://example.com", use_stripe_sdk=True)["next_action"]["type"]
        == "use_stripe_sdk"
    )


def test_3ds_approved_goes_on_to_the_hold(bench: Bench) -> None:
    asked = bench.hold(method="pm_card_threeDSecure2Required")
    bench.api.work(bench.now_ms, lambda turn: intents.authenticate(turn, asked["id"], approved=True))
    held = bench.read(f"payment_intents/{asked['id']}", expand=["latest_charge"])
    assert (held["status"], held["next_action"]) == ("requires_capture", None)
    assert held["latest_charge"]["payment_method_details"]["card"]["three_d_secure"]["result"] == "authenticated"


def test_3ds_failed_needs_another_card(bench: Bench) -> None:
    asked = bench.hold(method="pm_card_threeDSecure2Required")
    bench.api.work(bench.now_ms, lambda turn: intents.authenticate(turn, asked["id"], approved=False))
    failed = bench.read(f"payment_intents/{asked['id']}")
    assert failed["status"] == "requires_payment_method"
    assert failed["last_payment_error"]["code"] == "payment_intent_authentication_failure"
    bench.api.work(bench.now_ms, lambda turn: intents.authenticate(turn, asked["id"], approved=True))
    assert bench.read(f"payment_intents/{asked['id']}")["status"] == "requires_payment_method"


def test_3ds_approved_can_still_be_declined(bench: Bench) -> None:
    asked = bench.hold(method="pm_card_authenticationRequiredChargeDeclinedInsufficientFunds")
    bench.api.work(bench.now_ms, lambda turn: intents.authenticate(turn, asked["id"], approved=True))
    failed = bench.read(f"payment_intents/{asked['id']}")
    assert failed["last_payment_error"]["decline_code"] == "insufficient_funds"


@pytest.mark.parametrize("extra", [{"off_session": True}, {"error_on_requires_action": True}])
def test_3ds_without_the_client_is_a_decline(bench: Bench, extra: dict[str, bool]) -> None:
    customer = bench.ok("customers")["id"]
    error = bench.refused(
        "payment_intents",
        402,
        **BASIC,
        confirm=True,
        customer=customer,
        payment_method="pm_card_authenticationRequired",
        **extra,
    )
    assert (error["code"], error["decline_code"]) == ("authentication_required", "authentication_required")
    assert bench.read(f"payment_intents/{error['payment_intent']['id']}")["status"] == "requires_payment_method"


def test_a_card_set_up_once_needs_no_second_approval(bench: Bench) -> None:
    customer = bench.ok("customers")["id"]
    asked = bench.hold(
        method="pm_card_authenticationRequiredOnSetup", customer=customer, setup_future_usage="off_session"
    )
    assert asked["status"] == "requires_action"
    bench.api.work(bench.now_ms, lambda turn: intents.authenticate(turn, asked["id"], approved=True))
    kept = bench.read(f"customers/{customer}/payment_methods")["data"][0]
    again = bench.hold(method=kept["id"], customer=customer, off_session=True)
    assert again["status"] == "requires_capture"


@pytest.mark.parametrize(
    ("currency", "amount", "enough"), [("usd", 49, 50), ("gbp", 38, 40), ("eur", 45, 47), ("cad", 67, 69)]
)
def test_the_minimum_is_that_of_the_settlement_currency(bench: Bench, currency: str, amount: int, enough: int) -> None:
    error = bench.refused("payment_intents", amount=amount, currency=currency)
    assert error["code"] == "amount_too_small"
    bench.ok("payment_intents", amount=enough, currency=currency)


def test_amounts_and_currencies_out_of_range(bench: Bench) -> None:
    assert bench.refused("payment_intents", amount=0, currency="usd")["code"] == "parameter_invalid_integer"
    assert bench.refused("payment_intents", amount=100_000_000, currency="usd")["code"] == "amount_too_large"
    assert bench.refused("payment_intents", amount=100, currency="zzz")["param"] == "currency"


def test_dashboard_methods_need_a_way_back(bench: Bench) -> None:
    """docs.stripe.com/upgrades/manage-payment-methods"""
    basic = {"amount": 9_000, "currency": "usd", "confirm": True, "payment_method": "pm_card_visa"}
    assert "return_url" in bench.refused("payment_intents", **basic)["message"]
    bench.ok("payment_intents", **basic, return_url="https://example.com")
    bench.ok("payment_intents", **basic, automatic_payment_methods={"enabled": True, "allow_redirects": "never"})


def test_what_only_a_confirmation_takes(bench: Bench) -> None:
    for name, value in (("return_url", "https://example.com"), ("off_session", True)):
        assert bench.refused("payment_intents", **BASIC, **{name: value})["param"] == name


def test_choosers_exclude_each_other(bench: Bench) -> None:
    bench.refused("payment_intents", **BASIC, automatic_payment_methods={"enabled": True})


@pytest.mark.parametrize("suffix", ["x" * 23, "<EXPERT>", "1234", 'A "B"'])
def test_statement_descriptor_suffixes_are_checked(bench: Bench, suffix: str) -> None:
    assert (
        bench.refused("payment_intents", **BASIC, statement_descriptor_suffix=suffix)["param"]
        == "statement_descriptor_suffix"
    )
    bench.ok("payment_intents", **BASIC, statement_descriptor_suffix="EXPERT NAME")


def test_what_is_not_modelled_is_refused_aloud(bench: Bench) -> None:
    error = bench.refused("payment_intents", **BASIC, application_fee_amount=100)
    assert (error["code"], error["param"]) == ("sandbox_not_modelled", "application_fee_amount")


def test_the_brand_and_country_of_the_card_are_on_the_charge(bench: Bench) -> None:
    held = bench.hold(method="pm_card_amex")
    card = bench.read(f"charges/{held['latest_charge']}")["payment_method_details"]["card"]
    assert (card["brand"], card["last4"], card["country"]) == ("amex", "0005", "US")


def test_the_list_is_by_customer_and_time_in_pages(bench: Bench) -> None:
    customer = bench.ok("customers")["id"]
    mine = []
    for _ in range(5):
        mine.append(bench.ok("payment_intents", **BASIC, customer=customer)["id"])
        bench.ok("payment_intents", **BASIC)
        bench.now_ms += 1_000
    first = bench.read("payment_intents", customer=customer, limit=2)
    assert ([doc["id"] for doc in first["data"]], first["has_more"]) == (mine[:2:-1], True)
    rest = bench.read("payment_intents", customer=customer, limit=10, starting_after=mine[3])
    assert ([doc["id"] for doc in rest["data"]], rest["has_more"]) == (mine[2::-1], False)
    since = bench.read("payment_intents", customer=customer, created={"gte": bench.now_ms // 1_000 - 2})
    assert [doc["id"] for doc in since["data"]] == mine[:2:-1]
    back = bench.read("payment_intents", customer=customer, limit=2, ending_before=mine[1])
    assert ([doc["id"] for doc in back["data"]], back["has_more"]) == ([mine[3], mine[2]], True)
