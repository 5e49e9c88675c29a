"""Frames of RFC 4571: whatever the cuts between reads, the same datagrams; whatever the octets, bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sfu.framing import FRAME_LIMIT, Framer, FramingError, header


def framed(*datagrams: bytes) -> bytes:
    return b"".join(header(len(one)) + one for one in datagrams)


def taken(framer: Framer, data: bytes) -> list[bytes]:
    return [bytes(frame) for frame in framer.take(data)]


@given(st.lists(st.binary(min_size=1, max_size=FRAME_LIMIT), max_size=8), st.lists(st.integers(1, 700), min_size=1))
def test_cuts_between_reads_mean_nothing(datagrams: list[bytes], cuts: list[int]) -> None:
    framer, stream, found = Framer(), framed(*datagrams), []
    at = turn = 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        found += taken(framer, stream[at : at + size])
        at, turn = at + size, turn + 1
    assert found == datagrams
    assert framer.waiting == 0


@given(st.lists(st.binary(max_size=4000), max_size=8))
def test_any_octets_give_bounded_frames_or_a_framing_error(pieces: list[bytes]) -> None:
    framer = Framer()
    try:
        for piece in pieces:
            assert all(0 < len(frame) <= FRAME_LIMIT for frame in taken(framer, piece))
            assert framer.waiting <= FRAME_LIMIT + 1
    except FramingError:
        pass


def test_frames_before_a_bad_one_are_given_out() -> None:
    frames = Framer().take(framed(b"good") + header(FRAME_LIMIT + 1))
    assert bytes(next(frames)) == b"good"
    with pytest.raises(FramingError):
        next(frames)


@pytest.mark.parametrize("greeting", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"SSH-2.0-x\r\n"])
def test_other_protocols_are_told_by_their_first_octets(greeting: bytes) -> None:
    with pytest.raises(FramingError):
        taken(Framer(), greeting)


def test_empty_frames_mean_nothing() -> None:
    assert taken(Framer(), header(0) + framed(b"a") + header(0)) == [b"a"]


def test_the_longest_datagram_passes() -> None:
    longest = bytes(FRAME_LIMIT)
    assert taken(Framer(), framed(longest, longest)) == [longest, longest]
