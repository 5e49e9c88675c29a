"""Law 7: no bytes of a stranger break a reader. Random ones, and mutations of what real callers sent."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.sfu import stun
from gateway.sfu.demux import DTLS, MEDIA, STUN, classify
from gateway.sfu.quality import Ear
from tests.fuzz.targets import TARGETS, recordings, seeds

RECORDED = recordings()


@st.composite
def mutated(draw: st.DrawFn, name: str) -> bytes:
    """A seed with some octets changed, cut, doubled or put in."""
    data = bytearray(draw(st.sampled_from(seeds(name))))
    for _ in range(draw(st.integers(0, 6))):
        at, kind = draw(st.integers(0, len(data))), draw(st.sampled_from(["set", "cut", "put", "double", "end"]))
        if kind == "set" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 8))]
        elif kind == "put":
            data[at:at] = draw(st.binary(max_size=8))
        elif kind == "double":
            data[at:at] = data[at : at + 16]
        else:
            del data[at:]
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_law7_any_bytes(name: str) -> None:
    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=200))
    def run(data: bytes) -> None:
        TARGETS[name](data)

    run()


@pytest.mark.parametrize("name", TARGETS)
def test_law7_mutations_of_what_real_callers_sent(name: str) -> None:
    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(mutated(name))
    def run(data: bytes) -> None:
        TARGETS[name](data)

    run()


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_themselves(name: str) -> None:
    assert seeds(name)
    for seed in seeds(name):
        TARGETS[name](seed)


class TestRecorded:
    """What the readers make of the packets of real calls."""

    @pytest.mark.parametrize("name", RECORDED)
    def test_all_checks_are_read_and_authentic(self, name: str) -> None:
        recorded = RECORDED[name]
        checks = [one for one in recorded["packets"] if classify(bytes.fromhex(one["hex"])) == STUN]
        assert len(checks) >= 4
        for one in checks:
            data = bytes.fromhex(one["hex"])
            message = stun.parse(data)
            ufrag = (message.username or "").partition(":")[0]
            password = recorded["passwords"][one["leg"]][ufrag].encode()
            assert message.kind == stun.REQUEST
            assert message.controlling is not None
            assert stun.authentic(message, data, password)
            assert not stun.authentic(message, data, password + b"x")

    @pytest.mark.parametrize("name", RECORDED)
    def test_handshakes_and_media_are_told_apart(self, name: str) -> None:
        kinds = {classify(bytes.fromhex(one["hex"])) for one in RECORDED[name]["packets"]}
        assert kinds == {STUN, DTLS, MEDIA}

    @pytest.mark.parametrize("leg", ["client", "expert"])
    @pytest.mark.parametrize("name", RECORDED)
    def test_loopback_loses_nothing_and_lost_packets_are_counted(self, name: str, leg: str) -> None:
        packets = [one for one in RECORDED[name]["packets"] if one["leg"] == leg and one["hex"][0] in "89ab"]
        assert heard(packets) == 0
        keep = random.Random(7)
        assert 0.1 < (heard([one for one in packets if keep.random() > 0.25]) or 0) < 0.4


def heard(packets: list[dict[str, object]]) -> float | None:
    ear = Ear()
    for one in packets:
        data = bytes.fromhex(str(one["hex"]))
        ear.hear(data, 0, len(data), int(str(one["ms"])))
    ear.end()
    return ear.uplink.loss
