"""A sandbox without sockets: requests go straight into the API's core, time and ids are the test's own."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import pytest

from gateway.dev.sandbox import accounts
from gateway.dev.sandbox.api import Answer, Api, Request
from gateway.dev.sandbox.faults import Fault
from gateway.dev.sandbox.store import Store
from gateway.dev.sandbox.turn import Terms

START_MS = 1_700_000_000_000
CARD = ["card"]


def flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Stripe's form encoding, as the SDK writes it."""
    if isinstance(value, dict):
        pairs = [(f"{name}[{key}]" if name else key, each) for key, each in value.items()]
        return [leaf for key, each in pairs for leaf in flat(each, key)]
    if isinstance(value, list):
        return [leaf for place, each in enumerate(value) for leaf in flat(each, f"{name}[{place}]")]
    return [(name, str(value).lower() if isinstance(value, bool) else str(value))]


@dataclass
class Bench:
    """`post`/`get` give (status, body); `now_ms` only moves when a test moves it."""

    terms: Terms = field(default_factory=Terms)
    now_ms: int = START_MS
    api: Api = field(init=False)

    def __post_init__(self) -> None:
        numbers = itertools.count(1)
        self.api = Api(Store(None), self.terms, lambda prefix: f"{prefix}_{next(numbers):06d}")
        self.api.work(self.now_ms, lambda turn: accounts.seed(turn) or {})

    def answer(
        self, method: str, path: str, params: dict[str, Any], *, key: str | None = None, account: str = "",
        fault: Fault | None = None,
    ) -> Answer:  # fmt: skip
        form = urlencode(flat(params))
        request = Request(method, f"/v1/{path}", form, "Bearer sk_test_x", account, key)
        return self.api.admit(request, self.now_ms) or self.api.execute(request, self.now_ms, fault)

    def post(self, path: str, _key: str | None = None, _account: str = "", **params: Any) -> tuple[int, Any]:
        answer = self.answer("POST", path, params, key=_key, account=_account)
        return answer.status, json.loads(answer.body)

    def get(self, path: str, _account: str = "", **params: Any) -> tuple[int, Any]:
        answer = self.answer("GET", path, params, account=_account)
        return answer.status, json.loads(answer.body)

    def ok(self, path: str, **params: Any) -> Any:
        status, body = self.post(path, **params)
        assert status == 200, body
        return body

    def read(self, path: str, **params: Any) -> Any:
        status, body = self.get(path, **params)
        assert status == 200, body
        return body

    def refused(self, path: str, status: int = 400, **params: Any) -> Any:
        """The error of a request that must fail with `status`."""
        got, body = self.post(path, **params)
        assert got == status, body
        return body["error"]

    def hold(self, amount: int = 25_500, currency: str = "usd", method: str = "pm_card_visa", **more: Any) -> Any:
        return self.ok(
            "payment_intents", amount=amount, currency=currency, confirm=True, capture_method="manual",
            payment_method=method, allowed_payment_method_types=CARD, **more,
        )  # fmt: skip

    def paid(self, amount: int = 9_000, currency: str = "usd", **more: Any) -> Any:
        """A captured payment: the charge."""
        intent = self.hold(amount, currency, **more)
        self.ok(f"payment_intents/{intent['id']}/capture")
        return self.read(f"charges/{intent['latest_charge']}")

    def types(self) -> list[str]:
        """Types of the events so far, oldest first."""
        return [event["type"] for event in self.api.store.find("event", account=None)][::-1]

    def pass_seconds(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1_000)
        self.api.handle_due(self.now_ms)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.api.store.close()
