"""Round trips to Redis that many share: what is asked for while one is under way goes together on the next.

A trip costs the client far more than a command in it (a connection taken and given back, time-outs, the loop woken
twice), and a busy bridge asks hundreds of small things at once. One that is alone goes at once, as it would anyhow.
"""

from __future__ import annotations

import asyncio
import builtins
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import redis.asyncio as aioredis
from redis.asyncio.connection import Connection
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError, NoScriptError, ResponseError, TimeoutError

from gateway.scripts import Call, checked, evalsha

# More would let one slow answer hold back what is wanted meanwhile.
MOST: Final = 128
UNDER_WAY: Final = 2

Command = Sequence[Any]


@dataclass(slots=True)
class _Wish:
    """Commands of one caller, side by side."""

    commands: Sequence[Command]
    answer: asyncio.Future[list[Any]]


class Trips:
    """Shell over one client. Not for commands that make their connection wait (WAITAOF, XREAD BLOCK) or speak of it
    (WATCH, SUBSCRIBE). Who is cancelled before the trip has not asked; after that, what was asked for is done."""

    def __init__(self, redis: aioredis.Redis) -> None:
        self._redis = redis
        self._waiting: list[_Wish] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._scripts: dict[str, AsyncScript] = {}  # by their hash

    async def ask(self, *commands: Command) -> list[Any]:
        """Their answers. Raises RedisError: the first that a command came to, or the connection's."""
        wish = _Wish(commands, asyncio.get_running_loop().create_future())
        self._waiting.append(wish)
        if len(self._under_way) < UNDER_WAY:
            self._under_way.add(asyncio.create_task(self._go()))
        return checked(await wish.answer)

    async def run(self, script: AsyncScript, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """The script's answer. Raises RedisError, a script's own error in the script's words."""
        self._scripts[script.sha] = script
        return (await self.ask(evalsha(script, (keys, args))))[0]

    async def run_each(self, script: AsyncScript, calls: Sequence[Call]) -> list[Any]:
        """The answers to several calls of one script. Raises RedisError."""
        self._scripts[script.sha] = script
        return await self.ask(*(evalsha(script, call) for call in calls))

    async def _go(self) -> None:
        try:
            while self._waiting:
                wishes = [wish for wish in self._waiting[:MOST] if not wish.answer.done()]
                del self._waiting[:MOST]
                await self._carry(wishes)
        finally:  # at once, and not by a callback: who asks before that would think that it is still under way
            self._under_way.discard(cast(asyncio.Task[None], asyncio.current_task()))

    async def _carry(self, wishes: list[_Wish]) -> None:
        try:
            answers = iter(await self._trip([command for wish in wishes for command in wish.commands]))
            _hand_out(wishes, [[next(answers) for _ in wish.commands] for wish in wishes])
        except (ConnectionError, TimeoutError) as error:
            wishes += self._waiting  # tried long enough: who has waited meanwhile is told too
            self._waiting.clear()
            _hand_out(wishes, [[error] for _ in wishes])
        except Exception as error:
            _hand_out(wishes, [[error] for _ in wishes])
        except BaseException:
            for wish in wishes:
                wish.answer.cancel()
            raise

    async def _trip(self, commands: Sequence[Command]) -> list[Any]:
        """The answers, errors among them as values."""
        answers = await self._pipeline(commands)
        unknown = [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:  # the server was started anew; what it does not know has not run
            for sha in {commands[n][1] for n in unknown}:
                await self._redis.script_load(self._scripts[sha].script)
            for n, answer in zip(unknown, await self._pipeline([commands[n] for n in unknown]), strict=True):
                answers[n] = answer
        return answers

    async def _pipeline(self, commands: Sequence[Command]) -> list[Any]:
        pool = self._redis.connection_pool
        connection = await pool.get_connection()
        try:
            answers: list[Any] = await connection.retry.call_with_retry(
                lambda: _answers(connection, commands), lambda error: connection.disconnect()
            )
            return answers
        finally:
            await pool.release(connection)


async def _answers(connection: Connection, commands: Sequence[Command]) -> list[Any]:
    """What a pipeline of redis-py does, but with one time-out for all answers instead of one for each, and with errors
    in the server's words: wrapped in its own, a conflict would look like an outage."""
    await connection.send_packed_command(connection.pack_commands(commands))
    answers: list[Any] = []
    try:
        async with asyncio.timeout(connection.socket_timeout):
            while len(answers) < len(commands):
                try:
                    answers.append(await connection.read_response(timeout=math.inf))
                except ResponseError as error:
                    answers.append(error)
    except builtins.TimeoutError:
        raise TimeoutError("Redis did not answer in time.") from None
    return answers


def _hand_out(wishes: Sequence[_Wish], answers: Sequence[list[Any]]) -> None:
    for wish, answer in zip(wishes, answers, strict=True):
        if not wish.answer.done():  # who asked may have been cancelled meanwhile
            wish.answer.set_result(answer)
