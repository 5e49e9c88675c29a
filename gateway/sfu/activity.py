"""What goes on in a call while nothing else changes, in one fixed struct: arrivals, counters and quality of both legs.

Four times a second it goes to control, and into the worker's memory. A report in full costs ten times as much, so that
is made only when something changed that is not here. Of each leg stand there, in this order: last check and last packet
from the selected address, last arrival that counts for presence (NEVER: none); packets and octets in, and out to it;
round trip in ms, loss 0 to 1, jitter in ms (not a number: unknown); kbit/s (-1: unknown).
"""

from __future__ import annotations

import math
from dataclasses import replace
from struct import Struct
from typing import Any, Final

from gateway.sfu.port import LegReport, Report, Span, Transport
from gateway.sfu.stun import NEVER

_BOTH: Final = Struct("=" + 2 * "7q3fi")
_FIELDS: Final = 11
_ARRIVED: Final = 2
COUNTERS: Final = slice(3, 7)
OCTETS: Final = _BOTH.size
UNKNOWN: Final = math.nan
NO_RATE: Final = -1

Leg = tuple[Any, ...]


def pack(one: Leg, two: Leg) -> bytes:
    return _BOTH.pack(*one, *two)


def unpack(packed: bytes) -> tuple[Leg, Leg]:
    """Both legs. Raises struct.error when it is not OCTETS long."""
    fields = _BOTH.unpack(packed)
    return fields[:_FIELDS], fields[_FIELDS:]


def renew(report: Report, at: int, packed: bytes | None) -> Report:
    """The report as of `at`: with what went on since, None if nothing has arrived. A span that runs runs until then."""
    legs = None if packed is None else unpack(packed)
    spans = report.spans
    if spans and spans[-1].ended_by is None:
        *over, last = spans
        heard = last.heard if legs is None else (legs[0][_ARRIVED], legs[1][_ARRIVED])
        spans = (*over, Span(last.number, last.start, at, heard))
    if legs is None:
        return replace(report, at=at, spans=spans)
    one, two = map(_renewed, report.legs, legs)
    return replace(report, at=at, legs=(one, two), spans=spans)


def _renewed(before: LegReport, leg: Leg) -> LegReport:
    return leg_report(before.selected, before.present, before.transport, leg)


def leg_report(selected: bool, present: bool, transport: Transport | None, leg: Leg) -> LegReport:
    """A leg as the port sees it, made of its activity and of what is not in there."""
    checked, heard, _arrived, packets_in, bytes_in, packets_out, bytes_out, rtt, loss, jitter, kbps = leg
    return LegReport(
        selected, present, transport, _seen(checked), _seen(heard), _known(rtt), packets_in, bytes_in, packets_out,
        bytes_out, _known(loss), _known(jitter), None if kbps < 0 else kbps,
    )  # fmt: skip


def _seen(at: int) -> int | None:
    return None if at == NEVER else at


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
