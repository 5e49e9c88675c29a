"""Nodes and the clock that they share: whose heartbeat counts, and what time it is."""

from __future__ import annotations

import asyncio
import json

import redis.asyncio as aioredis
from hypothesis import given
from hypothesis import strategies as st

from gateway.nodes import REGISTRY, SETTLE_MS, SILENT_MS, Node, RedisClock, Sample
from tests.clocks import HandClock

ERRORS = st.floats(0, 50)
OFFSETS = st.floats(-1e6, 1e6)


def sample(clock: HandClock, redis_minus_boot: float, error_ms: float = 1.0) -> Sample:
    return Sample(clock.boot + redis_minus_boot, clock.boot, error_ms)


def test_law3_before_the_first_sample_the_hosts_clock_serves_and_the_first_one_counts() -> None:
    host = HandClock()
    clock = RedisClock(host)
    assert clock.wall_ms() == host.wall
    clock.learn(sample(host, 5_000_000, error_ms=40))
    assert clock.wall_ms() == host.boot + 5_000_000
    assert clock.offset_ms == 5_000_000


def test_law3_between_samples_time_goes_by_the_boot_clock_whatever_the_host_is_set_to() -> None:
    host = HandClock()
    clock = RedisClock(host)
    clock.learn(sample(host, 5_000_000))
    host.wall -= 3_600_000
    host.boot += 250
    assert clock.wall_ms() == host.boot + 5_000_000


def test_law3_a_slow_answer_within_the_bounds_does_not_move_the_clock() -> None:
    host = HandClock()
    clock = RedisClock(host)
    clock.learn(sample(host, 1_000, error_ms=0.5))
    clock.learn(sample(host, 1_030, error_ms=40))
    assert clock.offset_ms == 1_000
    clock.learn(sample(host, 1_000.4, error_ms=0.3))
    assert clock.error_ms == 0.3


def test_law3_a_step_of_rediss_clock_is_believed_at_once() -> None:
    host = HandClock()
    clock = RedisClock(host)
    clock.learn(sample(host, 1_000, error_ms=0.5))
    clock.learn(sample(host, 61_000, error_ms=40))
    assert clock.offset_ms == 61_000


@given(OFFSETS, st.lists(st.tuples(ERRORS, st.floats(-1, 1)), min_size=1, max_size=40))
def test_law3_the_estimate_is_never_further_off_than_it_says(true: float, samples: list[tuple[float, float]]) -> None:
    host = HandClock()
    clock = RedisClock(host)
    for error, fraction in samples:
        host.boot += 1000
        clock.learn(sample(host, true + fraction * error, error))
        assert abs(clock.wall_ms() - (host.boot + true)) <= clock.error_ms + 1


async def started(redis: aioredis.Redis, host: HandClock) -> Node:
    node = Node(redis, RedisClock(host), info={"version": "t"})
    await node.beat()
    return node


async def age(redis: aioredis.Redis, nonce: str, ms: int) -> None:
    """As if the node's last heartbeat had been that much earlier."""
    told = json.loads((await redis.hgetall(REGISTRY))[nonce.encode()])
    await redis.hset(REGISTRY, nonce, json.dumps({**told, "at": told["at"] - ms}))


async def test_a_node_is_gone_when_its_heart_has_not_beaten_for_three_seconds(redis: aioredis.Redis) -> None:
    host = HandClock()
    one, other = await started(redis, host), await started(redis, host)
    assert one.nonce != other.nonce
    assert not await one.gone(other.nonce)
    await age(redis, other.nonce, SILENT_MS // 2)
    assert not await one.gone(other.nonce)
    await age(redis, other.nonce, SILENT_MS)
    assert await one.gone(other.nonce)
    await age(redis, one.nonce, 2 * SILENT_MS)
    assert not await one.gone(one.nonce), "nobody takes its own sessions away"


async def test_a_node_that_left_is_gone_and_so_is_one_that_never_was(redis: aioredis.Redis) -> None:
    host = HandClock()
    one, other = await started(redis, host), await started(redis, host)
    await other.leave()
    assert await one.gone(other.nonce)
    assert await one.gone("n-unknown")


async def test_law3_after_an_outage_of_redis_nobody_is_gone_for_the_length_of_a_lease(redis: aioredis.Redis) -> None:
    host = HandClock()
    one, other = await started(redis, host), await started(redis, host)
    await age(redis, other.nonce, 2 * SILENT_MS)
    host.pass_ms(SILENT_MS + 1)
    assert one.settling
    assert not await one.gone(other.nonce), "the silence may be Redis's own"
    await one.beat()
    assert one.settling
    for _ in range(SETTLE_MS // 1000):
        host.pass_ms(1000)
        await one.beat()
    assert not one.settling
    assert await one.gone(other.nonce)


async def test_nodes_that_have_been_silent_for_a_day_are_forgotten(redis: aioredis.Redis) -> None:
    host = HandClock()
    one, other = await started(redis, host), await started(redis, host)
    await age(redis, other.nonce, 86_400_001)
    running = asyncio.create_task(one.run())
    async with asyncio.timeout(5):
        while await redis.hlen(REGISTRY) > 1:
            await asyncio.sleep(0.01)
    running.cancel()
    assert list(await redis.hgetall(REGISTRY)) == [one.nonce.encode()]
