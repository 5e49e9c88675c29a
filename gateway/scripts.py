"""Lua scripts in pipelines by their hash: one round trip, where redis-py first asks whether the server knows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis.asyncio as aioredis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError

Call = tuple[Sequence[str], Sequence[Any]]


async def piped(redis: aioredis.Redis, script: AsyncScript, calls: Sequence[Call], *after: Sequence[Any]) -> list[Any]:
    """The answers to calls of one script (keys, arguments), then to the commands `after`, over one connection; errors
    are values, as the server worded them. Raises RedisError when the connection fails."""
    while True:
        pipe = redis.pipeline(transaction=False)
        for call in calls:
            pipe.execute_command(*evalsha(script, call))
        for command in after:
            pipe.execute_command(*command)
        # A raised error is wrapped in the pipeline's words, and a conflict would look like an outage.
        answers: list[Any] = await pipe.execute(raise_on_error=False)
        if not any(isinstance(answer, NoScriptError) for answer in answers):
            return answers
        await redis.script_load(script.script)


def evalsha(script: AsyncScript, call: Call) -> tuple[Any, ...]:
    """The command that calls a script."""
    keys, args = call
    return ("EVALSHA", script.sha, len(keys), *keys, *args)


def checked(answers: list[Any]) -> list[Any]:
    """The answers; raises the first error among them."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers
