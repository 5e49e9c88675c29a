"""`python -m loadtests.bridge.ends`: where mails and events go: a mail server, a fast receiver, and a dead one that
takes connections and never answers. They do as little as they can, for they share a core with what is not measured.

Spoken to by lines: each line is answered with what arrived since the one before.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from typing import Any, Final, cast

import uvloop

LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
ANSWER: Final = b"HTTP/1.1 204 No Content\r\n\r\n"


class Arrivals:
    def __init__(self) -> None:
        self.events: list[tuple[float, str, str, int]] = []
        self.mails = 0

    def take(self) -> dict[str, Any]:
        """Events as (monotonic s, session, type, sequence), and how many mails."""
        told = {"events": self.events, "mails": self.mails}
        self.events, self.mails = [], 0
        return told


class Receiver(asyncio.Protocol):
    """HTTP/1.1, one request after the other, each with its length."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals, self._data = arrivals, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            found = LENGTH.search(self._data, 0, end)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self._data) < whole:
                return
            event = json.loads(self._data[end + 4 : whole])
            self._data = self._data[whole:]
            self._arrivals.events.append((time.monotonic(), event["session"], event["type"], event["sequence"]))
            self._transport.write(ANSWER)


class MailServer(asyncio.Protocol):
    """RFC 5321 as far as a client that does nothing wrong needs it."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals, self._data, self._in_mail = arrivals, b"", False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n.\r\n" if self._in_mail else b"\r\n")) >= 0:
            line, self._data = self._data[:end], self._data[end + (5 if self._in_mail else 2) :]
            self._transport.write(self._answer(line[:4].upper()))

    def _answer(self, verb: bytes) -> bytes:
        if self._in_mail:
            self._in_mail = False
            self._arrivals.mails += 1
            return b"250 ok\r\n"
        if verb == b"EHLO":
            return b"250-sink\r\n250 8BITMIME\r\n"
        self._in_mail = verb == b"DATA"
        return b"354 go on\r\n" if self._in_mail else b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n"


async def main() -> None:
    loop, arrivals = asyncio.get_running_loop(), Arrivals()
    factories = {
        "mail": lambda: MailServer(arrivals), "fast": lambda: Receiver(arrivals), "dead": asyncio.Protocol
    }  # fmt: skip
    ports = {}
    for name, factory in factories.items():
        server = await loop.create_server(factory, "127.0.0.1", 0)
        ports[name] = server.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(arrivals.take()), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
