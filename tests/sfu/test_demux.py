"""The first byte tells the protocol (RFC 7983)."""

from __future__ import annotations

import pytest

from gateway.sfu.demux import DTLS, JUNK, MEDIA, STUN, classify, is_rtcp


@pytest.mark.parametrize(
    ("first", "last", "kind"),
    [(0, 3, STUN), (4, 19, JUNK), (20, 63, DTLS), (64, 127, JUNK), (128, 191, MEDIA), (192, 255, JUNK)],
)
def test_rfc7983_ranges(first: int, last: int, kind: int) -> None:
    assert {classify(bytes([byte, 9])) for byte in range(first, last + 1)} == {kind}


def test_an_empty_datagram_is_junk() -> None:
    assert classify(b"") == JUNK
    assert classify(memoryview(b"")) == JUNK


def test_rtcp_is_told_from_rtp_by_its_packet_type() -> None:
    assert is_rtcp(b"\x80\xc8")
    assert is_rtcp(b"\x81\xce")
    assert not is_rtcp(b"\x80\x6f")
    assert not is_rtcp(b"\x80\xef")
    assert not is_rtcp(b"\x80")
