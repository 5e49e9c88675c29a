from __future__ import annotations

import asyncio

import pytest
import redis.asyncio as aioredis
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.idempotency import Claim, Idempotency, Replay, check_key, fingerprint
from gateway.errors import Conflict, InvalidRequest, StoreUnavailable, Unprocessable

MARK = fingerprint("POST", "/v1/sessions", {"a": 1})


@pytest.fixture
def keys(redis: aioredis.Redis) -> Idempotency:
    return Idempotency(redis)


async def claimed(keys: Idempotency, subject: str = "ses_1", *, owner: str = "acc:test", key: str = "k") -> Claim:
    claim = await keys.claim(owner, key, MARK, subject)
    assert isinstance(claim, Claim)
    return claim


async def test_the_first_request_claims_the_key(keys: Idempotency) -> None:
    claim = await claimed(keys)
    assert (claim.subject, claim.taken_over) == ("ses_1", False)


async def test_the_kept_result_is_replayed_byte_for_byte(keys: Idempotency) -> None:
    await keys.keep(await claimed(keys), 201, b'{"id":"ses_1"}')
    assert await keys.claim("acc:test", "k", MARK, "ses_2") == Replay(201, b'{"id":"ses_1"}')


async def test_a_second_request_in_flight_is_told_how_long(keys: Idempotency) -> None:
    await claimed(keys)
    with pytest.raises(Conflict) as caught:
        await keys.claim("acc:test", "k", MARK, "ses_2")
    assert caught.value.code == "idempotency_key_in_use"
    assert 1 <= int(str(caught.value.extra["retry_after"])) <= 30


async def test_other_parameters_are_refused_in_flight_and_after(keys: Idempotency) -> None:
    other = fingerprint("POST", "/v1/sessions", {"a": 2})
    claim = await claimed(keys)
    for _ in range(2):
        with pytest.raises(Unprocessable) as caught:
            await keys.claim("acc:test", "k", other, "ses_2")
        assert caught.value.code == "idempotency_key_reused"
        await keys.keep(claim, 201, b"{}")


async def test_keys_of_accounts_and_modes_do_not_meet(keys: Idempotency) -> None:
    await claimed(keys, owner="acc:test")
    await claimed(keys, owner="acc:live")
    await claimed(keys, owner="acb:test")


async def test_a_refusal_frees_the_key(keys: Idempotency) -> None:
    await keys.forget(await claimed(keys))
    again = await claimed(keys, "ses_2")
    assert (again.subject, again.taken_over) == ("ses_2", False)


async def test_after_a_failure_the_retry_goes_on_with_the_same_subject(keys: Idempotency) -> None:
    await keys.unlock(await claimed(keys))
    again = await claimed(keys, "ses_2")
    assert (again.subject, again.taken_over) == ("ses_1", True)


async def test_a_crash_leaves_a_lock_that_runs_out(redis: aioredis.Redis) -> None:
    keys = Idempotency(redis, lock_ms=60)
    await claimed(keys)
    with pytest.raises(Conflict):
        await claimed(keys, "ses_2")
    async with asyncio.timeout(5):
        while True:
            try:
                again = await claimed(keys, "ses_2")
                break
            except Conflict:
                await asyncio.sleep(0.01)
    assert (again.subject, again.taken_over) == ("ses_1", True)


async def test_a_slow_first_request_does_not_overwrite_its_successor(redis: aioredis.Redis) -> None:
    keys = Idempotency(redis, lock_ms=0)
    slow = await claimed(keys)
    successor = await claimed(keys, "ses_2")
    await keys.keep(successor, 201, b"second")
    await keys.keep(slow, 201, b"first")
    await keys.forget(slow)
    assert await keys.claim("acc:test", "k", MARK, "ses_3") == Replay(201, b"second")


async def test_a_result_is_not_released_any_more(keys: Idempotency) -> None:
    claim = await claimed(keys)
    await keys.keep(claim, 201, b"done")
    await keys.forget(claim)
    await keys.unlock(claim)
    assert await keys.claim("acc:test", "k", MARK, "ses_2") == Replay(201, b"done")


async def test_only_one_of_many_at_once_claims(keys: Idempotency) -> None:
    outcomes = await asyncio.gather(
        *(keys.claim("a", "k", MARK, f"ses_{n}") for n in range(20)), return_exceptions=True
    )
    assert sum(isinstance(outcome, Claim) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 19


async def test_records_are_kept_a_day_and_hold_no_key_in_the_clear(redis: aioredis.Redis, keys: Idempotency) -> None:
    await keys.keep(await claimed(keys, key="order-4711"), 201, b"{}")
    (record,) = await redis.keys("*")
    assert b"order-4711" not in record
    assert 86_000_000 < await redis.pttl(record) <= 86_400_000


async def test_without_the_store_nothing_goes_on() -> None:
    away = Idempotency(aioredis.Redis(port=1, retry=None))
    with pytest.raises(StoreUnavailable):
        await away.claim("a", "k", MARK, "ses_1")


@given(st.permutations(["a", "b", "c"]), st.dictionaries(st.text(), st.integers()))
def test_the_order_of_members_does_not_matter(names: list[str], inner: dict[str, int]) -> None:
    body = dict.fromkeys(names, inner)
    assert fingerprint("POST", "/p", body) == fingerprint("POST", "/p", {"a": inner, "b": inner, "c": inner})


def test_method_path_and_value_do_matter() -> None:
    marks = {
        fingerprint(method, path, {"a": value})
        for method in ("POST", "PUT")
        for path in ("/a", "/b")
        for value in (1, "1")
    }
    assert len(marks) == 8


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "schlüssel", "a\tb"])
def test_unusable_keys_are_refused(key: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_key(key)
    assert caught.value.code == "idempotency_key_invalid"


@pytest.mark.parametrize("key", ["k", "x" * 255, "550e8400-e29b-41d4-a716-446655440000"])
def test_usable_keys_pass(key: str) -> None:
    assert check_key(key) == key
