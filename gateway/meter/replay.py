"""A session's bill rebuilt from its ledger alone, and held against the one that was frozen (`gateway replay`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gateway.errors import NotFound
from gateway.journal import Journal
from gateway.meter.chain import broken
from gateway.meter.ledger import Ledger, Usage
from gateway.meter.record import Bill, bill
from gateway.session import SessionRecord


@dataclass(frozen=True, slots=True)
class Replay:
    """The record, its ledger, the bill made from them now, and the frozen one (None before it is final)."""

    record: SessionRecord
    usage: Usage
    bill: Bill
    frozen: dict[str, Any] | None

    @property
    def differences(self) -> dict[str, tuple[Any, Any]]:
        """Fields where the frozen bill is not what the ledger gives: name → (frozen, replayed)."""
        if self.frozen is None:
            return {}
        again = self.bill.to_dict()
        return {name: (was, again.get(name)) for name, was in self.frozen.items() if was != again.get(name)}

    @property
    def broken(self) -> list[str]:
        """What is not as it was sealed when the bill was frozen: terms, rows, bill. Empty before that, and for records
        from before there were chains."""
        if self.frozen is None or self.record.chain is None:
            return []
        return broken(self.record.chain, self.record, self.usage.sealed, self.frozen, dropped=self.usage.dropped)


async def replay(journal: Journal, ledger: Ledger, session: str, *, minimum: int = 0) -> Replay:
    """Raises NotFound. `minimum` must be the smallest charge that was in force. Where the rows were dropped the bill is
    made from their union, as it was frozen and sealed."""
    doc = (await journal.read(session, "session"))["session"]
    if doc is None:
        raise NotFound(f"There is no session {session}.", param="session")
    record = SessionRecord.from_dict(doc.body)
    usage = await ledger.usage(session)
    intervals = usage.intervals
    if usage.dropped and record.bill is not None:
        intervals = tuple((start, end) for start, end in record.bill["intervals"])
    return Replay(record, usage, bill(replace(record, bill=None), intervals, minimum=minimum), record.bill)
