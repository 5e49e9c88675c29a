"""Shared round trips, over a real Valkey."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, ResponseError, TimeoutError

from gateway.trips import MOST, UNDER_WAY, Trips

ADD = "return redis.call('INCRBY', KEYS[1], ARGV[1])"


class Counted(Trips):
    """Trips that are counted."""

    count = 0

    async def _pipeline(self, commands: Any) -> list[Any]:
        self.count += 1
        return await super()._pipeline(commands)


async def test_what_is_asked_for_at_once_goes_together_and_each_gets_its_own_answers(redis: aioredis.Redis) -> None:
    trips = Counted(redis)
    asked = [trips.ask(("SET", f"k{n}", n), ("GET", f"k{n}")) for n in range(MOST // 2)]
    assert [answer[1] for answer in await asyncio.gather(*asked)] == [str(n).encode() for n in range(MOST // 2)]
    assert trips.count == 1


async def test_more_than_a_trip_takes_is_asked_on_the_next(redis: aioredis.Redis) -> None:
    trips = Counted(redis)
    await asyncio.gather(*(trips.ask(("RPUSH", "list", n)) for n in range(2 * MOST + 1)))
    assert await redis.llen("list") == 2 * MOST + 1
    assert trips.count == 3
    assert UNDER_WAY < 3


async def test_an_error_is_that_of_who_asked_alone_and_in_the_servers_words(redis: aioredis.Redis) -> None:
    trips, refuse = Trips(redis), redis.register_script("return {err = ARGV[1]}")
    good, bad = await asyncio.gather(
        trips.ask(("PING",)), trips.run(refuse, ["{t}:a"], ["FENCED"]), return_exceptions=True
    )
    assert good == [b"PONG"]
    assert isinstance(bad, ResponseError)
    assert str(bad) == "FENCED"


async def test_a_server_that_lost_its_scripts_is_told_them_again_and_runs_each_call_once(redis: aioredis.Redis) -> None:
    trips, add = Trips(redis), redis.register_script(ADD)
    for count in (1, 2):
        await redis.script_flush()
        other = trips.ask(("INCRBY", "{t}:b", 5))
        assert await asyncio.gather(trips.run_each(add, [(["{t}:a"], [1]), (["{t}:a"], [1])]), other) == [
            [2 * count - 1, 2 * count],
            [5 * count],
        ]


async def test_who_is_cancelled_before_the_trip_has_not_asked_and_nobody_else_is_harmed(redis: aioredis.Redis) -> None:
    trips = Trips(redis)
    gone = asyncio.create_task(trips.ask(("SET", "gone", 1)))
    stays = asyncio.create_task(trips.ask(("SET", "stays", 1)))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays == [b"OK"]
    assert await redis.exists("gone") == 0
    assert await redis.exists("stays") == 1


async def test_all_hear_that_redis_is_away_and_later_ones_are_asked_anew() -> None:
    class Away(Trips):
        away = True

        async def _pipeline(self, commands: Any) -> list[Any]:
            if self.away:
                raise ConnectionError("away")
            return [b"here"] * len(commands)

    trips = Away(aioredis.Redis())
    heard = await asyncio.gather(*(trips.ask(("PING",)) for _ in range(3 * MOST)), return_exceptions=True)
    assert {type(error) for error in heard} == {ConnectionError}
    trips.away = False
    assert await trips.ask(("PING",)) == [b"here"]


async def test_a_server_that_hangs_is_away_after_the_clients_time_out_and_used_again_once_it_answers() -> None:
    hangs = True

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            if not hangs or b"PING" not in data:
                writer.write(b"+PONG\r\n" * data.count(b"*"))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        client = aioredis.Redis(
            port=server.sockets[0].getsockname()[1], socket_timeout=0.05, retry=Retry(NoBackoff(), 1), protocol=2
        )
        trips = Trips(client)
        with pytest.raises(TimeoutError):
            await trips.ask(("PING",))
        hangs = False
        assert await trips.ask(("PING",), ("PING",)) == [b"PONG", b"PONG"]
        await client.aclose()


async def test_nobody_is_left_behind_by_trips_that_end_as_they_come() -> None:
    class Quick(Trips):
        async def _pipeline(self, commands: Any) -> list[Any]:
            for _ in range(len(commands) % 3):
                await asyncio.sleep(0)
            return [b"PONG"] * len(commands)

    trips = Quick(aioredis.Redis())

    async def ask(seed: int) -> None:
        for number in range(200):
            await trips.ask(*[("PING",)] * (1 + (seed + number) % 4))
            for _ in range((seed * number) % 5):
                await asyncio.sleep(0)

    async with asyncio.timeout(10):
        await asyncio.gather(*(ask(seed) for seed in range(4)))


async def test_a_trip_cut_off_leaves_nobody_waiting() -> None:
    class Hanging(Trips):
        async def _pipeline(self, commands: Any) -> list[Any]:
            await asyncio.Event().wait()
            return []

    trips = Hanging(aioredis.Redis())
    waiting = asyncio.create_task(trips.ask(("PING",)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for task in trips._under_way:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, 1)
