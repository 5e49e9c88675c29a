"""The schedule of deliveries (3-contracts, Webhooks; Standard Webhooks 1.0)."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.outbox.delivery import (
    HANGS_BEFORE_PAUSE,
    JITTER,
    PAUSE_MAX_MS,
    RETRY_AFTER_MAX_MS,
    WEBHOOK_SCHEDULE_MS,
    Answer,
    Delivery,
    Health,
    attempted,
    retry_after_ms,
)

NOW = 1_795_275_845_000
HOUR = 3_600_000


def test_law8_ten_attempts_over_75_hours_then_dead() -> None:
    delivery, now, waits = Delivery(), NOW, [0]
    while delivery.state == "open":
        delivery = attempted(delivery, Answer(status=503), now, 0.0)
        if delivery.state == "open":
            waits.append(delivery.next_at - now)
            now = delivery.next_at
    assert waits == [0, 5_000, 300_000, 30 * 60_000, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR]
    assert (delivery.state, delivery.attempts, delivery.why) == ("dead", 10, "503")
    assert now - NOW == 75 * HOUR + 35 * 60_000 + 5_000


@settings(deadline=None)
@given(st.integers(0, 8), st.floats(0, 1))
def test_jitter_only_lengthens_and_is_bounded(attempts: int, jitter: float) -> None:
    wait = attempted(Delivery(attempts), Answer(fault="connection"), NOW, jitter).next_at - NOW
    assert WEBHOOK_SCHEDULE_MS[attempts + 1] <= wait <= WEBHOOK_SCHEDULE_MS[attempts + 1] * (1 + JITTER)


@settings(deadline=None)
@given(st.integers(100, 599))
def test_only_2xx_is_success_and_410_ends_it_at_once(status: int) -> None:
    delivery = attempted(Delivery(), Answer(status=status), NOW, 0.5)
    expected = "delivered" if 200 <= status < 300 else "dead" if status == 410 else "open"
    assert delivery.state == expected


def test_retry_after_lengthens_the_wait_and_never_shortens_it() -> None:
    later = attempted(Delivery(0), Answer(status=429, retry_after_ms=60_000), NOW, 0.0)
    sooner = attempted(Delivery(3), Answer(status=429, retry_after_ms=1_000), NOW, 0.0)
    years = attempted(Delivery(0), Answer(status=429, retry_after_ms=10**13), NOW, 0.0)
    assert later.next_at == NOW + 60_000
    assert sooner.next_at == NOW + 2 * HOUR
    assert years.next_at == NOW + RETRY_AFTER_MAX_MS


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("120", 120_000),
        (" 7 ", 7_000),
        ("99999999999999999999", RETRY_AFTER_MAX_MS),
        ("-5", None),
        ("soon", None),
        ("Mon, 31 Dec 99999999999999999999 23:59:59 GMT", None),
        (format_datetime(datetime.fromtimestamp(NOW / 1000 + 90, UTC), usegmt=True), 90_000),
        (format_datetime(datetime.fromtimestamp(NOW / 1000 - 90, UTC), usegmt=True), 0),
    ],
)
def test_retry_after_as_seconds_or_as_a_date(header: str | None, expected: int | None) -> None:
    assert retry_after_ms(header, NOW) == expected


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_retry_after_header_breaks_the_sender(header: str) -> None:
    wait = retry_after_ms(header, NOW)
    assert wait is None or 0 <= wait <= RETRY_AFTER_MAX_MS


def test_a_receiver_that_hangs_is_paused_and_one_answer_heals_it() -> None:
    health, now, pauses = Health(), NOW, []
    for _ in range(HANGS_BEFORE_PAUSE + 6):
        health = health.after(Answer(fault="timeout"), now)
        if health.paused_until:
            pauses.append(health.paused_until - now)
            now = health.paused_until
    assert pauses[:3] == [5_000, 10_000, 20_000]
    assert pauses[-1] == PAUSE_MAX_MS
    assert health.after(Answer(status=500), now) == Health()


def test_hangs_that_come_together_count_once() -> None:
    health = Health(HANGS_BEFORE_PAUSE - 1).after(Answer(fault="timeout"), NOW)
    assert health.after(Answer(fault="timeout"), NOW + 10) == health
