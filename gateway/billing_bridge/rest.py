"""Whether a session has come to rest: money settled, receipts sent, events delivered, and all quiet since. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from gateway.archive.snapshot import Snapshot
from gateway.receipts import letters

# A booking has no end of its own: once its charge is shared out, its meetings are what is left of it.
OVER: Final = ("finalized", "booked")
# How soon to look again at a session that somebody still works on.
BUSY_MS: Final = 3_600_000
# How soon to look again at money that waits for somebody: an account to be verified, a bank to decide.
WAITING_MS: Final = 86_400_000


def rests_from(snapshot: Snapshot, queues: Collection[str], now: int, quiet_ms: int) -> int | None:
    """When the session may be archived (wall ms): not after `now`, at once. None: not before its money settles (again).

    `queues`: where work for it stands. `quiet_ms`: how long nothing must have happened.
    """
    payment = snapshot.doc("payment")
    if snapshot.record["status"] not in OVER or payment is None or not payment["settled"]:
        return None
    if _waits(payment):
        return now + WAITING_MS
    if queues or _undelivered(snapshot):
        return now + BUSY_MS
    return max((event["created"] for event in snapshot.events), default=0) + quiet_ms


def _waits(payment: dict[str, Any]) -> bool:
    """What is withheld is still owed to somebody; an open dispute is still to be decided."""
    dispute = payment.get("dispute")
    return any(transfer["status"] == "withheld" for transfer in payment["transfers"]) or (
        dispute is not None and dispute["status"] == "open"
    )


def _undelivered(snapshot: Snapshot) -> bool:
    """A mail still to be sent (it may not even have its number), or an event to be delivered."""
    kept = snapshot.doc("receipts") or {}
    mails = [kept[name]["mail"]["status"] for name in letters.names(kept)]
    return "pending" in mails or any(name[:2] in ("o:", "l:") for name in snapshot.deliveries)
