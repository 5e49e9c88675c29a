"""How objects leave the sandbox: without its own notes, with `expand` followed, in pages.

docs.stripe.com/expand, docs.stripe.com/api/pagination
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.dev.sandbox.refusals import Refusal, missing
from gateway.dev.sandbox.store import INDEXED, Doc
from gateway.dev.sandbox.turn import LABELS, Turn, public

_PAYMENT = {"customer": "customer", "payment_method": "payment_method", "payment_intent": "payment_intent"}

# object -> field -> what the id in it names.
EXPANDABLE: dict[str, dict[str, str]] = {
    "payment_intent": {"latest_charge": "charge", "customer": "customer", "payment_method": "payment_method"},
    "charge": {**_PAYMENT, "balance_transaction": "balance_transaction", "source_transfer": "transfer"},
    "refund": {
        "charge": "charge", "payment_intent": "payment_intent", "balance_transaction": "balance_transaction",
        "failure_balance_transaction": "balance_transaction",
    },
    "transfer": {
        "balance_transaction": "balance_transaction", "destination": "account", "source_transaction": "charge",
        "destination_payment": "charge",
    },
    "transfer_reversal": {"balance_transaction": "balance_transaction", "transfer": "transfer"},
    "balance_transaction": {"source": "*"},
    "payment_method": {"customer": "customer"},
    "dispute": {"charge": "charge", "payment_intent": "payment_intent"},
    "payout": {"balance_transaction": "balance_transaction"},
}  # fmt: skip

_BY_PREFIX = {
    "ch": "charge", "py": "charge", "re": "refund", "tr": "transfer", "trr": "transfer_reversal", "po": "payout",
    "du": "dispute",
}  # fmt: skip
_MAX_DEPTH = 4


def shown(turn: Turn, doc: Doc, expand: Sequence[str] = ()) -> Doc:
    """One answer; raises Refusal for a property that cannot be expanded."""
    answer = _dressed(turn, public(doc))
    for path in expand:
        if path.count(".") >= _MAX_DEPTH:
            raise Refusal(
                f"You cannot expand more than {_MAX_DEPTH} levels of a property. Property: {path}", param="expand"
            )
        _follow(turn, answer, path.split("."), path)
    return answer


def _dressed(turn: Turn, doc: Doc) -> Doc:
    """What Stripe counts or lists when it answers rather than keeps."""
    if doc["object"] == "transfer":
        url = f"/v1/transfers/{doc['id']}/reversals"
        doc["reversals"] = _sublist(
            turn, turn.store.find("transfer_reversal", where={"transfer": doc["id"]}, limit=10), url
        )
    elif doc["object"] == "event":
        doc["pending_webhooks"] = turn.store.pending(doc["id"])
    elif doc["object"] == "balance_transaction":
        doc["status"] = "available" if doc["available_on"] <= turn.now else "pending"
    return doc


def _sublist(turn: Turn, docs: list[Doc], url: str) -> Doc:
    return {"object": "list", "data": [_dressed(turn, public(doc)) for doc in docs], "has_more": False, "url": url}


def _follow(turn: Turn, node: Doc, path: list[str], whole: str) -> None:
    field, rest = path[0], path[1:]
    if node.get("object") == "list" and field == "data":
        for item in node["data"]:
            _follow(turn, item, rest, whole)
        return
    if node.get("object") == "charge" and field == "refunds":
        found = turn.store.find("refund", account=turn.account, where={"charge": node["id"]}, limit=10)
        node["refunds"] = _sublist(turn, found, f"/v1/charges/{node['id']}/refunds")
        return
    kind = EXPANDABLE.get(str(node.get("object")), {}).get(field)
    if kind is None:
        raise Refusal(f"This property cannot be expanded ({whole}).", param="expand", saved=False)
    if isinstance(node.get(field), str):
        _replace(turn, node, field, kind)
    if rest and isinstance(node.get(field), dict):
        _follow(turn, node[field], rest, whole)


def _replace(turn: Turn, node: Doc, field: str, kind: str) -> None:
    ident: str = node[field]
    found = turn.store.get(_BY_PREFIX.get(ident.split("_")[0], kind) if kind == "*" else kind, ident, None)
    if found is not None:
        node[field] = _dressed(turn, public(found))


def page(
    turn: Turn,
    kind: str,
    p: Doc,
    url: str,
    *,
    filters: Sequence[str] = (),
    where: dict[str, str] | None = None,
    account: str | None = None,
) -> Doc:
    """One page, newest first. Raises Refusal for a limit outside 1..100 or a cursor that does not exist."""
    limit = p.get("limit", 10)
    if not 1 <= limit <= 100:
        word = "greater than or equal to 1" if limit < 1 else "less than or equal to 100"
        raise Refusal(f"This value must be {word}.", code="parameter_invalid_integer", param="limit", saved=False)
    wanted: dict[str, str | Sequence[str]] = {**(where or {}), **{name: p[name] for name in filters if name in p}}
    assert wanted.keys() <= set(INDEXED)
    owner = turn.account if account is None else account
    for cursor in ("starting_after", "ending_before"):
        if cursor in p and turn.store.get(kind, p[cursor], owner) is None:
            raise missing(LABELS.get(kind, kind), p[cursor], cursor, in_path=False)
    found = turn.store.find(
        kind,
        account=owner,
        where=wanted,
        created=_between(p.get("created")),
        after=p.get("starting_after"),
        before=p.get("ending_before"),
        limit=limit + 1,
    )
    more = len(found) > limit
    found = found[1:] if more and "ending_before" in p else found[:limit]
    return {"object": "list", "data": [_dressed(turn, public(doc)) for doc in found], "has_more": more, "url": url}


def _between(created: Doc | int | None) -> dict[str, int]:
    if created is None:
        return {}
    return {"eq": created} if isinstance(created, int) else created


def expanded_page(turn: Turn, listed: Doc, expand: Sequence[str]) -> Doc:
    for path in expand:
        _follow(turn, listed, path.split("."), path)
    return listed
