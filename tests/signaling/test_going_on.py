"""Going on in a new session: who is told what, and that the next one is ordered once both agree (R6)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from gateway import session as core
from gateway.errors import Conflict
from gateway.session import Role, SessionRecord
from gateway.sessions.doors import Entry
from gateway.sessions.sessions import Created, Sessions
from gateway.sessions.shown import Docs
from gateway.signaling.going_on import GoingOn
from gateway.signaling.messages import ContinueState, ServerMessage, SignalError
from tests.orders import NOW, record

LATE = NOW + 26 * 60_000


class Store:
    """Of the use cases what going on needs; the payment is the test's."""

    def __init__(self) -> None:
        self.payment: dict[str, Any] = {"status": "held", "amount_held": 9000, "client_secret": "s"}
        self.orders = 0
        self.fault: Exception | None = None
        self.changed = asyncio.Event()
        self.changes = self.records = self

    async def successor(self, session: str) -> Created:
        self.orders += 1
        if self.fault is not None:
            raise self.fault
        docs = await self.read("ses_2")
        return Created(docs, Entry("client", "tc", "https://x/call#c"), Entry("expert", "te", "https://x/call#e"))

    async def read(self, session: str) -> Docs:
        return Docs(replace(record(), id="ses_2").to_dict(), dict(self.payment), {}, None)

    async def until(
        self, _session: str, look: Callable[[], Awaitable[Docs]], said: Callable[[Docs], bool], _: float, **__: float
    ) -> Docs:
        while not said(docs := await look()):
            await self.changed.wait()
            self.changed.clear()
        return docs

    def pay(self, **told: Any) -> None:
        self.payment |= told
        self.changed.set()


class Table:
    """A running session's two pages, four minutes before its limit."""

    def __init__(self) -> None:
        self.store = Store()
        self.heard: dict[Role, list[ContinueState]] = {"client": [], "expert": []}
        self.going_on = GoingOn(cast(Sessions, self.store), "ses_1", self._send)
        self.record: SessionRecord = core.together(core.funded(record()).record, NOW).record

    def _send(self, role: Role, message: ServerMessage) -> None:
        assert isinstance(message, ContinueState)
        self.heard[role].append(message)

    def want(self, *roles: Role, now: int = LATE) -> None:
        for role in roles:
            self.going_on.wanted(role, self.record, now)

    def states(self, role: Role) -> list[str]:
        return [message.state for message in self.heard[role]]

    async def rest(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
async def table() -> AsyncIterator[Table]:
    made = Table()
    yield made
    made.going_on.shut()


async def test_both_are_told_once_that_it_is_possible_and_the_client_what_it_can_cost(table: Table) -> None:
    table.going_on.tick(table.record, LATE - 120_000)
    assert table.heard == {"client": [], "expert": []}
    for _ in range(2):
        table.going_on.tick(table.record, LATE)
    assert [m.amount_max for m in table.heard["client"]] == [9000]
    assert [m.amount_max for m in table.heard["expert"]] == [None]


async def test_one_who_wants_it_is_not_enough_and_both_are(table: Table) -> None:
    table.want("client", "client")
    await table.rest()
    assert table.states("client") == ["offered"] * 2
    assert table.states("expert") == ["peer_wants"] * 2
    assert table.store.orders == 0
    table.want("expert", "expert")
    await table.rest()
    assert table.store.orders == 1
    last = table.heard["client"][-1]
    assert (last.state, last.session, last.token) == ("agreed", "ses_2", "tc")
    assert last.payment is not None
    assert (last.payment["status"], "client_secret" in last.payment) == ("held", False)
    assert table.heard["expert"][-1].payment == {"status": "held"}, "law 7"


async def test_too_early_or_after_a_hang_up_nobody_goes_on(table: Table) -> None:
    for at, going in ((NOW, table.record), (LATE, core.ended(table.record, "client_left", LATE).record)):
        with pytest.raises(SignalError):
            table.going_on.wanted("client", going, at)


@pytest.mark.parametrize("at_first", ["pending", "action_required"])
async def test_a_hold_that_fails_later_is_told_to_both(table: Table, at_first: str) -> None:
    table.store.pay(status=at_first)
    table.want("client", "expert")
    await table.rest()
    table.store.pay(status="failed", decline_code="insufficient_funds")
    await table.rest()
    assert table.states("client")[-2:] == table.states("expert")[-2:] == ["agreed", "failed"]
    assert table.heard["client"][-1].code == "insufficient_funds"
    assert table.heard["expert"][-1].code == "payment_failed", "why is the client's own"


async def test_an_order_that_is_refused_is_told_to_both_and_may_be_asked_for_again(table: Table) -> None:
    table.store.fault = Conflict("x", code="reference_in_use")
    table.want("client", "expert")
    await table.rest()
    assert [m[-1].code for m in table.heard.values()] == ["reference_in_use"] * 2
    table.store.fault = None
    table.want("client")
    await table.rest()
    assert table.states("expert")[-1] == "agreed"


async def test_a_page_that_comes_back_is_told_how_it_stands(table: Table) -> None:
    table.going_on.seated("client", table.record, LATE)
    assert table.states("client") == ["possible"]
    table.going_on.seated("client", core.continued(table.record, "ses_2").record, LATE)
    await table.rest()
    assert table.states("client")[-1] == "agreed"
