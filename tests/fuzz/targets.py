"""What is fuzzed: each reader of bytes or text from strangers, with the only errors that it may raise.

A target takes any bytes and returns, or raises what a test fails on. It checks more than that nothing crashes: a
reader that succeeds must have read what is there.
"""

from __future__ import annotations

import contextlib
import json
from binascii import crc32
from collections.abc import Callable
from pathlib import Path

from gateway.sfu import framing, stun
from gateway.sfu.demux import MEDIA, classify
from gateway.sfu.port import Candidate, Credentials
from gateway.sfu.quality import Ear, rtp
from gateway.signaling import messages, sdp
from gateway.signaling.messages import BadMessage
from gateway.signaling.sdp import SdpError
from tests.sfu.network import ONE, TWO, Network, talking

DATA = Path(__file__).parents[1] / "data"
OURS = Credentials("gateUfrag", "gatePasswordOf26Characters")
CANDIDATES = (Candidate("203.0.113.5", 3478), Candidate("2001:db8::5", 3478), Candidate("203.0.113.5", 3478, "tcp"))

_net: Network | None = None


def read_stun(data: bytes) -> None:
    """`StunError`, or a message whose answers can be read again; also behind the check sum that mutations break."""
    for one in (data, fingerprinted(data)):
        try:
            message = stun.parse(one)
        except stun.StunError:
            continue
        assert len(message.transaction) == 12
        assert not stun.authentic(message, one, b"a password that no fuzzer guesses")
        again = stun.parse(stun.success(message.transaction, ("192.0.2.1", 7), b"x"))
        assert (again.kind, again.transaction) == (stun.SUCCESS, message.transaction)


def fingerprinted(data: bytes) -> bytes:
    """The attributes behind a right header and before a right FINGERPRINT."""
    body = data[20:-8][:1400]
    body += bytes(-len(body) % 4)
    covered = data[:2] + (len(body) + 8).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + data[8:20].ljust(12, b"x") + body
    return covered + b"\x80\x28\x00\x04" + (crc32(covered) ^ 0x5354554E).to_bytes(4, "big")


def read_rtp(data: bytes) -> None:
    """A header only where there is one, and an ear that stays sane."""
    at = data[0] % 8 if data else 0
    header = rtp(data, at, max(0, len(data) - at))
    assert header is None or classify(data[at:]) == MEDIA
    ear = Ear()
    for start in range(0, len(data), 16):
        ear.hear(data, start, min(16, len(data) - start), start)
    ear.end()
    assert ear.uplink.loss is None or 0 <= ear.uplink.loss <= 1


def read_relay(data: bytes) -> None:
    """A relay amid a call: a stranger is never answered, whatever it sends."""
    global _net
    net = _net = _net or talking()
    assert net.relay.receive(data, ("192.0.2.66", 6666), net.now) == []
    assert (net.selected(0), net.selected(1)) == (ONE, TWO)


def read_framing(data: bytes) -> None:
    """RFC 4571: however a stream is cut into pieces, the same datagrams come out, or the same end."""
    cuts = sorted({data[0] % (len(data) + 1), data[-1] % (len(data) + 1)}) if data else []
    whole, parts = unframe([data]), unframe([data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)])
    assert whole == parts


def unframe(pieces: list[bytes]) -> tuple[list[bytes], bool]:
    """The datagrams in these pieces of a stream, and whether it was given up."""
    framer, found = framing.Framer(), []
    try:
        for piece in pieces:
            for frame in framer.take(piece):
                found.append(bytes(frame))
            assert framer.waiting < framing.FRAME_LIMIT + framing.HEADER_OCTETS
    except framing.FramingError:
        return found, True
    return found, False


def rewrite_sdp(data: bytes) -> None:
    """`SdpError`, or a description that goes on being valid with our transport in it."""
    text = data.decode("utf-8", "replace")
    for kind in ("offer", "answer"):
        try:
            sdp.validate(text, kind)  # type: ignore[arg-type]
            sdp.transport_of(text)
        except SdpError:
            continue
        rewritten = sdp.rewrite(text, OURS, CANDIDATES)
        assert OURS.ufrag in rewritten
        with contextlib.suppress(SdpError):
            assert sdp.transport_of(rewritten).credentials == OURS


def parse_message(data: bytes) -> None:
    """`BadMessage`, or a message that can be written and read again."""
    try:
        message = messages.parse(data.decode("utf-8", "replace"))
    except BadMessage:
        return
    assert messages.parse(message.text()) == message


TARGETS: dict[str, Callable[[bytes], None]] = {
    "stun": read_stun,
    "rtp": read_rtp,
    "relay": read_relay,
    "framing": read_framing,
    "sdp": rewrite_sdp,
    "message": parse_message,
}


def seeds(name: str) -> list[bytes]:
    """What real callers sent: where mutation begins."""
    if name == "sdp":
        return [path.read_bytes() for path in sorted((DATA / "sdp").glob("*.sdp"))]
    if name == "message":
        return [json.dumps(one).encode() for one in MESSAGES]
    packets = [bytes.fromhex(one["hex"]) for recorded in recordings().values() for one in recorded["packets"]]
    if name == "framing":
        return [b"".join(len(one).to_bytes(2, "big") + one for one in packets[at : at + 5]) for at in range(0, 100, 5)]
    return packets[:200]


def recordings() -> dict[str, dict[str, object]]:
    """The files of tests/data/packets by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((DATA / "packets").glob("*.json"))}


MESSAGES: list[dict[str, object]] = [
    {"type": "hello", "token": "t", "media": {"audio": True, "video": False}, "generation": None},
    {"type": "description", "sdp": "v=0", "kind": "offer", "generation": {"mine": 1, "peer": 1, "transport": 1}},
    {"type": "sas", "step": "commit", "value": "abc"},
    {"type": "stats", "loss": 0.1, "jitter": 0.01, "rtt": None},
    {"type": "rate", "stars": 5, "comment": "x", "parameters": {"a": 1}},
    {"type": "ping", "t": 1},
    {"type": "leave"},
    {"type": "media", "audio": True, "video": True},
]
