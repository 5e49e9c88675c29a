"""The sweeper: sessions that nobody hosts end when their time has come, once, and billed for what the ledger holds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio as aioredis

from gateway import session as core
from gateway.billing_bridge import payment
from gateway.changes import Changes
from gateway.errors import Conflict, NotFound, StoreUnavailable
from gateway.ids import new_id
from gateway.journal import Journal
from gateway.meter.ledger import Lease, Ledger
from gateway.meter.sweeper import OWNED_MS, Found, Sweeper
from gateway.session import SessionRecord
from gateway.sessions import sessions as module
from gateway.sessions.rules import Rules
from gateway.sessions.sessions import Sessions
from gateway.tokens import Tokens
from tests.clocks import HandClock
from tests.orders import order

GRACE_MS = 60_000


class World:
    """Sessions over a real Valkey; the sweeper's clock and who is gone are the test's."""

    def __init__(self, redis: aioredis.Redis, journal: Journal) -> None:
        self.journal, self.ledger, self.clock = journal, Ledger(redis, journal.keys), HandClock()
        self.gone: set[str] = set()
        self.sessions = Sessions(
            journal, self.ledger, Tokens(b"k" * 32), self.clock, Changes(journal), rules=Rules(),
            public_url="https://gateway.example", open_payment=payment.opened,
        )  # fmt: skip
        self.sweeper = Sweeper(
            journal, self.ledger, self.sessions.records, self.clock, owner="sweeper", grace_ms=GRACE_MS, gone=self._gone
        )

    async def _gone(self, owner: str) -> bool:
        return owner in self.gone

    async def create(self, **changes: Any) -> SessionRecord:
        seconds, micros = await self.journal.redis.time()
        self.clock.wall = seconds * 1000 + micros // 1000
        made = await self.sessions.create(order(**changes), account="a", livemode=False, session_id=new_id("ses"))
        return made.docs.record

    async def hold(self, session: str) -> None:
        doc = (await self.journal.read(session, "payment"))["payment"]
        assert doc is not None
        await self.journal.commit(session, {"payment": (doc.version, {**doc.body, "status": "held"})})

    async def live(self, used_ms: int = 3) -> tuple[str, Lease]:
        """A call that node `n1` hosts, with that much in the ledger."""
        record = await self.create()
        await self.hold(record.id)
        await self.sessions.records.apply_payment(record.id)
        lease = await self.ledger.acquire(record.id, "n1")
        start = lease.acquired_at
        await self.sessions.records.apply(record.id, lambda r: core.together(r, start), fence=lease.fence())
        while await self.ledger.flush(lease, {1: (start, start + used_ms)}):
            pass
        self.clock.wall = start + used_ms
        return record.id, lease

    async def record(self, session: str) -> SessionRecord:
        return (await self.sessions.records.read(session)).record


@pytest.fixture
def world(redis: aioredis.Redis, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(module, "HOLD_WAIT_S", 0)
    return World(redis, journal)


async def test_a_session_that_waits_is_looked_at_again_when_it_expires_and_then_ends_unbilled(world: World) -> None:
    record = await world.create()
    assert await world.sweeper.look(record.id) == record.expires_at
    world.clock.wall = record.expires_at
    assert await world.sweeper.look(record.id) is None
    final = await world.record(record.id)
    assert (final.status, final.end_reason) == ("finalized", "expired")
    assert final.bill is not None
    assert (final.bill["union_ms"], final.bill["amount_total"]) == (0, 0)
    assert await world.sweeper.look(record.id) is None


async def test_money_that_is_held_makes_ready_a_session_that_nobody_has_entered(world: World) -> None:
    record = await world.create()
    await world.hold(record.id)
    await world.sweeper.look(record.id)
    assert (await world.record(record.id)).status == "ready"


async def test_law3_a_session_whose_owner_lives_is_left_alone(world: World) -> None:
    session, _ = await world.live()
    world.clock.pass_ms(2)
    again = await world.sweeper.look(session)
    assert again is not None
    assert again >= world.clock.wall + OWNED_MS
    assert (await world.record(session)).status == "live"


async def test_law2_after_an_outage_owners_have_time_to_renew_what_ran_out_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = await world.live()
    world.clock.pass_ms(10 * GRACE_MS)
    monkeypatch.setattr(world.sweeper, "_settling", lambda: True)
    assert await world.sweeper.look(session) is not None
    assert (await world.record(session)).status == "live"
    monkeypatch.setattr(world.sweeper, "_settling", lambda: False)
    assert await world.sweeper.look(session) is None
    assert (await world.record(session)).end_reason == "node_lost"


async def test_law3_an_orphan_has_the_grace_for_a_takeover_from_its_last_known_instant(world: World) -> None:
    session, lease = await world.live(used_ms=5)
    world.gone.add("n1")
    assert await world.sweeper.look(session) == lease.acquired_at + 5 + GRACE_MS
    assert (await world.record(session)).status == "live"
    world.clock.pass_ms(GRACE_MS)
    assert await world.sweeper.look(session) is None
    final = await world.record(session)
    assert (final.status, final.end_reason) == ("finalized", "node_lost")
    assert final.bill is not None
    assert final.bill["union_ms"] == 5, "billed for what is in the ledger, not for the grace"


async def test_law3_a_lease_that_ran_out_makes_an_orphan_though_the_node_still_beats(world: World) -> None:
    session, lease = await world.live()
    state = await world.ledger.state(session)
    assert state is not None
    world.clock.wall = state.until + 1
    assert await world.sweeper.look(session) == lease.acquired_at + 3 + GRACE_MS


async def test_law3_a_session_given_back_is_an_orphan_at_once(world: World) -> None:
    session, lease = await world.live()
    await world.ledger.release(lease)
    assert await world.sweeper.look(session) == lease.acquired_at + 3 + GRACE_MS


async def test_an_orphan_that_had_ended_is_finalized_for_its_own_reason_without_a_grace(world: World) -> None:
    session, lease = await world.live()
    await world.sessions.records.apply(session, lambda r: core.ended(r, "client_left", lease.acquired_at + 3))
    world.gone.add("n1")
    assert await world.sweeper.look(session) is None
    final = await world.record(session)
    assert (final.status, final.end_reason) == ("finalized", "client_left")


async def test_law3_the_old_owner_is_fenced_once_the_sweeper_has_ended_its_session(world: World) -> None:
    session, lease = await world.live()
    world.gone.add("n1")
    world.clock.pass_ms(GRACE_MS)
    await world.sweeper.look(session)
    with pytest.raises(Conflict) as caught:
        await world.ledger.flush(lease, {1: (lease.acquired_at, lease.acquired_at + 60_000)})
    assert caught.value.code == "final"
    assert (await world.ledger.usage(session)).intervals == ((lease.acquired_at, lease.acquired_at + 3),)


async def test_law8_two_sweepers_end_a_session_once(world: World) -> None:
    session, _ = await world.live()
    world.gone.add("n1")
    world.clock.pass_ms(GRACE_MS)
    other = Sweeper(
        world.journal,
        world.ledger,
        world.sessions.records,
        world.clock,
        owner="other",
        grace_ms=GRACE_MS,
        gone=world._gone,
    )
    for sweeper in (world.sweeper, other, world.sweeper):
        assert await sweeper.look(session) is None
    types = [event["type"] for event in await world.journal.events(session)]
    assert (types.count("session.ended"), types.count("session.finalized")) == (1, 1)


class Broken:
    """Records that cannot be had, in one way or another."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def apply_payment(self, session: str) -> Found:
        raise self.error

    async def apply(self, *_: Any, **__: Any) -> SessionRecord:
        raise self.error

    async def finalize(self, *_: Any) -> SessionRecord:
        raise self.error


@pytest.mark.parametrize(
    ("error", "comes_again"),
    [
        (NotFound("gone"), False),
        (Conflict("race", code="fenced"), True),
        (Conflict("x", code="session_state"), True),
    ],
)
async def test_one_session_that_cannot_be_moved_does_not_keep_the_others_waiting(
    world: World, error: Exception, comes_again: bool
) -> None:
    sweeper = Sweeper(
        world.journal, world.ledger, Broken(error), world.clock, owner="s", grace_ms=GRACE_MS, gone=world._gone
    )
    await world.journal.schedule("watch", "ses_1", 1)
    (claim,) = await world.journal.due("watch", lease_ms=1000, now=1)
    await sweeper._safely(claim)
    assert [c.session for c in await world.journal.due("watch", lease_ms=1, now=1001)] == ["ses_1"] * comes_again


async def test_a_store_that_is_away_stops_the_round(world: World) -> None:
    sweeper = Sweeper(
        world.journal, world.ledger, Broken(StoreUnavailable("away")), world.clock, owner="s", grace_ms=GRACE_MS,
        gone=world._gone,
    )  # fmt: skip
    await world.journal.schedule("watch", "ses_1", 1)
    (claim,) = await world.journal.due("watch", lease_ms=1000, now=1)
    with pytest.raises(StoreUnavailable):
        await sweeper._safely(claim)


class Hanging(Broken):
    """Records that never come."""

    def __init__(self) -> None:
        super().__init__(AssertionError("never"))
        self.asked = asyncio.Event()

    async def apply_payment(self, session: str) -> Found:
        self.asked.set()
        await asyncio.Event().wait()
        raise self.error


async def test_a_node_that_leaves_gives_back_what_it_had_claimed(world: World) -> None:
    records = Hanging()
    sweeper = Sweeper(world.journal, world.ledger, records, world.clock, owner="s", grace_ms=GRACE_MS, gone=world._gone)
    for session in ("ses_1", "ses_2", "ses_3"):
        await world.journal.schedule("watch", session, 1)
    running = asyncio.create_task(sweeper.run())
    await records.asked.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert {claim.session for claim in await world.journal.due("watch", lease_ms=1)} == {"ses_1", "ses_2", "ses_3"}


async def test_a_node_that_leaves_while_it_claims_gives_that_back_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed, answer, due = asyncio.Event(), asyncio.Event(), world.journal.due

    async def slow(*args: Any, **kwargs: Any) -> Any:
        claims = await due(*args, **kwargs)
        claimed.set()
        await answer.wait()
        return claims

    monkeypatch.setattr(world.journal, "due", slow)
    await world.journal.schedule("watch", "ses_1", 1)
    running = asyncio.create_task(world.sweeper.run())
    await claimed.wait()
    running.cancel()
    await asyncio.sleep(0)
    answer.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [claim.session for claim in await due("watch", lease_ms=1)] == ["ses_1"]
