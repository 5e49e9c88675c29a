"""A model of Redis as journal and ledger use it: their Lua rules in Python, over one session's keys.

`JournalModel` and `LedgerModel` have the methods of `gateway.journal.Journal` and `gateway.meter.ledger.Ledger`; what
happens in them is `Rules`, which `test_store` holds against the real scripts in a real Valkey.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gateway.billing_bridge.outcome import Done, Outcome, Unknown
from gateway.errors import Conflict, StoreUnavailable
from gateway.journal import NOW, Claim, Doc, Event, Fence
from gateway.keys import Keys, Line
from gateway.meter.intervals import Interval
from gateway.meter.ledger import Lease, LeaseState, Row, Usage, Write, Written, refusal
from tests.simulation.world import io


class Rules:
    """State and scripts. `clock` is Redis's TIME in ms; `woken` is told of each queue whose score was set."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self.docs: dict[str, Doc] = {}
        self.events: list[dict[str, Any]] = []
        self.session = ""
        self.queues: dict[str, int] = {}
        self.epoch: int | None = None
        self.owner = ""
        self.until = self.high = self.usage = 0
        self.final = False
        self.epochs: dict[int, int] = {}
        self.sequences: dict[int, int] = {}
        self.claims: dict[str, int] = {}
        self.rows: dict[tuple[int, str, int], Interval] = {}
        self.late: dict[tuple[int, str, int], int] = {}
        self.finals: list[Mapping[str, Any]] = []
        self.values: dict[str, Any] = {}
        self.woken: Callable[[str], None] = lambda queue: None
        self.published: Callable[[], None] = lambda: None
        self.committed: Callable[[str, Mapping[str, Any] | None, Mapping[str, Any]], None] | None = None
        self.snapshots: list[tuple[int, dict[str, Any]]] | None = None
        self.unconfirmed: Callable[[], None] | None = None

    # --- the journal's scripts

    def commit(
        self, session: str, put: Mapping[str, tuple[int, Mapping[str, Any]]], events: Sequence[Event],
        due: Mapping[str, int | None], fence: Fence | None, finalized: Mapping[str, Any] | None,
    ) -> dict[str, int]:  # fmt: skip
        if fence is not None:
            if self.epoch != fence.epoch or self.owner != fence.owner:
                raise Conflict("Another owner has the session.", code="fenced")
            if fence.usage is not None and self.usage != fence.usage:
                raise Conflict("The session changed meanwhile; read it again.", code="version_conflict")
        for name, (version, _) in put.items():
            there = self.docs.get(name)
            if (there.version if there else 0) != version:
                raise Conflict("The session changed meanwhile; read it again.", code="version_conflict")
        self._remember()
        now = self.clock()
        for name, (version, body) in put.items():
            if self.committed is not None:
                before = self.docs.get(name)
                self.committed(name, before.body if before else None, body)
            self.docs[name] = Doc(version + 1, body)  # type: ignore[arg-type]
        for event in events:
            sequence = len(self.events) + 1
            self.events.append(
                {"id": event.id, "type": event.type, "created": now, "session": session, "sequence": sequence,
                 "data": event.data}
            )  # fmt: skip
        for queue, at in due.items():
            if at is None:
                self.queues.pop(queue, None)
            else:
                self.queues[queue] = now if at == NOW else at
                self.woken(queue)
        if finalized is not None:
            self.final = True
            self.finals.append(finalized)
        self.published()
        return {name: version + 1 for name, (version, _) in put.items()}

    def claim(self, queue: str, lease_ms: int, now: int | None) -> int | None:
        at = self.queues.get(queue)
        if at is None:
            return None
        now = self.clock() if now is None else now
        if at > now:
            return None
        self._remember()
        held = self.claims.get(queue, 0)
        if held > now:
            self.queues[queue] = held + 1
            self.woken(queue)
            return None
        self.queues[queue] = self.claims[queue] = now + lease_ms
        self.woken(queue)
        return now + lease_ms

    def done(self, queue: str, until: int, again_at: int | None, left: tuple[str, int] | None = None) -> None:
        self._remember()
        there = self.docs.get(left[0]) if left else None
        if left is not None and there is not None and there.version < left[1]:
            self.claims.pop(queue, None)
            self.queues[queue] = 0
            self.woken(queue)
            return
        if self.claims.get(queue) == until:
            del self.claims[queue]
        at = self.queues.get(queue, -1)
        if at == until and again_at is None:
            del self.queues[queue]
        elif at == until and again_at is not None:
            self.queues[queue] = again_at
            self.woken(queue)
        elif at == until + 1:
            self.queues[queue] = 0
            self.woken(queue)

    def schedule(self, queue: str, at: int) -> None:
        self._remember()
        self.queues[queue] = at
        self.woken(queue)

    # --- the ledger's scripts

    def _now(self) -> int:
        return max(self.clock(), self.high)

    def acquire(self, owner: str, lease_ms: int, gone: bool, settling: bool = False) -> tuple[int, int, int]:
        now = self._now()
        if self.final:
            raise refusal("final")
        if self.owner not in ("", owner) and not gone and (self.until > now or settling):
            raise refusal("held")
        self._remember()
        epoch = self.epoch or 0
        if self.epoch is None or self.owner != owner:
            epoch += 1
            self.epochs[epoch] = now
        self.epoch, self.owner, self.until, self.high = epoch, owner, now + lease_ms, now
        return epoch, self.epochs[epoch], now

    def write(self, lease_ms: int, write: Write) -> Written:
        """One session's part of the flush."""
        epoch, owner = write.lease.epoch, write.lease.owner
        now = self._now()
        if self.final:
            return Written("final")
        code, begin = "ok", self.epochs.get(epoch)
        if begin is None and epoch != (self.epoch or 0) + 1:
            return Written("fenced")
        if begin is not None and self.epoch == epoch and self.owner not in (owner, ""):
            return Written("fenced")
        self._remember()
        if begin is None:
            code, begin = "restored", min(write.lease.acquired_at, now)
            self.epoch, self.owner, self.until = epoch, owner, 0
            self.epochs[epoch] = begin
        mine, to = self.epoch == epoch and self.owner == owner, now
        if self.epoch != epoch:
            to = min(now, self.epochs.get(epoch + 1, now))
            if write.at is not None:
                to = max(begin, to - max(0, now - write.at))
        if write.sequence is not None and self.sequences.get(epoch, write.sequence) > write.sequence:
            return Written("stale", 0, self.usage)
        ahead = 0
        for number, (start, end) in write.rows.items():
            start = max(start, begin)
            if end > to:
                ahead, end = max(ahead, end - to), to
            if self.epoch != epoch:
                self.late.setdefault((epoch, owner, number), self.rows.get((epoch, owner, number), (0, start))[1])
            self.rows[epoch, owner, number] = (start, max(start, end))
        if write.rows:
            self.usage += 1
            if write.sequence is not None:
                self.sequences[epoch] = write.sequence
        if mine and write.renew:
            self.until, self.high = now + lease_ms, now
        return Written(code, ahead, self.usage) if mine else Written("former", 0, self.usage)  # type: ignore[arg-type]

    def release(self, epoch: int, owner: str) -> None:
        if self.epoch == epoch and self.owner == owner:
            self._remember()
            self.until, self.owner = 0, ""

    def ledger(self) -> Usage:
        rows = [Row(epoch, owner, number, s, e) for (epoch, owner, number), (s, e) in self.rows.items()]
        rows.sort(key=lambda r: (r.epoch, r.number, r.owner))
        named = ((place, (row.epoch, row.owner, row.number)) for place, row in enumerate(rows))
        late = {place: self.late[name] for place, name in named if name in self.late} if self.late else {}
        return Usage(tuple(rows), self.usage, late=late)

    def state(self) -> LeaseState | None:
        return None if self.epoch is None else LeaseState(self.epoch, self.owner, self.until, self.final)

    # --- what a power loss takes

    _KEPT = ("epoch", "owner", "until", "high", "usage", "final")
    _COPIED = ("docs", "events", "queues", "claims", "epochs", "sequences", "rows", "late", "finals", "values")

    def _remember(self) -> None:
        if self.snapshots is None:
            return
        state = {name: getattr(self, name) for name in self._KEPT}
        state |= {name: copy.copy(getattr(self, name)) for name in self._COPIED}
        self.snapshots.append((self.clock(), state))
        if self.unconfirmed is not None:
            tell, self.unconfirmed = self.unconfirmed, None
            tell()

    def confirmed(self) -> None:
        """All that was written so far is on disk."""
        if self.snapshots:
            self.snapshots.clear()

    def lose(self, ms: int) -> bool:
        """The machine loses its power: what was written in the last `ms` and not confirmed was never written."""
        since = self.clock() - ms
        lost = next((state for at, state in self.snapshots or () if at >= since), None)
        if lost is None:
            return False
        for name, value in lost.items():
            setattr(self, name, value)
        self.snapshots = []
        for queue in self.queues:
            self.woken(queue)
        return True


class Streams:
    """The store of a world: the rules of its session, and of whatever stands beside it (a booking, other meetings)."""

    def __init__(self, clock: Callable[[], int], session: str, woken: Callable[[str], None],
                 published: Callable[[], None]) -> None:  # fmt: skip
        self._clock, self._woken, self._published = clock, woken, published
        self.all: dict[str, Rules] = {}
        self.watched = False
        self.main = self[session]
        self.payer = session  # whose charge it is: the session's, or its booking's

    def __getitem__(self, session: str) -> Rules:
        rules = self.all.get(session)
        if rules is None:
            rules = self.all[session] = Rules(self._clock)
            rules.session, rules.woken, rules.published = session, self._woken, self._published
            rules.snapshots = [] if self.watched else None
        return rules

    def watch(self) -> None:
        """Remember what a power loss could take."""
        self.watched = True
        for rules in self.all.values():
            rules.snapshots = []

    def due_at(self, queue: str) -> int | None:
        earliest: int | None = None
        for rules in self.all.values():
            at = rules.queues.get(queue)
            if at is not None and (earliest is None or at < earliest):
                earliest = at
        return earliest

    def confirmed(self) -> None:
        """All that was written so far is on disk: there is one file."""
        for rules in self.all.values():
            rules.confirmed()

    def lose(self, ms: int) -> bool:
        lost = [rules.lose(ms) for rules in self.all.values()]
        return any(lost)


class JournalModel:
    """`gateway.journal.Journal` over the rules. Every hundredth world sends its records through JSON, as Redis does."""

    def __init__(self, streams: Streams, *, through_json: bool = False) -> None:
        self.streams, self.keys, self.redis = streams, Keys(1), Values(streams)
        self.trips = None  # nobody shares a trip here
        self._json = through_json

    async def read(self, session: str, *names: str) -> dict[str, Doc | None]:
        rules = self.streams[session]  # its docs are others after a power loss
        found: dict[str, Doc | None] = await io("read", lambda: {name: rules.docs.get(name) for name in names})
        return found

    async def commit(
        self, session: str, put: Mapping[str, tuple[int, Mapping[str, Any]]], *, events: Sequence[Event] = (),
        due: Mapping[str, int | None] | None = None, fence: Fence | None = None,
        finalized: Mapping[str, Any] | None = None, lines: Sequence[Line] = (), durable: bool = False,
    ) -> dict[str, int]:  # fmt: skip
        queues = dict(due or {})
        if events:
            queues.setdefault("outbox", NOW)
        if self._json:
            put = {name: (version, json.loads(json.dumps(body))) for name, (version, body) in put.items()}

        def effect() -> dict[str, int]:
            versions = self.streams[session].commit(session, put, events, queues, fence, finalized)
            if durable:
                self.streams.confirmed()
            return versions

        versions: dict[str, int] = await io("write", effect)
        return versions

    async def events(self, session: str, after: int = 0) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await io("read", lambda: self.streams[session].events[after:])
        return found

    async def due(self, queue: str, *, lease_ms: int, limit: int = 100, now: int | None = None) -> list[Claim]:
        def claim() -> list[Claim]:
            tried = [(rules.session, rules.claim(queue, lease_ms, now)) for rules in list(self.streams.all.values())]
            return [Claim(queue, session, until) for session, until in tried if until is not None]

        claims: list[Claim] = await io("read", claim)
        return claims

    async def done(self, claim: Claim, again_at: int | None = None, left: tuple[str, int] | None = None) -> None:
        await io("read", lambda: self.streams[claim.session].done(claim.queue, claim.until, again_at, left))

    async def schedule(self, queue: str, session: str, at: int) -> None:
        await io("read", lambda: self.streams[session].schedule(queue, at))


class LedgerModel:
    """`gateway.meter.ledger.Ledger` over the rules."""

    def __init__(self, streams: Streams, *, lease_ms: int) -> None:
        self.streams, self.lease_ms = streams, lease_ms

    async def acquire(self, session: str, owner: str, *, owner_gone: bool = False) -> Lease:
        rules = self.streams[session]
        epoch, since, now = await io("write", lambda: rules.acquire(owner, self.lease_ms, owner_gone))
        return Lease(session, epoch, owner, since, now)

    async def write(self, writes: Sequence[Write]) -> list[Written]:
        """Never raises for Redis: what it did not do is answered `away`."""

        def flush() -> list[Written]:
            return [self.streams[write.lease.session].write(self.lease_ms, write) for write in writes]

        try:
            return list(await io("write", flush))
        except StoreUnavailable:
            return [Written("away")] * len(writes)

    async def release(self, lease: Lease) -> None:
        await io("write", lambda: self.streams[lease.session].release(lease.epoch, lease.owner))

    async def usage(self, session: str) -> Usage:
        found: Usage = await io("read", self.streams[session].ledger)
        return found

    async def state(self, session: str) -> LeaseState | None:
        found: LeaseState | None = await io("read", self.streams[session].state)
        return found


class Values:
    """The few plain keys that shells use beside the scripts; kept with the world's session."""

    def __init__(self, streams: Streams) -> None:
        self._streams, self._rules = streams, streams.main

    def register_script(self, script: str) -> None:
        """Scripts that are not modelled are never run: paces without a limit ask for nothing."""

    async def get(self, key: str) -> Any:
        return await io("read", lambda: self._rules.values.get(key))

    async def exists(self, key: str) -> int:
        there: int = await io("read", lambda: int(key in self._rules.values))
        return there

    async def smembers(self, key: str) -> set[bytes]:
        """Nobody asks about connected accounts here."""
        return set()

    async def set(self, key: str, value: Any, **how: Any) -> Any:
        return await io("read", lambda: self._rules.values.__setitem__(key, value))


class DebtsModel:
    """`gateway.billing_bridge.debts.Debts`: what payees owe, each change once."""

    def __init__(self, redis: Values, trips: None) -> None:
        self._rules, self._streams = redis._rules, redis._streams

    async def send(self, operation: str, params: Mapping[str, Any], key: str) -> Outcome:
        try:
            amount: int = await io("write", lambda: self._change(operation, params, key))
        except StoreUnavailable:
            return Unknown("StoreUnavailable")
        return Done({"object": "debt", "amount": amount})

    def _change(self, operation: str, params: Mapping[str, Any], key: str) -> int:
        values = self._rules.values  # others after a power loss
        if key not in values:
            owed: int = values.get("owed:" + params["account"], 0)
            amount: int = params["amount"] if operation == "debts.owe" else min(owed, params["at_most"])
            values["owed:" + params["account"]] = owed + (amount if operation == "debts.owe" else -amount)
            values[key] = amount
        self._streams.confirmed()
        return int(values[key])

    async def owed(self, accounts: Iterable[str], currency: str) -> dict[str, int]:
        named = list(accounts)
        found: dict[str, int] = await io(
            "read", lambda: {account: self._rules.values.get("owed:" + account, 0) for account in named}
        )
        return found


class IndexModel:
    """`gateway.billing_bridge.index.Index`, in a world of one charge: everything belongs to it."""

    def __init__(self, redis: Values) -> None:
        self._streams = redis._streams

    async def write(self, *_: Any) -> None: ...

    async def forget(self, *_: Any) -> None: ...

    async def session_of(self, thing: Mapping[str, Any]) -> str | None:
        return self._streams.payer

    async def withheld(self, account: str) -> list[str]:
        return [session for session in self._streams.all if session.startswith("ses_")]
