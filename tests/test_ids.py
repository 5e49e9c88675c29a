"""Ids sort by time and tell it; secrets are long and safe in URLs."""

from __future__ import annotations

import re
import time
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ids import born_ms, new_id, new_secret, uuid7_int

MS = st.integers(0, (1 << 48) - 1)
ENTROPY = st.binary(min_size=10, max_size=10)


@given(MS, ENTROPY)
def test_the_number_is_a_version_7_uuid_of_its_time(ms: int, entropy: bytes) -> None:
    made = UUID(int=uuid7_int(ms, entropy))
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert made.int >> 80 == ms


@given(MS, MS, ENTROPY, ENTROPY)
def test_later_is_larger_whatever_chance_says(a: int, b: int, one: bytes, other: bytes) -> None:
    if a != b:
        assert (uuid7_int(a, one) < uuid7_int(b, other)) == (a < b)


def test_all_74_bits_of_chance_count() -> None:
    assert uuid7_int(0, b"\xff" * 10) ^ uuid7_int(0, bytes(10)) == ((1 << 12) - 1) << 64 | (1 << 62) - 1


def test_ids_have_their_prefix_and_sort_as_text_by_time() -> None:
    before = time.time_ns() // 1_000_000
    ids = [new_id("ses") for _ in range(50)]
    assert len(set(ids)) == 50
    assert all(re.fullmatch(r"ses_[0-9a-hjkmnp-tv-z]{26}", made) for made in ids)
    assert [born_ms(made) for made in sorted(ids)] == sorted(born_ms(made) for made in ids)
    assert all(before <= born_ms(made) <= time.time_ns() // 1_000_000 for made in ids)


@pytest.mark.parametrize("text", ["", "ses_", "ses_1", "_" + "0" * 26, "ses_" + "u" * 26, "ses_" + "0" * 27])
def test_other_text_has_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        born_ms(text)


@given(st.sampled_from(["", "pg_test_", "n"]), st.integers(9, 64))
def test_secrets_are_url_safe_and_as_long_as_asked(prefix: str, size: int) -> None:
    made = new_secret(prefix, size)
    assert re.fullmatch(prefix + r"[A-Za-z0-9_-]+", made)
    assert len(made) - len(prefix) == -(-size * 8 // 6)
    assert made != new_secret(prefix, size)
