"""Calls that ran on while no control process was there: their usage reaches the ledger once, and never too much."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.journal import Journal
from gateway.meter.intervals import length
from gateway.meter.ledger import Lease, Ledger
from gateway.sfu.port import LegReport, Report, Span
from gateway.signaling.orphans import Orphans, Tag, rows

HERE = LegReport(selected=True, present=True)
AWAY = LegReport(selected=True, present=False)
OFFSET = 1_000_000


@pytest.fixture
def ledger(journal: Journal) -> Ledger:
    return Ledger(journal.redis, journal.keys, lease_ms=60_000)


def report(lease: Lease, *spans: Span, there: bool = True) -> Report:
    tag = Tag.of(lease, lease.acquired_at)
    legs = (HERE, HERE if there else AWAY)
    return Report(lease.session, 0, 1, "open", legs, spans, tag=str(tag))


def test_a_tag_is_read_as_it_was_written() -> None:
    tag = Tag(7, "n:1:2", 3, -4)
    assert Tag.parse(str(tag)) == tag


def test_law3_a_silent_end_counts_as_its_owner_would_have_counted_it() -> None:
    lease = Lease("ses_1", 1, "a", OFFSET, OFFSET)
    ended = Span(3, 0, 20_000, (2_000, 5_000), "silence")
    assert rows(report(lease, ended, there=False), Tag.of(lease, OFFSET)) == {3: (OFFSET, OFFSET + 2_000)}
    assert rows(report(lease, ended), Tag.of(lease, OFFSET)) == {3: (OFFSET, OFFSET + 10_000)}


async def test_law3_spans_of_a_dead_control_go_under_its_lease_and_extend_what_it_wrote(ledger: Ledger) -> None:
    old = await ledger.acquire("ses_1", "a")
    await ledger.flush(old, {1: (old.acquired_at - 90_000, old.acquired_at)})
    orphans = Orphans(ledger)
    running = Span(1, 0, 0, (0, 0), None)
    orphans.heard(report(old, running))
    await orphans.settle("ses_1")
    new = await ledger.acquire("ses_1", "b", owner_gone=True)
    orphans.heard(report(old, replace(running, end=60_000)))
    await orphans.settle()
    usage = await ledger.usage("ses_1")
    assert [(row.epoch, row.owner, row.number) for row in usage.rows] == [(1, "a", 1)]
    assert usage.rows[0].end <= new.acquired_at, "what comes after the takeover is the next owner's to write"
    before = length(usage.intervals)
    await ledger.flush(new, {1: (new.acquired_at, new.acquired_at)})
    assert length((await ledger.usage("ses_1")).intervals) == before


async def test_what_cannot_be_told_whose_it_is_is_left_alone(ledger: Ledger) -> None:
    lease = await ledger.acquire("ses_1", "a")
    orphans = Orphans(ledger)
    orphans.heard(replace(report(lease, Span(1, 0, 5, (0, 0), None)), tag="nonsense"))
    await orphans.settle()
    stranger = Lease("ses_1", 9, "x", lease.acquired_at, lease.acquired_at)
    orphans.heard(report(stranger, Span(1, 0, 5, (0, 0), None)))
    await orphans.settle()
    assert (await ledger.usage("ses_1")).rows == ()


async def test_the_same_report_is_written_once(ledger: Ledger) -> None:
    lease = await ledger.acquire("ses_1", "a")
    orphans = Orphans(ledger)
    told = report(lease, Span(1, 0, 0, (0, 0), "released"))
    for _ in range(3):
        orphans.heard(told)
        await orphans.settle()
    assert (await ledger.usage("ses_1")).version == 1
