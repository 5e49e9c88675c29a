"""One thing after the other, and nobody waits for an answer that cannot come."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.errors import Conflict
from gateway.signaling.turns import Turns


async def work(turns: Turns, count: int) -> None:
    for _ in range(count):
        job = await turns.next(5)
        assert job is not None
        await job()


async def test_work_is_done_in_the_order_in_which_it_came() -> None:
    turns, done = Turns(), []

    async def job(number: int) -> int:
        await asyncio.sleep(0)
        done.append(number)
        return number

    turns.post(lambda: job(0))
    asked = [asyncio.create_task(turns.ask(lambda number=number: job(number))) for number in (1, 2)]
    await work(turns, 3)
    assert await asyncio.gather(*asked) == [1, 2]
    assert done == [0, 1, 2]


async def test_an_error_goes_to_who_asked_and_not_to_the_task() -> None:
    turns = Turns()

    async def fail() -> Any:
        raise ZeroDivisionError

    asked = asyncio.create_task(turns.ask(fail))
    await work(turns, 1)
    with pytest.raises(ZeroDivisionError):
        await asked


async def test_nothing_to_do_is_none_after_the_time() -> None:
    assert await Turns().next(0.001) is None


async def test_who_asked_and_went_away_disturbs_nobody() -> None:
    turns = Turns()

    async def job() -> str:
        return "done"

    gone, stays = asyncio.create_task(turns.ask(job)), asyncio.create_task(turns.ask(job))
    await asyncio.sleep(0)
    gone.cancel()
    await work(turns, 2)
    assert await stays == "done"


async def test_shut_answers_all_who_wait_and_all_who_come_later() -> None:
    turns = Turns()

    async def never() -> None:
        raise AssertionError

    waiting = asyncio.create_task(turns.ask(never))
    await asyncio.sleep(0)
    turns.shut()
    for ask in (waiting, turns.ask(never)):
        with pytest.raises(Conflict) as caught:
            await ask
        assert caught.value.code == "held"
