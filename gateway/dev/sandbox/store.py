"""Everything the sandbox knows, in one SQLite database: a file that outlives `kill -9`, or memory only.

Objects are kept as their JSON; the few columns beside it are what Stripe's lists filter by. The write-ahead log with
synchronous=NORMAL survives the death of the process (not of the machine), at some tens of microseconds a commit.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Doc = dict[str, Any]

# A column for each field that some list of Stripe's filters by.
INDEXED = (
    "customer", "payment_intent", "charge", "transfer_group", "destination", "transfer", "source", "type", "email",
    "currency", "payout", "status", "source_transaction",
)  # fmt: skip
_LOOKED_UP = (
    "customer",
    "payment_intent",
    "charge",
    "transfer_group",
    "destination",
    "transfer",
    "source",
    "source_transaction",
)

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS objects (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, account TEXT NOT NULL,
  created INTEGER NOT NULL, {", ".join(f'"{name}" TEXT' for name in INDEXED)}, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS objects_kind ON objects(kind, account, seq);
CREATE TABLE IF NOT EXISTS entries (
  id TEXT PRIMARY KEY, account TEXT NOT NULL, currency TEXT NOT NULL, net INTEGER NOT NULL,
  available_on INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS entries_account ON entries(account, currency, available_on, net);
CREATE TABLE IF NOT EXISTS due (kind TEXT NOT NULL, id TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (kind, id));
CREATE INDEX IF NOT EXISTS due_at ON due(at);
CREATE TABLE IF NOT EXISTS keys (
  account TEXT NOT NULL, key TEXT NOT NULL, target TEXT NOT NULL, fingerprint TEXT NOT NULL, status INTEGER NOT NULL,
  body BLOB NOT NULL, request TEXT NOT NULL, created INTEGER NOT NULL, PRIMARY KEY (account, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deliveries (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL, endpoint TEXT NOT NULL, attempt INTEGER NOT NULL,
  due_ms INTEGER NOT NULL, behind INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries(due_ms);
CREATE INDEX IF NOT EXISTS deliveries_event ON deliveries(event);
""" + "".join(
    f'CREATE INDEX IF NOT EXISTS objects_{name} ON objects("{name}", kind) WHERE "{name}" IS NOT NULL;\n'
    for name in _LOOKED_UP
)


# Name of the sum, kind of object, field, and which of them.
_TOTALS = (
    ("held", "payment_intent", "amount_capturable", "status='requires_capture'"),
    ("captured", "charge", "amount_captured", "1"),
    ("refunded", "refund", "amount", "json_extract(body, '$.balance_transaction') IS NOT NULL AND status!='failed'"),
    ("transferred", "transfer", "amount", "1"),
    ("reversed", "transfer", "amount_reversed", "1"),
    ("fees", "balance_transaction", "fee", "1"),
)


@dataclass(frozen=True, slots=True)
class SavedAnswer:
    """The first answer to an idempotency key; `created` in seconds."""

    target: str
    fingerprint: str
    status: int
    body: bytes
    request: str
    created: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one endpoint; `behind`: not before a later event has arrived there."""

    seq: int
    event: str
    endpoint: str
    attempt: int
    due_ms: int
    behind: bool


class Store:
    def __init__(self, path: Path | None) -> None:
        self.db = sqlite3.connect(str(path) if path else ":memory:", isolation_level=None, cached_statements=512)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")
        self.db.executescript(_SCHEMA)
        names = ", ".join(f'"{name}"' for name in INDEXED)
        self._upsert = (
            f"INSERT INTO objects (id, kind, account, created, {names}, body) "  # noqa: S608 - fixed column names
            f"VALUES ({', '.join('?' * (len(INDEXED) + 5))}) ON CONFLICT(id) DO UPDATE SET body=excluded.body, "
            + ", ".join(f'"{name}"=excluded."{name}"' for name in INDEXED)
        )

    def close(self) -> None:
        self.db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing: an exception takes back what was written inside."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def put(self, doc: Doc, account: str = "") -> None:
        values = [doc.get(name) if isinstance(doc.get(name), str) else None for name in INDEXED]
        body = json.dumps(doc, separators=(",", ":"))
        self.db.execute(self._upsert, (doc["id"], doc["object"], account, doc.get("created") or 0, *values, body))

    def get(self, kind: str, ident: str, account: str | None = "") -> Doc | None:
        """A copy of one object, or None; `account` None looks in every account."""
        row = self.db.execute("SELECT body, kind, account FROM objects WHERE id=?", (ident,)).fetchone()
        if row is None or row[1] != kind or (account is not None and row[2] != account):
            return None
        return _doc(row[0])

    def delete(self, ident: str) -> None:
        self.db.execute("DELETE FROM objects WHERE id=?", (ident,))

    def find(
        self,
        kind: str,
        *,
        account: str | None = "",
        where: Mapping[str, str | Sequence[str]] | None = None,
        created: Mapping[str, int] | None = None,
        after: str | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> list[Doc]:
        """Newest first, as Stripe lists; `after`/`before` are ids on the page's edges, excluded."""
        tests, values = ["kind=?"], [kind]
        if account is not None:
            tests.append("account=?")
            values.append(account)
        _filter(tests, values, where or {}, created or {})
        for ident, sign in ((after, "<"), (before, ">")):
            if ident is not None:
                tests.append(f"seq{sign}(SELECT seq FROM objects WHERE id=?)")  # noqa: S608
                values.append(ident)
        order = "ASC" if before is not None else "DESC"
        sql = f"SELECT body FROM objects WHERE {' AND '.join(tests)} ORDER BY seq {order} LIMIT {limit or -1}"  # noqa: S608
        found = [_doc(row[0]) for row in self.db.execute(sql, values)]
        return found[::-1] if before is not None else found

    def enter(self, ident: str, account: str, currency: str, net: int, available_on: int) -> None:
        """One movement of an account's balance."""
        self.db.execute("INSERT INTO entries VALUES (?,?,?,?,?)", (ident, account, currency, net, available_on))

    def balance(self, account: str, now: int) -> dict[str, tuple[int, int]]:
        """currency -> (available, pending) in minor units."""
        rows = self.db.execute(
            "SELECT currency, SUM(CASE WHEN available_on<=? THEN net ELSE 0 END), "
            "SUM(CASE WHEN available_on>? THEN net ELSE 0 END) FROM entries WHERE account=? GROUP BY currency",
            (now, now, account),
        )
        return {currency: (available, pending) for currency, available, pending in rows}

    def schedule(self, kind: str, ident: str, at: int | None) -> None:
        """Look at this object at that time (seconds); None forgets it."""
        if at is None:
            self.db.execute("DELETE FROM due WHERE kind=? AND id=?", (kind, ident))
        else:
            self.db.execute("INSERT OR REPLACE INTO due VALUES (?,?,?)", (kind, ident, at))

    def next_due(self) -> int | None:
        at: int | None = self.db.execute("SELECT MIN(at) FROM due").fetchone()[0]
        return at

    def due(self, now: int) -> list[tuple[str, str]]:
        return list(self.db.execute("SELECT kind, id FROM due WHERE at<=? ORDER BY at", (now,)))

    def saved(self, account: str, key: str) -> SavedAnswer | None:
        row = self.db.execute(
            "SELECT target, fingerprint, status, body, request, created FROM keys WHERE account=? AND key=?",
            (account, key),
        ).fetchone()
        return SavedAnswer(*row) if row else None

    def save(self, account: str, key: str, answer: SavedAnswer) -> None:
        self.db.execute(
            "INSERT OR REPLACE INTO keys VALUES (?,?,?,?,?,?,?,?)",
            (
                account,
                key,
                answer.target,
                answer.fingerprint,
                answer.status,
                answer.body,
                answer.request,
                answer.created,
            ),
        )

    def send(self, event: str, endpoint: str, due_ms: int, *, behind: bool = False) -> None:
        self.db.execute(
            "INSERT INTO deliveries (event, endpoint, attempt, due_ms, behind) VALUES (?,?,0,?,?)",
            (event, endpoint, due_ms, behind),
        )

    def deliveries(self, now_ms: int, limit: int) -> list[Delivery]:
        rows = self.db.execute(
            "SELECT seq, event, endpoint, attempt, due_ms, behind FROM deliveries WHERE due_ms<=? ORDER BY "
            "due_ms, seq LIMIT ?",
            (now_ms, limit),
        )
        return [
            Delivery(seq, event, endpoint, attempt, due, bool(behind))
            for seq, event, endpoint, attempt, due, behind in rows
        ]

    def next_delivery_ms(self, after_ms: int = -1) -> int | None:
        """When the next one later than `after_ms` falls due."""
        row = self.db.execute("SELECT MIN(due_ms) FROM deliveries WHERE due_ms>?", (after_ms,)).fetchone()
        at: int | None = row[0]
        return at

    def delivered(self, seq: int) -> None:
        self.db.execute("DELETE FROM deliveries WHERE seq=?", (seq,))

    def retry(self, seq: int, due_ms: int) -> None:
        self.db.execute("UPDATE deliveries SET attempt=attempt+1, due_ms=? WHERE seq=?", (due_ms, seq))

    def release_behind(self, endpoint: str, now_ms: int) -> None:
        """A later event has arrived: those that were to come after it may go."""
        self.db.execute("UPDATE deliveries SET behind=0, due_ms=? WHERE endpoint=? AND behind=1", (now_ms, endpoint))

    def pending(self, event: str) -> int:
        count: int = self.db.execute("SELECT COUNT(*) FROM deliveries WHERE event=?", (event,)).fetchone()[0]
        return count

    def prune(self, now: int) -> None:
        """Forget what Stripe may forget: keys after a day, events after 30 (docs.stripe.com/api/events)."""
        self.db.execute("DELETE FROM keys WHERE created<?", (now - 2 * 86_400,))
        self.db.execute("DELETE FROM objects WHERE kind='event' AND created<?", (now - 30 * 86_400,))

    def undelivered(self) -> int:
        count: int = self.db.execute("SELECT COUNT(*) FROM deliveries").fetchone()[0]
        return count

    def totals(self) -> dict[str, dict[str, int]]:
        """currency -> what is held, captured, refunded (money that moved), transferred, reversed, and paid in fees."""
        result: dict[str, dict[str, int]] = {}
        for name, kind, path, test in _TOTALS:
            sums = self.db.execute(
                f"SELECT currency, SUM(json_extract(body, '$.{path}')) FROM objects "  # noqa: S608 - fixed names
                f"WHERE kind=? AND account='' AND {test} GROUP BY currency",
                (kind,),
            )
            for currency, amount in sums:
                result.setdefault(currency, dict.fromkeys((row[0] for row in _TOTALS), 0))[name] = amount or 0
        return result

    def count(self, kind: str) -> int:
        count: int = self.db.execute("SELECT COUNT(*) FROM objects WHERE kind=?", (kind,)).fetchone()[0]
        return count


def _filter(
    tests: list[str], values: list[Any], where: Mapping[str, str | Sequence[str]], created: Mapping[str, int]
) -> None:
    for name, wanted in where.items():
        assert name in INDEXED
        if isinstance(wanted, str):
            tests.append(f'"{name}" GLOB ?' if "*" in wanted else f'"{name}"=?')
            values.append(wanted)
        else:
            tests.append(f'"{name}" IN ({", ".join("?" * len(wanted))})')
            values.extend(wanted)
    for bound, sign in (("gt", ">"), ("gte", ">="), ("lt", "<"), ("lte", "<="), ("eq", "=")):
        if bound in created:
            tests.append(f"created{sign}?")
            values.append(created[bound])


def _doc(body: str) -> Doc:
    doc: Doc = json.loads(body)
    return doc
