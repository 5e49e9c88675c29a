"""Transfers of a charge's money to connected accounts, and their reversal (separate charges and transfers)."""

from __future__ import annotations

from gateway.dev.sandbox import accounts, charges
from gateway.dev.sandbox.currencies import KNOWN, shown
from gateway.dev.sandbox.refusals import Refusal, missing
from gateway.dev.sandbox.store import Doc
from gateway.dev.sandbox.turn import Turn, at_least_one, merged_metadata


def create(turn: Turn, p: Doc) -> Doc:
    """docs.stripe.com/connect/separate-charges-and-transfers"""
    currency = p["currency"].lower()
    _check_form(p, currency)
    account = turn.store.get("account", p["destination"], "")
    if account is None:
        raise missing("destination", p["destination"], "destination", in_path=False)
    source = _source(turn, p["source_transaction"]) if "source_transaction" in p else None
    accounts.must_receive(turn, account)
    if source is not None:
        available_on = _within_source(turn, p["amount"], currency, source)
    else:
        available_on = _within_balance(turn, p["amount"], currency)
    return _make(turn, p, currency, account, source, available_on)


def _check_form(p: Doc, currency: str) -> None:
    if "amount" not in p:
        raise Refusal("Missing required param: amount.", code="parameter_missing", param="amount", saved=False)
    at_least_one(p["amount"], "amount")
    if currency not in KNOWN:
        raise Refusal(f"Invalid currency: {currency}.", param="currency", saved=False)


def _source(turn: Turn, ident: str) -> Doc:
    charge = turn.store.get("charge", ident, turn.account)
    if charge is None:
        raise missing("charge", ident, "source_transaction", in_path=False)
    if not charge["captured"]:
        raise Refusal(
            f"Charge {ident} must be captured before it can be used as a source_transaction.",
            param="source_transaction",
        )
    if charge["balance_transaction"] is None:
        charges.settle(turn, charge)
    return charge


def _within_source(turn: Turn, amount: int, currency: str, charge: Doc) -> int:
    """The sum of a charge's transfers stays within its balance transaction; gives when the money becomes available."""
    settled = turn.get("balance_transaction", charge["balance_transaction"])
    if currency != settled["currency"]:
        raise Refusal(
            f"The currency of source_transaction's balance transaction ({settled['currency']}) must be the same "
            "as the transfer "
            f"currency ({currency})",
            param="currency",
        )
    used = sum(each["amount"] for each in turn.store.find("transfer", where={"source_transaction": charge["id"]}))
    if used + amount > settled["amount"]:
        message = (
            "Transfers using this transaction as a source must not exceed the source amount of "
            f"{shown(settled['amount'], currency)}."
        )
        if used:
            message += f" (There is already a transfer using this source, amounting to {shown(used, currency)}.)"
        raise Refusal(message, param="amount")
    on: int = settled["available_on"]
    return on


def _within_balance(turn: Turn, amount: int, currency: str) -> int:
    available, _pending = turn.store.balance(turn.account, turn.now).get(currency, (0, 0))
    if amount > available:
        raise Refusal(
            "You have insufficient available funds in your Stripe account. Try adding funds directly to your "
            "available balance "
            "by creating Charges using the 4000000000000077 test card. See: "
            "https://stripe.com/docs/testing#available-balance",
            code="balance_insufficient",
        )
    return turn.now


def _make(turn: Turn, p: Doc, currency: str, account: Doc, source: Doc | None, available_on: int) -> Doc:
    ident, payment = turn.new_id("tr"), turn.new_id("py")
    out = turn.move(
        "transfer", ident, -p["amount"], currency, available_on=available_on, target=currency, account=turn.account
    )
    into = turn.move(
        "payment", payment, p["amount"], currency, available_on=available_on, account=account["id"],
        target=account["default_currency"],
    )  # fmt: skip
    transfer: Doc = {
        "id": ident, "object": "transfer", "amount": p["amount"], "amount_reversed": 0,
        "balance_transaction": out["id"],
        "created": turn.now, "currency": currency, "description": p.get("description"), "destination": account["id"],
        "destination_payment": payment, "livemode": False, "metadata": merged_metadata({}, p.get("metadata")),
        "reversed": False, "source_transaction": source["id"] if source else None, "source_type": "card",
        "transfer_group": _group(p, source),
    }  # fmt: skip
    turn.put(transfer)
    accounts.incoming(turn, account, payment, transfer, into)
    turn.emit("transfer.created", transfer)
    return transfer


def _group(p: Doc, source: Doc | None) -> str | None:
    """A transfer shares its charge's group; a charge without one lends its own id (same page, source_transaction)."""
    given: str | None = p.get("transfer_group")
    if source is None:
        return given
    own: str | None = source["transfer_group"]
    if given and own and given != own:
        raise Refusal(
            f"The transfer_group of the source_transaction ({own}) must be the same as the transfer_group given "
            f"({given}).",
            param="transfer_group",
        )
    return own or given or f"group_{source['payment_intent'] or source['id']}"


def reverse(turn: Turn, p: Doc, ident: str) -> Doc:
    """docs.stripe.com/api/transfer_reversals/create: needs the money on the connected account's balance."""
    transfer = turn.get("transfer", ident)
    left = transfer["amount"] - transfer["amount_reversed"]
    amount: int = p.get("amount", left)
    if left == 0:
        raise Refusal(f"Transfer {ident} is already fully reversed.")
    at_least_one(amount, "amount")
    if amount > left:
        raise Refusal(
            f"Reversal amount ({shown(amount, transfer['currency'])}) is greater than unreversed amount on transfer "
            f"({shown(left, transfer['currency'])})",
            param="amount",
        )
    account = turn.get("account", transfer["destination"])
    accounts.must_afford(turn, account, amount, transfer["currency"])
    return _reverse(turn, p, transfer, account, amount)


def _reverse(turn: Turn, p: Doc, transfer: Doc, account: Doc, amount: int) -> Doc:
    ident = turn.new_id("trr")
    currency = transfer["currency"]
    on = turn.get("balance_transaction", transfer["balance_transaction"])["available_on"]
    back = turn.move("transfer_refund", ident, amount, currency, available_on=on, target=currency, account=turn.account)
    turn.move(
        "payment_refund",
        ident,
        -amount,
        currency,
        available_on=on,
        account=account["id"],
        target=account["default_currency"],
    )
    reversal: Doc = {
        "id": ident, "object": "transfer_reversal", "amount": amount, "balance_transaction": back["id"],
        "created": turn.now,
        "currency": currency, "destination_payment_refund": turn.new_id("pyr"),
        "metadata": merged_metadata({}, p.get("metadata")), "source_refund": None, "transfer": transfer["id"],
    }  # fmt: skip
    transfer["amount_reversed"] += amount
    transfer["reversed"] = transfer["amount_reversed"] == transfer["amount"]
    turn.put(reversal)
    turn.put(transfer)
    turn.emit("transfer.reversed", transfer)
    return reversal


def update(turn: Turn, p: Doc, ident: str) -> Doc:
    transfer = turn.get("transfer", ident)
    transfer["metadata"] = merged_metadata(transfer["metadata"], p.get("metadata"))
    if "description" in p:
        transfer["description"] = p["description"] or None
    turn.emit("transfer.updated", transfer)
    return turn.put(transfer)


def retrieve_reversal(turn: Turn, _p: Doc, ident: str, reversal: str) -> Doc:
    doc = turn.get("transfer_reversal", reversal)
    if doc["transfer"] != ident:
        raise missing("transfer reversal", reversal, None, in_path=True)
    return doc
