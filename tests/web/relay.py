"""A small real relay for the page's tests: ICE-lite per leg on one UDP port, everything else passed through unopened.

It answers and forwards only; the gateway's own relay, with its gate, challenges and meter, is tested in `tests/sfu`.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from dataclasses import dataclass, field
from typing import cast

from aioice import stun

Address = tuple[str, int]


@dataclass
class Leg:
    """One side's ICE: our credentials, newest last, and the address that was heard last."""

    credentials: list[tuple[str, str]] = field(default_factory=list)
    address: Address | None = None
    cut: bool = False
    packets: int = 0

    def renew(self) -> None:
        self.credentials.append((secrets.token_hex(4), secrets.token_hex(12)))


class Relay(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.legs: dict[str, Leg] = {"client": Leg(), "expert": Leg()}
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    @property
    def port(self) -> int:
        assert self.transport is not None
        return int(self.transport.get_extra_info("sockname")[1])

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if data[0] < 4:
            self._check(data, addr)
            return
        for role, leg in self.legs.items():
            other = self.legs["expert" if role == "client" else "client"]
            if leg.address == addr and not leg.cut and not other.cut and other.address:
                leg.packets += 128 <= data[0] < 192
                self._send(data, other.address)

    def _check(self, data: bytes, addr: Address) -> None:
        request = stun.parse_message(data)
        if request.message_class is not stun.Class.REQUEST:
            return
        ufrag = request.attributes["USERNAME"].split(":")[0]
        for leg in self.legs.values():
            for ours, password in leg.credentials:
                if ours == ufrag and not leg.cut and request.check_message_integrity(password.encode()):
                    leg.address = addr
                    self._answer(request, password, addr)

    def _answer(self, request: stun.Message, password: str, addr: Address) -> None:
        answer = stun.Message(request.message_method, stun.Class.RESPONSE, request.transaction_id)
        answer.attributes["XOR-MAPPED-ADDRESS"] = addr
        answer.add_message_integrity(password.encode())
        answer.add_fingerprint()
        self._send(bytes(answer), addr)

    def _send(self, data: bytes, addr: Address) -> None:
        assert self.transport is not None
        self.transport.sendto(data, addr)

    def rewrite(self, sdp: str, role: str) -> str:
        """The description for `role`: that leg's credentials and our one candidate, the rest as it was."""
        ufrag, password = self.legs[role].credentials[-1]
        dropped = ("a=candidate:", "a=end-of-candidates", "a=rtcp:", "a=ice-options:", "a=ice-lite")
        lines = [line for line in sdp.split("\r\n") if not line.startswith(dropped)]
        text = "\r\n".join(lines)
        text = re.sub(r"a=ice-ufrag:.*", f"a=ice-ufrag:{ufrag}", text)
        text = re.sub(r"a=ice-pwd:.*", f"a=ice-pwd:{password}", text)
        candidate = f"a=candidate:1 1 udp 2130706431 127.0.0.1 {self.port} typ host"
        text = re.sub(r"(a=ice-pwd:.*)", rf"\1\r\n{candidate}\r\na=end-of-candidates", text)
        return text.replace("\r\r\n", "\r\n").replace("\r\nt=0 0\r\n", "\r\nt=0 0\r\na=ice-lite\r\n", 1)
