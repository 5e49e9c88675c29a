"""A UDP cable between one page and the relay that a test can cut and mend."""

from __future__ import annotations

import asyncio
from typing import Any, cast


class Cable(asyncio.DatagramProtocol):
    """Forwards between whoever calls first from each address and the relay; nothing while `cut`."""

    def __init__(self, relay: tuple[str, int]) -> None:
        self.relay, self.cut = relay, False
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None
        self._ends: dict[Any, _End] = {}

    @classmethod
    async def lay(cls, relay: tuple[str, int]) -> Cable:
        loop = asyncio.get_running_loop()
        transport, cable = await loop.create_datagram_endpoint(lambda: cls(relay), local_addr=("127.0.0.1", 0))
        cable.port = transport.get_extra_info("sockname")[1]
        return cable

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self.cut:
            return
        if addr not in self._ends:
            self._ends[addr] = _End(self, addr)
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(
                loop.create_datagram_endpoint(lambda end=self._ends[addr]: end, remote_addr=self.relay)  # type: ignore[misc]
            )
        self._ends[addr].send(data)

    def back(self, data: bytes, addr: Any) -> None:
        if not self.cut and self._transport is not None:
            self._transport.sendto(data, addr)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        for end in self._ends.values():
            end.close()


class _End(asyncio.DatagramProtocol):
    """The relay's side of one address."""

    def __init__(self, cable: Cable, addr: Any) -> None:
        self._cable, self._addr = cable, addr
        self._transport: asyncio.DatagramTransport | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)
        for data in self._early:
            self._transport.sendto(data)

    def send(self, data: bytes) -> None:
        if self._transport is None:
            self._early.append(data)
        else:
            self._transport.sendto(data)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._cable.back(data, self._addr)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
