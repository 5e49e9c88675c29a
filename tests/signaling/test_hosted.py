"""A session on its node: two sockets, a relay's reports, the records in a real Valkey, and whatever goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis.asyncio as aioredis

from gateway import session as core
from gateway.billing_bridge import payment
from gateway.bookings.meetings import Meeting
from gateway.changes import Changes
from gateway.errors import StoreUnavailable
from gateway.ids import new_id
from gateway.journal import Journal
from gateway.meter.ledger import Ledger, Write
from gateway.nodes import Node, RedisClock
from gateway.session import Role, SessionRecord
from gateway.sessions import sessions as sessions_module
from gateway.sessions.free_grants import FreeGrants
from gateway.sessions.records import Records
from gateway.sessions.rules import Rules
from gateway.sessions.sessions import Sessions
from gateway.sessions.shown import Docs
from gateway.sfu.port import CallConfig, Candidate, LegReport, Report, Span, Statistics
from gateway.signaling import hosted as module
from gateway.signaling.call import Timers
from gateway.signaling.host import Guest, Host
from gateway.signaling.messages import Close, Hello, Leave, MediaState, Rate, ServerMessage, SignalError
from gateway.tokens import Tokens
from tests.orders import order

ON = MediaState(audio=True, video=False)


@dataclass
class Socket:
    """What a side's socket was told."""

    sent: list[ServerMessage] = field(default_factory=list)
    code: Close | None = None

    def send(self, message: ServerMessage) -> None:
        self.sent.append(message)

    def close(self, code: Close, reason: str = "") -> None:
        self.code = code

    def said(self, kind: str) -> list[Any]:
        return [message for message in self.sent if message.type == kind]


class Relay:
    """The port, with the test as its legs."""

    def __init__(self) -> None:
        self.configs: list[CallConfig] = []
        self.released: list[str] = []
        self.last: Report | None = None
        self._reports: asyncio.Queue[Report] = asyncio.Queue()

    def candidates(self, call: str) -> tuple[Candidate, ...]:
        return (Candidate("192.0.2.1", 3478),)

    async def configure(self, config: CallConfig) -> None:
        self.configs.append(config)

    async def release(self, call: str) -> Report | None:
        self.released.append(call)
        last, self.last = self.last, None
        return last

    async def reports(self) -> AsyncIterator[Report]:
        while True:
            yield await self._reports.get()

    async def statistics(self) -> Statistics:
        raise NotImplementedError

    @property
    def idle(self) -> bool:
        return self._reports.empty()

    def report(self, report: Report) -> None:
        self.last = report
        self._reports.put_nowait(report)


class MoodyRecords(Records):
    """The records of a store that may be away."""

    away = False

    async def apply(self, *args: Any, **kwargs: Any) -> SessionRecord:
        self._check()
        return await super().apply(*args, **kwargs)

    async def read(self, session: str) -> Docs:
        self._check()
        return await super().read(session)

    async def finalize(self, *args: Any) -> SessionRecord:
        self._check()
        return await super().finalize(*args)

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("away")


class Stage:
    """One node with everything but media; `listen=False`: nobody is told of changes, as when Redis drops the word."""

    def __init__(self, redis: aioredis.Redis, journal: Journal, *, timers: Timers, listen: bool = True) -> None:
        self.redis, self.journal, self.relay = redis, journal, Relay()
        self.node = Node(redis, RedisClock())
        self.ledger = Ledger(redis, journal.keys)
        changes = Changes(journal)
        tokens = Tokens(b"k" * 32)
        self.sessions = Sessions(
            journal, self.ledger, tokens, self.node.clock, changes, rules=Rules(),
            public_url="https://gateway.example", open_payment=payment.opened,
        )  # fmt: skip
        self.records = MoodyRecords(
            journal, self.ledger, self.node.clock, Rules(), self.sessions.doors, FreeGrants(journal, 0)
        )
        self.sessions.records = self.records
        self.host = Host(self.sessions, self.ledger, self.relay, self.node, tokens, timers, flush_ms=50)
        self._loops = [self.host.run, *([changes.run] if listen else [])]
        self._tasks: list[asyncio.Task[None]] = []
        self.tokens: dict[Role, str] = {}
        self.session = ""

    async def start(self, **changes: Any) -> None:
        """A session whose money is held."""
        await self.node.beat()
        self._tasks = [asyncio.create_task(loop()) for loop in self._loops]
        made = await self.sessions.create(order(**changes), account="a", livemode=False, session_id=new_id("ses"))
        self.session, self.tokens = made.docs.record.id, {"client": made.client.token, "expert": made.expert.token}
        await self.pay("held")

    async def stop(self) -> None:
        self.sessions.away = False
        await self.host.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def pay(self, status: str) -> None:
        doc = (await self.journal.read(self.session, "payment"))["payment"]
        assert doc is not None
        await self.journal.commit(self.session, {"payment": (doc.version, {**doc.body, "status": status})})

    async def sit(self, role: Role, *, again: bool = False) -> tuple[Guest, Socket]:
        """With the first token of the side, or `again` with a fresh one."""
        fresh = Tokens(b"k" * 32).join(self.session, role, now=self.node.clock.wall_ms())
        socket, hello = Socket(), Hello(type="hello", token=fresh if again else self.tokens[role], media=ON)
        return await self.host.enter(hello, socket), socket

    async def begin_while_the_store_is_away(self) -> Guest:
        """The client of a call whose start nobody but its node knows."""
        await self.start()
        (client, _), _ = await self.sit("client"), await self.sit("expert")
        await self.until(lambda: bool(self.relay.configs) and self.relay.configs[-1].funded)
        self.records.away = True
        self.since = self.node.clock.boot_ms() - 5_000
        self.hear()
        await self.until(lambda: client.hosted.record.started_at is not None)
        return client

    async def call(self) -> tuple[tuple[Guest, Socket], tuple[Guest, Socket]]:
        """Both seated, media flowing since now."""
        client, expert = await self.sit("client"), await self.sit("expert")
        await self.until(lambda: bool(self.relay.configs) and self.relay.configs[-1].funded)
        self.since = self.node.clock.boot_ms()
        self.hear()
        await self.until(lambda: bool(client[1].said("meter")))
        return client, expert

    def hear(self, ended_by: Any = None, present: tuple[bool, bool] = (True, True)) -> None:
        """A report: one span from the start until now."""
        now = self.node.clock.boot_ms()
        legs = (LegReport(present[0], present[0]), LegReport(present[1], present[1]))
        span = Span(1, self.since, now, (now, now), ended_by)
        self.relay.report(Report(self.session, now, 1, "shut" if ended_by else "open", legs, (span,)))

    async def finish_reports(self) -> None:
        """Until the session has taken what was reported so far, and what it was told before."""
        (hosted,) = self.host._hosted.values()
        while not self.relay.idle:
            await asyncio.sleep(0.01)
        await hosted.turns.ask(lambda: asyncio.sleep(0))

    async def record(self) -> SessionRecord:
        doc = (await self.journal.read(self.session, "session"))["session"]
        assert doc is not None
        return SessionRecord.from_dict(doc.body)

    async def finalized(self) -> SessionRecord:
        async with asyncio.timeout(10):
            while (record := await self.record()).status != "finalized":
                await asyncio.sleep(0.02)
        return record

    @staticmethod
    async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "HOLD_WAIT_S", 0)
    monkeypatch.setattr(module, "TICK_S", 0.02)


@pytest.fixture
async def build(redis: aioredis.Redis, journal: Journal, quick: None) -> AsyncIterator[Callable[..., Stage]]:
    made: list[Stage] = []

    def build(*, listen: bool = True, **timers: int) -> Stage:
        made.append(Stage(redis, journal, timers=Timers(**timers), listen=listen))
        return made[-1]

    yield build
    for stage in made:
        await stage.stop()


@pytest.fixture
def stage(build: Callable[..., Stage]) -> Stage:
    return build()


async def test_law2_the_relay_is_told_to_forward_only_once_the_money_is_held(stage: Stage) -> None:
    await stage.start()
    await stage.pay("pending")
    await stage.sit("client")
    await stage.sit("expert")
    await stage.until(lambda: bool(stage.relay.configs))
    assert not any(config.funded for config in stage.relay.configs)
    await stage.pay("held")
    await stage.until(lambda: stage.relay.configs[-1].funded)


async def test_law4_the_relay_is_given_the_deadline_and_never_more_than_half_a_minute(stage: Stage) -> None:
    await stage.start()
    await stage.call()
    record = await stage.record()
    await stage.until(lambda: stage.relay.configs[-1].deadline is not None)
    config = stage.relay.configs[-1]
    assert config.deadline is not None
    assert record.started_at is not None
    assert config.deadline - stage.since == record.limit_ms
    assert config.until - stage.node.clock.boot_ms() <= module.UNTIL_MS
    count = len(stage.relay.configs)
    await stage.until(lambda: len(stage.relay.configs) > count)
    assert stage.relay.configs[-1].until > config.until, "extended each second"


async def test_law3_hanging_up_cuts_first_and_bills_until_that_instant(stage: Stage) -> None:
    await stage.start()
    (client, _), (_, expert) = await stage.call()
    stage.hear()
    stage.relay.last = Report(
        stage.session, stage.node.clock.boot_ms(), 1, "shut", (LegReport(True, True), LegReport(True, True)),
        (Span(1, stage.since, stage.since + 40, (stage.since + 40,) * 2, "released"),),
    )  # fmt: skip
    await client.receive(Leave(type="leave"))
    assert stage.relay.released == [stage.session]
    record = await stage.finalized()
    assert record.end_reason == "client_left"
    assert record.bill is not None
    await stage.until(lambda: any(message.summary for message in expert.said("ended")))
    assert expert.said("meter")[-1].earnings is not None


@pytest.mark.parametrize("missed", ["the word of it", "that it came while something else was written"])
async def test_law4_an_end_by_the_api_cuts_the_call_also_if_the_node_misses(
    build: Callable[..., Stage], missed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missed == "the word of it":
        monkeypatch.setattr(module, "REREAD_MS", 100)
    deaf = build(listen=False)
    await deaf.start()
    await deaf.records.apply_payment(deaf.session)
    (client, socket), _ = await deaf.call()
    await deaf.sessions.end("a", deaf.session)
    if missed != "the word of it":
        deaf.hear(ended_by="silence", present=(True, False))
    await deaf.until(lambda: deaf.session in deaf.relay.released)
    record = await deaf.finalized()
    assert record.end_reason == "ended_by_api"
    await deaf.until(lambda: any(message.reason == "ended_by_api" for message in socket.said("ended")))
    assert client.role == "client"


async def test_law3_a_hang_up_that_the_store_does_not_take_is_written_when_it_is_back(stage: Stage) -> None:
    await stage.start()
    (client, socket), _ = await stage.call()
    stage.records.away = True
    with pytest.raises(SignalError) as caught:
        await client.receive(Leave(type="leave"))
    assert caught.value.close == Close.TRY_AGAIN
    assert stage.relay.released == [stage.session], "cut all the same"
    assert socket.said("ended")
    stage.records.away = False
    await stage.journal.redis.publish(stage.journal.channel, stage.session)
    record = await stage.finalized()
    assert record.end_reason == "client_left"
    types = [event["type"] for event in await stage.journal.events(stage.session)]
    assert (types.count("session.ended"), types.count("session.finalized")) == (1, 1)


async def test_law2_a_call_that_began_and_ended_while_the_store_was_away_is_billed(stage: Stage) -> None:
    client = await stage.begin_while_the_store_is_away()
    with pytest.raises(SignalError):
        await client.receive(Leave(type="leave"))
    stage.records.away = False
    await stage.journal.redis.publish(stage.journal.channel, stage.session)
    record = await stage.finalized()
    assert record.started_at is not None
    assert record.end_reason == "client_left"


async def test_law2_a_call_whose_start_the_store_did_not_take_is_billed_when_someone_else_ends_it(stage: Stage) -> None:
    await stage.begin_while_the_store_is_away()
    now = stage.node.clock.wall_ms()
    await Records.apply(stage.records, stage.session, lambda record: core.ended(record, "canceled", now))
    stage.records.away = False
    await stage.journal.redis.publish(stage.journal.channel, stage.session)
    record = await stage.finalized()
    assert record.started_at is not None
    assert record.end_reason == "canceled"


async def test_law3_a_clock_that_was_set_back_meanwhile_cuts_off_nothing_that_was_used(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.start()
    (client, _), _ = await stage.call()
    wall = stage.node.clock.wall_ms
    monkeypatch.setattr(stage.node.clock, "wall_ms", lambda: wall() - 20_000)
    await client.receive(Leave(type="leave"))
    record = await stage.finalized()
    assert record.started_at is not None
    assert record.ended_at is not None
    assert 0 <= wall() - record.ended_at < 20_000


async def test_law4_while_the_store_is_away_the_relay_is_still_told_to_go_on(stage: Stage) -> None:
    await stage.start()
    await stage.call()
    stage.records.away = True
    before = len(stage.relay.configs)
    await stage.until(lambda: len(stage.relay.configs) >= before + 2)
    assert stage.relay.released == []


async def test_r06_who_stays_alone_is_sent_home_however_late_the_money_came(build: Callable[..., Stage]) -> None:
    stage = build(lone_ms=150)
    await stage.start()
    await stage.pay("pending")
    _, socket = await stage.sit("client")
    await asyncio.sleep(0.25)
    assert (await stage.record()).open, "nobody is sent home while the card is asked"
    await stage.pay("held")
    assert (await stage.finalized()).end_reason == "lone_party_timeout"
    await stage.until(lambda: bool(socket.said("ended")))


async def test_r06_a_call_whose_leg_does_not_come_back_ends_after_the_grace(build: Callable[..., Stage]) -> None:
    stage = build(grace_ms=300)
    await stage.start()
    _, (_, expert) = await stage.call()
    stage.hear(ended_by="silence", present=(False, True))
    await stage.until(lambda: any(message.status == "interrupted" for message in expert.said("status")))
    record = await stage.finalized()
    assert record.end_reason == "connection_lost"
    assert [peer.state for peer in expert.said("peer")][-1] == "reconnecting"


@pytest.mark.parametrize("lost", sorted(module.LOST_FUNDS))
async def test_5_money_a_hold_that_is_lost_in_the_call_ends_it(stage: Stage, lost: str) -> None:
    await stage.start()
    await stage.call()
    await stage.pay(lost)
    assert (await stage.finalized()).end_reason == "funds_reached"


async def test_law2_a_call_whose_hold_was_lost_is_not_forwarded_while_another_card_is_asked(stage: Stage) -> None:
    await stage.start()
    await stage.call()
    await stage.pay("pending")
    await stage.until(lambda: not stage.relay.configs[-1].funded)
    assert (await stage.record()).open
    await stage.pay("held")
    await stage.until(lambda: stage.relay.configs[-1].funded)
    await stage.pay("pending")
    await stage.pay("failed")
    assert (await stage.finalized()).end_reason == "funds_reached"


@pytest.mark.parametrize("meanwhile", ["failed", "pending", "action_required"])
async def test_law2_a_hold_that_is_lost_before_the_call_keeps_the_gate_shut_until_another_card_is_held(
    stage: Stage, meanwhile: str
) -> None:
    await stage.start()
    assert (await stage.records.apply_payment(stage.session)).record.funded
    await stage.pay(meanwhile)
    await stage.sit("client")
    await stage.sit("expert")
    await stage.until(lambda: len(stage.relay.configs) > 1)
    assert not any(config.funded for config in stage.relay.configs)
    assert (await stage.record()).open, "another card may be held"
    await stage.pay("held")
    await stage.until(lambda: stage.relay.configs[-1].funded)


async def test_law2_a_hold_that_is_lost_while_both_wait_shuts_the_gate(stage: Stage) -> None:
    await stage.start()
    await stage.sit("client")
    await stage.sit("expert")
    await stage.until(lambda: bool(stage.relay.configs) and stage.relay.configs[-1].funded)
    await stage.pay("failed")
    await stage.until(lambda: not stage.relay.configs[-1].funded)
    assert (await stage.record()).open


async def test_law7_a_join_token_opens_nothing_more_once_its_leg_was_heard(stage: Stage) -> None:
    await stage.start()
    (client, socket), _ = await stage.call()
    await client.closed()
    stage.hear()
    await stage.finish_reports()
    with pytest.raises(SignalError) as caught:
        await stage.sit("client")
    assert (caught.value.code, caught.value.close) == ("token_used", Close.UNAUTHORIZED)
    assert socket.code is None


async def test_law3_an_owner_that_was_superseded_cuts_and_sends_its_callers_away(stage: Stage) -> None:
    await stage.start()
    (_, client), (_, expert) = await stage.call()
    await stage.ledger.acquire(stage.session, "another", owner_gone=True)
    await stage.until(lambda: client.code is not None and expert.code is not None)
    assert (client.code, expert.code) == (Close.GOING_AWAY, Close.GOING_AWAY)
    assert stage.session in stage.relay.released
    assert (await stage.record()).status == "live", "it is the other owner's to say"


async def test_law9_what_a_former_owner_writes_after_the_takeover_is_on_display_before_it_is_billed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REREAD_MS", 20)
    await stage.start()
    former = await stage.ledger.acquire(stage.session, "former")
    await asyncio.sleep(0.06)
    await stage.ledger.release(former)
    (client, socket), _ = await stage.call()
    late = (former.acquired_at, former.acquired_at + 50)
    await stage.ledger.write([Write(former, {1: late}, 1, renew=False)])
    await stage.until(lambda: client.hosted.call.earlier == (late,))
    stage.hear()
    await client.receive(Leave(type="leave"))
    bill = (await stage.finalized()).bill
    assert bill is not None
    assert bill["amount_total"] == socket.said("meter")[-1].cost


async def test_law4_the_limit_counts_from_what_a_former_owner_metered_although_its_word_of_the_start_was_lost(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REREAD_MS", 20)
    await stage.start()
    former = await stage.ledger.acquire(stage.session, "former")
    await stage.ledger.release(former)
    (client, _), _ = await stage.call()
    began, first = (await stage.record()).started_at, former.acquired_at
    assert began is not None
    assert first < began
    await stage.ledger.write([Write(former, {1: (first, first + 50)}, 1, renew=False)])
    await stage.until(lambda: client.hosted.record.started_at == first)
    assert (await stage.record()).started_at == first
    assert stage.relay.configs[-1].deadline == first + client.hosted.record.limit_ms - client.hosted.call.offset_ms


async def test_law9_what_a_former_owner_writes_while_the_store_is_away_at_the_end_is_not_billed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REREAD_MS", 60_000)
    await stage.start()
    former = await stage.ledger.acquire(stage.session, "former")
    await asyncio.sleep(0.06)
    await stage.ledger.release(former)
    (client, socket), _ = await stage.call()
    stage.hear()
    await stage.finish_reports()
    stage.records.away = True
    monkeypatch.setattr(client.hosted, "_count_others", away)
    with pytest.raises(SignalError):
        await client.receive(Leave(type="leave"))
    late = (former.acquired_at, former.acquired_at + 50)
    await stage.ledger.write([Write(former, {1: late}, 1, renew=False)])
    stage.records.away = False
    await stage.journal.redis.publish(stage.journal.channel, stage.session)
    record = await stage.finalized()
    assert record.unseen == (late,)
    assert record.bill is not None
    assert record.bill["amount_total"] == socket.said("meter")[-1].cost


async def away() -> None:
    raise StoreUnavailable("away")


async def test_a_session_whose_last_seat_we_closed_is_let_go(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EMPTY_MS", 50)
    await stage.start()
    guest, _ = await stage.sit("client")
    guest.hosted.seats.close_both(Close.TRY_AGAIN)
    await stage.until(lambda: not stage.host._hosted)


async def test_law3_a_node_that_stops_writes_the_usage_and_gives_the_session_back_to_be_found_at_once(
    stage: Stage,
) -> None:
    await stage.start()
    (_, client), _ = await stage.call()
    stage.hear()
    await stage.host.stop()
    assert client.code == Close.GOING_AWAY
    state = await stage.ledger.state(stage.session)
    assert state is not None
    assert state.owner == ""
    assert len((await stage.ledger.usage(stage.session)).rows) == 1
    assert (await stage.record()).status == "interrupted"
    assert stage.session in [claim.session for claim in await stage.journal.due("watch", lease_ms=1000)]
    with pytest.raises(SignalError) as caught:
        await stage.sit("client")
    assert caught.value.close == Close.GOING_AWAY


async def test_who_asks_a_session_that_leaves_is_sent_away_and_does_not_wait_for_ever(stage: Stage) -> None:
    await stage.start()
    (client, _), _ = await stage.call()
    hung = asyncio.Event()
    client.hosted.turns.post(hung.wait)  # type: ignore[arg-type]
    asking = asyncio.create_task(client.receive(Rate(type="rate", stars=5)))
    await asyncio.sleep(0.05)
    client.hosted.shut()
    with pytest.raises(SignalError) as caught:
        await asking
    assert caught.value.close == Close.TRY_AGAIN
    with pytest.raises(SignalError):
        await client.receive(Rate(type="rate", stars=5))
    hung.set()


async def test_law5_a_session_whose_task_broke_is_nobodys_once_its_lease_has_run_out(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.start()
    (client, socket), _ = await stage.call()
    monkeypatch.setattr(client.hosted, "_tick", broken)
    await stage.until(lambda: socket.code is not None)
    # Or its lease would be renewed for ever, and nobody would end it.
    await stage.until(lambda: not stage.host._flusher._tabs)


async def broken() -> None:
    raise ZeroDivisionError


async def test_a_bug_in_one_session_sends_its_callers_back_and_leaves_the_others_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.start()
    (client, socket), _ = await stage.call()

    async def fail() -> None:
        raise ZeroDivisionError

    client.hosted.turns.post(fail)
    await stage.until(lambda: socket.code is not None)
    assert socket.code == Close.TRY_AGAIN
    assert stage.session in stage.relay.released
    _, again = await stage.sit("client", again=True)
    assert again.said("welcome")


async def test_r20_a_rating_is_kept_by_the_side_that_gave_it(stage: Stage) -> None:
    await stage.start()
    (client, _), (expert, _) = await stage.call()
    await client.receive(Rate(type="rate", stars=5, comment="clear"))
    await expert.receive(Rate(type="rate", stars=4))
    await client.receive(Rate(type="rate", stars=3))
    ratings = (await stage.record()).ratings
    assert {role: rating["stars"] for role, rating in ratings.items()} == {"client": 3, "expert": 4}


async def test_a_session_that_has_ended_welcomes_and_says_how_it_ended(build: Callable[..., Stage]) -> None:
    stage = build()
    await stage.start()
    (client, _), _ = await stage.call()
    await client.receive(Leave(type="leave"))
    await stage.finalized()
    await stage.host.stop()
    other = build()
    other.session, other.tokens = stage.session, stage.tokens
    _, socket = await other.sit("expert", again=True)
    assert socket.said("ended")[0].reason == "client_left"
    assert other.relay.configs == [], "nothing is forwarded any more"


async def test_r14_whoever_hangs_up_before_the_meeting_began_may_come_back(build: Callable[..., Stage]) -> None:
    stage = build()
    now = stage.node.clock.wall_ms()
    soon = Meeting("bkg_1", 1, now + 60_000)
    await stage.start(kind="booked", meeting=soon, expires_in_ms=7_200_000)
    await stage.pay("captured")
    guest, socket = await stage.sit("client")
    await guest.receive(Leave(type="leave"))
    await guest.closed()
    assert (await stage.record()).status == "ready"
    assert socket.said("ended") == []
    await stage.sit("client", again=True)
    (client, _), _ = (await stage.sit("client", again=True)), (await stage.sit("expert"))
    await client.receive(Leave(type="leave"))
    assert (await stage.record()).open
