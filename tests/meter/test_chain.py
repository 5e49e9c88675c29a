"""The chain: whatever is changed after the bill was frozen is found, and named."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import session as core
from gateway.journal import Event, Journal
from gateway.meter.chain import SealedRow, broken, sealed
from gateway.meter.ledger import Ledger
from gateway.meter.record import bill
from gateway.meter.replay import replay
from gateway.session import SessionRecord
from tests.orders import NOW, record

ROWS: list[SealedRow] = [(1, "a", 1, NOW, NOW + 1000), (1, "a", 2, NOW + 5000, NOW + 9000), (2, "b", 1, NOW, NOW + 7)]
BILL: dict[str, Any] = {"amount_total": 25, "intervals": [[NOW, NOW + 1000]]}


def session(**changes: Any) -> SessionRecord:
    return replace(record(), started_at=NOW, ended_at=NOW + 9000, end_reason="client_left", **changes)


CHAIN = sealed(session(), ROWS, BILL)


def test_what_was_sealed_is_whole_in_whatever_order_it_is_read() -> None:
    assert broken(CHAIN, session(), ROWS[::-1], dict(reversed(BILL.items()))) == []


@given(st.integers(0, 2), st.integers(3, 4), st.integers(-(10**6), 10**6).filter(bool))
def test_a_changed_row_is_named_and_no_other(index: int, column: int, by: int) -> None:
    rows = copy.copy(ROWS)
    row = list(rows[index])
    row[column] += by
    rows[index] = tuple(row)  # type: ignore[assignment]
    (fault,) = broken(CHAIN, session(), rows, BILL)
    assert fault.startswith(f"row {row[0]}:{row[1]}:{row[2]} was changed")


def test_rows_removed_and_added_are_named() -> None:
    assert broken(CHAIN, session(), ROWS[:-1], BILL) == ["row 2:b:1 is missing"]
    assert broken(CHAIN, session(), [*ROWS, (2, "b", 2, 0, 1)], BILL) == ["row 2:b:2 was added"]


@pytest.mark.parametrize("change", [{"unit_amount": 900}, {"commission_bps": 0}, {"free_ms": 1}, {"waived": True}])
def test_changed_terms_are_found(change: dict[str, Any]) -> None:
    assert broken(CHAIN, session(**change), ROWS, BILL) == ["the terms of the session were changed"]


def test_law9_what_was_left_out_of_the_bill_is_sealed_with_it() -> None:
    partial = session(unseen=((NOW, NOW + 7),))
    chain = sealed(partial, ROWS, BILL)
    assert broken(chain, partial, ROWS, BILL) == []
    assert broken(chain, session(), ROWS, BILL) == ["the terms of the session were changed"]


def test_a_changed_bill_is_found() -> None:
    assert broken(CHAIN, session(), ROWS, {**BILL, "amount_total": 26}) == ["the bill was changed"]


def test_a_chain_of_another_schema_is_not_trusted() -> None:
    assert broken({**CHAIN, "schema": 2}, session(), ROWS, BILL)


async def test_replay_names_the_row_that_someone_changed_in_redis(journal: Journal) -> None:
    ledger = Ledger(journal.redis, journal.keys)
    lease = await ledger.acquire("ses_1", "a")
    start = lease.acquired_at
    await ledger.flush(lease, {1: (start, start)})
    usage = await ledger.usage("ses_1")
    ended = replace(session(), status="finalized", started_at=start - 1, ended_at=start + 60_000)
    final = bill(ended, usage.intervals).to_dict()
    whole = replace(ended, bill=final, chain=sealed(ended, usage.sealed, final))
    await journal.commit("ses_1", {"session": (0, whole.to_dict())})
    assert (await replay(journal, ledger, "ses_1")).broken == []
    await journal.redis.hset(journal.keys.of("ses_1", "usage"), f"1:{lease.owner}:1", f"{start}:{start + 60_000}")  # type: ignore[misc]
    found = await replay(journal, ledger, "ses_1")
    assert found.broken == [f"row 1:a:1 was changed: it now reads {start} – {start + 60_000}"]
    assert "amount_total" in found.differences


@pytest.mark.parametrize(
    ("forged", "fault"),
    [(True, "the seal is not the one that session.finalized told of"), (False, "the seal was taken away")],
)
async def test_replay_sees_a_seal_that_was_made_anew_or_taken_away_though_all_else_fits(
    journal: Journal, forged: bool, fault: str
) -> None:
    ledger = Ledger(journal.redis, journal.keys)
    start = (await ledger.acquire("ses_1", "a")).acquired_at
    usage, field = journal.keys.of("ses_1", "usage"), "1:a:1"
    await journal.redis.hset(usage, field, f"{start}:{start + 60_000}")  # type: ignore[misc]
    over = replace(core.ended(session(), "client_left", start + 90_000).record, started_at=start)

    async def made() -> SessionRecord:
        rows = await ledger.usage("ses_1")
        final = bill(over, rows.intervals).to_dict()
        return core.finalized(over, final, sealed(over, rows.sealed, final)).record

    whole = await made()
    told = Event("session.finalized", {"ledger_head": (whole.chain or {})["head"]})
    await journal.commit("ses_1", {"session": (0, whole.to_dict())}, events=[told])
    assert (await replay(journal, ledger, "ses_1")).broken == []
    await journal.redis.hset(usage, field, f"{start}:{start + 80_000}")  # type: ignore[misc]
    forgery = await made()
    await journal.commit("ses_1", {"session": (1, (forgery if forged else replace(forgery, chain=None)).to_dict())})
    found = await replay(journal, ledger, "ses_1")
    assert (found.differences, found.broken) == ({}, [fault])
