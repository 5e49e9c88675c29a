"""Scripts in pipelines, over a real Valkey."""

from __future__ import annotations

import pytest
import redis.asyncio as aioredis
from redis.exceptions import ResponseError

from gateway.scripts import checked, piped


async def test_a_server_that_lost_its_scripts_is_told_them_again(redis: aioredis.Redis) -> None:
    script = redis.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    for round_number in (1, 2):
        await redis.script_flush()
        *results, pong = await piped(redis, script, [(["{t}:a"], [1]), (["{t}:b"], [2])], ("PING",))
        assert results == [round_number, 2 * round_number]
        assert pong


async def test_errors_are_values_in_the_servers_own_words(redis: aioredis.Redis) -> None:
    script = redis.register_script("return {err = ARGV[1]}")
    (answer,) = await piped(redis, script, [(["{t}:a"], ["FENCED"])])
    assert str(answer) == "FENCED"
    with pytest.raises(ResponseError, match="FENCED"):
        checked([1, answer])
