"""A scripted ICE caller on aioice.stun: checks, answers, DTLS- and RTP-like datagrams, roaming, restarts.

`Caller` is bytes in, bytes out, for tests without sockets. `UdpCaller` and `TcpCaller` put one on real sockets. Its
transaction ids come from a counter, so that runs repeat exactly.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any

from aioice import stun

from gateway.sfu.port import Credentials

_transactions = itertools.count(1)


def transaction() -> bytes:
    """A transaction id that no other message has."""
    return next(_transactions).to_bytes(12, "big")


class Caller:
    """One end of a leg: `own` credentials, and the `relay`'s for this leg."""

    def __init__(self, own: Credentials, relay: Credentials) -> None:
        self.own = own
        self.relay = relay
        self.sequence = 0
        self.challenges = 0
        self.confirmed = 0
        self.media: list[bytes] = []
        self.silent = False
        """When set, challenges are not answered."""
        self.foreign = 0
        """Challenges that name other credentials; nobody answers those."""

    def restart(self, own: Credentials, relay: Credentials) -> None:
        """New credentials on both sides; what is sent from now on uses them."""
        self.own, self.relay = own, relay

    def check(
        self, nominate: bool = False, priority: int = 1_845_501_695, *, tid: bytes | None = None, **attributes: Any
    ) -> bytes:
        """A Binding request; `attributes` with underscores for hyphens replace or, if None is not allowed, add."""
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST, transaction_id=tid or transaction())
        request.attributes = {"USERNAME": f"{self.relay.ufrag}:{self.own.ufrag}", "PRIORITY": priority}
        if "ICE_CONTROLLED" not in attributes:
            request.attributes["ICE-CONTROLLING"] = 7
        if nominate:
            request.attributes["USE-CANDIDATE"] = None
        request.attributes |= {name.replace("_", "-"): value for name, value in attributes.items()}
        request.add_message_integrity(self.relay.password.encode())
        return bytes(request)

    def take(self, data: bytes) -> bytes | None:
        """Handle what came; the answer to send, if it was a challenge. Other STUN is counted, the rest kept."""
        if data[0] > 3:
            self.media.append(data)
            return None
        message = stun.parse_message(data)
        if message.message_class == stun.Class.REQUEST:
            if message.attributes["USERNAME"] != f"{self.own.ufrag}:{self.relay.ufrag}":
                self.foreign += 1
                return None
            self.challenges += 1
            return None if self.silent else self.answer(message)
        assert message.check_message_integrity(self.relay.password.encode())
        if message.message_class == stun.Class.RESPONSE:
            self.confirmed += 1
        return None

    def answer(self, request: stun.Message, address: tuple[str, int] = ("192.0.2.1", 1)) -> bytes:
        """The success response to a challenge; asserts that it was made as it must be."""
        assert request.check_message_integrity(self.own.password.encode())
        assert "ICE-CONTROLLED" in request.attributes
        response = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, transaction_id=request.transaction_id)
        response.attributes["XOR-MAPPED-ADDRESS"] = address
        response.add_message_integrity(self.own.password.encode())
        return bytes(response)

    def dtls(self, size: int = 200, message: int = 0) -> bytes:
        """A plaintext DTLS 1.2 handshake record with a record number of its own; `message` is its message_seq."""
        self.sequence += 1
        body = b"\x01" + (size - 25).to_bytes(3, "big") + message.to_bytes(2, "big") + bytes(3)
        body += (size - 25).to_bytes(3, "big") + self.own.ufrag.encode().ljust(size - 25, b".")[: size - 25]
        return b"\x16\xfe\xfd\x00\x00" + self.sequence.to_bytes(6, "big") + len(body).to_bytes(2, "big") + body

    def rtp(self, size: int = 100) -> bytes:
        """An RTP-like packet with a sequence number of its own."""
        self.sequence += 1
        return (b"\x80\x60" + self.sequence.to_bytes(2, "big")).ljust(size, b"\x55")


class UdpCaller(asyncio.DatagramProtocol):
    """A `Caller` on a real socket of the running loop, answering challenges by itself."""

    def __init__(self, caller: Caller, relay: tuple[str, int], bind: str = "127.0.0.1") -> None:
        self.caller = caller
        self.relay = relay
        self.bind = bind
        self.received = asyncio.Event()
        self.raw: list[bytes] = []
        self.sources: set[tuple[str, int]] = set()
        self._transport: asyncio.DatagramTransport | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self, interval: float | None = 0.05, nominate: bool = True) -> None:
        """Take a (new) local address; checks go out every `interval` seconds, unless it is None."""
        await self.close()
        endpoint = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, (self.bind, 0))
        self._transport = endpoint[0]
        if interval is not None:
            self._task = asyncio.create_task(self._keep_checking(interval, nominate))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def send(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.sendto(data, self.relay)

    async def until(self, condition: Any, seconds: float = 5.0) -> None:
        """Wait for incoming datagrams until `condition()` holds."""
        async with asyncio.timeout(seconds):
            while not condition():
                self.received.clear()
                await self.received.wait()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.raw.append(data)
        self.sources.add(addr[:2])
        reply = self.caller.take(data)
        if reply is not None:
            self.send(reply)
        self.received.set()

    async def _keep_checking(self, interval: float, nominate: bool) -> None:
        while True:
            self.send(self.caller.check(nominate))
            await asyncio.sleep(interval)


class TcpCaller:
    """A `Caller` on a TCP connection of the running loop (RFC 6544, active), answering challenges by itself."""

    def __init__(self, caller: Caller, relay: tuple[str, int]) -> None:
        self.caller = caller
        self.relay = relay
        self.received = asyncio.Event()
        self.raw: list[bytes] = []
        self.reset = False
        """Whether the connection ended by a reset."""
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, interval: float | None = 0.05, nominate: bool = True) -> None:
        reader, self._writer = await asyncio.open_connection(*self.relay)
        self._tasks = [asyncio.create_task(self._read(reader))]
        if interval is not None:
            self._tasks.append(asyncio.create_task(self._keep_checking(interval, nominate)))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await task
        self._tasks = []
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()
            self._writer = None

    @property
    def ended(self) -> bool:
        return self._tasks[0].done()

    def send(self, data: bytes) -> None:
        self.send_raw(len(data).to_bytes(2, "big") + data)

    def send_raw(self, octets: bytes) -> None:
        assert self._writer is not None
        self._writer.write(octets)

    async def until(self, condition: Any, seconds: float = 5.0) -> None:
        """Wait for incoming datagrams, or the end, until `condition()` holds."""
        async with asyncio.timeout(seconds):
            while not condition():
                self.received.clear()
                await self.received.wait()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                data = await reader.readexactly(size)
                self.raw.append(data)
                reply = self.caller.take(data)
                if reply is not None:
                    self.send(reply)
                self.received.set()
        except asyncio.IncompleteReadError:
            pass
        except ConnectionError:
            self.reset = True
        finally:
            asyncio.get_running_loop().call_soon(self.received.set)

    async def _keep_checking(self, interval: float, nominate: bool) -> None:
        while not self.ended:
            self.send(self.caller.check(nominate))
            await asyncio.sleep(interval)


def credentials(name: str) -> Credentials:
    """A pair of the right lengths, told apart by `name`."""
    return Credentials(f"ufrag{name}", f"password-of-{name}".ljust(24, "x"))
