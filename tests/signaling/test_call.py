"""The course of a call, run through its minutes without waiting for one."""

from __future__ import annotations

import pytest

from gateway import session as core
from gateway.bookings.meetings import Meeting
from gateway.session import Role, SessionRecord
from gateway.sfu.port import LegReport, Report, Span
from gateway.signaling.call import Apart, Call, End, Presence, Timers, Together, Warned
from tests.orders import NOW, record

OFFSET = NOW - 1_000_000  # wall minus boot
BOOT = NOW - OFFSET


def leg(present: bool = True) -> LegReport:
    return LegReport(selected=True, present=present)


def report(at: int, *spans: Span, present: tuple[bool, bool] = (True, True)) -> Report:
    legs = (leg(present[0]), leg(present[1]))
    return Report("ses_1", BOOT + at, 1, "open", legs, tuple(spans))


def span(start: int, end: int, ended_by: str | None = None, number: int = 1, heard: int | None = None) -> Span:
    last = BOOT + (end if heard is None else heard)
    return Span(number, BOOT + start, BOOT + end, (last, BOOT + end), ended_by)  # type: ignore[arg-type]


def ready(**changes: object) -> SessionRecord:
    return core.funded(record(**changes)).record


def live(call: Call, at: int = 0) -> None:
    """Bring the call to life as the host does."""
    outcomes = call.heard(report(at + 10, span(at, at + 10)), NOW + at + 10)
    together = next(o for o in outcomes if isinstance(o, Together))
    call.record = core.together(call.record, together.at).record


def test_a_call_starts_at_the_instant_the_relay_saw() -> None:
    call = Call(ready(), Timers(), offset_ms=OFFSET, now=NOW)
    outcomes = call.heard(report(250, span(100, 250)), NOW + 250)
    assert outcomes == [Presence("client", True), Presence("expert", True), Together(NOW + 100)]


def test_r01_r06_ninety_minutes_to_the_cap_bill_exactly_their_seconds_and_warn_both() -> None:
    """A whole session, report by report and tick by tick, as the host drives it."""
    call = Call(ready(max_minutes=90), Timers(), offset_ms=OFFSET, now=NOW)
    live(call)
    said: list[Warned] = []
    costs: list[int] = []
    for second in range(1, 5400):
        now = second * 1000
        call.heard(report(now, span(0, now)), NOW + now)
        said += [o for o in call.tick(NOW + now) if isinstance(o, Warned)]
        costs.append(call.figures("client", NOW + now)["cost"])
    over = call.heard(report(5_400_250, span(0, 5_400_000, "deadline")), NOW + 5_400_250)
    assert over == [End("cap_reached", NOW + 5_400_000)]
    assert [w.remaining_s for w in said] == [600, 300, 60, 30]
    assert costs == sorted(costs)
    call.record = core.ended(call.record, "cap_reached", NOW + 5_400_000).record
    final = call.bill(NOW + 5_400_250)
    assert (final.billable_seconds, final.amount_total) == (5400, 27_000)


def test_law9_the_bill_is_never_above_the_last_figure_shown() -> None:
    call = Call(ready(), Timers(), offset_ms=OFFSET, now=NOW)
    live(call)
    call.heard(report(61_000, span(0, 61_000)), NOW + 61_000)
    shown = call.figures("client", NOW + 61_000)["cost"]
    call.heard(report(61_100, span(0, 61_000, "released")), NOW + 61_100)
    call.record = core.ended(call.record, "client_left", NOW + 61_000).record
    assert call.bill(NOW + 90_000).amount_total <= shown


def test_law4_time_is_up_even_when_the_relay_says_nothing() -> None:
    call = Call(ready(max_minutes=1), Timers(), offset_ms=OFFSET, now=NOW)
    live(call)
    assert End("limit_reached", NOW + 60_000) in call.tick(NOW + 60_001)


def test_a_lost_leg_pauses_the_bill_and_after_the_grace_ends_the_call() -> None:
    call = Call(ready(), Timers(), offset_ms=OFFSET, now=NOW)
    live(call)
    silent = span(0, 17_000, "silence", heard=10_000)
    assert call.heard(report(17_000, silent, present=(False, True)), NOW + 17_000) == [
        Presence("client", False), Apart(),
    ]  # fmt: skip
    call.record = core.apart(call.record).record
    assert call.figures("client", NOW + 18_000)["billing"] == "paused"
    assert call.bill(NOW + 30_000).union_ms == 10_000
    assert call.tick(NOW + 76_999) == []
    assert call.tick(NOW + 77_000) == [End("connection_lost", NOW + 77_000)]


def test_a_leg_that_comes_back_goes_on_where_it_was_heard_last() -> None:
    call = Call(ready(), Timers(), offset_ms=OFFSET, now=NOW)
    live(call)
    silent = span(0, 17_000, "silence", heard=10_000)
    call.heard(report(17_000, silent, present=(False, True)), NOW + 17_000)
    call.record = core.apart(call.record).record
    back = call.heard(report(18_250, silent, span(18_000, 18_250, number=2)), NOW + 18_250)
    assert Together(NOW + 18_000) in back
    assert call.rows() == {1: (NOW, NOW + 10_000), 2: (NOW + 18_000, NOW + 18_250)}


def test_law3_rows_hold_what_the_relay_reported_and_no_more() -> None:
    call = Call(ready(), Timers(), offset_ms=OFFSET, now=NOW)
    live(call)
    call.heard(report(5_000, span(0, 5_000)), NOW + 5_200)
    rows = call.rows()
    assert rows == {1: (NOW, NOW + 5_000)}
    call.flushed(rows)
    assert call.rows() == {}


def test_a_lone_party_is_not_kept_waiting_for_ever() -> None:
    call = Call(ready(), Timers(), offset_ms=OFFSET, now=NOW)
    call.seat("client", taken=True, now=NOW)
    assert call.tick(NOW + 119_999) == []
    assert call.tick(NOW + 120_000) == [End("lone_party_timeout", NOW + 120_000)]
    call.seat("expert", taken=True, now=NOW + 120_000)
    assert call.tick(NOW + 120_000) == []


def test_r02_the_free_part_is_announced_to_end_and_then_money_runs() -> None:
    call = Call(ready(free_minutes=1), Timers(), offset_ms=OFFSET, now=NOW)
    live(call)
    call.heard(report(50_000, span(0, 50_000)), NOW + 50_000)
    assert call.figures("client", NOW + 50_000)["billing"] == "free"
    assert call.tick(NOW + 50_000) == [Warned("free_ending", 10)]
    call.heard(report(62_000, span(0, 62_000)), NOW + 62_000)
    figures = call.figures("expert", NOW + 62_000)
    assert (figures["billing"], figures["billable"], figures["earnings"]) == ("running", 2, 9)


def test_a_successor_counts_what_its_predecessor_left_in_the_ledger() -> None:
    running = core.together(ready(), NOW).record
    call = Call(running, Timers(), offset_ms=OFFSET, now=NOW + 60_000, earlier=[(NOW, NOW + 50_000)])
    assert call.bill(NOW + 60_000).union_ms == 50_000
    assert call.tick(NOW + 120_000) == [End("connection_lost", NOW + 120_000)]


def test_a_stretch_that_fits_between_two_reports_still_was_the_start() -> None:
    call = Call(ready(), Timers(), offset_ms=OFFSET, now=NOW)
    outcomes = call.heard(report(300, span(100, 200, "reset")), NOW + 300)
    assert [type(o) for o in outcomes] == [Presence, Presence, Together, Apart]


def test_law3_a_span_that_its_relay_lost_ends_where_it_was_last_known_to_run() -> None:
    call = Call(ready(), Timers(), offset_ms=OFFSET, now=NOW)
    live(call)
    call.heard(report(5_000, span(0, 5_000)), NOW + 5_000)
    outcomes = call.heard(report(5_400), NOW + 5_400)
    assert any(isinstance(outcome, Apart) for outcome in outcomes)
    assert not call.running
    assert dict(call.rows()) == {1: (NOW, NOW + 5_000)}
    call.heard(report(9_000, span(6_000, 9_000, number=1 << 20)), NOW + 9_000)
    assert call.running
    assert dict(call.rows()) == {1: (NOW, NOW + 5_000), 1 << 20: (NOW + 6_000, NOW + 9_000)}


def meeting(**changes: object) -> Call:
    """A paid meeting in five minutes."""
    booked = ready(kind="booked", meeting=Meeting("bkg_1", 1, NOW + 300_000), expires_in_ms=7_200_000, **changes)
    return Call(booked, Timers(), offset_ms=OFFSET, now=NOW)


@pytest.mark.parametrize(
    ("seats", "reason"),
    [(("client",), "no_show_expert"), (("expert",), "no_show_client"), (("client", "expert"), "connection_lost")],
)
def test_r14_at_an_appointment_one_waits_until_it_must_have_begun(seats: tuple[Role, ...], reason: str) -> None:
    call = meeting()
    for role in seats:
        call.seat(role, taken=True, now=NOW)
    late = NOW + 300_000 + 900_000
    assert [call.tick(now) for now in range(NOW, late, 60_000)] == [[]] * 20
    assert call.tick(late) == [End(reason, late)]


def test_r14_a_meeting_that_has_begun_shows_its_fee_from_the_first_second_to_the_last() -> None:
    call = meeting()
    live(call)
    assert not any(isinstance(outcome, End) for outcome in call.tick(NOW + 1_200_000)), "it did begin in time"
    told = [call.figures("client", NOW + now)["cost"] for now in (1_000, 60_000, 1_790_000)]
    assert told == [9_000] * 3
    assert call.figures("expert", NOW + 1_000)["earnings"] == 8_100
