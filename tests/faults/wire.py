"""A wire between one process and Valkey, on which the test listens: the process can be stopped at a named write, before
Valkey has it, or after Valkey did it and before the process knows. Nothing in the process tells of it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

Side = Literal["before", "after"]
CHUNK: Final = 1 << 16
CONFIRMED: Final = b"*2\r\n:1\r\n:"  # the answer to WAITAOF


@dataclass
class Stop:
    """A point of a process's work; `reached` is set when it stands there, and it goes no further."""

    word: re.Pattern[bytes]
    side: Side
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    gone_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def hold(self) -> None:
        self.reached.set()
        await self.gone_on.wait()

    def let_go(self) -> None:
        """Somebody else was killed: the process goes on."""
        self.gone_on.set()


class Wire:
    """The connections of one process. One stop at a time is waited for."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self.confirmed: Callable[[], None] = lambda: None  # called before the process hears that something is on disk
        self._stop: Stop | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._deaf: set[asyncio.Task[None]] = set()

    def stop_at(self, word: str, side: Side) -> Stop:
        """Stop the process at its next command that has the word (a regular expression) in it."""
        self._stop = Stop(re.compile(word.encode(), re.DOTALL), side)
        return self._stop

    async def carry(self, asks: asyncio.StreamReader, hears: asyncio.StreamWriter) -> None:
        """One connection, until either end is gone."""
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with contextlib.suppress(OSError):
                answers, server = await asyncio.open_unix_connection(str(self._server))
                back = asyncio.create_task(self._back(answers, hears))
                await _until_one_ends([back, asyncio.create_task(self._forth(asks, server, back))])
                server.close()
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self._open.discard(task)
            hears.close()

    def close(self) -> None:
        for task in list(self._open):
            task.cancel()

    async def _forth(self, asks: asyncio.StreamReader, server: asyncio.StreamWriter, back: asyncio.Task[None]) -> None:
        while True:
            asked = await _command(asks)
            stop = self._met(asked)
            if stop is None:
                server.write(asked)
                await server.drain()
                continue
            if stop.side == "after":  # whoever asked never hears of it
                self._deaf.add(back)
                server.write(asked)
                await server.drain()
                await self._done()
            await stop.hold()
            return

    async def _back(self, answers: asyncio.StreamReader, hears: asyncio.StreamWriter) -> None:
        while data := await answers.read(CHUNK):
            if CONFIRMED in data:
                self.confirmed()
            if asyncio.current_task() not in self._deaf:
                hears.write(data)
                await hears.drain()

    def _met(self, asked: bytes) -> Stop | None:
        stop = self._stop
        if stop is None or not stop.word.search(asked):
            return None
        self._stop = None
        return stop

    async def _done(self) -> None:
        """Valkey has done what it had been sent: it answers another, which it reads at the same time or later."""
        reader, writer = await asyncio.open_unix_connection(str(self._server))
        writer.write(b"PING\r\n")
        await reader.readline()
        writer.close()


async def _command(asks: asyncio.StreamReader) -> bytes:
    """One command as the client sends it: an array of byte strings (RESP)."""
    parts = [await asks.readuntil(b"\r\n")]
    for _ in range(int(parts[0][1:])):
        parts.append(await asks.readuntil(b"\r\n"))
        parts.append(await asks.readexactly(int(parts[-1][1:]) + 2))
    return b"".join(parts)


async def _until_one_ends(tasks: list[asyncio.Task[None]]) -> None:
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def wire(socket: Path, server: Path) -> AsyncIterator[Wire]:
    """A wire that a process finds at `socket`."""
    made = Wire(server)
    listening = await asyncio.start_unix_server(made.carry, str(socket))
    yield made
    listening.close()
    made.close()
