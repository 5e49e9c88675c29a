"""All that is kept of one session, as one value; and its three parts, which are kept for different times. Pure.

`money` is what the law on bookkeeping wants: records, events, bill, with ids only. `personal` are the people's own data
out of all of it, by role, and may be erased (R22). `ticks` are the ledger's rows, needed as long as a bill may be
doubted. A part that is gone leaves blanks; what is there goes back to exactly where it was.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.session import ROLES, Role

SCHEMA: Final = 1
BLANK_PERSON: Final[Mapping[str, Any]] = {"name": "", "email": None, "locale": "en", "timezone": None}

# In the lease of a session that came back without its rows.
ROWS: Final = "rows_dropped"

Path = tuple[str | int, ...]
# A place's path as text → what stood there.
Personal = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`docs`: name → version and body. `lease`, `usage`, `deliveries`: Redis hashes as they are."""

    session: str
    docs: Mapping[str, tuple[int, dict[str, Any]]]
    events: tuple[dict[str, Any], ...]
    lease: Mapping[str, str]
    usage: Mapping[str, str]
    deliveries: Mapping[str, str]

    @property
    def rows_dropped(self) -> bool:
        """Whether the ledger's rows are gone because their time was over; the lease remembers it."""
        return ROWS in self.lease

    @property
    def record(self) -> dict[str, Any]:
        """The `session` document."""
        return self.docs["session"][1]

    def doc(self, name: str) -> dict[str, Any] | None:
        found = self.docs.get(name)
        return None if found is None else found[1]

    @property
    def versions(self) -> dict[str, int]:
        """What rises with each change, and never falls: of two copies, the one with the higher ones counts."""
        own = {name: version for name, (version, _) in self.docs.items()}
        return own | {"events:": len(self.events), "usage:": int(self.lease.get("usage", 0))}

    def outranks(self, other: Snapshot) -> bool:
        """Whether this is a later copy."""
        mine, theirs = self.versions, other.versions
        return mine != theirs and all(mine.get(name, 0) >= version for name, version in theirs.items())


@dataclass(frozen=True, slots=True)
class Parts:
    money: dict[str, Any]
    personal: dict[Role, Personal]
    ticks: dict[str, str]


def divided(snapshot: Snapshot) -> Parts:
    """The parts of a session, each complete for its own purpose."""
    tree = _tree(snapshot)
    personal: dict[Role, Personal] = {role: {} for role in ROLES}
    for role, path in places(tree):
        holder = _holder(tree, path)
        personal[role][json.dumps(path)] = holder[path[-1]]
        holder[path[-1]] = None
    money = {"schema": SCHEMA, **tree, "lease": dict(snapshot.lease), "deliveries": dict(snapshot.deliveries)}
    return Parts(money, personal, dict(snapshot.usage))


def joined(
    session: str, money: Mapping[str, Any], personal: Mapping[Role, Personal], ticks: Mapping[str, str] | None
) -> Snapshot:
    """The session out of what is left of its parts; a person who is missing is blank. The inverse of `divided`."""
    tree: dict[str, Any] = {"docs": copy.deepcopy(money["docs"]), "events": copy.deepcopy(money["events"])}
    for role in ROLES:
        for text, value in personal.get(role, {}).items():
            path = tuple(json.loads(text))
            _holder(tree, path)[path[-1]] = value
    people = tree["docs"].get("people")
    for role in ROLES if people else ():
        people[1][role] = people[1].get(role) or dict(BLANK_PERSON)
    docs = {name: (version, body) for name, (version, body) in tree["docs"].items()}
    lease = dict(money["lease"]) if ticks is not None else {**money["lease"], ROWS: "1"}
    return Snapshot(session, docs, tuple(tree["events"]), lease, ticks or {}, money["deliveries"])


def erased(snapshot: Snapshot, role: Role) -> Snapshot:
    """The session without one side's personal data; unchanged if there is none."""
    parts = divided(snapshot)
    if not parts.personal[role]:
        return snapshot
    left = {other: own for other, own in parts.personal.items() if other != role}
    return joined(snapshot.session, parts.money, left, parts.ticks)


def places(tree: Mapping[str, Any]) -> Iterator[tuple[Role, Path]]:
    """Where personal data stands: the record of people, what somebody wrote about the other, and the expert's name on
    the client's card statement."""
    docs = tree["docs"]
    for role in ROLES:
        if "people" in docs and docs["people"][1].get(role) not in (None, BLANK_PERSON):
            yield role, ("docs", "people", 1, role)
        rating = ((docs["session"][1].get("ratings") or {}) if "session" in docs else {}).get(role) or {}
        if rating.get("comment") is not None:
            yield role, ("docs", "session", 1, "ratings", role, "comment")
        for number, event in enumerate(tree["events"]):
            data = event["data"]
            if event["type"] == "session.rated" and data.get("by") == role and data.get("comment") is not None:
                yield role, ("events", number, "data", "comment")
    for number, step in enumerate((docs["payment"][1].get("steps") or ()) if "payment" in docs else ()):
        if step["params"].get("statement_descriptor_suffix") is not None:
            yield "expert", ("docs", "payment", 1, "steps", number, "params", "statement_descriptor_suffix")


def mark(salt: str, personal: Personal) -> str:
    """What stands in the money part for a person's: it shows a change, and nothing once the salt is gone."""
    return hashlib.sha256(f"{salt}\n{canonical(personal)}".encode()).hexdigest()


def canonical(value: Any) -> str:
    """The same text for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _tree(snapshot: Snapshot) -> dict[str, Any]:
    docs = {name: [version, copy.deepcopy(body)] for name, (version, body) in snapshot.docs.items()}
    return {"docs": docs, "events": copy.deepcopy(list(snapshot.events))}


def _holder(tree: Any, path: Path) -> Any:
    for key in path[:-1]:
        tree = tree[key]
    return tree
