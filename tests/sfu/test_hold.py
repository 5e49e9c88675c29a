"""The hold buffer keeps the newest flight, whole and no more than that."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.sfu.hold import HOLD_DATAGRAMS, HOLD_MS, HOLD_OCTETS, Hold, Pool
from tests.sfu.caller import Caller, credentials


def hello(random: str, record: int, offset: int = 0, message: int = 0, size: int = 1200) -> bytes:
    """One fragment of a ClientHello: `record` is the record's sequence number, `random` what tells handshakes apart."""
    fragment = b"\x01\x00\x10\x00" + message.to_bytes(2, "big") + offset.to_bytes(3, "big") + bytes(3)
    body = fragment + random.encode().ljust(size - 25, b".")
    return b"\x16\xfe\xfd\x00\x00" + record.to_bytes(6, "big") + len(body).to_bytes(2, "big") + body


def test_a_hello_of_two_datagrams_is_held_whole_and_in_order() -> None:
    hold = Hold(Pool())
    flight = [hello("a", 0, 0), hello("a", 1, 1150, size=263)]
    assert [hold.add(datagram, 5) for datagram in flight] == [0, 0]
    assert hold.take() == flight
    assert hold.take() == []


def test_a_repeated_flight_replaces_the_first_one() -> None:
    hold = Hold(Pool())
    for record in (0, 2, 4):
        hold.add(hello("a", record, 0), 5)
        hold.add(hello("a", record + 1, 1150), 5)
    assert hold.take() == [hello("a", 4, 0), hello("a", 5, 1150)]


def test_a_new_handshake_voids_the_old_flight() -> None:
    hold = Hold(Pool())
    hold.add(hello("a", 0, 0), 5)
    hold.add(hello("a", 1, 1150), 5)
    assert hold.add(hello("b", 0, 0), 6) == 2
    assert hold.take() == [hello("b", 0, 0)]


def test_ciphertext_is_never_taken_for_a_repetition() -> None:
    hold = Hold(Pool())
    records = [b"\x2f\x00" + bytes([n]) * 40 for n in range(3)] + [
        b"\x17\xfe\xfd\x00\x01" + bytes([n]) * 30 for n in (1, 2)
    ]
    for record in records:
        hold.add(record, 5)
    assert hold.take() == records


def test_the_oldest_give_way_when_the_buffer_is_full() -> None:
    hold = Hold(Pool())
    datagrams = [hello("a", n, n * 10, size=100) for n in range(HOLD_DATAGRAMS + 2)]
    assert [hold.add(datagram, 5) for datagram in datagrams] == [0] * HOLD_DATAGRAMS + [1, 1]
    assert hold.take() == datagrams[2:]


def test_the_pool_bounds_all_buffers_together() -> None:
    pool = Pool(limit=2000)
    one, two = Hold(pool), Hold(pool)
    assert one.add(hello("a", 0), 5) == 0
    assert two.add(hello("b", 0), 5) == 1
    assert two.take() == []
    one.take()
    assert two.add(hello("b", 0), 5) == 0


def test_a_flight_ages_from_its_newest_datagram() -> None:
    hold = Hold(Pool())
    assert hold.expires_at() is None
    hold.add(hello("a", 0, 0), 5)
    hold.add(hello("a", 1, 1150), 9)
    assert hold.expires_at() == 9 + HOLD_MS


def test_the_reused_buffer_of_the_shell_is_copied() -> None:
    buffer = bytearray(hello("a", 0))
    hold = Hold(Pool())
    hold.add(memoryview(buffer), 5)
    buffer[:] = bytes(len(buffer))
    assert hold.take() == [hello("a", 0)]


datagrams = st.one_of(
    st.binary(min_size=1, max_size=1500).map(lambda data: b"\x16" + data),
    st.builds(hello, st.sampled_from("ab"), st.integers(0, 9), st.sampled_from([0, 1150]), st.integers(0, 1)),
    st.binary(min_size=HOLD_OCTETS, max_size=HOLD_OCTETS + 10),
)


@given(st.lists(st.tuples(datagrams, st.booleans()), max_size=40))
def test_bounds_hold_and_nothing_is_lost_from_the_count(steps: list[tuple[bytes, bool]]) -> None:
    pool = Pool(limit=10_000)
    hold = Hold(pool)
    dropped = taken = 0
    for added, (datagram, take) in enumerate(steps, 1):
        dropped += hold.add(datagram, 5)
        taken += len(hold.take()) if take else 0
        assert len(hold.flight) <= HOLD_DATAGRAMS
        assert hold.octets == sum(map(len, hold.flight)) == pool.octets
        assert hold.octets <= HOLD_OCTETS
        assert added == dropped + taken + pool.datagrams


def test_the_scripted_callers_hellos_are_told_apart_by_their_record_numbers_only() -> None:
    caller = Caller(credentials("one"), credentials("relay"))
    hold = Hold(Pool())
    first, second = caller.dtls(), caller.dtls()
    assert first != second
    hold.add(first, 1)
    assert hold.add(second, 2) == 1
