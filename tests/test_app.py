"""The composition root: background loops that are kept alive and really stop, and parts that leave in their order."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import RedisError
from structlog.testing import capture_logs

from gateway import app as module
from gateway.app import Gateway, Tasks, call_timers, session_rules
from gateway.settings import Settings

SETTINGS = {
    "media": {"host": "127.0.0.1"},
    "stripe": {"api_key": "sk_test_x", "webhook_secret": "whsec_" + "0" * 24},
    "secrets": {"signing_key": "k" * 32},
}


async def test_a_loop_that_fails_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTART_S", 0.01)
    tasks, runs = Tasks(), 0
    again = asyncio.Event()

    async def loop() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise ZeroDivisionError
        again.set()
        await asyncio.Event().wait()

    tasks.start("loop", loop)
    async with asyncio.timeout(5):
        await again.wait()
    assert tasks.alive("loop")
    await tasks.stop()
    assert not tasks.alive("loop")


async def test_a_loop_that_came_to_its_end_is_not_alive_and_not_started_again() -> None:
    tasks, runs = Tasks(), []

    async def loop() -> None:
        runs.append(1)

    tasks.start("loop", loop)
    async with asyncio.timeout(5):
        while tasks.alive("loop"):
            await asyncio.sleep(0)
    assert runs == [1]
    assert not tasks.alive("never started")


@pytest.mark.parametrize("fails", [False, True])
async def test_what_a_loop_puts_in_order_at_its_end_is_not_cut_off_and_it_is_not_started_again(fails: bool) -> None:
    tasks, waiting, done = Tasks(), asyncio.Event(), []

    async def loop() -> None:
        try:
            waiting.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.25)
            done.append(1)
            if fails:
                raise ZeroDivisionError

    tasks.start("loop", loop)
    await waiting.wait()
    async with asyncio.timeout(5):
        await tasks.stop()
    assert done == [1]


@pytest.mark.parametrize("fails", [False, True])
async def test_doors_close_before_the_loops_end_and_connections_last_whatever_fails(fails: bool) -> None:
    gateway = Gateway(Settings(**SETTINGS))
    order, waiting = [], asyncio.Event()

    async def loop() -> None:
        try:
            waiting.set()
            await asyncio.Event().wait()
        finally:
            order.append("loop")

    async def leave(name: str) -> None:
        order.append(name)
        if fails:
            raise OSError(name)

    gateway._tasks.start("loop", loop)
    await waiting.wait()
    gateway._connections.push_async_callback(leave, "connection")
    gateway._parts.push_async_callback(leave, "door")
    if fails:
        with pytest.raises(OSError):
            await gateway.stop()
    else:
        await gateway.stop()
    assert order == ["door", "loop", "connection"]


def test_r06_the_rules_of_a_session_are_those_of_the_configuration() -> None:
    settings = Settings(**SETTINGS, session={"cap_seconds": 60, "grace_seconds": 5, "lone_seconds": 7, "warnings": [9]})
    rules, timers = session_rules(settings), call_timers(settings)
    assert (rules.cap_ms, rules.minimum("usd"), rules.minimum("sek")) == (60_000, 50, 0)
    assert rules.minimum("eur") > 50, "what Stripe takes at least is in the settlement's currency, with a margin"
    assert (timers.grace_ms, timers.lone_ms, tuple(timers.warnings_s)) == (5_000, 7_000, (9,))


async def test_a_redis_that_is_awaited_is_told_of_again_and_again_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "REDIS_TOLD_AFTER_S", 0)
    monkeypatch.setattr(module, "REDIS_TOLD_EVERY_S", 0.001)
    gateway = Gateway(Settings(**SETTINGS, redis={"url": "redis://:hunter2@127.0.0.1:1/0"}))
    tries = 0

    async def beat() -> None:
        nonlocal tries
        tries += 1
        if len(told) < 2:
            await asyncio.sleep(0.001)
            raise RedisError

    monkeypatch.setattr(gateway.node, "beat", beat)
    monkeypatch.setattr(module, "REDIS_RETRY_S", 0)
    with capture_logs() as told:
        await gateway._meet_redis()
    await gateway.stop()
    assert [(line["event"], line["log_level"]) for line in told[:2]] == [("redis_awaited", "warning")] * 2
    assert told[0]["url"] == "redis://:**********@127.0.0.1:1/0"
    assert tries > 1
