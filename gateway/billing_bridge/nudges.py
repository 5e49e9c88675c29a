"""A nudge: one more event of Stripe's about a session, counted beside it, so that the bridge looks at its money; and
whom one about a booking's charge concerns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from gateway.errors import Conflict, StoreUnavailable
from gateway.journal import NOW, Journal

# What an event may be about, besides the payment itself; each kind is counted, so that only what is asked needs to be.
Topic = Literal["disputes", "refunds", "accounts", "lost"]
# Two bridges' nudges can collide on one session's record; each try reads it again.
ATTEMPTS: Final = 20


async def meetings_of(journal: Journal, owner: str) -> list[str]:
    """The sessions that a booking's charge paid for; none for what is no booking. Raises StoreUnavailable."""
    doc = (await journal.read(owner, "session"))["session"] if owner.startswith("bkg_") else None
    return [] if doc is None else list(doc.body["meetings"])


async def nudge(
    journal: Journal,
    session: str,
    topic: Topic | None,
    told: Mapping[str, Any],
    no_news: Callable[[Mapping[str, Any]], bool] = lambda payment: False,
) -> bool:
    """Count it in the session's `stripe` record, with what `told` of it; False without a payment record, or if that
    has `no_news` to expect. Raises StoreUnavailable."""
    for _ in range(ATTEMPTS):
        docs = await journal.read(session, "payment", "stripe")
        if docs["payment"] is None or no_news(docs["payment"].body):
            return False
        doc = docs["stripe"]
        had = doc.body if doc else {"count": 0}
        body = {**had, "schema": 1, **told, "count": had["count"] + 1}
        if topic is not None:
            body[topic] = body.get(topic, 0) + 1
        put = {"stripe": (doc.version if doc else 0, body)}
        try:
            # An intent is also asked for in time; of disputes, refunds and accounts only an event tells, and once it is
            # answered Stripe does not repeat it.
            await journal.commit(session, put, due={"money": NOW}, durable=topic is not None)
        except Conflict:
            continue
        return True
    raise StoreUnavailable("The session is too busy; send it again.")
