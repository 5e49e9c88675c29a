"""Our STUN reader and writer against aioice.stun, and against anything that bytes can be."""

from __future__ import annotations

import binascii
import contextlib
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from aioice import stun as oracle
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.sfu import stun
from gateway.sfu.stun import StunError

KEY = b"password-of-the-leg-24ch"
TID = bytes(range(12))

addresses = st.tuples(st.ip_addresses().map(str), st.integers(0, 65535))
transactions = st.binary(min_size=12, max_size=12)
# Without surrogates and within the 513 bytes of RFC 8489; characters of several bytes are meant.
usernames = st.text(st.characters(exclude_categories=["Cs"]), max_size=120)
numbers = st.integers(0, 2**64 - 1)


def sealed(message: oracle.Message, key: bytes = KEY) -> bytes:
    message.add_message_integrity(key)
    return bytes(message)


def request(**attributes: object) -> oracle.Message:
    named = {name.replace("_", "-"): value for name, value in attributes.items()}
    return oracle.Message(oracle.Method.BINDING, oracle.Class.REQUEST, TID, named)


def raw(kind: int, attributes: bytes, tid: bytes = TID) -> bytes:
    """A message with a right FINGERPRINT around whatever attributes."""
    covered = struct.pack("!HHI", kind, len(attributes) + 8, 0x2112A442) + tid + attributes
    return covered + struct.pack("!HHI", 0x8028, 4, binascii.crc32(covered) ^ 0x5354554E)


# --- reading


@given(usernames, st.integers(0, 2**32 - 1), numbers, st.booleans(), st.booleans(), st.binary(max_size=64))
def test_reads_what_the_oracle_writes(
    username: str, priority: int, tie_breaker: int, nominate: bool, controlled: bool, key: bytes
) -> None:
    message = request(USERNAME=username, PRIORITY=priority)
    message.attributes["ICE-CONTROLLED" if controlled else "ICE-CONTROLLING"] = tie_breaker
    if nominate:
        message.attributes["USE-CANDIDATE"] = None
    data = sealed(message, key)
    read = stun.parse(memoryview(data))
    assert (read.kind, read.transaction, read.username) == (stun.REQUEST, TID, username)
    assert (read.priority, read.use_candidate) == (priority, nominate)
    assert (read.controlled, read.controlling) == ((tie_breaker, None) if controlled else (None, tie_breaker))
    assert stun.authentic(read, data, key)
    assert not stun.authentic(read, data, key + b"x")


@given(addresses, transactions)
def test_reads_the_oracles_mapped_address(address: tuple[str, int], tid: bytes) -> None:
    message = oracle.Message(oracle.Method.BINDING, oracle.Class.RESPONSE, tid, {"XOR-MAPPED-ADDRESS": address})
    read = stun.parse(sealed(message))
    assert (read.kind, read.mapped, read.transaction) == (stun.SUCCESS, address, tid)


@given(st.integers(300, 699))
def test_reads_the_oracles_error_code(code: int) -> None:
    message = oracle.Message(oracle.Method.BINDING, oracle.Class.ERROR, TID, {"ERROR-CODE": (code, "no")})
    assert stun.parse(sealed(message)).error_code == code


def test_unknown_attributes_are_ignored_and_long_requests_read() -> None:
    noise = b"".join(struct.pack("!HH", kind, 301) + bytes(304) for kind in (0x7F01, 0xC001, 0xC057))
    read = stun.parse(raw(stun.REQUEST, noise + struct.pack("!HHI", 0x0024, 4, 5)))
    assert read.priority == 5


def test_what_follows_the_integrity_is_not_read() -> None:
    data = sealed(request(USERNAME="a:b"))[:-8]
    forged = data[20:] + struct.pack("!HH", 0x0025, 0) + struct.pack("!HHI", 0x0024, 4, 9)
    read = stun.parse(raw(stun.REQUEST, forged))
    assert not read.use_candidate
    assert read.priority is None


def test_the_first_of_two_equal_attributes_counts() -> None:
    read = stun.parse(raw(stun.REQUEST, struct.pack("!HHIHHI", 0x0024, 4, 1, 0x0024, 4, 2)))
    assert read.priority == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        sealed(request(USERNAME="a:b"))[:19],
        sealed(request(USERNAME="a:b"))[:-4],
        sealed(request(USERNAME="a:b")) + b"\0\0\0\0",
        bytes(request(USERNAME="abcd")),
        raw(0x0003, b""),
        raw(0x0101, struct.pack("!HH", 0x0020, 3) + bytes(4)),
        raw(0x0101, struct.pack("!HHBBH", 0x0020, 8, 0, 2, 1) + bytes(4)),
        raw(0x0111, struct.pack("!HHBB", 0x0009, 2, 0, 4) + bytes(2)),
        raw(0x0001, struct.pack("!HH", 0x0006, 0xFFFF)),
        raw(0x0001, struct.pack("!HH", 0x0006, 4) + b"\xff\xfe\xfd\xfc"),
        raw(0x0001, struct.pack("!HH", 0x0024, 2) + bytes(4)),
        raw(0x0001, struct.pack("!HH", 0x0008, 8) + bytes(8)),
        raw(0x0001, raw(0x0001, b"")[20:]),
    ],
)
def test_malformed_messages_are_refused(data: bytes) -> None:
    with pytest.raises(StunError):
        stun.parse(data)


def test_a_changed_byte_anywhere_is_noticed() -> None:
    data = sealed(request(USERNAME="ours:theirs", PRIORITY=7, ICE_CONTROLLING=1))
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 0x10
        with pytest.raises(StunError):
            stun.parse(changed)


def test_a_message_without_integrity_is_not_authentic() -> None:
    data = raw(stun.REQUEST, struct.pack("!HHI", 0x0024, 4, 1))
    assert not stun.authentic(stun.parse(data), data, KEY)


@given(st.binary(max_size=200))
@example(b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12))
def test_random_bytes_are_read_or_refused_with_the_one_error(data: bytes) -> None:
    with contextlib.suppress(StunError):
        stun.parse(data)


attribute = st.tuples(
    st.sampled_from([0x0006, 0x0008, 0x0009, 0x0020, 0x0024, 0x0025, 0x8029, 0x802A, 0x8028, 0x1234]),
    st.integers(0, 40),
    st.binary(max_size=40),
)


@given(st.sampled_from([0x0001, 0x0011, 0x0101, 0x0111]), st.lists(attribute, max_size=6))
def test_random_attributes_are_read_or_refused_and_read_as_the_oracle_reads_them(
    kind: int, attributes: list[tuple[int, int, bytes]]
) -> None:
    body = b"".join(
        struct.pack("!HH", number, length) + value + bytes(-len(value) % 4) for number, length, value in attributes
    )
    data = raw(kind, body)
    # The oracle is less tolerant of what is ignored here: a reason that is no UTF-8, an attribute that is too short.
    with contextlib.suppress(StunError, UnicodeDecodeError, struct.error):
        read = stun.parse(data)
        kinds = [number for number, _, _ in attributes]
        if len(set(kinds)) == len(kinds):
            theirs = oracle.parse_message(data).attributes
            assert theirs.get("USERNAME") == read.username
            assert theirs.get("PRIORITY") == read.priority
            assert ("USE-CANDIDATE" in theirs) == read.use_candidate
            assert theirs.get("ICE-CONTROLLED") == read.controlled


@given(st.data())
def test_every_truncation_is_refused(data: st.DataObject) -> None:
    whole = sealed(request(USERNAME="ours:theirs", PRIORITY=7))
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(StunError):
        stun.parse(whole[:cut])


# --- writing


@given(addresses, transactions, st.binary(max_size=64))
def test_the_oracle_reads_our_success(address: tuple[str, int], tid: bytes, key: bytes) -> None:
    message = oracle.parse_message(stun.success(tid, address, key))
    assert message.message_class == oracle.Class.RESPONSE
    assert message.transaction_id == tid
    assert message.attributes["XOR-MAPPED-ADDRESS"] == address
    assert "FINGERPRINT" in message.attributes
    assert message.check_message_integrity(key)
    read = stun.parse(stun.success(tid, address, key))
    assert read.mapped == address


@given(st.ip_addresses(v=6), st.integers(0, 65535))
def test_a_scoped_ipv6_address_is_answered_without_its_scope(host: IPv6Address | IPv4Address, port: int) -> None:
    read = stun.parse(stun.success(TID, (f"{host}%eth0", port, 0, 2), KEY))
    assert read.mapped == (str(host), port)


@given(transactions, usernames, st.integers(0, 2**32 - 1), st.binary(max_size=64))
def test_the_oracle_reads_our_challenge(tid: bytes, username: str, priority: int, key: bytes) -> None:
    data = stun.challenge(tid, username, key, priority)
    message = oracle.parse_message(data)
    assert message.message_class == oracle.Class.REQUEST
    assert message.attributes["USERNAME"] == username
    assert message.attributes["PRIORITY"] == priority
    assert message.attributes["ICE-CONTROLLED"] == 0
    assert "FINGERPRINT" in message.attributes
    assert message.check_message_integrity(key)
    assert stun.authentic(stun.parse(data), data, key)


@given(transactions, st.binary(max_size=64))
def test_the_oracle_reads_our_role_conflict(tid: bytes, key: bytes) -> None:
    message = oracle.parse_message(stun.role_conflict(tid, key))
    assert message.error_code == 487
    assert message.message_class == oracle.Class.ERROR
    assert message.check_message_integrity(key)
