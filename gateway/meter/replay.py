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
    """The record, its ledger, the bill made from them now, and the frozen one (None before it is final). `told`: the
    chain's head as `session.finalized` has it, None before that."""

    record: SessionRecord
    usage: Usage
    bill: Bill
    frozen: dict[str, Any] | None
    told: str | None = None

    @property
    def differences(self) -> dict[str, tuple[Any, Any]]:
        """Fields where the frozen bill is not what the ledger gives: name → (frozen, replayed)."""
        if self.frozen is None:
            return {}
        again = self.bill.to_dict()
        return {name: (was, again.get(name)) for name, was in self.frozen.items() if was != again.get(name)}

    @property
    def broken(self) -> list[str]:
        """What is not as it was sealed when the bill was frozen: terms, rows, bill, and the seal itself. Empty before
        that, and for records from before there were chains."""
        chain = self.record.chain
        if self.frozen is None:
            return []
        if chain is None:
            return ["the seal was taken away"] if self.told else []
        found = broken(chain, self.record, self.usage.sealed, self.frozen, dropped=self.usage.dropped)
        if self.told is not None and self.told != chain["head"]:
            found.append("the seal is not the one that session.finalized told of")
        return found


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
    ends = [event for event in await journal.events(session) if event["type"] == "session.finalized"]
    told = ends[0]["data"].get("ledger_head") if ends else None
    return Replay(record, usage, bill(replace(record, bill=None), intervals, minimum=minimum), record.bill, told)
