"""Going on in a new session (R6): who wants it, the order once both do, and what becomes of its money meanwhile.

The next session is ordered while this one may still run, so that its hold is there before this one ends (5-money,
Continue); the order runs beside the call, which must not wait for a card. Nobody enters: it expires, its hold with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Final, Literal

import structlog
from redis.exceptions import RedisError

from gateway import session as core
from gateway.errors import GatewayError
from gateway.session import ROLES, Role, SessionRecord
from gateway.sessions.orders import next_amount
from gateway.sessions.sessions import Sessions
from gateway.sessions.shown import Docs, payment_for
from gateway.signaling import messages as wire
from gateway.signaling.messages import ServerMessage, SignalError

log = structlog.get_logger(__name__)

UNDECIDED: Final = frozenset({"pending", "action_required"})
# Wake-ups may be lost; nobody waits for the word of a card longer than this. It may be an hour until a bank's page.
LOOK_AGAIN_S: Final = 5.0


class GoingOn:
    """Of one hosted session. `send` reaches a side's socket, or nobody."""

    def __init__(self, sessions: Sessions, session: str, send: Callable[[Role, ServerMessage], None]) -> None:
        self._sessions, self._session, self._send = sessions, session, send
        self._wanted: set[Role] = set()
        self._offered = False
        self._order: asyncio.Task[None] | None = None

    def wanted(self, role: Role, record: SessionRecord, now: int) -> None:
        """A side says that it wants to go on, or asks again how that stands. Raises SignalError `bad_message`."""
        if not core.may_continue(record, now):
            raise SignalError("bad_message", "This session cannot be continued, or not yet.")
        self._wanted.add(role)
        if record.continued_by is not None or len(self._wanted) == len(ROLES):
            self._begin()
        else:
            self._tell(role, "offered", record)
            self._tell(core.other(role), "peer_wants", record)

    def tick(self, record: SessionRecord, now: int) -> None:
        """Tell both once that it has become possible."""
        if not self._offered and core.may_continue(record, now):
            self._offered = True
            for role in ROLES:
                self._tell(role, "possible", record)

    def seated(self, role: Role, record: SessionRecord, now: int) -> None:
        """A page that comes back is told how that stands."""
        if not core.may_continue(record, now):
            return
        if record.continued_by is not None:
            self._begin()
        else:
            self._tell(role, "possible", record)

    def _tell(self, role: Role, state: Literal["possible", "offered", "peer_wants"], record: SessionRecord) -> None:
        amount = next_amount(record) if role == "client" else None
        self._send(role, wire.ContinueState(state=state, amount_max=amount))

    def shut(self) -> None:
        """What was not done yet is done by the next owner, when a page comes to it."""
        if self._order is not None:
            self._order.cancel()

    def _begin(self) -> None:
        if self._order is None or self._order.done():
            self._order = asyncio.create_task(self._safely())

    async def _safely(self) -> None:
        try:
            await self._ordered()
        except (GatewayError, RedisError) as error:
            code = error.code if isinstance(error, GatewayError) else "store_unavailable"
            log.warning("not_continued", session=self._session, code=code)
            for role in ROLES:
                self._send(role, wire.ContinueState(state="failed", code=code))

    async def _ordered(self) -> None:
        """Order it, say so, and follow its payment until the card has said its word."""
        created = await self._sessions.successor(self._session)
        docs = created.docs
        while True:
            for entry in (created.client, created.expert):
                self._send(entry.role, told(docs, entry.role, entry.token, entry.url))
            if docs.payment["status"] not in UNDECIDED:
                return
            docs = await self._moved(docs)

    async def _moved(self, before: Docs) -> Docs:
        def moved(docs: Docs) -> bool:
            return bool(docs.payment["status"] != before.payment["status"])

        session, sessions = before.record.id, self._sessions
        look = partial(sessions.records.read, session)
        return await sessions.changes.until(session, look, moved, inf, again_s=LOOK_AGAIN_S)


def told(docs: Docs, role: Role, token: str, url: str) -> wire.ContinueState:
    """How the next session stands, as a side may see it: agreed, or that its money failed."""
    failed = docs.payment["status"] == "failed" or not docs.record.open
    payment = payment_for(docs.payment, role)
    payment.pop("client_secret", None)
    return wire.ContinueState(
        state="failed" if failed else "agreed", session=docs.record.id, token=token, url=url, payment=payment,
        code=(docs.payment.get("decline_code") if role == "client" else "payment_failed") if failed else None,
    )  # fmt: skip
