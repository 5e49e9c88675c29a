"""The workers' loop: what one that stops had claimed is there for the next at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from gateway.journal import NOW, Claim, Journal
from gateway.outbox import claims

QUEUE = "mail"
LEASE_MS = 60_000


@contextlib.asynccontextmanager
async def working(journal: Journal, handle: Callable[[Claim], Awaitable[None]]) -> AsyncIterator[None]:
    task = asyncio.create_task(claims.work(journal, QUEUE, handle, lease_ms=LEASE_MS, at_once=8))
    try:
        yield
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def due(journal: Journal) -> list[str]:
    return [claim.session for claim in await journal.due(QUEUE, lease_ms=LEASE_MS)]


async def test_what_is_cut_off_when_a_worker_stops_is_there_for_the_next_at_once(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "GRACE_S", 0.01)
    begun = asyncio.Event()

    async def hang(claim: Claim) -> None:
        begun.set()
        await asyncio.Event().wait()

    await journal.commit("ses_1", {"session": (0, {})}, due={QUEUE: NOW})
    async with working(journal, hang):
        await asyncio.wait_for(begun.wait(), 5)
        assert await due(journal) == []
    assert await due(journal) == ["ses_1"]


async def test_what_is_under_way_when_a_worker_stops_is_done_and_not_done_again(journal: Journal) -> None:
    begun, done = asyncio.Event(), []

    async def send(claim: Claim) -> None:
        begun.set()
        await asyncio.sleep(0.05)
        done.append(claim.session)
        await journal.done(claim)

    await journal.commit("ses_1", {"session": (0, {})}, due={QUEUE: NOW})
    async with working(journal, send):
        await asyncio.wait_for(begun.wait(), 5)
    assert done == ["ses_1"]
    assert await due(journal) == []


async def test_what_is_claimed_while_a_worker_stops_is_given_back(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed, claim_due = asyncio.Event(), journal.due

    async def slowly(*args: Any, **more: Any) -> list[Claim]:
        found = await claim_due(*args, **more)
        if found:
            claimed.set()
            await asyncio.sleep(0.05)
        return found

    async def never(claim: Claim) -> None:
        raise AssertionError("the worker was stopped before")

    monkeypatch.setattr(journal, "due", slowly)
    await journal.commit("ses_1", {"session": (0, {})}, due={QUEUE: NOW})
    async with working(journal, never):
        await asyncio.wait_for(claimed.wait(), 5)
    monkeypatch.undo()
    assert await due(journal) == ["ses_1"]


async def test_one_that_fails_is_left_to_its_lease(journal: Journal) -> None:
    begun = asyncio.Event()

    async def fail(claim: Claim) -> None:
        begun.set()
        raise RuntimeError("a bug")

    await journal.commit("ses_1", {"session": (0, {})}, due={QUEUE: NOW})
    async with working(journal, fail):
        await asyncio.wait_for(begun.wait(), 5)
    assert await due(journal) == [], "it would fail again at once"
