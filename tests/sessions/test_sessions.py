"""The use cases of sessions over a real Valkey: one change at a time, whoever else changes them meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import redis.asyncio as aioredis

from gateway import session as core
from gateway.billing_bridge import payment
from gateway.bookings.booking import NewBooking
from gateway.bookings.bookings import Bookings
from gateway.changes import Changes
from gateway.clock import SystemClock
from gateway.errors import Conflict, NotFound, StoreUnavailable, Unauthorized
from gateway.ids import new_id, uuid7_int
from gateway.journal import Journal
from gateway.meter.ledger import Lease, Ledger, Write
from gateway.meter.replay import replay
from gateway.money import hold_amount
from gateway.session import SessionRecord
from gateway.sessions import sessions as module
from gateway.sessions.directory import MAKING_MS
from gateway.sessions.orders import ENTER_MS
from gateway.sessions.rules import Rules
from gateway.sessions.sessions import Sessions
from gateway.sessions.shown import Docs, payment_for, pricing
from gateway.tokens import Tokens
from tests.orders import order

ACCOUNT = "acc_test"


@pytest.fixture
async def sessions(redis: aioredis.Redis, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sessions]:
    monkeypatch.setattr(module, "HOLD_WAIT_S", 0.05)
    changes = Changes(journal)
    listening = asyncio.create_task(changes.run())
    yield Sessions(
        journal, Ledger(redis, journal.keys), Tokens(b"k" * 32), SystemClock(), changes,
        rules=Rules(minimums={"main": {"usd": 50}}), public_url="https://gateway.example/", open_payment=payment.opened,
    )  # fmt: skip
    listening.cancel()


async def create(sessions: Sessions, session: str | None = None, **changes: Any) -> Docs:
    made = await sessions.create(order(**changes), account=ACCOUNT, livemode=False, session_id=session or new_id("ses"))
    return made.docs


async def say_payment(sessions: Sessions, session: str, **told: Any) -> None:
    """As the bridge writes its record."""
    doc = (await sessions.journal.read(session, "payment"))["payment"]
    assert doc is not None
    await sessions.journal.commit(session, {"payment": (doc.version, {**doc.body, **told})})


async def live(sessions: Sessions, session: str) -> Lease:
    """Funded, owned, and together since the lease began."""
    await say_payment(sessions, session, status="held")
    await sessions.records.apply_payment(session)
    lease = await sessions.ledger.acquire(session, "n1")
    await sessions.records.apply(session, lambda record: core.together(record, lease.acquired_at), fence=lease.fence())
    return lease


async def types(sessions: Sessions, session: str) -> list[str]:
    return [event["type"] for event in await sessions.journal.events(session)]


async def test_creation_says_pending_when_the_card_takes_long_and_what_it_said_when_it_does_not(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await create(sessions)).payment["status"] == "pending"
    monkeypatch.setattr(module, "HOLD_WAIT_S", 10.0)
    session = new_id("ses")
    creating = asyncio.create_task(create(sessions, session))
    async with asyncio.timeout(5):
        while (await sessions.journal.read(session, "payment"))["payment"] is None:
            await asyncio.sleep(0.005)
        await say_payment(sessions, session, status="held")
        docs = await creating
    assert (docs.payment["status"], docs.record.status) == ("held", "ready")


async def test_creating_again_with_the_same_id_gives_the_session_that_is_there(sessions: Sessions) -> None:
    session = new_id("ses")
    made = await asyncio.gather(*(create(sessions, session, reference="r1") for _ in range(3)))
    assert {docs.record.id for docs in made} == {session}
    assert await types(sessions, session) == ["session.created"]


async def test_a_reference_is_unique_among_unfinished_sessions_however_close_they_come(sessions: Sessions) -> None:
    answers = await asyncio.gather(*(create(sessions, reference="r1") for _ in range(5)), return_exceptions=True)
    (first,) = [answer for answer in answers if isinstance(answer, Docs)]
    for refused in (answer for answer in answers if not isinstance(answer, Docs)):
        assert isinstance(refused, Conflict)
        assert (refused.code, refused.extra["session"]) == ("reference_in_use", first.record.id)
    await sessions.end(ACCOUNT, first.record.id)
    assert (await create(sessions, reference="r1")).record.id != first.record.id


async def test_a_reference_taken_by_a_creation_that_never_came_is_free_after_a_while(sessions: Sessions) -> None:
    lost = _id_of(sessions.clock.wall_ms() - MAKING_MS)
    await sessions.journal.redis.set(f"gateway:reference:{ACCOUNT}:r1", lost)
    assert (await create(sessions, reference="r1")).record.reference == "r1"
    await sessions.journal.redis.set(f"gateway:reference:{ACCOUNT}:r2", new_id("ses"))
    with pytest.raises(Conflict):
        await create(sessions, reference="r2")


def _id_of(ms: int) -> str:
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    number = uuid7_int(ms, bytes(10))
    return "ses_" + "".join(alphabet[number >> shift & 31] for shift in range(125, -1, -5))


async def test_law8_changes_by_many_at_once_all_count_and_each_is_told_once(sessions: Sessions) -> None:
    session = (await create(sessions)).record.id

    async def warn(number: int) -> None:
        await sessions.records.apply(session, lambda record: core.warned(record, "limit_ending", number))

    await asyncio.gather(*(warn(number) for number in range(12)))
    told = [event["data"]["remaining"] for event in await sessions.journal.events(session, after=1)]
    assert sorted(told) == list(range(12))


async def test_a_change_that_changes_nothing_writes_nothing(sessions: Sessions) -> None:
    session = (await create(sessions)).record.id
    before = (await sessions.journal.read(session, "session"))["session"]
    await sessions.records.apply(session, core.unchanged)
    assert (await sessions.journal.read(session, "session"))["session"] == before


async def test_law7_another_accounts_session_is_not_there(sessions: Sessions) -> None:
    session = (await create(sessions)).record.id
    for use in (sessions.get, sessions.end, sessions.waive, sessions.usage):
        with pytest.raises(NotFound):
            await use("acc_other", session)
    with pytest.raises(NotFound):
        await sessions.pay("acc_other", session, "pm_card_visa")
    with pytest.raises(NotFound):
        await sessions.tokens_for("acc_other", session, "client")


async def test_ending_is_idempotent_and_keeps_the_first_reason(sessions: Sessions) -> None:
    session = (await create(sessions)).record.id
    await sessions.end(ACCOUNT, session, "canceled")
    docs = await sessions.end(ACCOUNT, session, "later")
    assert (docs.record.end_reason, docs.record.end_note) == ("canceled", "canceled")
    assert (await types(sessions, session)).count("session.ended") == 1
    with pytest.raises(Conflict) as caught:
        await sessions.tokens_for(ACCOUNT, session, "client")
    assert caught.value.code == "session_ended"


async def test_r04_another_card_is_a_new_attempt_announced_as_pending_in_the_same_step(sessions: Sessions) -> None:
    session = (await create(sessions)).record.id
    await say_payment(sessions, session, status="failed", decline_code="generic_decline")
    docs = await sessions.pay(ACCOUNT, session, "pm_card_mastercard")
    assert (docs.record.funding and docs.record.funding.attempt, docs.payment["status"]) == (2, "pending")
    await say_payment(sessions, session, status="held")
    with pytest.raises(Conflict) as caught:
        await sessions.pay(ACCOUNT, session, "pm_card_visa")
    assert caught.value.code == "payment_state"


@pytest.mark.parametrize("status", ["none", "held", "capturing", "captured", "released", "refunded", "disputed"])
async def test_law5_money_that_is_there_on_its_way_or_let_off_takes_no_other_card(
    sessions: Sessions, status: str
) -> None:
    session = (await create(sessions)).record.id
    await say_payment(sessions, session, status=status)
    for at_once in (sessions.pay(ACCOUNT, session, "pm_card_visa"), _paid_meanwhile(sessions, session)):
        with pytest.raises(Conflict) as caught:
            await at_once
        assert caught.value.code == "payment_state"
    docs = await sessions.get(ACCOUNT, session)
    assert (docs.payment["status"], docs.record.funding and docs.record.funding.attempt) == (status, 1)


async def _paid_meanwhile(sessions: Sessions, session: str) -> None:
    """The order to pay, when its money came after it was looked at."""
    await sessions.records.apply(session, lambda record: core.other_card(record, "pm_card_visa", 0), pending=True)


async def test_r04_another_card_before_the_client_joined_still_waits_for_the_client(sessions: Sessions) -> None:
    session = (await create(sessions, hold="join")).record.id
    docs = await sessions.pay(ACCOUNT, session, "pm_card_mastercard")
    assert (docs.record.funding and docs.record.funding.attempt, docs.payment["status"]) == (2, "awaiting_join")


async def test_r15_a_waiver_makes_ready_what_waited_for_the_card_and_cuts_it_to_fifteen_minutes(
    sessions: Sessions,
) -> None:
    session = (await create(sessions)).record.id
    docs = await sessions.waive(ACCOUNT, session)
    assert (docs.record.status, docs.record.limit_ms, docs.record.priced) == ("ready", 15 * 60_000, False)
    again = await sessions.waive(ACCOUNT, session)
    assert again.session == docs.session


async def test_law8_many_finalize_and_there_is_one_bill_and_one_event(sessions: Sessions) -> None:
    session = (await create(sessions)).record.id
    lease = await live(sessions, session)
    await sessions.ledger.flush(lease, {1: (lease.acquired_at, lease.acquired_at + 1)})
    await sessions.records.apply(session, lambda record: core.ended(record, "client_left", lease.acquired_at + 1))
    records = await asyncio.gather(*(sessions.records.finalize(session, lease.fence()) for _ in range(5)))
    assert len({str(record.bill) for record in records}) == 1
    assert (await types(sessions, session)).count("session.finalized") == 1


async def test_law3_a_former_owner_cannot_freeze_the_bill(sessions: Sessions) -> None:
    session = (await create(sessions)).record.id
    lease = await live(sessions, session)
    await sessions.ledger.acquire(session, "n2", owner_gone=True)
    for change in (
        sessions.records.apply(session, lambda record: core.ended(record, "client_left", 0), fence=lease.fence()),
        sessions.records.finalize(session, lease.fence()),
    ):
        with pytest.raises(Conflict):
            await change
    assert (await sessions.get(ACCOUNT, session)).record.status == "live"


async def test_law3_rows_that_come_while_the_bill_is_made_are_in_it(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = (await create(sessions)).record.id
    lease = await live(sessions, session)
    start = lease.acquired_at
    await sessions.ledger.flush(lease, {1: (start, start + 1)})
    await sessions.records.apply(session, lambda record: core.ended(record, "client_left", start + 5_000))
    commit, late = sessions.journal.commit, [(start + 1, start + 2)]

    async def slow(*args: Any, **kwargs: Any) -> Any:
        while late:
            await sessions.ledger.flush(lease, {2: late.pop()})
        return await commit(*args, **kwargs)

    monkeypatch.setattr(sessions.journal, "commit", slow)
    final = await sessions.records.finalize(session, lease.fence())
    assert final.bill is not None
    assert final.bill["union_ms"] == 2


async def test_law9_what_a_former_owner_reports_once_it_is_over_is_not_billed(sessions: Sessions) -> None:
    session = (await create(sessions)).record.id
    former = await live(sessions, session)
    start = former.acquired_at
    await asyncio.sleep(0.05)
    lease = await sessions.ledger.acquire(session, "n2", owner_gone=True)
    await sessions.ledger.flush(lease, {1: (start + 50, start + 50)})
    await sessions.records.apply(session, lambda record: core.ended(record, "client_left", start + 60_000))
    await sessions.ledger.write([Write(former, {1: (start, start + 30)}, 1, renew=False)])
    final = await sessions.records.finalize(session, lease.fence(), [(start, start + 10)])
    assert final.bill is not None
    assert (final.bill["union_ms"], final.unseen) == (10, ((start + 10, start + 30),))
    again = await replay(sessions.journal, sessions.ledger, session, minimum=sessions.rules.minimum("usd", "main"))
    assert (again.differences, again.broken) == ({}, []), "the ledger alone still gives the bill"


async def test_law9_nor_when_the_owner_that_might_have_displayed_it_died_as_well(sessions: Sessions) -> None:
    session = (await create(sessions)).record.id
    former = await live(sessions, session)
    start = former.acquired_at
    await asyncio.sleep(0.05)  # Redis's clock: rows are clipped to it
    await sessions.ledger.write([Write(former, {1: (start, start + 10)}, 1)])
    await sessions.ledger.acquire(session, "n2", owner_gone=True)
    await sessions.ledger.write([Write(former, {1: (start, start + 30), 2: (start + 35, start + 40)}, 2, renew=False)])
    await sessions.records.apply(session, lambda record: core.ended(record, "node_lost", start + 60_000))
    swept = await sessions.ledger.acquire(session, "n3", owner_gone=True)
    final = await sessions.records.finalize(session, swept.fence())
    assert final.bill is not None
    assert (final.bill["union_ms"], final.unseen) == (10, ((start + 10, start + 30), (start + 35, start + 40)))
    again = await replay(sessions.journal, sessions.ledger, session, minimum=sessions.rules.minimum("usd", "main"))
    assert (again.differences, again.broken) == ({}, [])


async def test_5_money_a_bill_below_the_smallest_charge_is_waived_and_says_so(sessions: Sessions) -> None:
    session = (await create(sessions)).record.id
    lease = await live(sessions, session)
    start = lease.acquired_at - 4_000
    await sessions.records.apply(session, lambda record: core.Step(core.replace(record, started_at=start)))
    await sessions.journal.redis.hset(sessions.journal.keys.of(session, "usage"), "1:n1:1", f"{start}:{start + 4000}")
    await sessions.records.apply(session, lambda record: core.ended(record, "client_left", start + 4_000))
    bill = (await sessions.records.finalize(session, lease.fence())).bill
    assert bill is not None
    assert (bill["amount_metered"], bill["amount_total"], bill["waived_reason"]) == (20, 0, "below_minimum")
    usage = await sessions.usage(ACCOUNT, session)
    assert (usage["final"], usage["bill"]) == (True, bill)
    assert "= 4 s" in usage["arithmetic"]


async def test_law7_a_link_opens_its_own_side_and_a_token_that_served_no_more(sessions: Sessions) -> None:
    made = await sessions.create(order(), account=ACCOUNT, livemode=False, session_id=new_id("ses"))
    for entry in (made.client, made.expert):
        told = await sessions.enter(entry.url.partition("#")[2])
        assert (told["role"], told["signal"]) == (entry.role, "wss://gateway.example/v1/signal")
    grant = Tokens(b"k" * 32).open("join", made.client.token, now=sessions.clock.wall_ms())
    assert (await sessions.enter(made.client.token))["token"] == made.client.token
    await sessions.doors.spend(grant.id)
    assert (await sessions.enter(made.client.token))["token"] is None
    for secret in (made.client.token[:-4] + "AAAA", made.client.url.partition("#")[2][:-4] + "AAAA", "x"):
        with pytest.raises(Unauthorized) as caught:
            await sessions.enter(secret)
        assert caught.value.code == "link_invalid"


async def test_law7_the_expert_learns_nothing_of_the_clients_card(sessions: Sessions) -> None:
    docs = await create(sessions)
    assert payment_for({**docs.payment, "card": {"last4": "4242"}, "client_secret": "s"}, "expert").keys() == {"status"}
    assert "commission_bps" not in pricing(docs.record, "client")
    assert pricing(docs.record, "expert")["commission_bps"] == 1000


async def test_r06_a_continued_session_keeps_the_terms_and_what_is_left_of_the_free_part(sessions: Sessions) -> None:
    docs = await create(sessions, free_minutes=5, reference="r1")
    session, record = docs.record.id, docs.record
    await sessions.records.apply(
        session, lambda r: core.ended(core.replace(r, started_at=r.created), "limit_reached", 0)
    )
    lease = await sessions.ledger.acquire(session, "n1")
    used = core.Step(core.replace((await sessions.records.read(session)).record, bill={"union_ms": 130_000}))
    await sessions.records.apply(session, lambda _: used, fence=lease.fence())
    made = (await sessions.successor(session)).docs.record
    after = (await sessions.records.read(made.id)).record
    assert (after.continues, after.reference, after.unit_amount) == (session, "r1", record.unit_amount)
    assert after.free_ms == 170_000
    assert (await sessions.records.read(session)).record.continued_by == after.id


async def test_r02_of_sessions_that_are_ordered_at_once_one_has_the_free_part(sessions: Sessions) -> None:
    made = await asyncio.gather(*(create(sessions, free_minutes=5) for _ in range(5)))
    free = {docs.record.id: docs.record.free_ms for docs in made}
    assert sorted(free.values()) == [0, 0, 0, 0, 300_000]
    (first,) = (session for session, ms in free.items() if ms)
    assert (await create(sessions, free_minutes=5, client=replace(order().client, id="c2"))).record.free_ms == 300_000
    repeated = await sessions.create(order(free_minutes=5), account=ACCOUNT, livemode=False, session_id=first)
    assert repeated.docs.record.free_ms == 300_000
    await sessions.end(ACCOUNT, first, "canceled")
    await sessions.records.finalize(first, (await sessions.ledger.acquire(first, "n1")).fence())
    assert (await create(sessions, free_minutes=5)).record.free_ms == 300_000, "it came to nothing"


async def test_r02_a_repeated_session_has_what_the_one_before_it_left(sessions: Sessions) -> None:
    session = (await create(sessions, free_minutes=5)).record.id
    lease = await live(sessions, session)
    await sessions.ledger.write([Write(lease, {1: (lease.acquired_at, lease.acquired_at + 60_000)})])
    await sessions.records.apply(session, lambda r: core.ended(r, "client_left", lease.acquired_at + 60_000))
    final = await sessions.records.finalize(session, lease.fence())
    assert final.bill is not None
    after = (await create(sessions, free_minutes=5)).record
    assert (after.free_ms, after.amount_max) == (
        300_000 - final.bill["union_ms"], hold_amount(300, 1_800_000, after.free_ms),
    )  # fmt: skip
    assert after.funding is not None
    assert after.funding.amount == after.amount_max


async def test_r06_the_next_session_is_ordered_once_while_this_one_runs_and_waits_ten_minutes_beyond_its_limit(
    sessions: Sessions,
) -> None:
    docs = await create(sessions, free_minutes=5, reference="r2")
    session = docs.record.id
    lease = await live(sessions, session)
    one, two = await asyncio.gather(sessions.successor(session), sessions.successor(session))
    after = one.docs.record
    assert after.id == two.docs.record.id == (await sessions.records.read(session)).record.continued_by
    assert (after.reference, after.funding and after.funding.amount) == ("r2", 9000), "no free part is surely left"
    running = (await sessions.records.read(session)).record
    assert running.deadline is not None
    assert after.expires_at == pytest.approx(running.deadline + ENTER_MS, abs=5_000)
    with pytest.raises(Conflict) as caught:
        await create(sessions, reference="r2")
    assert caught.value.extra["session"] == after.id
    ledger = sessions.ledger
    await ledger.write([Write(lease, {1: (lease.acquired_at, lease.acquired_at + 60_000)})])
    await sessions.records.apply(
        session, lambda r: core.ended(r, "client_left", sessions.clock.wall_ms()), fence=lease.fence()
    )
    final = await sessions.records.finalize(session, lease.fence())
    assert final.bill is not None
    assert (await sessions.records.read(after.id)).record.free_ms == 300_000 - final.bill["union_ms"]


async def test_r06_a_crash_before_the_next_session_was_made_leaves_only_its_id(sessions: Sessions) -> None:
    session = (await create(sessions)).record.id
    await live(sessions, session)
    await sessions.records.apply(session, lambda record: core.continued(record, "ses_0next"))
    assert (await sessions.successor(session)).docs.record.id == "ses_0next"


async def test_changes_wake_those_who_wait_for_that_session_only(sessions: Sessions) -> None:
    one, other = (await create(sessions)).record.id, (await create(sessions)).record.id
    async with sessions.changes.of(one) as changed, sessions.changes.of(other) as unchanged, asyncio.timeout(5):
        while not changed.is_set():
            await sessions.records.apply(one, lambda record: core.warned(record, "limit_ending", 1))
            await asyncio.sleep(0.01)
        assert not unchanged.is_set()


def test_a_record_of_a_session_is_what_was_stored() -> None:
    record = core.opened(
        order(), id="ses_1", account="a", livemode=False, now=1, cap_ms=60_000, expires_ms=60_000
    ).record
    assert Docs(record.to_dict(), {}, {}, None).record == record == SessionRecord.from_dict(record.to_dict())


async def finalized(sessions: Sessions) -> str:
    """A session of a minute, its bill final, the money still held."""
    session = (await create(sessions)).record.id
    lease = await live(sessions, session)
    await sessions.records.apply(session, lambda r: core.ended(r, "client_left", lease.acquired_at + 60_000))
    await sessions.records.finalize(session, lease.fence())
    return session


async def test_r15_the_fee_may_be_waived_after_the_bill_is_final_until_the_charge_is_sent(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await finalized(sessions)
    docs = await sessions.waive(ACCOUNT, session)
    assert (docs.record.waived, docs.record.let_off, docs.record.status) == (False, True, "finalized")
    assert (await sessions.waive(ACCOUNT, session)).record == docs.record
    session, commit, capture = (
        await finalized(sessions),
        sessions.journal.commit,
        [{"step": "capture", "state": "sent"}],
    )

    async def after_the_bridge(name: str, put: Any, **more: Any) -> Any:
        """The bridge writes the step, before it sends it, just when the waiver is about to be written."""
        if capture:
            doc = (await sessions.journal.read(name, "payment"))["payment"]
            assert doc is not None
            await commit(name, {"payment": (doc.version, {**doc.body, "steps": [capture.pop()]})})
        return await commit(name, put, **more)

    monkeypatch.setattr(sessions.journal, "commit", after_the_bridge)
    with pytest.raises(Conflict) as caught:
        await sessions.waive(ACCOUNT, session)
    assert caught.value.code == "payment_state"
    assert not (await sessions.records.read(session)).record.let_off


async def test_r15_a_bridge_that_has_not_seen_the_waiver_cannot_write_the_charge(sessions: Sessions) -> None:
    session = await finalized(sessions)
    seen = (await sessions.journal.read(session, "payment"))["payment"]
    assert seen is not None
    await sessions.waive(ACCOUNT, session)
    with pytest.raises(Conflict) as caught:
        await sessions.journal.commit(session, {"payment": (seen.version, {**seen.body, "status": "capturing"})})
    assert caught.value.code == "version_conflict"


async def live_meeting(sessions: Sessions, session: str) -> None:
    at = sessions.clock.wall_ms()
    await sessions.records.apply(session, lambda record: core.together(core.funded(record).record, at))


async def test_r14_a_booking_over_its_life_and_going_on_after_one_of_its_meetings(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    bookings, terms = Bookings(sessions, open_payment=payment.opened, wait_s=0.05), order()
    hour = 3_600_000
    now = sessions.clock.wall_ms()
    new = NewBooking(
        client=terms.client, expert=terms.expert, unit_amount=300, currency="usd", minutes=15, reference="r3",
        starts_at=(now + hour, now + 2 * hour), expires_at=now + 3 * hour,
    )  # fmt: skip
    ident = new_id("bkg")
    made = await bookings.create(new, account=ACCOUNT, livemode=False, booking_id=ident)
    again = await bookings.create(new, account=ACCOUNT, livemode=False, booking_id=ident)
    assert (made.status, again.booking.meetings) == ("unpaid", made.booking.meetings)
    for _ in range(2):  # a request that is repeated after it was cut off
        paid = await bookings.pay(ACCOUNT, False, ident, "pm_card_visa", request="req_1")
        assert paid.booking.funding.attempt == 2
    with pytest.raises(Conflict) as caught:
        await create(sessions, reference="r3")
    assert caught.value.extra["session"] == ident
    after = (await sessions.successor(made.booking.meetings[0])).docs.record
    assert (after.kind, after.reference, after.meeting, after.amount_max) == ("metered", None, None, 4_500)
    assert after.funding is not None
    assert after.funding.payment_method == "pm_card_visa"
    for account, livemode in (("acc_other", False), (ACCOUNT, True)):
        with pytest.raises(NotFound):
            await bookings.get(account, livemode, ident)
    begun = made.booking.meetings[1]
    with monkeypatch.context() as patch:  # it begins just when it is called off
        patch.setattr(sessions.records, "apply_payment", lambda _: live_meeting(sessions, begun))
        with pytest.raises(Conflict) as caught:
            await bookings.cancel(ACCOUNT, False, ident, 2, "platform", request="req_2")
    assert caught.value.code == "meeting_state"
    await sessions.end(ACCOUNT, begun, "canceled")
    await bookings.cancel(ACCOUNT, False, ident, None, "client", request="req_3")
    off = (await bookings.cancel(ACCOUNT, False, ident, None, "client", request="req_4"))[0]
    assert (off.status, off.booking.canceled, len(off.booking.called_off)) == ("canceled", True, 1)
    assert await types(sessions, ident) == ["booking.canceled"]
    assert (await create(sessions, reference="r3")).record.reference == "r3", "nothing of it is unfinished"


async def test_r14_nothing_is_called_off_between_a_bookings_charge_and_its_meetings_parts(sessions: Sessions) -> None:
    """Its meetings look unpaid then, and a late cancellation would give all of it back."""
    bookings, terms, now = (
        Bookings(sessions, open_payment=payment.opened, wait_s=0.05),
        order(),
        sessions.clock.wall_ms(),
    )
    new = NewBooking(
        client=terms.client, expert=terms.expert, unit_amount=300, currency="usd", minutes=15,
        starts_at=(now + 3_600_000,), expires_at=now + 7_200_000,
    )  # fmt: skip
    ident = new_id("bkg")
    (meeting,) = (await bookings.create(new, account=ACCOUNT, livemode=False, booking_id=ident)).booking.meetings
    await say_payment(sessions, ident, status="captured", amount_captured=4500)
    with pytest.raises(StoreUnavailable):
        await bookings.preview(ACCOUNT, False, ident, 1, "client")
    with pytest.raises(StoreUnavailable):
        await bookings.cancel(ACCOUNT, False, ident, 1, "client", request="req_1")
    await say_payment(sessions, meeting, status="captured", amount_captured=4500)
    await say_payment(sessions, ident, settled=True)
    assert (await bookings.preview(ACCOUNT, False, ident, 1, "client"))[1] == {meeting: 2250}
    for _ in range(2):  # a request that is repeated after it was cut off
        assert (await bookings.cancel(ACCOUNT, False, ident, 1, "client", request="req_1"))[1] == {meeting: 2250}
    for meeting_number, by in ((1, "client"), (1, "expert"), (None, "platform")):  # others, later: it is called off
        assert (await bookings.preview(ACCOUNT, False, ident, meeting_number, by))[1] == {}
        off, given = await bookings.cancel(ACCOUNT, False, ident, meeting_number, by, request="req_2")
        assert (given, off.meetings[0].session["meeting"]["canceled_by"]) == ({}, "client")


async def test_r02_without_a_card_the_free_part_may_be_used_up_and_the_answer_says_so(sessions: Sessions) -> None:
    no_card = replace(order().client, payment_method=None)
    first = await create(sessions, free_minutes=30, client=no_card)
    assert (first.record.status, first.payment["status"]) == ("ready", "none")
    second = await create(sessions, free_minutes=30, client=no_card)
    assert (second.payment["status"], second.payment["decline_code"]) == ("failed", "card_required")
    paid = await sessions.pay(ACCOUNT, second.record.id, "pm_card_visa")
    assert paid.payment["status"] == "pending"


async def test_5_money_a_session_too_small_to_be_charged_needs_no_card(sessions: Sessions) -> None:
    one = await create(sessions, unit_amount=1, max_minutes=49)
    assert (one.record.status, one.payment["status"], one.record.amount_max) == ("ready", "none", 0)
    other = await create(sessions, unit_amount=1, max_minutes=50)
    assert (other.record.status, other.record.amount_max) == ("created", 50)
