"""Frames between control and worker, the worker's memory, and its pace."""

from __future__ import annotations

import marshal
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sfu import activity, control, snapshot
from gateway.sfu.memory import GROWTH, SLOT_OCTETS, Memory, new_file
from gateway.sfu.pace import HASTE_NS, LIMIT_NS, PLENTY, TARGET, WINDOW_NS, Pace
from gateway.sfu.port import Candidate, LegConfig, Report
from gateway.sfu.relay import Relay
from tests.sfu.network import ONE, START, TWO, config, connected, counted_bytes, talking
from tests.sfu.workers import node

# --- frames


def test_values_come_out_as_they_went_in() -> None:
    net = talking()
    net.run(3_000)
    report = net.report()
    assert report.spans
    assert control.unpack_report(_sent(control.pack_report(report))) == report
    for wanted in (config(deadline=7, tag="a:b"), config(legs=(LegConfig(), LegConfig()))):
        assert control.unpack_config(_sent(control.pack_config(wanted))) == wanted
    statistics = net.relay.statistics()
    assert control.unpack_statistics(_sent(control.pack_statistics(statistics))) == statistics
    candidate = Candidate("2001:db8::1", 5, "tcp", 9, "3")
    assert control.unpack_candidate(_sent(control.pack_candidate(candidate))) == candidate


def test_a_pulse_tells_what_a_report_in_full_would() -> None:
    net = talking()
    net.relay.survey()
    ((call, told),) = net.relay.news(net.now)
    assert isinstance(told, Report)
    for step in range(12):
        net.run(250)
        if step % 3:
            net.media(ONE, 200)
        ((call, packed),) = net.relay.news(net.now)
        assert not isinstance(packed, Report)
        assert (packed is None) == (step % 3 == 0)
        told = activity.renew(told, net.now, None if packed is None else _felt(packed))
        assert told == call.report(net.now)


def _felt(packed: bytes) -> bytes:
    pulse = control.Pulse(5, (1,), {2: packed})
    (frame,) = control.Decoder().feed(pulse.encode())
    assert (frame["pulse"].at, list(frame["pulse"].still), frame["pulse"].active) == (5, [1], {2: packed})
    return frame["pulse"].active[2]  # type: ignore[no-any-return]


@given(st.binary(max_size=400))
def test_what_is_no_pulse_is_a_fault(body: bytes) -> None:
    stream = struct.pack("!I", len(body) + 1) + b"\1" + body
    try:
        (frame,) = control.Decoder().feed(stream)
    except control.ControlFault:
        return
    pulse = frame["pulse"]
    assert len(body) == 16 + 4 * len(pulse.still) + (4 + activity.OCTETS) * len(pulse.active)


def test_a_change_is_told_in_full_and_a_call_that_rests_in_four_octets() -> None:
    net = talking()
    net.relay.news(net.now)
    net.run(250)
    assert [told for _, told in net.relay.news(net.now)] == [None]
    net.relay.configure(config(tag="another", until=net.now + 20_000), net.now)
    ((_, told),) = net.relay.news(net.now)
    assert isinstance(told, Report)
    assert told.tag == "another"


def test_prolonging_is_configuring_with_another_until() -> None:
    one, two = talking(until=START + 5_000), talking(until=START + 5_000)
    for net in (one, two):
        net.run(3_000)
    assert one.relay.prolong("call", START + 6_500, one.now)
    two.relay.configure(config(until=START + 6_500), two.now)
    for net in (one, two):
        net.run(3_499)
        assert net.media(ONE)
        net.run(1)
        assert not net.media(ONE)
        assert [(span.end, span.ended_by) for span in net.report().spans] == [(START + 6_500, "until")]
    assert not one.relay.prolong("nobody", START, one.now)


def test_law4_prolonging_to_an_earlier_until_cuts_there() -> None:
    net = talking(until=START + 20_000)
    assert net.relay.prolong("call", START + 500, net.now)
    net.run(600)
    assert net.report().spans[-1].end == START + 500


def test_totals_need_no_walk_and_are_right_once_every_call_was_told() -> None:
    net = talking()
    for _ in range(8):
        net.run(250)
        net.media(ONE)
        net.relay.news(net.now)
    net.run(250)
    net.relay.news(net.now)
    assert net.relay.totals() == net.relay.statistics()
    assert net.relay.totals().open_gates == 1
    net.relay.release("call", net.now)
    assert net.relay.totals() == net.relay.statistics()
    assert (net.relay.totals().legs, net.relay.totals().open_gates) == (0, 0)


def test_totals_have_what_did_not_pass_too() -> None:
    net = connected()
    net.relay.configure(config(funded=False), net.now)
    net.relay.news(net.now)
    before = net.relay.totals().packets_in
    assert not net.media(ONE)
    assert net.send(b"\x16" * 80, ("192.0.2.66", 6)) == []
    assert net.relay.news(net.now) == []
    assert net.relay.totals().packets_in == before + 2
    assert net.relay.totals() == net.relay.statistics()


def _sent(value: object) -> object:
    """As it is after its way over the socket."""
    (frame,) = control.Decoder().feed(control.encode({"value": value}))
    return frame["value"]


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9)), max_size=5), st.data())
def test_frames_survive_any_cutting_into_pieces(frames: list[dict[str, object]], data: st.DataObject) -> None:
    stream = b"".join(control.encode(frame) for frame in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    decoder, got = control.Decoder(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += list(decoder.feed(stream[start:end]))
    assert got == frames


@pytest.mark.parametrize(
    "stream", [struct.pack("!I", control.FRAME_LIMIT + 1), b"\0\0\0\1x", b"\0\0\0\2[]", b"\0\0\0\2\xff\xff"]
)
def test_what_is_no_frame_is_a_fault(stream: bytes) -> None:
    with pytest.raises(control.ControlFault):
        list(control.Decoder().feed(stream))


async def test_the_control_socket_is_its_owners_alone_and_nonsense_ends_only_the_connection() -> None:
    async with node() as running:
        (path,) = running.paths
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        for nonsense in (b"\xff" * 8, control.encode({"id": 1, "release": "call"}), control.encode({"hello": "x"}),
                         control.encode({"hello": 0}), control.encode({})):  # fmt: skip
            with socket.socket(socket.AF_UNIX) as visitor:
                visitor.connect(str(path))
                visitor.settimeout(2)
                visitor.sendall(nonsense)
                assert visitor.recv(100) == b""
        assert (await running.relay.statistics()).calls == 0


async def test_a_control_that_does_not_read_does_not_grow_the_worker() -> None:
    async with node() as running:
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.connect(str(running.paths[0]))
            deaf.sendall(control.encode({"hello": time.monotonic_ns()}))
            asking = control.encode({"id": 1, "ask": "statistics"})
            deaf.settimeout(0.2)
            (worker,) = running.workers
            before = _resident(worker)
            with pytest.raises(TimeoutError):
                _pour(deaf, asking * 50)
            assert _resident(worker) - before < 8_000_000


def _pour(into: socket.socket, data: bytes) -> None:
    for _ in range(100_000):
        into.sendall(data)


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- memory


@pytest.fixture
def file() -> Iterator[int]:
    descriptor = new_file()
    yield descriptor
    os.close(descriptor)


def test_what_was_kept_is_there_for_the_next_instance(file: int) -> None:
    memory = Memory(file)
    kept = {f"call{number}": (f"call{number}", number, None, ("x",) * 20) for number in range(GROWTH + 3)}
    for call, value in kept.items():
        assert memory.keep(call, value, 5)
    memory.keep("call1", ("call1", "changed"), 6)
    memory.touch("call1", 7)
    memory.drop("call0")
    expected = {call: value for call, value in kept.items() if call not in ("call0", "call1")}
    found = {value[0]: (value, until) for value, until in Memory(file).load()}
    assert found == {call: (value, 5) for call, value in expected.items()} | {"call1": (("call1", "changed"), 7)}


def test_what_it_was_touched_with_stands_at_the_end_until_it_is_kept_anew(file: int) -> None:
    memory = Memory(file)
    memory.keep("call", ("call",), 1)
    memory.touch("call", 2, b"newer")
    memory.touch("call", 3)
    assert list(Memory(os.dup(file)).load()) == [(("call", b"newer"), 3)]
    memory.keep("call", ("call",), 4)
    assert list(Memory(file).load()) == [(("call",), 4)]


def test_dropped_slots_are_used_again_and_the_file_stays_as_large(file: int) -> None:
    memory = Memory(file)
    for number in range(10 * GROWTH):
        memory.keep(f"call{number}", (number,), 0)
        memory.drop(f"call{number}")
    assert os.fstat(file).st_size == GROWTH * SLOT_OCTETS
    assert list(Memory(file).load()) == []


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_torn_slot_is_left_out_and_never_misread(at: int, octet: int) -> None:
    file = new_file()
    try:
        Memory(file).keep("call", ("call", 12345, "x" * 100), 0)
        os.pwrite(file, bytes([octet]), at)
        found = [value for value, _ in Memory(file).load()]
        assert found in ([], [("call", 12345, "x" * 100)])
    finally:
        os.close(file)


def test_a_call_that_does_not_fit_is_not_kept(file: int) -> None:
    memory = Memory(file)
    assert memory.keep("call", ("call",), 0)
    assert not memory.keep("call", ("x" * SLOT_OCTETS,), 0)
    assert list(Memory(file).load()) == []


def test_a_restored_call_goes_on_where_it_was_and_fits_its_slot() -> None:
    net = talking()
    for number in range(30):
        net.run(8_000)
        for address in (ONE, TWO):
            net.check(address, nominate=True)
        net.relay.configure(config(until=net.now + 20_000), net.now)
        assert [net.media(address) for address in (ONE, TWO)] == [True, True], number
    before = net.report()
    kept = net.relay.snapshot("call", net.now)
    assert kept is not None
    assert len(marshal.dumps(kept)) < SLOT_OCTETS - 16
    net.relay = Relay(counted_bytes(), instance=2)  # type: ignore[arg-type]
    net.relay.restore(copied(kept), net.now, net.now)
    assert net.media(ONE)
    assert net.media(TWO)
    after = net.report()
    assert after.deadline == before.deadline
    assert [span.number for span in after.spans] == sorted({span.number for span in after.spans})
    assert after.spans[-2].ended_by == "lost"
    assert after.spans[-2].end == before.at
    assert after.legs[0].packets_in == before.legs[0].packets_in + 1
    assert after.legs[0].packets_out == before.legs[0].packets_out + 1


def test_a_restored_call_has_what_was_newer_than_its_snapshot() -> None:
    net = talking()
    kept = net.relay.snapshot("call", net.now)
    assert kept is not None
    net.run(3_000)
    net.media(ONE, 700)
    net.relay.prolong("call", net.now + 20_000, net.now)
    before = net.report()
    newer = snapshot.latest(net.call(), activity.pack(*net.call().activity()))
    net.relay = Relay(counted_bytes(), instance=2)  # type: ignore[arg-type]
    net.relay.restore((*copied(kept), newer), net.now, net.now)
    after = net.report()
    assert after.spans[-1].heard == before.spans[-1].heard == (START + 3_000, START)
    assert (after.spans[-1].end, after.spans[-1].ended_by) == (START + 3_000, "lost")
    assert [leg.packets_in for leg in after.legs] == [leg.packets_in for leg in before.legs] == [2, 1]
    assert [leg.bytes_out for leg in after.legs] == [leg.bytes_out for leg in before.legs]
    assert net.call().until == net.now + 20_000
    assert [leg.last_packet for leg in after.legs] == [START + 3_000, START]


def copied(kept: tuple[object, ...]) -> tuple[object, ...]:
    restored: tuple[object, ...] = marshal.loads(marshal.dumps(kept))
    return restored


# --- pace


def _waits(pace: Pace, batches: list[int], apart_ns: int) -> list[int]:
    return [pace.wait_ns(messages, (place + 1) * apart_ns) for place, messages in enumerate(batches)]


def test_a_quiet_worker_never_waits() -> None:
    assert set(_waits(Pace(), [1] * 2000, 1_000_000)) == {0}


def test_a_busy_one_gathers_but_not_longer_than_the_limit() -> None:
    waits = _waits(Pace(), [1] * 2000, 50_000)
    assert waits[-1] == LIMIT_NS
    fast = _waits(Pace(), [4] * 20_000, 20_000)
    assert 0 < fast[-1] < LIMIT_NS // 5


def test_full_batches_are_followed_at_once() -> None:
    assert set(_waits(Pace(), [PLENTY] * 2000, 50_000)) == {0}


def test_large_batches_that_were_gathered_are_gathered_for_again_until_the_worker_nears_its_limit() -> None:
    assert _waits(Pace(), [TARGET + 8] * 2000, TARGET * 50_000)[-1] > LIMIT_NS // 2
    assert _waits(Pace(), [TARGET] * 2000, HASTE_NS // 2)[-1] == 0


def test_the_first_packets_after_a_lull_wait_no_longer_than_a_window() -> None:
    pace = Pace()
    _waits(pace, [1] * 2000, 50_000)
    lull = 2000 * 50_000 + 10**9
    assert pace.wait_ns(1, lull) == 0
    assert pace.wait_ns(1, lull + WINDOW_NS) == 0
