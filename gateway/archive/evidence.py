"""The evidence of a session for a dispute: consent, timeline, ledger and seal, bill, receipts, Stripe's ids.

Pure. It tells what a bank needs to see and no secrets: no tokens, no links that open something, no addresses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from gateway.archive.archive import Retention
from gateway.archive.consent import agreed
from gateway.archive.happened import money, said
from gateway.archive.snapshot import BLANK_PERSON

SECRET: Final = frozenset({"secret", "client_secret", "action_url", "resume", "token"})
RETENTION: Final = Retention()
TERMS: Final = ("kind", "unit_amount", "currency", "free_ms", "limit_ms", "cap_ms", "commission_bps", "waived")


def evidence(
    docs: Mapping[str, Mapping[str, Any] | None], events: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]], broken: Sequence[str], *, made_at: int,
    rows_dropped: bool = False, kept: Retention = RETENTION,
) -> dict[str, Any]:  # fmt: skip
    """All of it as plain values, times in RFC 3339. `docs`: the session's records by name; `broken`: what the chain of
    its ledger found; `made_at`: wall ms; `kept`: how long each class of data is."""
    session, payment = docs["session"] or {}, docs["payment"] or {}
    people = docs.get("people") or {}
    gone = _rows_gone(session, kept, made_at) if rows_dropped else None
    chain = session.get("chain")
    consent, currency = session.get("consent"), session["currency"]
    return {
        "schema": 1,
        "session": session["id"],
        "reference": session.get("reference"),
        "made_at": stamp(made_at),
        "no_longer_kept": [*([gone] if gone else []), *_people_gone(session, people, kept, made_at)],
        "terms": {name: session.get(name) for name in TERMS},
        "client": {**_who(people, "client"), **dict(session["client"])},
        "expert": {**_who(people, "expert"), **dict(session["expert"])},
        "consent": None if consent is None else {
            **consent, "at": stamp(consent["at"]),
            "text": agreed(session, money(session["unit_amount"], currency), money(consent["amount_max"], currency)),
        },
        "course": {
            name: stamp(session.get(name)) for name in ("created", "started_at", "ended_at")
        } | {"joined": {role: stamp(at) for role, at in session["joined"].items()}, "end": session.get("end_reason")},
        "timeline": [
            {"at": stamp(event["created"]), "sequence": event["sequence"], "what": event["type"],
             "said": said(event), "id": event["id"]}
            for event in events
        ],
        "connected": [_span(start, end) for start, end in (session.get("bill") or {}).get("intervals", ())],
        "ledger": {
            "rows": [
                {**_span(row["start"], row["end"]), "epoch": row["epoch"], "number": row["number"]} for row in rows
            ],
            "head": chain and chain["head"],
            "rows_dropped": gone,
            "checked": ["terms", "bill"] if rows_dropped else ["terms", "rows", "bill"],
            "intact": bool(chain) and not broken,
            "broken": list(broken),
        },
        "bill": session.get("bill"),
        "payment": _without_secrets(payment),
        "receipts": _without_secrets(docs.get("receipts") or {}),
    }  # fmt: skip


def stamp(ms: int | None) -> str | None:
    """Wall ms as RFC 3339 in UTC with milliseconds."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ms % 1000:03}Z"


def _rows_gone(session: Mapping[str, Any], kept: Retention, now: int) -> dict[str, Any]:
    return {
        "what": "the metered usage row by row; the bill and the spans connected were made and sealed with it",
        "class": "ticks",
        "why": f"kept for {kept.ticks} days after the session was created",
        "since": _over(session, kept.ticks, now),
    }


def _people_gone(
    session: Mapping[str, Any], people: Mapping[str, Any], kept: Retention, now: int
) -> Iterator[dict[str, Any]]:
    since = _over(session, kept.people, now)
    for role in ("client", "expert"):
        if people.get(role) == BLANK_PERSON:
            yield {
                "what": f"the {role}'s name, e-mail, language, time zone and words",
                "class": "people",
                "why": f"kept for {kept.people} days after the session was created" if since else "erased on request",
                "since": since,
            }


def _over(session: Mapping[str, Any], days: int, now: int) -> str | None:
    """The beginning of the first day on which what is kept for so many days was not any more; None if that is to come,
    so that it went for another reason, or when more was not kept for so long."""
    created = datetime.fromtimestamp(session["created"] // 1000, UTC)
    gone = datetime(created.year, created.month, created.day, tzinfo=UTC) + timedelta(days=days + 1)
    ms = int(gone.timestamp() * 1000)
    return stamp(ms) if ms <= now else None


def _span(start: int, end: int) -> dict[str, Any]:
    return {"from": stamp(start), "to": stamp(end), "seconds": (end - start) / 1000}


def _who(people: Mapping[str, Any], role: str) -> dict[str, Any]:
    person = people.get(role) or {}
    return {name: person.get(name) for name in ("name", "email")}


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_secrets(inner) for name, inner in value.items() if name not in SECRET}
    if isinstance(value, (list, tuple)):
        return [_without_secrets(inner) for inner in value]
    return value
