from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.auth import ApiKey, KeyRing, digest, mint, require
from gateway.errors import Forbidden, Unauthorized

TEST, LIVE = mint(), mint(livemode=True)
RING = KeyRing([ApiKey.of(TEST, "acc_a"), ApiKey.of(LIVE, "acc_a", ["read"])])


def test_a_key_tells_account_mode_and_scopes() -> None:
    found = RING.authenticate(f"Bearer {LIVE}")
    assert (found.account, found.livemode, found.scopes) == ("acc_a", True, frozenset({"read"}))


def test_only_the_hash_is_kept() -> None:
    key = ApiKey.of(TEST, "acc_a")
    assert key.hash == digest(TEST)
    assert TEST not in repr(key)


def test_several_keys_of_an_account_work_side_by_side() -> None:
    assert {RING.authenticate(f"bearer {key}").account for key in (TEST, LIVE)} == {"acc_a"}


@given(st.one_of(st.none(), st.text(max_size=60), st.text(max_size=60).map(lambda text: f"Bearer {text}")))
def test_anything_else_is_unauthorized(header: str | None) -> None:
    with pytest.raises(Unauthorized):
        RING.authenticate(header)


@pytest.mark.parametrize("header", [f"Basic {TEST}", TEST, "Bearer", f"Bearer {TEST}x", f"Bearer {digest(TEST)}"])
def test_a_key_must_come_whole_and_as_a_bearer_token(header: str) -> None:
    with pytest.raises(Unauthorized):
        RING.authenticate(header)


def test_a_record_whose_mode_contradicts_the_prefix_opens_nothing() -> None:
    ring = KeyRing([ApiKey("acc_a", digest(TEST), livemode=True)])
    with pytest.raises(Unauthorized):
        ring.authenticate(f"Bearer {TEST}")


def test_a_key_without_our_prefix_is_no_key() -> None:
    with pytest.raises(ValueError, match="pg_test_ or pg_live_"):
        ApiKey.of("sk_test_1", "acc_a")


def test_every_key_may_read_and_only_scoped_keys_may_act() -> None:
    key = ApiKey.of(TEST, "acc_a", ["money"])
    require(key, "read")
    require(key, "money")
    with pytest.raises(Forbidden) as refusal:
        require(key, "sessions")
    assert (refusal.value.code, refusal.value.extra) == ("insufficient_scope", {"required": "sessions"})
