"""A model of a Stripe account for tests of the cores: intents, transfers, refunds, disputes, idempotency
keys, faults on order; and of our own account of debts."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from gateway.billing_bridge.calls import Call
from gateway.billing_bridge.outcome import Busy, Declined, Done, Outcome, Refused, Unknown

FAULTS = ("lost_before", "lost_after", "busy", "in_flight", "error_saved", "error_saved_after", "error")
OPEN = ("requires_payment_method", "requires_capture", "requires_action")


@dataclass
class Account:
    """What Stripe would have done. `rate_milli` converts to the settlement currency; keys live for 24 h. `refusing`:
    operations that are refused now, with the code. `outlived_us`: Redis was lost, and an older record came back."""

    settlement: str = "usd"
    rate_milli: int = 1000
    minimum: int = 50
    cards: dict[str, dict[str, Any]] = field(default_factory=dict)
    restricted: frozenset[str] = frozenset()
    balance_late: bool = False
    intents: dict[str, dict[str, Any]] = field(default_factory=dict)
    transfers: list[dict[str, Any]] = field(default_factory=list)
    keys: dict[str, tuple[str, Outcome, int]] = field(default_factory=dict)
    refunds: list[dict[str, Any]] = field(default_factory=list)
    reversals: list[dict[str, Any]] = field(default_factory=list)
    disputes: list[dict[str, Any]] = field(default_factory=list)
    empty: frozenset[str] = frozenset()
    refusing: dict[str, str] = field(default_factory=dict)
    debts: dict[str, int] = field(default_factory=dict)
    noted: dict[str, int] = field(default_factory=dict)
    outlived_us: bool = False
    captures: int = 0
    most_live: int = 0
    now: int = 0

    def send(self, call: Call, fault: str | None = None) -> Outcome:
        if fault == "busy":
            return Busy("rate_limit", 1000)
        if fault == "lost_before":
            return Unknown("TimeoutError")
        if call.operation.startswith("debts."):
            outcome = self._debt(call)
            return Unknown("TimeoutError") if fault else outcome
        if call.key is None:
            return Unknown("http_500") if fault else self._do(call)
        if fault == "in_flight":
            return Busy("in_flight", in_flight=True)
        if fault == "error":
            return Unknown("http_500")
        outcome = self._keyed(call, fault)
        return Unknown("TimeoutError") if fault == "lost_after" else outcome

    def _keyed(self, call: Call, fault: str | None) -> Outcome:
        assert call.key is not None
        known = self.keys.get(call.key)
        if known is not None and self.now - known[2] < 24 * 3_600_000:
            if known[0] != repr((call.operation, call.params)):
                assert self.outlived_us, "a key was used again with other parameters"
                return Refused("idempotency_error")
            return Unknown("http_500", spent=True) if isinstance(known[1], Unknown) else deepcopy(known[1])
        outcome: Outcome = Unknown("http_500") if fault == "error_saved" else self._do(call)
        if fault == "error_saved_after":
            outcome = Unknown("http_500")
        self.keys[call.key] = (repr((call.operation, call.params)), outcome, self.now)
        return deepcopy(outcome)

    def _debt(self, call: Call) -> Outcome:
        """Keys for ever, as in the scripts: the same one changes nothing twice."""
        assert call.key is not None
        account = call.params["account"]
        if call.key not in self.noted:
            owes = call.operation == "debts.owe"
            owed = self.debts.get(account, 0)
            amount = call.params["amount"] if owes else min(owed, call.params["at_most"])
            self.debts[account] = owed + amount if owes else owed - amount
            self.noted[call.key] = amount
        return Done({"object": "debt", "amount": self.noted[call.key]})

    def _do(self, call: Call) -> Outcome:
        if call.operation in self.refusing:
            return Refused(self.refusing[call.operation])
        outcome: Outcome = getattr(self, call.operation.replace(".", "_"))(deepcopy(dict(call.params)))
        self.most_live = max(self.most_live, len(self.live()))
        return deepcopy(outcome)

    def live(self) -> list[dict[str, Any]]:
        return [
            intent for intent in self.intents.values() if intent["status"] in ("requires_capture", "requires_action")
        ]

    def unfinished(self) -> list[dict[str, Any]]:
        """Intents that may still come to hold or take money."""
        return [intent for intent in self.intents.values() if intent["status"] not in ("canceled", "succeeded")]

    def payment_methods_retrieve(self, p: Mapping[str, Any]) -> Outcome:
        card = {"brand": "visa", "last4": "4242", "country": "US"} | self.cards.get(p["payment_method"], {})
        return Done({"id": p["payment_method"], "object": "payment_method", "card": card})

    def payment_intents_create(self, p: Mapping[str, Any]) -> Outcome:
        intent = {
            "id": f"pi_{len(self.intents) + 1}", "object": "payment_intent", "amount": p["amount"],
            "amount_received": 0,
            "amount_capturable": 0, "currency": p["currency"], "metadata": p["metadata"], "client_secret": "secret",
            "latest_charge": None, "next_action": None, "transfer_group": p["transfer_group"],
        }  # fmt: skip
        self.intents[intent["id"]] = intent
        if p["payment_method"] == "pm_declined":
            intent["status"] = "requires_payment_method"
            return Declined("card_declined", "insufficient_funds", "Your card was declined.", intent["id"])
        if p["payment_method"] == "pm_action":
            intent["capture_method"] = p["capture_method"]
            intent |= {"status": "requires_action", "next_action": {"redirect_to_url": {"url": "https://bank.test/"}}}
            return Done(intent)
        return Done(self.authorize(intent) if p["capture_method"] == "manual" else self.take(self.authorize(intent)))

    def take(self, intent: dict[str, Any]) -> dict[str, Any]:
        """Automatic capture."""
        self.captures += 1
        intent |= {"status": "succeeded", "amount_received": intent["amount"], "amount_capturable": 0}
        self._settle(intent)
        return intent

    def authorize(self, intent: dict[str, Any]) -> dict[str, Any]:
        card = {"brand": "visa", "last4": "4242", "country": "US", "capture_before": self.now // 1000 + 7 * 86_400}
        intent |= {"status": "requires_capture", "amount_capturable": intent["amount"], "next_action": None}
        intent["latest_charge"] = {"id": intent["id"].replace("pi", "ch"), "payment_method_details": {"card": card}}
        return intent

    def payment_intents_retrieve(self, p: Mapping[str, Any]) -> Outcome:
        intent = self.intents[p["payment_intent"]]
        if intent["status"] == "succeeded" and self.balance_late:
            self._settle(intent)
        return Done(intent)

    def payment_intents_list(self, p: Mapping[str, Any]) -> Outcome:
        return Done({"object": "list", "data": list(self.intents.values())})

    def payment_intents_cancel(self, p: Mapping[str, Any]) -> Outcome:
        intent = self.intents[p["payment_intent"]]
        if intent["status"] not in OPEN:
            return Refused("payment_intent_unexpected_state")
        intent["status"] = "canceled"
        return Done(intent)

    def payment_intents_capture(self, p: Mapping[str, Any]) -> Outcome:
        intent = self.intents[p["payment_intent"]]
        if intent["status"] != "requires_capture":
            return Refused("payment_intent_unexpected_state")
        if p["amount_to_capture"] < self.minimum:
            return Refused("amount_too_small")
        assert p["amount_to_capture"] <= intent["amount_capturable"], "law 5: captured above the hold"
        self.captures += 1
        intent |= {"status": "succeeded", "amount_received": p["amount_to_capture"], "amount_capturable": 0}
        if not self.balance_late:
            self._settle(intent)
        return Done(intent)

    def _settle(self, intent: dict[str, Any]) -> None:
        amount = intent["amount_received"] * self.rate_milli // 1000
        rate = None if intent["currency"] == self.settlement else self.rate_milli / 1000
        intent["latest_charge"]["balance_transaction"] = {
            "currency": self.settlement, "amount": amount, "fee": 59, "exchange_rate": rate
        }  # fmt: skip

    def transfers_create(self, p: Mapping[str, Any]) -> Outcome:
        if p["destination"] in self.restricted:
            return Refused("insufficient_capabilities_for_transfer")
        if "source_transaction" not in p:
            return self._out_of_the_balance(p)
        source = next(
            i for i in self.intents.values() if (i["latest_charge"] or {}).get("id") == p["source_transaction"]
        )
        balance = source["latest_charge"]["balance_transaction"]
        used = sum(transfer["amount"] for transfer in self.transfers)
        assert p["currency"] == balance["currency"]
        assert used + p["amount"] <= balance["amount"], "transfers beyond the charge"
        transfer = {"id": f"tr_{len(self.transfers) + 1}", "object": "transfer", "amount_reversed": 0, **p}
        self.transfers.append(transfer)
        return Done(transfer)

    def _out_of_the_balance(self, p: Mapping[str, Any]) -> Outcome:
        transfer = {"id": f"tr_{len(self.transfers) + 1}", "object": "transfer", "amount_reversed": 0, **p}
        self.transfers.append(transfer)
        return Done(transfer)

    def return_refund(self) -> None:
        """The bank could not give the latest refund to its client."""
        made = [refund for refund in self.refunds if refund["status"] == "succeeded"]
        if made and not self.disputes:
            made[-1]["status"] = "failed"

    def transfers_list(self, p: Mapping[str, Any]) -> Outcome:
        group = [t for t in self.transfers if t["transfer_group"] == p["transfer_group"]]
        return Done({"object": "list", "data": [t | {"reversals": self._newest(t["id"])} for t in group]})

    def _newest(self, transfer: str) -> dict[str, Any]:
        mine = [reversal for reversal in self.reversals if reversal["transfer"] == transfer]
        return {"object": "list", "data": mine[:-11:-1], "has_more": len(mine) > 10}

    def refunds_create(self, p: Mapping[str, Any]) -> Outcome:
        intent = self.intents[p["payment_intent"]]
        if any(case["status"] in ("needs_response", "lost") for case in self.disputes):
            return Refused("charge_disputed")
        assert self.refunded() + p["amount"] <= intent["amount_received"], "law 5: refunded above what was captured"
        refund = {"id": f"re_{len(self.refunds) + 1}", "object": "refund", "status": "succeeded", **p}
        self.refunds.append(refund)
        return Done(refund)

    def refunded(self) -> int:
        return sum(refund["amount"] for refund in self.refunds if refund["status"] != "failed")

    def refunds_list(self, p: Mapping[str, Any]) -> Outcome:
        return Done({"object": "list", "data": [r for r in self.refunds if r["payment_intent"] == p["payment_intent"]]})

    def transfers_reversals_create(self, p: Mapping[str, Any]) -> Outcome:
        transfer = next(t for t in self.transfers if t["id"] == p["transfer"])
        if transfer["destination"] in self.empty:
            return Refused("balance_insufficient")
        assert transfer["amount_reversed"] + p["amount"] <= transfer["amount"], "reversed beyond the transfer"
        transfer["amount_reversed"] += p["amount"]
        reversal = {"id": f"trr_{len(self.reversals) + 1}", "object": "transfer_reversal", **p}
        self.reversals.append(reversal)
        return Done(reversal)

    def transfers_reversals_list(self, p: Mapping[str, Any]) -> Outcome:
        return Done({"object": "list", "data": [r for r in self.reversals if r["transfer"] == p["transfer"]]})

    def dispute(self, status: str, amount: int | None = None) -> None:
        """Open the cardholder's case, or decide it."""
        if not self.disputes:
            taken = sum(intent["amount_received"] for intent in self.intents.values())
            case = {"id": "du_1", "object": "dispute", "created": 1, "reason": "fraudulent"}
            case["payment_intent"] = next(i["id"] for i in self.intents.values() if i["amount_received"])
            self.disputes.append(case | {"amount": amount or taken})
        self.disputes[0]["status"] = status

    def disputes_list(self, p: Mapping[str, Any]) -> Outcome:
        return Done({"object": "list", "data": list(self.disputes)})

    def net(self, account: str) -> int:
        """What a payee has of our transfers."""
        ours = [t for t in self.transfers if t["destination"] == account]
        return sum(t["amount"] - t["amount_reversed"] for t in ours)
