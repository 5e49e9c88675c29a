"""Answers have the fields and types of the SDK's own classes; expansion and pages work as documented."""

from __future__ import annotations

import sys
import typing
from typing import Any

import pytest
import stripe
import typing_extensions

from tests.dev.sandbox.conftest import Bench

_SCALARS = {int: int, str: str, bool: bool, float: (int, float)}


class Names(dict[str, Any]):
    """What an annotation may name: the class's own, its module's, and what `stripe` loads when asked."""

    def __missing__(self, name: str) -> Any:
        try:
            return getattr(stripe, name)
        except AttributeError:
            raise KeyError(name) from None


def problems(value: Any, hint: Any, where: str) -> list[str]:
    """What of `value` does not fit the annotation of an SDK class."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Union:
        found = [problems(value, each, where) for each in arguments]
        return [] if [] in found else found[0]
    if hint is type(None):
        return [] if value is None else [f"{where}: {value!r} is not null"]
    if origin in (typing.Literal, typing_extensions.Literal):
        return [] if value in arguments else [f"{where}: {value!r} is not one of {arguments}"]
    if origin is list:
        if not isinstance(value, list):
            return [f"{where}: not a list"]
        return [each for place, item in enumerate(value) for each in problems(item, arguments[0], f"{where}[{place}]")]
    if isinstance(hint, type) and issubclass(hint, stripe.StripeObject):
        return of_class(value, hint, where)
    if hint in _SCALARS:
        fits = isinstance(value, _SCALARS[hint]) and (hint is bool or not isinstance(value, bool))
        return [] if fits else [f"{where}: {value!r} is not {hint.__name__}"]
    return []


def of_class(value: Any, cls: Any, where: str) -> list[str]:
    """Fields that may not be missing are there, and every field known to the class has its type."""
    if not isinstance(value, dict):
        return [f"{where}: not an object"]
    names = Names({**vars(sys.modules[cls.__module__]), **vars(cls)})
    found = []
    for name, raw in cls.__annotations__.items():
        hint = _evaluated(raw, names)
        if name not in value:
            optional = hint is None or type(None) in typing.get_args(hint) or typing.get_origin(hint) is typing.ClassVar
            found += [] if optional else [f"{where}.{name}: missing"]
        elif hint is not None and typing.get_origin(hint) is not typing.ClassVar:
            found += problems(value[name], hint, f"{where}.{name}")
    return found


def _evaluated(raw: Any, names: Names) -> Any:
    """The annotation, or None where it names something that the SDK does not export."""
    holder = type("Holder", (), {"__annotations__": {"x": raw}})
    try:
        return typing.get_type_hints(holder, globalns=vars(typing), localns=names)["x"]
    except NameError:
        return None


def made(bench: Bench) -> dict[str, dict[str, Any]]:
    """One of everything, as the API gives it."""
    customer = bench.ok("customers", email="client@example.com")
    charge = bench.paid(customer=customer["id"], setup_future_usage="off_session")
    intent = bench.read(f"payment_intents/{charge['payment_intent']}")
    transfer = bench.ok(
        "transfers", amount=100, currency="usd", destination="acct_demo", source_transaction=charge["id"]
    )
    reversal = bench.ok(f"transfers/{transfer['id']}/reversals", amount=10)
    bench.ok("transfers", amount=100, currency="usd", destination="acct_demo", source_transaction=charge["id"])
    refund = bench.ok("refunds", charge=charge["id"], amount=100)
    bench.paid(method="pm_card_createDispute")
    endpoint = bench.ok("webhook_endpoints", url="http://x", enabled_events=["*"])
    return {
        "Customer": customer, "PaymentIntent": intent, "Charge": charge, "Refund": refund, "TransferReversal": reversal,
        "Transfer": bench.read(f"transfers/{transfer['id']}"),
        "PaymentMethod": bench.read(f"payment_methods/{intent['payment_method']}"),
        "BalanceTransaction": bench.read(f"balance_transactions/{charge['balance_transaction']}"),
        "Account": bench.read("accounts/acct_demo_restricted"), "Balance": bench.read("balance"),
        "BalanceSettings": bench.read("balance_settings"), "Dispute": bench.read("disputes")["data"][0],
        "Event": bench.read("events")["data"][0], "WebhookEndpoint": endpoint,
    }  # fmt: skip


NAMES = (
    "Customer", "PaymentIntent", "Charge", "Refund", "TransferReversal", "Transfer", "PaymentMethod",
    "BalanceTransaction", "Account", "Balance", "BalanceSettings", "Dispute", "Event", "WebhookEndpoint",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_answers_fit_the_sdk_class(bench: Bench, name: str) -> None:
    assert of_class(made(bench)[name], getattr(stripe, name), name) == []


def test_intents_that_wait_or_failed_fit_too(bench: Bench) -> None:
    asked = bench.hold(method="pm_card_threeDSecure2Required", return_url="https://example.com")
    assert of_class(asked, stripe.PaymentIntent, "PaymentIntent") == []
    declined: dict[str, Any] = {
        "amount": 900,
        "currency": "usd",
        "confirm": True,
        "payment_method": "pm_card_chargeDeclined",
    }
    bench.refused("payment_intents", 402, allowed_payment_method_types=["card"], **declined)
    assert of_class(bench.read("payment_intents", limit=1)["data"][0], stripe.PaymentIntent, "PaymentIntent") == []
    assert of_class(bench.read("charges", limit=1)["data"][0], stripe.Charge, "Charge") == []


def test_notes_of_the_sandbox_stay_inside(bench: Bench) -> None:
    assert all("_" not in answer for answer in made(bench).values())
    assert all("_" not in each["data"]["object"] for each in bench.read("events", limit=100)["data"])


def test_ids_are_expanded_on_request_and_only_then(bench: Bench) -> None:
    charge = bench.paid()
    path = f"payment_intents/{charge['payment_intent']}"
    assert bench.read(path)["latest_charge"] == charge["id"]
    deep = bench.read(path, expand=["latest_charge.balance_transaction", "payment_method"])
    assert (deep["latest_charge"]["balance_transaction"]["net"], deep["payment_method"]["object"]) == (
        8_709,
        "payment_method",
    )
    listed = bench.read("payment_intents", expand=["data.latest_charge"])
    assert listed["data"][0]["latest_charge"]["id"] == charge["id"]
    source = bench.read(f"balance_transactions/{charge['balance_transaction']}", expand=["source"])["source"]
    assert source["id"] == charge["id"]
    assert bench.read(f"charges/{charge['id']}", expand=["refunds"])["refunds"]["data"] == []


def test_what_cannot_be_expanded_is_refused(bench: Bench) -> None:
    charge = bench.paid()
    for path in (["amount"], ["latest_charge.amount"], ["a.b.c.d.e"]):
        assert bench.get(f"payment_intents/{charge['payment_intent']}", expand=path)[0] == 400


@pytest.mark.parametrize("limit", [0, 101, -1])
def test_limits_lie_between_1_and_100(bench: Bench, limit: int) -> None:
    assert bench.get("charges", limit=limit)[1]["error"]["code"] == "parameter_invalid_integer"


def test_a_cursor_must_exist(bench: Bench) -> None:
    status, body = bench.get("charges", starting_after="ch_none")
    assert (status, body["error"]["param"]) == (400, "starting_after")
