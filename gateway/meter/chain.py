"""The chain over a session's ledger, closed when the bill is frozen, so that whoever reads it later sees a changed row.

A link is SHA-256 over the link before it and the canonical JSON of one thing: first the session's terms, then each row
in order, last the bill; that last link is the *head*. The record keeps all links, so a reader can tell which row is not
the one that was sealed; the head also went out in `session.finalized`, so a forger of the whole record is found too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.session import SessionRecord

START: Final = "parley-ledger-1"
# All that the bill follows from besides the rows. A name may be added under a new schema only.
TERMS: Final = (
    "id", "account", "livemode", "kind", "unit_amount", "currency", "commission_bps", "ambassador", "free_ms",
    "limit_ms", "cap_ms", "waived", "started_at", "ended_at", "end_reason",
)  # fmt: skip
# By the chain's schema; the second is a booked meeting's, whose bill follows from more, and so do the third's and the
# fourth's, of whose rows not all are billed.
MEETING: Final = ("meeting", "funded", "amount_max")
SCHEMAS: Final = {
    1: TERMS, 2: (*TERMS, *MEETING), 3: (*TERMS, "unseen"), 4: (*TERMS, *MEETING, "unseen"),
}  # fmt: skip

# Of the ledger's rows the chain needs no more: (epoch, owner, number, start, end), times in wall ms.
SealedRow = tuple[int, str, int, int, int]


def sealed(record: SessionRecord, rows: Sequence[SealedRow], bill: Mapping[str, Any]) -> dict[str, Any]:
    """The chain as the record keeps it: {schema, terms, rows: [[name, link], …], head}."""
    schema = 1 + (record.meeting is not None) + 2 * bool(record.unseen)
    first = link = _link(START, _terms(record, schema))
    links = []
    for row in sorted(rows):
        link = _link(link, list(row))
        links.append([name(row), link])
    return {"schema": schema, "terms": first, "rows": links, "head": _link(link, dict(bill))}


def broken(
    chain: Mapping[str, Any], record: SessionRecord, rows: Sequence[SealedRow], bill: Mapping[str, Any],
    *, dropped: bool = False,
) -> list[str]:  # fmt: skip
    """What is not as it was sealed, in words; empty when all is. Each link is checked against the one kept before it,
    so one changed row is one line, not all that follow. `dropped`: no rows are kept any more; terms and bill still
    have to fit."""
    schema = chain.get("schema")
    if schema not in SCHEMAS:
        return [f"the chain has the unknown schema {schema}"]
    found = [] if chain["terms"] == _link(START, _terms(record, schema)) else ["the terms of the session were changed"]
    here = {name(row): row for row in rows}
    before = chain["terms"]
    for label, link in chain["rows"]:
        row = here.pop(label, None)
        if row is None:
            found += [] if dropped else [f"row {label} is missing"]
        elif _link(before, list(row)) != link:
            found.append(f"row {label} was changed: it now reads {row[3]} – {row[4]}")
        before = link
    found += [f"row {label} was added" for label in sorted(here)]
    if _link(before, dict(bill)) != chain["head"]:
        found.append("the bill was changed")
    return found


def name(row: SealedRow) -> str:
    """How a row is called: its epoch, owner and number, as in the ledger."""
    return f"{row[0]}:{row[1]}:{row[2]}"


def _terms(record: SessionRecord, schema: int) -> dict[str, Any]:
    body = record.to_dict()
    return {field: body[field] for field in SCHEMAS[schema]}


def _link(before: str, thing: Any) -> str:
    text = json.dumps(thing, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(f"{before}\n{text}".encode()).hexdigest()
