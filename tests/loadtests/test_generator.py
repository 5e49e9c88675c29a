"""The C generator: it counts what came, keeps the rate, measures delays, and speaks ICE as callers do."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from aioice import stun as oracle

from gateway.sfu import stun
from loadtests import native
from loadtests.generator import Generator, Group, Load
from loadtests.peers.reflector import open_reflector
from loadtests.peers.rig import OTHER_CORE, Rig

pytestmark = pytest.mark.skipif(not native.has_compiler(), reason="no C compiler")


@pytest.fixture(scope="module")
def reflected() -> Iterator[Rig]:
    with open_reflector(4) as rig:
        assert rig.generator.prime() == 8
        yield rig


@pytest.fixture
def generator() -> Iterator[Generator]:
    with Generator(OTHER_CORE) as made:
        yield made


def test_paced_flows_arrive_and_never_faster_than_their_rate(reflected: Rig) -> None:
    outcome = reflected.generator.run(Load((reflected.forwards(4_000),), 1.0))
    assert outcome.delivered == outcome.sent
    assert 1_000 < outcome.sent < 5_000
    assert outcome.octets == 1100 * outcome.delivered


def test_delays_are_measured_on_what_arrived(reflected: Rig) -> None:
    outcome = reflected.generator.run(Load((reflected.forwards(4_000),), 0.5, stamp=True))
    assert 0 < outcome.p50_us <= outcome.p99_us <= outcome.p999_us <= outcome.max_us
    plain = reflected.generator.run(Load((reflected.forwards(4_000),), 0.1))
    assert plain.max_us == 0


def test_a_window_bounds_what_is_under_way(reflected: Rig) -> None:
    outcome = reflected.generator.run(Load((reflected.forwards(1),), 0.5, window=32))
    assert outcome.delivered == outcome.sent > 1_000
    assert outcome.sent - outcome.in_time <= 32


def test_trains_arrive_as_single_packets_where_nobody_asked_for_trains(reflected: Rig) -> None:
    outcome = reflected.generator.run(Load((reflected.forwards(8_000),), 0.5, train=True))
    assert outcome.delivered == outcome.sent > 1_000
    assert outcome.octets == 1100 * outcome.delivered


def test_groups_share_a_run_at_their_own_rates(reflected: Rig) -> None:
    groups = (reflected.forwards(2_000, 1, 120), reflected.backwards(200, 1, 50))
    outcome = reflected.generator.run(Load(groups, 0.5))
    assert 120 * 300 < outcome.octets < 120 * 1_600
    assert outcome.delivered == outcome.sent


def test_what_does_not_arrive_is_loss(generator: Generator) -> None:
    (one, _), (two, _) = generator.open(2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        generator.connect([(one, "127.0.0.1", sink.getsockname()[1])])
        generator.flows([(one, two, b"")])
        outcome = generator.run(Load((Group(0, 1, 1_000),), 0.1))
    assert outcome.sent > 0
    assert (outcome.delivered, outcome.loss) == (0, 1.0)


def test_ready_made_packets_go_out_as_they_are_and_end(generator: Generator, tmp_path: Path) -> None:
    (one, _), (two, port) = generator.open(2)
    generator.connect([(one, "127.0.0.1", port)])
    generator.flows([(one, two, b"")])
    packets = [b"\x80\x60" + (65_530 + number & 0xFFFF).to_bytes(2, "big") + os.urandom(60) for number in range(20)]
    pool = tmp_path / "pool"
    pool.write_bytes(b"".join(packets))
    generator.pool(pool, 20, 64)
    outcome = generator.run(Load((Group(0, 1, 1_000, 8, 64),), 1.0, window=16))
    assert (outcome.sent, outcome.delivered, outcome.octets) == (20, 20, 20 * 64)


def test_prefixed_flows_carry_their_prefix(generator: Generator) -> None:
    ((one, _),) = generator.open(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sink.settimeout(2)
        generator.connect([(one, "127.0.0.1", sink.getsockname()[1])])
        generator.flows([(one, one, b"\x40\x00\x04\x4c")])
        generator.run(Load((Group(0, 1, 100, 1),), 0.1))
        packet = sink.recv(2_000)
    assert packet[:6] == b"\x40\x00\x04\x4c\x80\x60"
    assert len(packet) == 1_104


def test_checks_and_answers_are_what_the_relay_and_aioice_take_for_authentic(generator: Generator) -> None:
    ((caller, _),) = generator.open(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relay:
        relay.bind(("127.0.0.1", 0))
        relay.settimeout(5)
        here = relay.getsockname()
        generator.connect([(caller, "127.0.0.1", relay.getsockname()[1])])
        generator.ice([(caller, "ownufrag", "own-password-of-22-chars", "relayufrag", "relay-password-22-chars")])
        generator.checks(50)
        check, source = relay.recvfrom(2_000)
        message = stun.parse(check)
        assert (message.kind, message.username, message.use_candidate) == (stun.REQUEST, "relayufrag:ownufrag", True)
        assert stun.authentic(message, check, b"relay-password-22-chars")
        assert oracle.parse_message(check).check_message_integrity(b"relay-password-22-chars")
        request = stun.challenge(bytes(range(12)), "ownufrag:relayufrag", b"own-password-of-22-chars", 1)
        relay.sendto(request, source)
        answers = (relay.recv(2_000) for _ in range(100))
        answer = next(data for data in answers if data[:2] == b"\x01\x01")
    parsed = oracle.parse_message(answer)
    assert parsed.check_message_integrity(b"own-password-of-22-chars")
    assert parsed.transaction_id == bytes(range(12))
    assert parsed.attributes["XOR-MAPPED-ADDRESS"] == here


@pytest.mark.parametrize("line", ["nonsense", "to 99 127.0.0.1 1", "open nowhere", "run seconds=1", "flow 7 8"])
def test_what_it_does_not_understand_is_an_error_and_it_goes_on(generator: Generator, line: str) -> None:
    with pytest.raises(RuntimeError):
        generator.many([line])
    assert len(generator.open(1)) == 1
