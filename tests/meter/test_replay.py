"""A bill can be made again from its ledger, and shows what somebody changed."""

from __future__ import annotations

import pytest

from gateway import session as core
from gateway.errors import NotFound
from gateway.journal import Journal
from gateway.meter.ledger import Ledger
from gateway.meter.record import bill
from gateway.meter.replay import replay
from gateway.session import SessionRecord
from tests.orders import record


async def put(journal: Journal, body: SessionRecord, version: int = 0) -> None:
    await journal.commit("ses_1", {"session": (version, body.to_dict())})


async def finalized(journal: Journal) -> tuple[Ledger, SessionRecord]:
    """Two intervals of 2 and 3 ms, ended and frozen."""
    ledger = Ledger(journal.redis, journal.keys)
    lease = await ledger.acquire("ses_1", "n1")
    start = lease.acquired_at
    rows = {1: (start, start + 2), 2: (start + 5, start + 8)}
    while await ledger.flush(lease, rows):
        pass
    ready = core.funded(record()).record
    live = core.together(ready, start).record
    over = core.ended(live, "client_left", start + 8).record
    final = core.finalized(over, bill(over, rows.values()).to_dict()).record
    await put(journal, final)
    return ledger, final


async def test_law3_the_ledger_alone_gives_the_frozen_bill_again(journal: Journal) -> None:
    ledger, final = await finalized(journal)
    again = await replay(journal, ledger, "ses_1")
    assert again.frozen == final.bill == again.bill.to_dict()
    assert again.differences == {}
    assert again.bill.union_ms == 5
    assert again.record == final
    assert len(again.usage.rows) == 2


async def test_law3_what_was_changed_afterwards_is_named_with_both_values(journal: Journal) -> None:
    ledger, final = await finalized(journal)
    row = journal.keys.of("ses_1", "usage")
    await journal.redis.hset(row, "1:n1:2", f"{final.started_at}:{final.ended_at}")
    differences = (await replay(journal, ledger, "ses_1")).differences
    assert differences["union_ms"] == (5, 8)
    assert differences.keys() == {"intervals", "union_ms", "billable_ms"}


async def test_law3_a_changed_bill_is_named_too(journal: Journal) -> None:
    ledger, final = await finalized(journal)
    assert final.bill is not None
    await put(journal, core.replace(final, bill={**final.bill, "amount_total": 9_900}), version=1)
    assert (await replay(journal, ledger, "ses_1")).differences == {"amount_total": (9_900, 0)}


async def test_5_money_the_smallest_charge_that_was_in_force_belongs_to_the_replay(journal: Journal) -> None:
    ledger = Ledger(journal.redis, journal.keys)
    now = (await ledger.acquire("ses_1", "n1")).acquired_at
    live = core.together(core.funded(record()).record, now - 2_000).record
    await journal.redis.hset(journal.keys.of("ses_1", "usage"), "1:n1:1", f"{now - 2_000}:{now}")
    over = core.ended(live, "client_left", now).record
    await put(journal, core.finalized(over, bill(over, [(now - 2_000, now)], minimum=50).to_dict()).record)
    assert (await replay(journal, ledger, "ses_1", minimum=50)).differences == {}
    assert (await replay(journal, ledger, "ses_1")).differences.keys() == {
        "amount_total", "amount_waived", "waived_reason", "amount_expert", "amount_platform",
    }  # fmt: skip


async def test_before_it_is_final_there_is_nothing_to_differ_from(journal: Journal) -> None:
    await put(journal, record())
    again = await replay(journal, Ledger(journal.redis, journal.keys), "ses_1")
    assert (again.frozen, again.differences, again.bill.shares.total) == (None, {}, 0)


async def test_an_unknown_session_is_not_found(journal: Journal) -> None:
    with pytest.raises(NotFound):
        await replay(journal, Ledger(journal.redis, journal.keys), "ses_1")
