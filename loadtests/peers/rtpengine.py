"""rtpengine (Debian's package) in user space: plain RTP between two ports of its own for each session."""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from loadtests.generator import Generator
from loadtests.packages import installed
from loadtests.peers.coturn import free_port
from loadtests.peers.rig import MEASURED_CORE, OTHER_CORE, Missing, Rig
from loadtests.processes import Child

PATIENCE_S: Final = 10.0
_PORT: Final = re.compile(rb"m=audio (\d+) ")


def open_rtpengine(sessions: int) -> Rig:
    """Both directions of each session. Raises Missing when rtpengine is not installed."""
    if shutil.which("rtpengine") is None:
        raise Missing("rtpengine is not installed")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-rtpengine-"))
        port = free_port()
        relay = stack.enter_context(Child(_command(Path(folder), port), MEASURED_CORE))
        control = stack.enter_context(_Control(port))
        control.wait(relay)
        generator = stack.enter_context(Generator(OTHER_CORE))
        ends = generator.open(2 * sessions)
        pairs = list(zip(ends[::2], ends[1::2], strict=True))
        for (one, one_port), (two, two_port) in pairs:
            # Of an answer, each side is told the port that faces it: the offer's names the answerer's.
            towards_two, towards_one = control.call(one_port, two_port)
            generator.connect(((one, "127.0.0.1", towards_one), (two, "127.0.0.1", towards_two)))
        generator.flows((one, two, b"") for (one, _), (two, _) in pairs)
        generator.flows((two, one, b"") for (one, _), (two, _) in pairs)
        rig = Rig("rtpengine", installed("rtpengine-daemon") or "", (relay.pid,), generator, sessions, sessions)
        rig.notes.append("plain RTP in user space")
        rig.stack = stack.pop_all()
    return rig


def _command(folder: Path, port: int) -> list[str]:
    return [
        "rtpengine", "--config-file=none", "--table=-1", "--num-threads=1", "--interface=127.0.0.1",
        f"--listen-ng=127.0.0.1:{port}", "--port-min=32000", "--port-max=60000", "--foreground", "--log-stderr",
        "--log-level=3", f"--pidfile={folder / 'pid'}",
    ]  # fmt: skip


class _Control:
    """Its control protocol: a cookie and a bencoded dictionary in each datagram."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(("127.0.0.1", port))
        self._socket.settimeout(1.0)

    def __enter__(self) -> _Control:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def wait(self, relay: Child) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and relay.alive:
            with contextlib.suppress(OSError):
                self._ask(command="ping")
                return
            time.sleep(0.05)
        raise RuntimeError(f"rtpengine does not answer: {relay.said()}")

    def call(self, one: int, two: int) -> tuple[int, int]:
        """The ports facing the second and the first side."""
        about = {"call-id": secrets.token_hex(8), "from-tag": "one", "ICE": "remove"}
        offered = self._ask(command="offer", sdp=_sdp(one), **about)
        answered = self._ask(command="answer", sdp=_sdp(two), **{"to-tag": "two"}, **about)
        return _port(offered), _port(answered)

    def _ask(self, **question: str) -> bytes:
        self._socket.send(secrets.token_hex(4).encode() + b" " + bencode(question))
        answer = self._socket.recv(65536)
        if b"6:result5:error" in answer:
            raise RuntimeError(f"rtpengine refuses: {answer!r}")
        return answer


def _port(answer: bytes) -> int:
    found = _PORT.search(answer)
    if found is None:
        raise RuntimeError(f"rtpengine names no port: {answer!r}")
    return int(found[1])


def bencode(value: Any) -> bytes:
    """Strings and dictionaries of them; keys in order."""
    if isinstance(value, dict):
        return b"d" + b"".join(bencode(key) + bencode(value[key]) for key in sorted(value)) + b"e"
    text = str(value).encode()
    return b"%d:%s" % (len(text), text)


def _sdp(port: int) -> str:
    lines = (
        "v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0",
        f"m=audio {port} RTP/AVP 96", "a=rtpmap:96 opus/48000/2", "a=sendrecv",
    )  # fmt: skip
    return "\r\n".join(lines) + "\r\n"
