"""What control and a relay worker say to each other over their Unix socket: frames of JSON, and values in them.

A frame is its length (four octets, big-endian) and one JSON object. Control says `hello` with its instance number; the
worker answers with what it is, or closes when it has met a newer control. Then requests, each with an `id` that its
answer carries: `configure`, `prolong`, `release`, `statistics`. The worker sends `reports` and `statistics` of its own
accord. Commands are declarative and so idempotent: saying one again changes nothing.

What the worker says four times a second of every running call is a `Pulse`, a frame that is no JSON: in it calls go by
the numbers that their last report gave them.
"""

from __future__ import annotations

import json
import socket
import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from gateway.errors import GatewayError
from gateway.sfu.activity import OCTETS
from gateway.sfu.port import CallConfig, Candidate, Credentials, LegConfig, LegReport, Report, Span, Statistics

FRAME_LIMIT: Final = 4_194_304
"""Longer frames are a fault: 5,000 reports at once are about half of it."""
_LENGTH: Final = struct.Struct("!I")
_PULSE: Final = struct.Struct("=BqII")
_PULSE_KIND: Final = 1
"""First octet of a frame that is a pulse; JSON objects begin with another."""
Frame = dict[str, Any]


class ControlFault(GatewayError):
    """The other side does not keep to this protocol, or must not speak to us."""

    code = "control_fault"


@dataclass(frozen=True, slots=True)
class Pulse:
    """Of running calls, by number, as of `at`: of which nothing has arrived, and the packed activity of the others."""

    at: int
    still: Sequence[int]
    active: Mapping[int, bytes]

    def encode(self) -> bytes:
        numbers = array("I", (*self.still, *self.active))
        head = _PULSE.pack(_PULSE_KIND, self.at, len(self.still), len(self.active))
        body = b"".join((head, numbers.tobytes(), *self.active.values()))
        return _LENGTH.pack(len(body)) + body


def encode(frame: Mapping[str, Any]) -> bytes:
    body = json.dumps(frame, separators=(",", ":")).encode()
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Bytes as they come in, frames out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete now. Raises ControlFault."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > FRAME_LIMIT:
                raise ControlFault("a frame is too long")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield {"pulse": _pulse(body)} if body[:1] == b"\1" else _object(body)


def _pulse(body: bytes) -> Pulse:
    try:
        _kind, at, still, active = _PULSE.unpack_from(body)
        numbers = array("I", body[_PULSE.size : (start := _PULSE.size + 4 * (still + active))])
        parts = [body[place : place + OCTETS] for place in range(start, len(body), OCTETS)]
        if len(body) != start + active * OCTETS:
            raise ValueError("a pulse of another length than it says")
    except (struct.error, ValueError):
        raise ControlFault("a pulse is none") from None
    return Pulse(at, numbers[:still], dict(zip(numbers[still:], parts, strict=True)))


def _object(body: bytes) -> Frame:
    try:
        frame = json.loads(body)
    except ValueError:
        raise ControlFault("a frame is no JSON") from None
    if not isinstance(frame, dict):
        raise ControlFault("a frame is no object")
    return frame


def peer_uid(sock: socket.socket) -> int | None:
    """User of the process at the other end of a Unix socket; None where the platform does not tell (SO_PEERCRED)."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    _pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    return int(uid)


# Values. Positions, not names, in what is sent often.


def pack_config(config: CallConfig) -> Frame:
    """Holds passwords: the socket is readable by its owner alone."""
    legs = [
        [
            [[pair.ufrag, pair.password] for pair in leg.local],
            leg.remote and [leg.remote.ufrag, leg.remote.password], leg.inherits,
        ]
        for leg in config.legs
    ]  # fmt: skip
    return {
        "call": config.call, "incarnation": config.incarnation, "legs": legs, "funded": config.funded,
        "limit_ms": config.limit_ms, "until": config.until, "deadline": config.deadline, "tag": config.tag,
    }  # fmt: skip


def unpack_config(frame: Frame) -> CallConfig:
    one, two = (
        LegConfig(
            tuple(Credentials(*pair) for pair in local), None if remote is None else Credentials(*remote), inherits
        )
        for local, remote, inherits in frame["legs"]
    )
    return CallConfig(
        frame["call"], frame["incarnation"], (one, two), frame["funded"], frame["limit_ms"], frame["until"],
        frame["deadline"], frame["tag"],
    )  # fmt: skip


def pack_report(report: Report) -> list[Any]:
    legs = [
        [leg.selected, leg.present, leg.transport, leg.last_check, leg.last_packet, leg.rtt_ms, leg.packets_in,
         leg.bytes_in, leg.packets_out, leg.bytes_out, leg.loss, leg.jitter_ms, leg.kbps]
        for leg in report.legs
    ]  # fmt: skip
    spans = [[span.number, span.start, span.end, span.heard, span.ended_by] for span in report.spans]
    return [report.call, report.at, report.incarnation, report.gate, legs, spans, report.deadline, report.tag]


def unpack_report(packed: list[Any]) -> Report:
    call, at, incarnation, gate, legs, spans, deadline, tag = packed
    one, two = (LegReport(*leg) for leg in legs)
    told = tuple(Span(number, start, end, tuple(heard), why) for number, start, end, heard, why in spans)
    return Report(call, at, incarnation, gate, (one, two), told, deadline, tag)


def pack_statistics(statistics: Statistics) -> Frame:
    return asdict(statistics)


def unpack_statistics(frame: Frame) -> Statistics:
    return Statistics(**{**frame, "occupancy": tuple(frame["occupancy"])})


def pack_candidate(candidate: Candidate) -> list[Any]:
    return [candidate.address, candidate.port, candidate.transport, candidate.priority, candidate.foundation]


def unpack_candidate(packed: list[Any]) -> Candidate:
    return Candidate(*packed)
