"""Names of keys: everything of one session in one hash slot, sessions spread over all partitions."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from gateway.ids import new_id
from gateway.keys import Keys

SESSIONS = st.text("0123456789abcdef", min_size=1).map("ses_{}".format)


@given(SESSIONS, st.integers(1, 16_384), st.lists(st.sampled_from(["session", "events", "usage", "lease"]), min_size=2))
def test_one_script_may_touch_all_of_a_session(session: str, partitions: int, names: list[str]) -> None:
    keys = Keys(partitions)
    made = [keys.of(session, name) for name in names] + [keys.beside(session, "due:money")]
    assert len({key_slot(key.encode()) for key in made}) == 1
    assert keys.beside(session, "finalized") == keys.shared(keys.partition(session), "finalized")
    assert 0 <= keys.partition(session) < partitions


@given(SESSIONS, SESSIONS, st.sampled_from(["session", "usage"]))
def test_no_two_sessions_share_a_key(one: str, other: str, name: str) -> None:
    keys = Keys()
    assert (keys.of(one, name) == keys.of(other, name)) == (one == other)


def test_sessions_are_spread_over_all_partitions() -> None:
    keys = Keys(8)
    counts = [0] * 8
    for _ in range(800):
        counts[keys.partition(new_id("ses"))] += 1
    assert min(counts) > 40
    assert all(re.match(r"\{p[0-7]\}:", keys.shared(partition, "x")) for partition in range(8))
