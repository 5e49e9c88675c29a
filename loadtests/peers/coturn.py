"""coturn (Debian's package): a session's caller holds an allocation and sends channel data; its peer gets it bare."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from aioice import stun

from loadtests.generator import Generator
from loadtests.packages import installed
from loadtests.peers.rig import MEASURED_CORE, OTHER_CORE, Missing, Rig
from loadtests.processes import Child

USER: Final = "bench"
REALM: Final = "bench.invalid"
LIFETIME_S: Final = 3600
PATIENCE_S: Final = 10.0
CHANNEL: Final = 0x4000
SIZE: Final = 1100
"""Of the packets inside channel data."""


def open_coturn(sessions: int) -> Rig:
    """Client to peer. Raises Missing when turnserver is not installed."""
    if shutil.which("turnserver") is None:
        raise Missing("coturn is not installed")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-turn-")))
        password, port = secrets.token_hex(8), free_port()
        relay = stack.enter_context(Child(_command(folder, password, port), MEASURED_CORE))
        ends = [stack.enter_context(_socket()) for _ in range(2 * sessions)]
        callers, peers = ends[:sessions], ends[sessions:]
        _wait(port, relay)
        relayed = [_Allocation(caller, port, password).open(peer) for caller, peer in zip(callers, peers, strict=True)]
        fds = [end.fileno() for end in ends]
        generator = stack.enter_context(Generator(OTHER_CORE, pass_fds=fds))
        numbers = generator.adopt(fds)
        generator.connect((number, "127.0.0.1", port) for number in numbers[:sessions])
        generator.connect(zip(numbers[sessions:], ["127.0.0.1"] * sessions, relayed, strict=True))
        pairs = zip(numbers[:sessions], numbers[sessions:], strict=True)
        # The prefix holds the length, so flows are made for one size of packet.
        generator.flows((one, two, CHANNEL.to_bytes(2, "big") + SIZE.to_bytes(2, "big")) for one, two in pairs)
        rig = Rig("coturn", installed("coturn") or "", (relay.pid,), generator, sessions)
        rig.notes.append("client to peer")
        rig.stack = stack.pop_all()
    return rig


def free_port() -> int:
    """A UDP port of 127.0.0.1 that nobody has."""
    with _socket() as probe:
        return int(probe.getsockname()[1])


def _socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def _command(folder: Path, password: str, port: int) -> list[str]:
    config = folder / "turnserver.conf"
    lines = [
        "listening-ip=127.0.0.1", f"listening-port={port}", "relay-ip=127.0.0.1", "relay-threads=1",
        "min-port=20000", "max-port=32000", "lt-cred-mech", f"user={USER}:{password}", f"realm={REALM}",
        "allow-loopback-peers", "no-tcp", "no-tls", "no-dtls", "no-tcp-relay", "no-cli", "no-multicast-peers",
        f"max-allocate-lifetime={LIFETIME_S}", f"channel-lifetime={LIFETIME_S}", f"permission-lifetime={LIFETIME_S}",
        f"pidfile={folder / 'pid'}", "log-file=stdout", f"userdb={folder / 'db'}",
    ]  # fmt: skip
    config.write_text("\n".join(lines) + "\n")
    return ["turnserver", "-c", str(config)]


def _wait(port: int, relay: Child) -> None:
    deadline = time.monotonic() + PATIENCE_S
    request = bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST))
    with _socket() as probe:
        probe.settimeout(0.1)
        while time.monotonic() < deadline and relay.alive:
            with contextlib.suppress(OSError):
                probe.sendto(request, ("127.0.0.1", port))
                if probe.recv(2000):
                    return
    raise RuntimeError(f"coturn does not answer: {relay.said()}")


class _Allocation:
    """A TURN client on a socket of ours (RFC 8656), as far as one allocation with one channel goes."""

    def __init__(self, sock: socket.socket, port: int, password: str) -> None:
        self._socket = sock
        self._server = ("127.0.0.1", port)
        self._password = password
        self._key = b""
        self._nonce = b""
        sock.settimeout(1.0)

    def open(self, peer: socket.socket) -> int:
        """Allocate, and bind the channel to the peer; the relayed port."""
        refused = self._ask(stun.Method.ALLOCATE, REQUESTED_TRANSPORT=0x11000000)
        self._nonce = refused.attributes["NONCE"]
        self._key = _key(USER, refused.attributes["REALM"], self._password)
        granted = self._ask(stun.Method.ALLOCATE, REQUESTED_TRANSPORT=0x11000000, LIFETIME=LIFETIME_S)
        address = ("127.0.0.1", peer.getsockname()[1])
        bound = self._ask(stun.Method.CHANNEL_BIND, CHANNEL_NUMBER=CHANNEL, XOR_PEER_ADDRESS=address)
        if bound.message_class != stun.Class.RESPONSE:
            raise RuntimeError(f"coturn refuses a channel: {bound.attributes.get('ERROR-CODE')}")
        return int(granted.attributes["XOR-RELAYED-ADDRESS"][1])

    def _ask(self, method: stun.Method, **attributes: Any) -> stun.Message:
        request = stun.Message(method, stun.Class.REQUEST)
        request.attributes = {name.replace("_", "-"): value for name, value in attributes.items()}
        if self._key:
            request.attributes |= {"USERNAME": USER, "REALM": REALM, "NONCE": self._nonce}
            request.add_message_integrity(self._key)
        for data in self._answers(bytes(request)):
            answer = stun.parse_message(data)
            if answer.transaction_id == request.transaction_id:
                return answer
        raise RuntimeError(f"coturn does not answer {method.name}")

    def _answers(self, request: bytes) -> Iterator[bytes]:
        for _ in range(5):
            self._socket.sendto(request, self._server)
            with contextlib.suppress(TimeoutError):
                yield self._socket.recv(2000)


def _key(user: str, realm: str, password: str) -> bytes:
    return hashlib.md5(f"{user}:{realm}:{password}".encode()).digest()
