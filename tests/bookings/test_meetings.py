"""R14: what stays of a meeting's fee, who is absent, and what may still be called off."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import session as core
from gateway.bookings.meetings import Meeting, Policy, absence, back_bps, kept
from gateway.errors import Conflict
from gateway.meter.chain import broken, sealed
from gateway.meter.record import bill
from gateway.session import SessionRecord
from tests.orders import NOW, opening

HOUR = 3_600_000
STARTS = NOW + 48 * HOUR
FEE = 9_000


def meeting(**changes: object) -> SessionRecord:
    """A paid meeting of 30 minutes at 3.00, in two days."""
    opened = opening(kind="booked", meeting=Meeting("bkg_1", 1, STARTS), expires_in_ms=50 * HOUR).record
    return replace(core.funded(opened).record, **changes)


def stays(record: SessionRecord, *intervals: tuple[int, int]) -> tuple[int, int]:
    """What was paid, and what stays of it."""
    made = bill(record, intervals)
    assert made.shares.expert + made.shares.platform + made.shares.ambassador == made.amount_total, "law 6"
    assert made.amount_waived == made.amount_metered - made.amount_total
    return made.amount_metered, made.amount_total


def test_r14_a_meeting_waits_for_its_booking_and_costs_nothing_until_then() -> None:
    record = opening(kind="booked", meeting=Meeting("bkg_1", 1, STARTS)).record
    assert (record.status, record.funded, record.funding, record.amount_max) == ("created", False, None, FEE)
    assert stays(core.canceled(record, "client", STARTS - 1).record) == (0, 0)
    assert core.funded(record).record.status == "ready"


@pytest.mark.parametrize(
    ("by", "before_ms", "back"),
    [
        ("client", 24 * HOUR, FEE), ("client", 24 * HOUR - 1, FEE // 2), ("client", 1, FEE // 2),
        ("expert", 1, FEE), ("platform", 1, FEE), ("expert", -60_000, FEE),
    ],
)  # fmt: skip
def test_r14_called_off_a_day_before_all_goes_back_later_half_and_by_others_all(by, before_ms, back) -> None:
    record = core.canceled(meeting(), by, STARTS - before_ms).record
    assert (record.end_reason, stays(record)) == ("canceled", (FEE, FEE - back))


def test_r14_the_client_cannot_call_off_what_has_begun_and_nobody_can_once_both_met() -> None:
    with pytest.raises(Conflict, match="begun"):
        core.canceled(meeting(), "client", STARTS)
    live = core.together(meeting(), STARTS).record
    for by in ("client", "expert", "platform"):
        with pytest.raises(Conflict, match="begun"):
            core.canceled(live, by, STARTS)
    with pytest.raises(Conflict, match="not booked"):
        core.canceled(opening().record, "platform", NOW)


def test_r14_calling_off_twice_is_calling_off_once() -> None:
    once = core.canceled(meeting(), "client", NOW)
    assert not core.canceled(once.record, "platform", NOW + 1).changed


@pytest.mark.parametrize(
    ("client", "expert", "reason", "back"),
    [
        (False, True, "no_show_client", 0), (True, False, "no_show_expert", FEE), (False, False, "no_show_expert", FEE),
        (True, True, "connection_lost", FEE),
    ],
)  # fmt: skip
def test_r14_who_does_not_come_within_fifteen_minutes(client, expert, reason, back) -> None:
    joined = {"client": STARTS if client else None, "expert": STARTS if expert else None}
    record = meeting(joined=joined)
    assert core.expiry(record, STARTS + 15 * 60_000 - 1) is None
    assert core.expiry(record, STARTS + 15 * 60_000) == reason
    assert stays(core.ended(record, reason, STARTS + 15 * 60_000).record) == (FEE, FEE - back)


def test_r14_who_is_there_at_the_end_of_the_wait_counts_not_who_looked_in() -> None:
    record = meeting(joined={"client": STARTS, "expert": STARTS})
    here = {"client": True, "expert": False}
    assert core.expiry(record, record.begin_by, here) == "no_show_expert"
    assert core.expiry(record, record.begin_by, {"client": False, "expert": False}) == "connection_lost"


def test_r14_an_unpaid_meeting_ends_when_its_time_has_come() -> None:
    record = replace(meeting(), funded=False, status="created")
    assert core.expiry(record, record.begin_by) == "payment_failed"
    assert stays(core.ended(record, "payment_failed", record.begin_by).record) == (0, 0)


def test_r14_a_meeting_without_a_time_expires_and_all_goes_back() -> None:
    record = replace(meeting(), meeting=Meeting("bkg_1", 1))
    assert core.expiry(record, record.expires_at - 1) is None
    assert core.expiry(record, record.expires_at) == "expired"
    assert stays(core.ended(record, "expired", record.expires_at).record) == (FEE, 0)
    assert stays(core.canceled(record, "client", record.expires_at - 1).record) == (FEE, 0), "no appointment to break"


@pytest.mark.parametrize(
    ("reason", "held_s", "left"),
    [
        ("node_lost", 900, FEE // 2), ("ended_by_api", 1_439, 7_195), ("node_lost", 1_440, FEE), ("node_lost", 0, 0),
        ("canceled", 900, FEE // 2),
        ("client_left", 60, FEE), ("expert_left", 60, FEE), ("limit_reached", 1_800, FEE), ("connection_lost", 60, FEE),
    ],
)  # fmt: skip
def test_r14_interrupted_by_us_the_missing_seconds_go_back_unless_most_was_held(reason, held_s, left) -> None:
    live = core.together(meeting(), STARTS).record
    record = core.ended(live, reason, STARTS + 1_800_000).record
    assert stays(record, (STARTS, STARTS + held_s * 1000)) == (FEE, left)


def test_r14_it_runs_its_full_minutes_from_first_together_and_costs_its_fee_whatever_the_meter_says() -> None:
    live = core.together(meeting(), STARTS + 600_000).record
    assert (live.deadline, live.begin_by) == (STARTS + 600_000 + 1_800_000, STARTS + 900_000)
    assert stays(live, (STARTS + 600_000, STARTS + 601_000)) == (FEE, FEE), "law 9: the figure shown is the highest"


def test_r15_a_waived_meeting_gives_all_back() -> None:
    waived = core.waived(meeting(), NOW).record
    final = bill(core.ended(core.together(waived, STARTS).record, "client_left", STARTS + 5).record, [])
    assert (final.amount_metered, final.amount_total, final.waived_reason) == (FEE, 0, "waived")


def test_the_seal_of_a_meeting_covers_its_terms() -> None:
    record = core.canceled(meeting(), "client", STARTS - HOUR).record
    final = bill(record, []).to_dict()
    chain = sealed(record, [], final)
    assert record.meeting is not None
    assert broken(chain, record, [], final) == []
    forged = replace(record, meeting=replace(record.meeting, policy=Policy(late_bps=0)))
    assert broken(chain, forged, [], final) == ["the terms of the session were changed"]
    assert core.SessionRecord.from_dict(record.to_dict()) == record
    assert set(record.meeting.to_dict()) == {"booking", "number", "starts_at", "policy", "canceled_by"}, "as of old"
    asked = core.canceled(meeting(), "client", STARTS - HOUR, request="req_1").record
    assert core.SessionRecord.from_dict(asked.to_dict()) == asked


BPS = st.integers(0, 10_000)


@given(
    policy=st.builds(Policy, st.integers(0, 720 * HOUR), BPS, BPS, BPS, BPS), fee=st.integers(1, 135_000),
    reason=st.sampled_from(["canceled", "no_show_client", "no_show_expert", "node_lost", "client_left", None]),
    by=st.sampled_from(["client", "expert", "platform"]), ended_at=st.none() | st.integers(NOW, STARTS + 2 * HOUR),
    started=st.booleans(), held_ms=st.integers(0, 5_400_000), starts_at=st.none() | st.just(STARTS),
    funded=st.booleans(), client=st.booleans(), expert=st.booleans(),
)  # fmt: skip
def test_r14_whatever_happens_between_nothing_and_the_fee_stays(
    policy, fee, reason, by, ended_at, started, held_ms, starts_at, funded, client, expert
) -> None:
    one = Meeting("bkg_1", 1, starts_at, policy, by)
    left = kept(
        one, fee, end_reason=reason, ended_at=ended_at, started=started, held_ms=held_ms, full_ms=5_400_000
    )  # fmt: skip
    assert 0 <= left <= fee
    if started and reason not in ("node_lost", "canceled"):
        assert left == fee, "what was held is paid, unless we broke it off"
    assert 0 <= back_bps(one, reason, NOW) <= 10_000
    why = absence(one, funded=funded, client=client, expert=expert)
    assert (why == "no_show_client") <= (funded and expert and not client), "nobody is absent whom nobody waited for"
