"""The relay's core as a whole: two callers, one gate."""

from __future__ import annotations

from tests.sfu.network import ONE, TWO, connected, talking


def test_two_callers_connect_and_media_passes_both_ways() -> None:
    net = talking()
    assert net.selected(0) == ONE
    assert net.media(ONE)
    assert net.media(TWO)
    assert net.callers[TWO].media[-1][:2] == b"\x80\x60"
    assert net.adds_up()


def test_dtls_passes_before_media() -> None:
    net = connected()
    assert net.dtls(ONE)
    assert net.report().gate == "handshake"
    assert net.adds_up()
