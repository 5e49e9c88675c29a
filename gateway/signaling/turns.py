"""One thing after the other: the inbox of a session's task, for those who wait for an answer and those who do not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from gateway.errors import Conflict

Work = Callable[[], Awaitable[Any]]


class Turns:
    """`post` and `ask` from anywhere, `next` in the task that does the work, `shut` when it does no more."""

    def __init__(self) -> None:
        self._inbox: asyncio.Queue[Work] = asyncio.Queue()
        self._asked: set[asyncio.Future[Any]] = set()
        self._shut = False

    def post(self, work: Work) -> None:
        """Have the task do something, in its turn."""
        self._inbox.put_nowait(work)

    async def ask(self, work: Work) -> Any:
        """The same, and wait for its answer or its error. Raises Conflict `held` when the task has let go."""
        if self._shut:
            raise _elsewhere()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked.add(answer)
        answer.add_done_callback(self._asked.discard)

        async def answered() -> None:
            try:
                result = await work()
            except Exception as error:
                if not answer.done():
                    answer.set_exception(error)
            else:
                if not answer.done():
                    answer.set_result(result)

        self.post(answered)
        return await answer

    async def next(self, seconds: float) -> Work | None:
        """What is to be done next; None if nothing comes within that time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._inbox.get()
        return None

    def shut(self) -> None:
        """Nothing is done any more: who waits for an answer gets the error, and comes back to the next owner."""
        self._shut = True
        for answer in list(self._asked):
            if not answer.done():
                answer.set_exception(_elsewhere())


def _elsewhere() -> Conflict:
    return Conflict("This gateway has let go of the call.", code="held")
