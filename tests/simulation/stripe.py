"""A model of one Stripe account as the bridge sees it: intents, charges, transfers, idempotency keys, events.

It also is the auditor: whatever is asked of it that must never be asked (a capture above the hold, a key used again
with other parameters, a second try without a question between) goes into `breaches`, whatever Stripe itself would do.
`test_stripe` holds its answers against the development sandbox, which in turn has a contract with Stripe.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from gateway.billing_bridge.outcome import Busy, Declined, Done, Outcome, Refused, Unknown
from tests.simulation.world import Task, World, io

KEPT_MS = 86_400_000  # how long Stripe keeps a key
CLIENT_TIMEOUT_MS = 30_000
OPEN = ("requires_payment_method", "requires_capture", "requires_action", "processing")
LIVE = ("requires_capture", "requires_action")
Doc = dict[str, Any]


class StripeAccount:
    """`cards` says what a payment method does; `rate_milli` converts to the settlement currency."""

    def __init__(self, world: World, *, minimum: int = 50) -> None:
        self.world, self.minimum = world, minimum
        self.settlement, self.rate_milli = "usd", 1000
        self.cards: dict[str, str] = {}
        self.restricted: set[str] = set()
        self.short_of_balance = 0
        self.hold_ms = 7 * 86_400_000
        self.balance_late_ms = 0
        self.intents: dict[str, Doc] = {}
        self.transfers: list[Doc] = []
        self.refunds: list[Doc] = []
        self.reversals: list[Doc] = []
        self.disputes: list[Doc] = []
        self.empty: set[str] = set()
        self.keys: dict[str, tuple[str, Mapping[str, Any], Outcome, int]] = {}
        self.first_seen: dict[str, int] = {}
        self.unknown: dict[str, str] = {}
        self.breaches: list[str] = []
        self.captures = 0
        self.events: list[Doc] = []
        self.deliver: Any = None
        self.meddled = False
        self.by_hand = 0  # what was refunded in the dashboard
        self.locked = (0, 0)  # from when, until when our API key is not taken

    # --- requests

    def execute(self, operation: str, params: Mapping[str, Any], key: str | None) -> Outcome:
        """What Stripe does with a request that has arrived."""
        if self.locked[0] <= self.world.now < self.locked[1]:
            self.unknown.pop(key or "", None)  # surely not done, and nothing is kept of it
            return Refused("authentication")
        if key is None:
            if operation.endswith((".create", ".capture", ".cancel")):
                self.breaches.append(f"law 5: {operation} without an idempotency key")
            else:
                self._asked(operation, params)
            return self._do(operation, params)
        now = self.world.now
        known = self.keys.get(key)
        if known is not None and now - known[3] < KEPT_MS:
            if known[0] != operation or known[1] != params:
                self.breaches.append(f"law 5: key {key} used again with other parameters")
                return Refused("idempotency_error")
            if isinstance(known[2], Refused | Declined):
                self.unknown.pop(key, None)
            return Unknown("http_500", spent=True) if isinstance(known[2], Unknown) else known[2]
        if known is not None and isinstance(known[2], Done):
            self.breaches.append(f"law 5: {operation} posted again after its key was forgotten")
        outcome = self._do(operation, params)
        if isinstance(outcome, Refused | Declined):
            self.unknown.pop(key, None)  # surely not done
        self.keys[key] = (operation, params, outcome, now)
        return outcome

    def sent(self, operation: str, params: Mapping[str, Any], key: str | None) -> None:
        """A request leaves us: may it be made at all, after what came before?"""
        if key is None:
            return
        if operation == "payment_intents.create":
            if self.world.now - self.first_seen.setdefault(key, self.world.now) > KEPT_MS:
                self.breaches.append("law 5: a hold posted again after a day")
            return
        if key in self.unknown and "store_slow" not in self.world.faults.happened_total:
            # (A bridge whose write came after its claim had run out cannot know what the other did meanwhile.)
            self.breaches.append(f"law 5: {operation} tried again without asking what became of it")
        self.unknown[key] = str(params.get("payment_intent") or params.get("transfer") or params.get("transfer_group"))

    def _asked(self, operation: str, params: Mapping[str, Any]) -> None:
        if not self.unknown:
            return
        about = params.get("payment_intent") or params.get("transfer") or params.get("transfer_group")
        self.unknown = {key: thing for key, thing in self.unknown.items() if thing != about}

    def keep_failure(self, operation: str, params: Mapping[str, Any], key: str | None) -> None:
        if key is not None and key not in self.keys:
            self.keys[key] = (operation, params, Unknown("http_500"), self.world.now)

    def overwrite_with_failure(self, key: str | None) -> None:
        if key is not None and key in self.keys:
            operation, params, _, at = self.keys[key]
            self.keys[key] = (operation, params, Unknown("http_500"), at)

    def _do(self, operation: str, params: Mapping[str, Any]) -> Outcome:
        outcome: Outcome = getattr(self, "_" + operation.replace(".", "_"))(params)
        live = [i for i in self.intents.values() if i["status"] in LIVE]
        if len(live) > 1:
            self.breaches.append("law 5: two holds live at once")
        return outcome

    def _payment_methods_retrieve(self, p: Mapping[str, Any]) -> Outcome:
        card = {"brand": "visa", "last4": "4242", "country": "US"}
        return Done({"id": p["payment_method"], "object": "payment_method", "card": card})

    def _payment_intents_create(self, p: Mapping[str, Any]) -> Outcome:
        ident = f"pi_{len(self.intents) + 1}"
        if p["amount"] <= 0:
            self.breaches.append("law 5: a charge of nothing was asked for")
            return Refused("parameter_invalid_integer")
        intent: Doc = {
            "id": ident, "object": "payment_intent", "amount": p["amount"], "amount_received": 0,
            "amount_capturable": 0, "currency": p["currency"], "metadata": p["metadata"],
            "client_secret": f"{ident}_secret", "latest_charge": None, "next_action": None, "status": "new",
            "transfer_group": p["transfer_group"], "created": self.world.now // 1000, "card": p["payment_method"],
            "customer": p.get("customer"), "automatic": p["capture_method"] == "automatic",
        }  # fmt: skip
        behaviour, _, next_time = self.cards.get(p["payment_method"], "ok").partition(">")
        if behaviour == "refused":
            return Refused("resource_missing")
        self.intents[ident] = intent
        self._confirm(intent, behaviour, next_time)
        if behaviour == "declined":
            return Declined("card_declined", "insufficient_funds", "Your card was declined.", ident)
        return Done(dict(intent))

    def _confirm(self, intent: Doc, behaviour: str, next_time: str = "") -> None:
        """The card is asked; `next_time` is how it behaves when its client tries again by the same intent."""
        wait = self.world.now + self.world.rng.randrange(2_000, 30_000)
        if behaviour == "declined":
            self._declined(intent, "card_declined", next_time)
        elif behaviour == "processing":
            intent["status"] = "processing"
            self.world.at(wait, self._processed, intent["id"])
        elif behaviour.startswith("3ds"):
            url = "https://bank.test/?" + intent["client_secret"]
            intent |= {"status": "requires_action", "next_action": {"redirect_to_url": {"url": url}}}
            self._tell("payment_intent.requires_action", intent)
            if behaviour != "3ds_abandoned":
                self.world.at(wait, self.authenticate, intent["id"], behaviour == "3ds_ok", next_time)
        elif intent["automatic"]:
            self._charge(intent, self.hold_ms)
            self._take(intent, intent["amount"])
        else:
            self._hold(intent)

    def _processed(self, ident: str) -> None:
        """The card's network has answered at last."""
        if self.intents[ident]["status"] == "processing":
            self._confirm(self.intents[ident], "ok")

    def _declined(self, intent: Doc, code: str, next_time: str) -> None:
        intent |= {"status": "requires_payment_method", "last_payment_error": {"code": code}, "next_action": None}
        self._tell("payment_intent.payment_failed", intent)
        if next_time:
            wait = self.world.rng.choice((self.world.rng.randrange(1, 30), self.world.rng.randrange(500, 40_000)))
            self.world.at(self.world.now + wait, self._try_again, intent["id"], next_time)

    def _try_again(self, ident: str, behaviour: str) -> None:
        """The client still has the page open, and confirms once more."""
        intent = self.intents[ident]
        if intent["status"] == "requires_payment_method":
            self._confirm(intent, behaviour)

    def authenticate(self, ident: str, approved: bool, next_time: str = "") -> None:
        """The client has been at the bank."""
        intent = self.intents[ident]
        if intent["status"] != "requires_action":
            return
        if approved:
            self._confirm(intent, "ok")
        else:
            self._declined(intent, "payment_intent_authentication_failure", next_time)

    def _hold(self, intent: Doc) -> None:
        intent |= {"status": "requires_capture", "amount_capturable": intent["amount"]}
        self._charge(intent, self.hold_ms)
        self.world.at(self.world.now + self.hold_ms + 2_000, self.let_go, intent["id"])
        self._tell("payment_intent.amount_capturable_updated", intent)

    def _charge(self, intent: Doc, hold_ms: int) -> None:
        before = (self.world.now + hold_ms) // 1000
        card = {"brand": "visa", "last4": "4242", "country": "US", "capture_before": before}
        intent["next_action"] = None
        intent["latest_charge"] = {"id": intent["id"].replace("pi", "ch"), "payment_method_details": {"card": card}}

    def let_go(self, ident: str) -> None:
        """The hold expires, or the bank takes it back."""
        intent = self.intents[ident]
        if intent["status"] == "requires_capture":
            intent |= {"status": "canceled", "amount_capturable": 0}
            self._tell("payment_intent.canceled", intent)

    def meddle(self, what: str) -> None:
        """Somebody works in Stripe's dashboard."""
        for intent in self.intents.values():
            if intent["status"] == "requires_capture":
                if what == "capture":
                    self.meddled = True
                    self._take(intent, intent["amount"])
                else:
                    self.let_go(intent["id"])
                return

    # --- the bank, afterwards

    @property
    def taken(self) -> Doc | None:
        return next((intent for intent in self.intents.values() if intent["status"] == "succeeded"), None)

    def dispute(self, status: str, percent: int) -> None:
        """The cardholder's case begins, or is decided."""
        intent = self.taken
        if intent is None or (not self.disputes and status != "needs_response"):
            return
        if not self.disputes:
            amount = max(1, intent["amount_received"] * percent // 100)
            case = {"id": "du_1", "object": "dispute", "created": self.world.now // 1000, "reason": "fraudulent"}
            self.disputes.append({**case, "amount": amount, "payment_intent": intent["id"]})
        self.disputes[0]["status"] = status
        if status == "lost":
            self.disputes[0]["taken"] = min(self.disputes[0]["amount"], intent["amount_received"] - self.refunded())
        kind = "created" if status == "needs_response" else "closed"
        self._tell(f"charge.dispute.{kind}", self.disputes[0])

    @property
    def open_case(self) -> bool:
        return any(case["status"] == "needs_response" for case in self.disputes)

    def lost(self) -> int:
        """What a lost case took of the charge."""
        return sum(case.get("taken", 0) for case in self.disputes)

    def refunded(self) -> int:
        return sum(refund["amount"] for refund in self.refunds if refund["status"] != "failed")

    def refund_by_hand(self, percent: int) -> None:
        """Somebody makes a refund in Stripe's dashboard, which Stripe takes like any other."""
        intent = self.taken
        left = intent["amount_received"] - self.refunded() if intent else 0
        if intent is None or not left or self.disputes:
            return
        amount = min(left, max(1, intent["amount_received"] * percent // 100))
        self.by_hand += amount
        wanted = {"amount": amount, "payment_intent": intent["id"], "metadata": {}}
        self.refunds.append(self._made("refund", f"re_{len(self.refunds) + 1}", wanted) | {"status": "succeeded"})
        self._tell("refund.created", self.refunds[-1])

    def _made(self, kind: str, ident: str, params: Mapping[str, Any]) -> Doc:
        return {"id": ident, "object": kind, "created": self.world.now // 1000, **params}

    def return_refund(self) -> None:
        """The bank could not give the latest refund to its client."""
        if self.refunds and not self.disputes:
            if not self.refunds[-1]["metadata"]:
                self.by_hand -= self.refunds[-1]["amount"]
            self.refunds[-1] |= {"status": "failed", "failure_reason": "expired_or_canceled_card"}
            self._tell("refund.failed", self.refunds[-1])

    def enable(self, account: str) -> None:
        """The account may receive again."""
        if account in self.restricted:
            self.restricted.discard(account)
            self._tell("account.updated", {"id": account, "object": "account", "capabilities": {"transfers": "active"}})

    def _payment_intents_retrieve(self, p: Mapping[str, Any]) -> Outcome:
        intent = self.intents.get(p["payment_intent"])
        if intent is None:
            return Refused("resource_missing")
        self._settle(intent)
        return Done(dict(intent))

    def _payment_intents_list(self, p: Mapping[str, Any]) -> Outcome:
        since, to = p["created"]["gte"], p["created"].get("lte", inf)
        found = [dict(i) for i in self.intents.values() if since <= i["created"] <= to]
        for intent in found:
            self._asked("list", {"payment_intent": intent["id"]})
        return Done({"object": "list", "data": found})

    def _payment_intents_cancel(self, p: Mapping[str, Any]) -> Outcome:
        intent = self.intents.get(p["payment_intent"])
        if intent is None:
            return Refused("resource_missing")
        if intent["status"] not in OPEN:
            if intent["status"] == "succeeded" and not self.meddled and not intent["automatic"]:
                self.breaches.append("law 5: released after capture")
            return Refused("payment_intent_unexpected_state")
        intent |= {"status": "canceled", "amount_capturable": 0}
        self._tell("payment_intent.canceled", intent)
        return Done(dict(intent))

    def _payment_intents_capture(self, p: Mapping[str, Any]) -> Outcome:
        intent = self.intents.get(p["payment_intent"])
        if intent is None:
            return Refused("resource_missing")
        amount = p["amount_to_capture"]
        if amount > intent["amount"]:
            self.breaches.append("law 5: a capture above the hold was asked for")
            return Refused("amount_too_large")
        if intent["status"] != "requires_capture":
            if intent["status"] == "succeeded" and not self.meddled:
                self.breaches.append("law 5: a second capture was asked for")
            return Refused("payment_intent_unexpected_state")
        if amount * self.rate_milli // 1000 < self.minimum:
            return Refused("amount_too_small")
        self._take(intent, amount)
        return Done(dict(intent))

    def _take(self, intent: Doc, amount: int) -> None:
        self.captures += 1
        intent |= {"status": "succeeded", "amount_received": amount, "amount_capturable": 0,
                   "settles_at": self.world.now + self.balance_late_ms}  # fmt: skip
        self._settle(intent)
        self._tell("payment_intent.succeeded", intent)

    def _settle(self, intent: Doc) -> None:
        if intent["status"] != "succeeded" or self.world.now < intent["settles_at"]:
            return
        charge = intent["latest_charge"]
        if "balance_transaction" not in charge:
            amount = intent["amount_received"] * self.rate_milli // 1000
            rate = None if self.rate_milli == 1000 else self.rate_milli / 1000
            balance = {"currency": self.settlement, "amount": amount, "fee": 59, "exchange_rate": rate}
            intent["latest_charge"] = {**charge, "balance_transaction": balance}

    def _transfers_create(self, p: Mapping[str, Any]) -> Outcome:
        if "source_transaction" not in p:
            return self._out_of_the_balance(p)
        source = next(
            (i for i in self.intents.values() if (i["latest_charge"] or {}).get("id") == p["source_transaction"]), None
        )
        if source is None or source["status"] != "succeeded":
            self.breaches.append("law 5: a transfer before its capture was asked for")
            return Refused("resource_missing")
        if p["destination"] in self.restricted:
            return Refused("insufficient_capabilities_for_transfer")
        if self.short_of_balance:
            self.short_of_balance -= 1
            return Refused("balance_insufficient")
        balance = source["latest_charge"].get("balance_transaction")
        used = sum(transfer["amount"] for transfer in self.transfers if "source_transaction" in transfer)
        if balance is None or p["currency"] != balance["currency"] or used + p["amount"] > balance["amount"]:
            self.breaches.append("law 6: a transfer beyond its charge, or in another currency")
            return Refused("transfer_invalid")
        transfer = self._made("transfer", f"tr_{len(self.transfers) + 1}", p) | {"amount_reversed": 0}
        self.transfers.append(transfer)
        return Done(dict(transfer))

    def _out_of_the_balance(self, p: Mapping[str, Any]) -> Outcome:
        """What was reversed for a refund that the bank returned."""
        if p["destination"] in self.restricted:
            return Refused("insufficient_capabilities_for_transfer")
        if not any(refund["status"] == "failed" for refund in self.refunds):
            self.breaches.append("law 6: given once more, and no refund was returned")
        transfer = self._made("transfer", f"tr_{len(self.transfers) + 1}", p) | {"amount_reversed": 0}
        self.transfers.append(transfer)
        return Done(dict(transfer))

    def _transfers_list(self, p: Mapping[str, Any]) -> Outcome:
        group = p.get("transfer_group")  # without one: all, as the sweep asks
        found = [dict(t) for t in self.transfers if group in (None, t["transfer_group"])]
        return Done({"object": "list", "data": found})

    def _refunds_create(self, p: Mapping[str, Any]) -> Outcome:
        intent = self.intents[p["payment_intent"]]
        if any(case["status"] in ("needs_response", "lost") for case in self.disputes):
            return Refused("charge_disputed")
        if self.refunded() + p["amount"] > intent["amount_received"]:
            if not self.by_hand:
                self.breaches.append("law 5: a refund above what was captured was asked for")
            return Refused("charge_already_refunded")
        refund = self._made("refund", f"re_{len(self.refunds) + 1}", p) | {"status": "succeeded"}
        self.refunds.append(refund)
        return Done(dict(refund))

    def _refunds_list(self, p: Mapping[str, Any]) -> Outcome:
        return Done({"object": "list", "data": [dict(r) for r in self.refunds]})

    def _transfers_reversals_create(self, p: Mapping[str, Any]) -> Outcome:
        transfer = next((t for t in self.transfers if t["id"] == p["transfer"]), None)
        if transfer is None:
            return Refused("resource_missing")
        if transfer["amount_reversed"] + p["amount"] > transfer["amount"]:
            self.breaches.append("law 6: a reversal beyond its transfer was asked for")
            return Refused("invalid_request")
        if transfer["destination"] in self.empty:
            return Refused("balance_insufficient")
        transfer["amount_reversed"] += p["amount"]
        reversal = {"id": f"trr_{len(self.reversals) + 1}", "object": "transfer_reversal", **p}
        self.reversals.append(reversal)
        return Done(dict(reversal))

    def _transfers_reversals_list(self, p: Mapping[str, Any]) -> Outcome:
        return Done({"object": "list", "data": [dict(r) for r in self.reversals if r["transfer"] == p["transfer"]]})

    def _disputes_list(self, p: Mapping[str, Any]) -> Outcome:
        return Done({"object": "list", "data": [dict(case) for case in self.disputes]})

    def _tell(self, kind: str, intent: Doc) -> None:
        event = {"id": f"evt_s{len(self.events) + 1}", "type": kind, "data": {"object": dict(intent)}}
        self.events.append(event)
        if self.deliver is not None:
            self.deliver(event)


class Asked:
    """One request on its way: what it does when it arrives, and how it can go wrong."""

    __slots__ = ("account", "key", "operation", "params")

    def __init__(self, account: StripeAccount, operation: str, params: Mapping[str, Any], key: str | None) -> None:
        self.account, self.operation, self.params, self.key = account, operation, params, key
        account.sent(operation, params, key)

    def __call__(self) -> Outcome:
        return self.account.execute(self.operation, self.params, self.key)

    def faulty(self, world: World, task: Task, fault: str, lag: int) -> None:
        now = world.now
        if fault in ("stripe_429", "stripe_unreachable"):
            self.account.unknown.pop(self.key or "", None)
        if fault == "stripe_429":
            return world.at(now + lag, world.resume, task, Busy("rate_limit", world.rng.choice((0, 1000))))
        if fault == "stripe_unreachable":
            return world.at(now + lag, world.resume, task, Busy("unreachable"))
        if fault == "stripe_409" and self.key is not None:
            # Another request with this key is under way: one of ours, so it does get done.
            world.at(now + lag, world._arrive, task, self, 0, False)
            return world.at(now + lag, world.resume, task, Busy("in_flight", in_flight=True))
        if fault == "stripe_timeout_after_commit":
            world.at(now + lag, world._arrive, task, self, 0, False)
        elif fault == "stripe_late":
            world.at(now + CLIENT_TIMEOUT_MS + world.rng.randrange(120_000), world._arrive, task, self, 0, False)
        elif fault == "stripe_500_kept":
            self.account.keep_failure(self.operation, self.params, self.key)
        elif fault == "stripe_500_after_commit":
            self.account.execute(self.operation, self.params, self.key)
            self.account.overwrite_with_failure(self.key)
        wait = CLIENT_TIMEOUT_MS if "timeout" in fault or fault == "stripe_late" else lag
        return world.at(now + wait, world.resume, task, Unknown("TimeoutError" if wait > lag else "http_500"))


class StripeWire:
    """Takes the place of `stripe_client.StripeClient`."""

    def __init__(self, account: StripeAccount) -> None:
        self._account = account

    async def send(self, operation: str, params: Mapping[str, Any], key: str | None = None) -> Outcome:
        outcome: Outcome = await io("stripe", Asked(self._account, operation, params, key))
        return outcome
