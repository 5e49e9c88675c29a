"""What the sandbox can do that Stripe's API cannot: faults, accounts, disputes, expiry, and a look at everything.

GET    /sandbox/state?limit=&transfer_group=   latest objects and totals
GET    /sandbox/faults        the open orders
POST   /sandbox/faults        {"match", "kind", "times", "skip", "ms", "code", "saved"}, see `faults`
DELETE /sandbox/faults        forget them
POST   /sandbox/limits        {"per_second": 25, "per_endpoint": 25}; 0 is none
POST   /sandbox/accounts/{id}           {"country", "restricted", "transfers", ...}, see `accounts.put`
POST   /sandbox/accounts/{id}/payouts   {"failed": false}: pay out what is available
POST   /sandbox/balance       {"account": "", "currency": "usd", "amount": 10000}: money in (or out, negative)
POST   /sandbox/disputes      {"charge" | "payment_intent", "amount", "reason"}
POST   /sandbox/disputes/{id} {"status": "won" | "lost"}
POST   /sandbox/payment_intents/{id}/expire        the hold is lost, as after capture_before
POST   /sandbox/payment_intents/{id}/authenticate  {"approved": true}: what the 3DS page's buttons do
POST   /sandbox/refunds/{id}/fail                  the bank sends the refund back

Each is about the main platform account, or about the one whose key is sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway.dev.sandbox import accounts, disputes, faults, intents, refunds
from gateway.dev.sandbox.answers import shown
from gateway.dev.sandbox.api import Api
from gateway.dev.sandbox.limits import Limits
from gateway.dev.sandbox.refusals import Refusal, unrecognized
from gateway.dev.sandbox.store import Doc
from gateway.dev.sandbox.turn import Turn, public

Job = Callable[..., Doc]

# What the summary shows of each kind.
_SHOWN = {
    "payment_intent": (
        "id", "status", "amount", "amount_capturable", "amount_received", "currency", "customer", "latest_charge",
        "transfer_group", "metadata", "created", "canceled_at",
    ),
    "charge": (
        "id", "status", "amount", "amount_captured", "amount_refunded", "captured", "refunded", "disputed", "currency",
        "payment_intent", "balance_transaction", "transfer_group", "created",
    ),
    "transfer": (
        "id", "amount", "amount_reversed", "currency", "destination", "source_transaction", "transfer_group",
        "metadata", "created",
    ),
    "refund": (
        "id", "amount", "currency", "status", "charge", "payment_intent", "balance_transaction", "metadata", "created",
    ),
    "dispute": ("id", "amount", "currency", "status", "reason", "charge", "payment_intent", "created"),
}  # fmt: skip


def handle(api: Api, method: str, path: str, body: Doc, query: dict[str, str], now_ms: int) -> Doc:
    """One private request; raises Refusal."""
    api.handle_due(now_ms)
    if path == "/sandbox/state" and method == "GET":
        return state(api, query, now_ms)
    if path == "/sandbox/faults":
        return _faults(api, method, body)
    if path == "/sandbox/limits" and method == "POST":
        api.limits = Limits(int(body.get("per_second", 0)), int(body.get("per_endpoint", 0)))
        return {"per_second": api.limits.per_second, "per_endpoint": api.limits.per_endpoint}
    for pattern, job in _JOBS:
        match = pattern.match(path)
        if match is not None and method == "POST":
            return _done(api, job, match.groups(), body, now_ms)
    raise unrecognized(method, path)


def _done(api: Api, job: Job, ids: tuple[str, ...], body: Doc, now_ms: int) -> Doc:
    def work(turn: Turn) -> Doc:
        doc = job(turn, body, *ids)
        return shown(turn, doc)

    return api.work(now_ms, work)


def _faults(api: Api, method: str, body: Doc) -> Doc:
    if method == "POST":
        api.faults.faults.append(faults.parse(body))
    elif method == "DELETE":
        api.faults.faults.clear()
    return {"object": "list", "data": [fault.shown() for fault in api.faults.faults]}


def state(api: Api, query: dict[str, str], now_ms: int) -> Doc:
    """The newest `limit` of each kind, and totals over all of them by currency (minor units)."""
    limit = int(query.get("limit", "100"))
    where = {"transfer_group": query["transfer_group"]} if "transfer_group" in query else {}
    summary: Doc = {"object": "sandbox_state"}
    for kind, fields in _SHOWN.items():
        filters = where if "transfer_group" in fields else {}
        found = api.store.find(kind, where=dict(filters), limit=limit)
        summary[f"{kind}s"] = [{name: doc.get(name) for name in fields} for doc in found]
    accounts_ = api.store.find("account", limit=limit)
    summary["accounts"] = [_account(api, doc, now_ms) for doc in accounts_]
    summary["totals"] = api.store.totals()
    summary["events"] = {"total": api.store.count("event"), "undelivered": api.store.undelivered()}
    summary["faults"] = [fault.shown() for fault in api.faults.faults]
    return summary


def _account(api: Api, doc: Doc, now_ms: int) -> Doc:
    balance = {
        currency: {"available": both[0], "pending": both[1]}
        for currency, both in api.store.balance(doc["id"], now_ms // 1_000).items()
    }
    kept = {name: doc[name] for name in ("id", "country", "default_currency", "capabilities", "payouts_enabled")}
    return {**kept, "balance": balance}


def _put_account(turn: Turn, body: Doc, ident: str) -> Doc:
    return accounts.put(turn, ident, body)


def _pay_out(turn: Turn, body: Doc, ident: str) -> Doc:
    return accounts.pay_out(turn, ident, failed=bool(body.get("failed")))


def _move_balance(turn: Turn, body: Doc) -> Doc:
    account, currency = str(body.get("account", "")), str(body.get("currency", "usd"))
    return turn.move("topup", "sandbox", int(body["amount"]), currency, account=account, target=currency)


def _open_dispute(turn: Turn, body: Doc) -> Doc:
    if "payment_intent" in body:
        charge = turn.get("charge", turn.get("payment_intent", body["payment_intent"])["latest_charge"])
    else:
        charge = turn.get("charge", str(body.get("charge")))
    return disputes.start(turn, charge, body.get("amount"), str(body.get("reason", "fraudulent")))


def _decide_dispute(turn: Turn, body: Doc, ident: str) -> Doc:
    if body.get("status") not in ("won", "lost"):
        raise Refusal("status must be won or lost", param="status")
    return disputes.decide(turn, ident, body["status"])


def _expire(turn: Turn, _body: Doc, ident: str) -> Doc:
    intents.expire_due(turn, ident)
    return public(turn.get("payment_intent", ident))


def _authenticate(turn: Turn, body: Doc, ident: str) -> Doc:
    return intents.authenticate(turn, ident, approved=bool(body.get("approved", True)))


def _fail_refund(turn: Turn, _body: Doc, ident: str) -> Doc:
    refund = turn.get("refund", ident)
    refunds.fail(turn, refund)
    return refund


def _path(path: str) -> re.Pattern[str]:
    return re.compile("/sandbox/" + path.replace("{id}", "([^/]+)") + r"\Z")


_JOBS: tuple[tuple[re.Pattern[str], Job], ...] = (
    (_path("accounts/{id}"), _put_account),
    (_path("accounts/{id}/payouts"), _pay_out),
    (_path("balance"), _move_balance),
    (_path("disputes"), _open_dispute),
    (_path("disputes/{id}"), _decide_dispute),
    (_path("payment_intents/{id}/expire"), _expire),
    (_path("payment_intents/{id}/authenticate"), _authenticate),
    (_path("refunds/{id}/fail"), _fail_refund),
)
