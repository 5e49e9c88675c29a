"""The table of states: what moves, what may not, and that every session ends exactly once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import session as core
from gateway.errors import Conflict
from gateway.session import SessionRecord, Step
from tests.orders import NOW, opening, order, record


def test_r04_a_priced_session_waits_for_its_money() -> None:
    step = opening()
    assert step.record.status == "created"
    assert step.record.funding is not None
    assert step.record.funding.amount == 9000
    assert [kind for kind, _ in step.events] == ["session.created"]
    ready = core.funded(step.record)
    assert ready.record.status == "ready"
    assert core.funded(ready.record).changed is False


def test_a_session_that_costs_nothing_is_ready_at_once() -> None:
    step = opening(kind="free")
    assert (step.record.status, step.record.funding, step.record.amount_max) == ("ready", None, 0)
    assert [kind for kind, _ in step.events] == ["session.created", "session.ready"]


def test_r15_unpaid_kinds_last_at_most_fifteen_minutes() -> None:
    assert record(kind="free", max_minutes=90).limit_ms == 15 * 60_000
    assert record(kind="pro_bono", max_minutes=10).limit_ms == 10 * 60_000


def test_r06_no_limit_is_beyond_the_cap() -> None:
    assert record(max_minutes=90).limit_ms == 5_400_000
    assert record(max_minutes=90).limit_reason == "cap_reached"
    assert record(max_minutes=30).limit_reason == "limit_reached"


def test_together_is_the_start_only_the_first_time() -> None:
    live = core.together(core.funded(record()).record, NOW + 5).record
    assert (live.status, live.started_at, live.deadline) == ("live", NOW + 5, NOW + 5 + 1_800_000)
    apart = core.apart(live)
    assert apart.events[0][0] == "session.interrupted"
    again = core.together(apart.record, NOW + 99)
    assert again.record.started_at == NOW + 5
    assert again.events[0][0] == "session.resumed"


def test_law4_an_earlier_start_that_a_former_owner_metered_counts() -> None:
    ready = core.funded(record()).record
    live = core.together(ready, NOW + 5).record
    assert core.began(live, NOW).record == replace(live, started_at=NOW)
    assert not core.began(live, NOW + 5).changed, "usage of its own tells nothing new"
    assert not core.began(ready, NOW).changed, "its start is still to come"
    assert not core.began(core.ended(live, "client_left", NOW + 9).record, NOW).changed, "what is over is not moved"


def test_law2_an_unfunded_session_never_goes_live() -> None:
    assert core.together(record(), NOW).changed is False


def test_law2_a_hold_that_is_lost_must_be_replaced_before_anything_is_forwarded_again() -> None:
    lost = core.unfunded(core.funded(record()).record).record
    assert (lost.status, lost.funded) == ("ready", False)
    assert core.unfunded(lost).changed is False
    assert core.funded(lost).record.funded
    running = core.unfunded(core.together(core.funded(record()).record, NOW).record).record
    assert (running.status, running.funded) == ("live", False), (
        "its owner shuts the gate, and ends it if no card is held"
    )
    free = opening(kind="free").record
    waived = core.waived(record(), NOW).record
    for kept in (free, waived, core.ended(core.funded(record()).record, "canceled", NOW).record):
        assert not core.unfunded(kept).changed


def test_another_card_is_another_attempt_until_the_end() -> None:
    again = core.other_card(record(), "pm_other", NOW + 1).record
    assert again.funding is not None
    assert (again.funding.attempt, again.funding.payment_method) == (2, "pm_other")
    with pytest.raises(Conflict):
        core.other_card(core.ended(again, "canceled", NOW).record, "pm_third", NOW)


@pytest.mark.parametrize("total", [0, 700])
def test_law5_a_card_is_charged_for_a_final_bill_only_if_it_asks_for_anything(total: int) -> None:
    over = replace(core.ended(record(), "canceled", NOW).record, status="finalized", bill={"amount_total": total})
    if total:
        order = core.recharged(over, "pm_other", NOW).record.funding
        assert order == core.Funding(2, "pm_other", total, NOW, recharge=True)
    else:
        with pytest.raises(Conflict):
            core.recharged(over, "pm_other", NOW)


def test_r15_waived_before_live_is_limited_and_needs_no_card() -> None:
    step = core.waived(record(max_minutes=60), NOW)
    assert (step.record.status, step.record.limit_ms, step.record.priced) == ("ready", 900_000, False)
    live = core.together(core.funded(record(max_minutes=60)).record, NOW).record
    assert core.waived(live, NOW).record.limit_ms == 3_600_000


def test_law8_the_first_reason_stays_and_finalized_is_told_once() -> None:
    over = core.ended(core.funded(record()).record, "client_left", NOW + 1)
    assert core.ended(over.record, "expert_left", NOW + 2).record.end_reason == "client_left"
    final = core.finalized(over.record, {"amount_total": 0})
    assert [kind for kind, _ in final.events] == ["session.finalized"]
    assert core.finalized(final.record, {"amount_total": 1}).changed is False


def test_a_record_survives_its_json() -> None:
    rich = replace(record(), consent=core.Consent(NOW, "1", "de", 9000))
    assert SessionRecord.from_dict(rich.to_dict()) == rich


MOVES = st.lists(
    st.sampled_from(
        [
            lambda r: core.funded(r),
            lambda r: core.together(r, NOW + 10),
            lambda r: core.apart(r),
            lambda r: core.ended(r, "client_left", NOW + 20),
            lambda r: core.ended(r, "limit_reached", NOW + 30),
            lambda r: core.waived(r, NOW),
            lambda r: core.made_free(r, "transfers_inactive"),
            lambda r: core.finalized(r, {"amount_total": 0}),
            lambda r: core.joined(r, "client", NOW),
        ]
    ),
    max_size=30,
)


@given(MOVES)
def test_every_course_keeps_to_the_table(moves: list[object]) -> None:
    current, told = opening().record, ["session.created"]
    for move in moves:
        before = current.status
        try:
            step: Step = move(current)  # type: ignore[operator]
        except Conflict:
            continue
        told += [kind for kind, _ in step.events]
        current = step.record
        if current.status != before:
            assert any(
                (before, trigger) in core.TRANSITIONS and core.TRANSITIONS[(before, trigger)] == current.status
                for trigger in ("ring", "accept", "fund", "together", "apart", "end", "finalize")
            )
    assert told.count("session.finalized") == (1 if current.status == "finalized" else 0)
    assert told.count("session.started") <= 1
    assert told.count("session.ended") <= 1
    assert told.count("session.made_free") == (current.kind == "free"), "R16: told once, and never silently"


def test_free_minutes_beyond_the_limit_make_the_session_free_of_charge() -> None:
    assert order(free_minutes=60, max_minutes=30).free_minutes == 60
    assert record(free_minutes=60, max_minutes=30).amount_max == 0


def running(**changes: object) -> SessionRecord:
    """The session of the contract with five free minutes, together since NOW."""
    return replace(core.together(core.funded(record(free_minutes=5)).record, NOW).record, **changes)


def test_r06_both_may_go_on_from_the_five_minute_warning_until_the_end_and_after_the_limit() -> None:
    assert not core.may_continue(record(), NOW), "it has not begun"
    assert not core.may_continue(running(), NOW + 25 * 60_000 - 1)
    assert core.may_continue(running(), NOW + 25 * 60_000)
    for reason in ("limit_reached", "cap_reached"):
        assert core.may_continue(core.ended(running(), reason, NOW).record, NOW)
    for reason in ("client_left", "connection_lost"):
        assert not core.may_continue(core.ended(running(), reason, NOW).record, NOW)


def test_r06_the_first_successor_stays() -> None:
    one = core.continued(running(), "ses_2").record
    assert (one.continued_by, core.continued(one, "ses_3").changed) == ("ses_2", False)


def test_r02_what_is_left_of_the_free_part_is_carried_over_until_the_next_session_starts() -> None:
    waiting = record()
    step = core.carried(waiting, 90_000)
    assert (step.record.free_ms, step.record.amount_max, step.record.funding) == (90_000, 8_550, waiting.funding)
    assert not core.carried(step.record, 90_000).changed
    assert not core.carried(step.record, 60_000).changed, "what was told to be free stays free"
    assert not core.carried(running(), 900_000).changed
    assert core.carried(waiting, 10**9).record.amount_max == 0


def test_r04_with_hold_join_only_a_consent_to_the_whole_price_is_one() -> None:
    waiting = record(hold="join")
    assert core.lacks_consent(waiting)
    came = core.joined(waiting, "client", NOW).record
    stale = core.joined(came, "client", NOW + 1, core.Consent(NOW + 1, "1", "en", waiting.amount_max - 1))
    assert (stale.changed, stale.record.consent) == (False, None)
    agreed = core.joined(came, "client", NOW + 2, core.Consent(NOW + 2, "1", "en", waiting.amount_max)).record
    assert agreed.consent is not None
    assert (core.lacks_consent(agreed), agreed.joined["client"]) == (False, NOW)
    assert not core.lacks_consent(core.waived(waiting, NOW).record)
    assert not core.lacks_consent(record(hold="now")), "its marketplace showed the price and ordered the hold"


def test_r16_an_expert_who_may_not_be_paid_any_more_costs_nothing_for_fifteen_minutes_and_it_is_told() -> None:
    waiting = record(hold="join", free_minutes=5, if_not_eligible="free")
    step = core.made_free(waiting, "transfers_inactive")
    free = step.record
    assert (free.kind, free.status, free.funding, free.priced) == ("free", "ready", None, False)
    assert (free.limit_ms, free.free_ms, free.amount_max) == (900_000, 0, 0)
    assert [name for name, _ in step.events] == ["session.made_free", "session.ready"]
    assert step.events[0][1]["reason"] == "transfers_inactive"
    assert SessionRecord.from_dict(free.to_dict()) == free


def test_r16_what_is_held_or_running_or_over_keeps_its_price() -> None:
    held = core.funded(record()).record
    running = core.together(held, NOW).record
    for kept in (held, running, core.ended(record(), "canceled", NOW).record):
        assert not core.made_free(kept, "transfers_inactive").changed


@pytest.mark.parametrize(("left_ms", "amount"), [(9_000, 0), (10_000, 50), (60_000, 300)])
def test_what_could_never_be_charged_is_not_held(left_ms: int, amount: int) -> None:
    """A minute, all but some seconds of it free: Stripe takes no charge below 0.50, so no card could be held."""
    one = core.opened(
        order(max_minutes=1, free_minutes=1), id="ses_1", account="acc_test", livemode=False, now=NOW,
        cap_ms=5_400_000, expires_ms=86_400_000, granted_ms=60_000 - left_ms, minimum=50,
    ).record  # fmt: skip
    assert (one.amount_max, one.funding is None, one.funded) == (amount, amount == 0, amount == 0)
    assert one.status == ("created" if amount else "ready")
