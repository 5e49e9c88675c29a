"""Connected accounts: what they may receive, their balance, payout schedule and payouts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dev.sandbox.currencies import exchanged
from gateway.dev.sandbox.refusals import Refusal
from gateway.dev.sandbox.store import Doc
from gateway.dev.sandbox.turn import DAY, Turn, merged_metadata

# docs.stripe.com/connect/cross-border-payouts: platforms here pay accounts here, without an agreement with Stripe.
SELF_SERVE = frozenset({
    "US", "GB", "CA", "CH", "AT", "BE", "BG", "HR", "CY", "CZ", "DK", "EE", "FI", "FR", "DE", "GR", "HU", "IS", "IE",
    "IT", "LV", "LI", "LT", "LU", "MT", "NL", "NO", "PL", "PT", "RO", "SK", "SI", "ES", "SE",
})  # fmt: skip

DEFAULT_CURRENCY = {
    "US": "usd",
    "GB": "gbp",
    "CA": "cad",
    "CH": "chf",
    "DK": "dkk",
    "NO": "nok",
    "SE": "sek",
    "AU": "aud",
    "JP": "jpy",
    "BR": "brl",
    "MX": "mxn",
    "SG": "sgd",
}  # fmt: skip  (everywhere else: eur)

Demo = Mapping[str, Mapping[str, Any]]

DEMO: Demo = {
    "acct_demo": {"country": "US", "restricted": False},
    "acct_demo_restricted": {"country": "US", "restricted": True},
    "acct_demo_ambassador": {"country": "US", "restricted": False},
}

_DUE = ["external_account", "tos_acceptance.date", "tos_acceptance.ip"]


def seed(turn: Turn, demo: Demo = DEMO) -> None:
    """Accounts that a platform has from the start; those that exist stay as they are."""
    for ident, traits in demo.items():
        if turn.store.get("account", ident, "") is None:
            put(turn, ident, dict(traits))


def put(turn: Turn, ident: str, change: Doc) -> Doc:
    """Sandbox only: make an account, or change one.

    `country`, `email`, `restricted` (nothing enabled, requirements past due), `transfers`, `card_payments` (capability
    states), `charges_enabled`, `payouts_enabled`, `details_submitted`, `disabled_reason`, `service_agreement`,
    `default_currency`, `metadata`.
    """
    account = turn.store.get("account", ident, "")
    fresh = account is None
    if account is None:
        account = _new(turn, ident, str(change.get("country", "US")), change.get("email"))
    if "restricted" in change:
        _restrict(account, bool(change["restricted"]))
    for name in ("transfers", "card_payments"):
        if name in change:
            account["capabilities"][name] = change[name]
    for name in ("charges_enabled", "payouts_enabled", "details_submitted", "default_currency", "email", "metadata"):
        if name in change:
            account[name] = change[name]
    if "disabled_reason" in change:
        account["requirements"]["disabled_reason"] = change["disabled_reason"]
    if "service_agreement" in change:
        account["tos_acceptance"]["service_agreement"] = change["service_agreement"]
    turn.put(account, "")
    if not fresh:
        turn.emit("account.updated", account, account=ident)
    return account


def _new(turn: Turn, ident: str, country: str, email: str | None) -> Doc:
    return {
        "id": ident, "object": "account", "business_profile": {"mcc": None, "name": None, "url": None},
        "business_type": "individual", "capabilities": {"card_payments": "active", "transfers": "active"},
        "charges_enabled": True,
        "controller": {
            "fees": {"payer": "application"}, "is_controller": True, "losses": {"payments": "application"},
            "requirement_collection": "stripe", "stripe_dashboard": {"type": "express"}, "type": "application",
        },
        "country": country, "created": turn.now, "default_currency": DEFAULT_CURRENCY.get(country, "eur"),
        "details_submitted": True, "email": email,
        "external_accounts": {
            "object": "list", "data": [], "has_more": False, "url": f"/v1/accounts/{ident}/external_accounts",
        },
        "future_requirements": _requirements([]), "login_links": None, "metadata": {}, "payouts_enabled": True,
        "requirements": _requirements([]),
        "settings": {
            "branding": {"icon": None, "logo": None, "primary_color": None, "secondary_color": None},
            "card_payments": {
                "decline_on": {"avs_failure": False, "cvc_failure": False}, "statement_descriptor_prefix": None,
                "statement_descriptor_prefix_kana": None, "statement_descriptor_prefix_kanji": None,
            },
            "dashboard": {"display_name": None, "timezone": "Etc/UTC"},
            "payments": {
                "statement_descriptor": None, "statement_descriptor_kana": None, "statement_descriptor_kanji": None,
            },
            "payouts": {
                "debit_negative_balances": True, "schedule": {"delay_days": 2, "interval": "daily"},
                "statement_descriptor": None,
            },
        },
        "tos_acceptance": {"date": turn.now, "ip": None, "service_agreement": "full", "user_agent": None},
        "type": "express",
    }  # fmt: skip


def _requirements(due: list[str]) -> Doc:
    return {
        "alternatives": [], "current_deadline": None, "currently_due": due, "disabled_reason": None, "errors": [],
        "eventually_due": due, "past_due": due, "pending_verification": [],
    }  # fmt: skip


def _restrict(account: Doc, restricted: bool) -> None:
    state = "inactive" if restricted else "active"
    account["capabilities"] = {"card_payments": state, "transfers": state}
    account["charges_enabled"] = account["payouts_enabled"] = account["details_submitted"] = not restricted
    account["requirements"] = _requirements(_DUE if restricted else [])
    account["requirements"]["disabled_reason"] = "requirements.past_due" if restricted else None


def must_receive(turn: Turn, account: Doc) -> None:
    """A transfer's destination: the transfers capability, and a country our platform may pay."""
    if account["capabilities"].get("transfers") != "active":
        raise Refusal(
            "Your destination account needs to have at least one of the following capabilities enabled: transfers, "
            "crypto_transfers, legacy_payments",
            code="insufficient_capabilities_for_transfer",
        )
    country, agreement = account["country"], account["tos_acceptance"]["service_agreement"]
    self_serve = turn.terms.country in SELF_SERVE and country in SELF_SERVE
    if self_serve or country == turn.terms.country or agreement == "recipient":
        return
    raise Refusal(
        f"Funds can't be sent to accounts located in {country} because it's restricted outside of your platform's "
        "region. "
        "Learn more here: https://stripe.com/docs/connect/account-capabilities#transfers-cross-border"
    )


def must_afford(turn: Turn, account: Doc, amount: int, currency: str) -> None:
    """A reversal takes the money from the account's balance, pending or available, which may not go below zero."""
    own = account["default_currency"]
    available, pending = turn.store.balance(account["id"], turn.now).get(own, (0, 0))
    if exchanged(amount, currency, own) > available + pending:
        raise Refusal(
            "Insufficient funds in the connected account to reverse this transfer.",
            code="balance_insufficient",
            param="amount",
        )


def incoming(turn: Turn, account: Doc, payment: str, transfer: Doc, moved: Doc) -> None:
    """The transfer as the connected account sees it: a `py_` charge of its own."""
    turn.put(
        {
            "id": payment, "object": "charge", "amount": moved["amount"], "amount_captured": moved["amount"],
            "amount_refunded": 0, "balance_transaction": moved["id"], "captured": True, "created": turn.now,
            "currency": moved["currency"], "customer": None, "livemode": False, "metadata": {}, "paid": True,
            "payment_intent": None, "refunded": False, "source_transfer": transfer["id"], "status": "succeeded",
            "transfer_group": transfer["transfer_group"],
        },
        account["id"],
    )  # fmt: skip


def of_request(turn: Turn) -> Doc:
    """The account a request acts for; the platform's own has no object of its own here but an equal shape."""
    if turn.account:
        return turn.store.get("account", turn.account, "") or _unknown(turn.account)
    own = turn.store.get("account", "acct_platform", "")
    return own or _new(turn, "acct_platform", turn.terms.country, None)


def _unknown(ident: str) -> Doc:
    raise no_access(ident)


def no_access(ident: str) -> Refusal:
    return Refusal(
        f"The provided key does not have access to account '{ident}' (or that account does not exist). "
        "Application access may "
        "have been revoked.",
        status=403,
        code="account_invalid",
        saved=False,
    )


def retrieve(turn: Turn, _p: Doc, ident: str) -> Doc:
    account = turn.store.get("account", ident, "")
    if account is None:
        raise no_access(ident)
    return account


def retrieve_own(turn: Turn, _p: Doc) -> Doc:
    return of_request(turn)


def create(turn: Turn, p: Doc) -> Doc:
    """A fresh account: nothing works until onboarding, which the sandbox does by its private route."""
    account = _new(turn, turn.new_id("acct"), p.get("country", "US"), p.get("email"))
    _restrict(account, True)
    account["capabilities"] = dict.fromkeys(p.get("capabilities") or {"transfers": {}}, "inactive")
    account["tos_acceptance"]["service_agreement"] = (p.get("tos_acceptance") or {}).get("service_agreement", "full")
    account["tos_acceptance"]["date"] = None
    account["metadata"] = merged_metadata({}, p.get("metadata"))
    account["type"] = p.get("type", "express")
    return turn.put(account, "")


def update(turn: Turn, p: Doc, ident: str) -> Doc:
    account = retrieve(turn, {}, ident)
    if "metadata" in p:
        account["metadata"] = merged_metadata(account["metadata"], p["metadata"])
    if "email" in p:
        account["email"] = p["email"]
    schedule = ((p.get("settings") or {}).get("payouts") or {}).get("schedule")
    if schedule:
        _set_schedule(account, schedule, "weekly_anchor", "monthly_anchor")
    turn.put(account, "")
    turn.emit("account.updated", account, account=ident)
    return account


def _set_schedule(account: Doc, given: Doc, weekly: str, monthly: str) -> None:
    interval = given.get("interval", account["settings"]["payouts"]["schedule"]["interval"])
    for wanted, name in (("weekly", weekly), ("monthly", monthly)):
        if interval == wanted and not any(key in given for key in (name, f"{wanted}_payout_days")):
            raise Refusal(
                f"You must provide `{name}` when the payout interval is `{wanted}`.",
                code="parameter_missing",
                param=name,
            )
    kept: Doc = {"delay_days": account["settings"]["payouts"]["schedule"]["delay_days"], "interval": interval}
    for name in (weekly, monthly, "weekly_payout_days", "monthly_payout_days"):
        if name in given:
            kept[name] = given[name]
    account["settings"]["payouts"]["schedule"] = kept


def balance(turn: Turn, _p: Doc) -> Doc:
    own = of_request(turn)
    sums = turn.store.balance(turn.account, turn.now)
    sums.setdefault(own["default_currency"] if turn.account else turn.terms.settlement_currencies[0], (0, 0))

    def listed(place: int) -> list[Doc]:
        rows = sorted(sums.items())
        return [{"amount": both[place], "currency": cur, "source_types": {"card": both[place]}} for cur, both in rows]

    doc: Doc = {"object": "balance", "available": listed(0), "livemode": False, "pending": listed(1)}
    if not turn.account:
        doc["connect_reserved"] = [{"amount": 0, "currency": currency} for currency in sorted(sums)]
    return doc


def settings(turn: Turn, _p: Doc) -> Doc:
    return _settings_of(of_request(turn))


def _settings_of(account: Doc) -> Doc:
    payouts = account["settings"]["payouts"]
    shown: dict[str, Any] = {
        "interval": payouts["schedule"]["interval"],
        "weekly_payout_days": payouts["schedule"].get("weekly_payout_days", []),
        "monthly_payout_days": payouts["schedule"].get("monthly_payout_days", []),
    }
    return {
        "object": "balance_settings",
        "payments": {
            "debit_negative_balances": payouts["debit_negative_balances"],
            "payouts": {
                "minimum_balance_by_currency": None, "schedule": shown,
                "statement_descriptor": payouts["statement_descriptor"],
                "status": "enabled" if account["payouts_enabled"] else "disabled",
            },
            "settlement_timing": {"delay_days": payouts["schedule"]["delay_days"]},
        },
    }  # fmt: skip


def update_settings(turn: Turn, p: Doc) -> Doc:
    """docs.stripe.com/connect/manage-payout-schedule: weekly needs its days."""
    account = of_request(turn)
    payments = p.get("payments") or {}
    payouts = payments.get("payouts") or {}
    if "schedule" in payouts:
        _set_schedule(account, payouts["schedule"], "weekly_payout_days", "monthly_payout_days")
    if "debit_negative_balances" in payments:
        account["settings"]["payouts"]["debit_negative_balances"] = payments["debit_negative_balances"]
    if "statement_descriptor" in payouts:
        account["settings"]["payouts"]["statement_descriptor"] = payouts["statement_descriptor"]
    turn.put(account, "")
    shown = _settings_of(account)
    turn.emit("balance_settings.updated", shown)
    return shown


def pay_out(turn: Turn, ident: str, *, failed: bool = False) -> Doc:
    """Sandbox only: one automatic payout of everything available on the account, paid or failed."""
    account = retrieve(turn, {}, ident)
    currency = account["default_currency"]
    available, _pending = turn.store.balance(ident, turn.now).get(currency, (0, 0))
    if available <= 0:
        raise Refusal(
            "You have insufficient funds in your Stripe account for this transfer.", code="balance_insufficient"
        )
    payout_id = turn.new_id("po")
    moved = turn.move("payout", payout_id, -available, currency, account=ident, target=currency)
    payout: Doc = {
        "id": payout_id, "object": "payout", "amount": available, "application_fee": None,
        "application_fee_amount": None,
        "arrival_date": turn.now + DAY, "automatic": True, "balance_transaction": moved["id"], "created": turn.now,
        "currency": currency, "description": "STRIPE PAYOUT", "destination": None, "failure_balance_transaction": None,
        "failure_code": None, "failure_message": None, "livemode": False, "metadata": {}, "method": "standard",
        "original_payout": None, "payout_method": None, "reconciliation_status": "in_progress", "reversed_by": None,
        "source_type": "card", "statement_descriptor": None, "status": "pending", "trace_id": None,
        "type": "bank_account",
    }  # fmt: skip
    turn.emit("payout.created", payout, account=ident)
    return _finish_payout(turn, payout, ident, failed=failed)


def _finish_payout(turn: Turn, payout: Doc, ident: str, *, failed: bool) -> Doc:
    payout["status"] = "failed" if failed else "paid"
    if failed:
        returned = turn.move(
            "payout_failure",
            payout["id"],
            payout["amount"],
            payout["currency"],
            account=ident,
            target=payout["currency"],
        )
        payout.update(
            failure_code="account_closed", failure_message="The bank account has been closed",
            failure_balance_transaction=returned["id"],
        )  # fmt: skip
    turn.put(payout, ident)
    turn.emit(f"payout.{payout['status']}", payout, account=ident)
    return payout
