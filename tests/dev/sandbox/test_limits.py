"""Rate limits as token buckets (docs.stripe.com/rate-limits)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dev.sandbox.limits import Limits
from gateway.dev.sandbox.refusals import Refusal
from tests.dev.sandbox.conftest import START_MS, Bench


def passed(limits: Limits, endpoint: str, now_ms: int) -> bool:
    try:
        limits.take(endpoint, now_ms)
    except Refusal:
        return False
    return True


@settings(deadline=None)
@given(st.lists(st.integers(0, 200), max_size=120))
def test_no_second_lets_more_than_two_rates_through(gaps_ms: list[int]) -> None:
    limits, now_ms, times = Limits(per_second=25), START_MS, []
    for gap in gaps_ms:
        now_ms += gap
        if passed(limits, "x", now_ms):
            times.append(now_ms)
    for start in times:
        assert sum(start <= each < start + 1_000 for each in times) <= 50


def test_one_endpoint_does_not_starve_another() -> None:
    limits = Limits(per_endpoint=2)
    assert [passed(limits, "a", 0) for _ in range(3)] == [True, True, False]
    assert passed(limits, "b", 0)
    assert passed(limits, "a", 500)


def test_beyond_the_limit_the_answer_is_a_429_with_its_reason(bench: Bench) -> None:
    bench.api.limits = Limits(per_second=1)
    assert bench.post("customers")[0] == 200
    answer = bench.answer("POST", "customers", {}, key="k")
    assert (answer.status, answer.headers["Stripe-Rate-Limited-Reason"]) == (429, "global-rate")
    bench.now_ms += 1_000
    assert bench.answer("POST", "customers", {}, key="k").status == 200


@pytest.mark.parametrize("path", ["customers/cus_1", "customers/cus_2"])
def test_ids_do_not_make_other_endpoints(bench: Bench, path: str) -> None:
    bench.api.limits = Limits(per_endpoint=1)
    bench.get("customers/cus_0")
    assert bench.get(path)[0] == 429
