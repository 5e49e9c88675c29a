"""The gate: laws 2 and 4 at their exact instants, however late they are looked at."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Conflict
from gateway.sfu.agent import CHECK_MS, PRESENCE_MS
from gateway.sfu.call import (
    HANDSHAKE_DATAGRAMS,
    HANDSHAKE_MS,
    HANDSHAKE_OCTETS,
    MUTUAL_MS,
    OPEN_OCTETS,
    ORPHAN_MS,
    SPAN_LIMIT,
    UNTIL_MS,
    Call,
)
from gateway.sfu.hold import HOLD_MS
from gateway.sfu.port import LegConfig, Report
from tests.sfu.caller import Caller
from tests.sfu.network import ONE, START, TWO, Network, config, configured, connected, pair, talking


def quiet(net: Network) -> Network:
    """From now on the callers answer no challenges: only what the test sends is a sign of life."""
    for caller in net.callers.values():
        caller.silent = True
    return net


def extended(net: Network, **changes: object) -> None:
    net.relay.configure(config(until=net.now + 20_000, **changes), net.now)


# --- spans


def test_law2_a_span_starts_when_each_leg_heard_the_other() -> None:
    net = connected()
    assert net.media(ONE)
    net.run(300)
    assert net.report().spans == ()
    assert net.report().gate == "open"
    assert net.media(TWO)
    span = net.report().spans[0]
    assert (span.number, span.start, span.ended_by) == (1, START + 300, None)


@pytest.mark.parametrize("late", [0, 1, 400, 5000])
def test_law2_nobody_listens_for_free_longer_than_a_second(late: int) -> None:
    net = connected()
    assert net.media(ONE)
    net.stop(MUTUAL_MS + late)
    assert net.report().spans[0].start == START + MUTUAL_MS


def test_law2_a_gate_that_shuts_before_its_span_began_has_none() -> None:
    net = connected(deadline=START + MUTUAL_MS - 1)
    assert net.media(ONE)
    net.stop(5000)
    report = net.report()
    assert (report.gate, report.spans) == ("shut", ())


def test_a_running_span_ends_at_its_reports_instant() -> None:
    net = talking()
    net.stop(1234)
    report = net.report()
    assert (report.spans[0].start, report.spans[0].end, report.at) == (START, START + 1234, START + 1234)
    assert report.spans[0].heard == (START, START)


@pytest.mark.parametrize("late", [0, 1, 700, 7_999])
def test_law2_the_gate_shuts_seven_seconds_after_the_last_arrival_however_late_it_is_seen(late: int) -> None:
    net = quiet(talking())
    net.run(2000)
    net.media(ONE)
    net.stop(5000 + late)
    assert not net.media(ONE)
    span = net.report().spans[-1]
    assert (span.end, span.ended_by) == (START + PRESENCE_MS, "silence")
    assert span.heard == (START + 2000, START)


def test_law2_silence_by_the_timer_and_by_a_packet_give_the_same_span() -> None:
    by_timer, by_packet = quiet(talking()), quiet(talking())
    by_timer.run(10_000)
    by_packet.stop(10_000)
    by_packet.media(ONE)
    assert by_timer.report().spans == by_packet.report().spans


def test_law2_checks_alone_keep_a_muted_leg_present() -> None:
    net = quiet(talking())
    for _ in range(10):
        net.run(5900, extend=config())
        net.check(ONE)
        net.check(TWO)
    assert net.report().gate == "open"
    assert len(net.report().spans) == 1


def test_law2_packets_without_checks_do_not_keep_a_leg_present() -> None:
    """SRTP cannot be authenticated here, so anyone who forges a source could keep a leg alive with it."""
    net = quiet(talking())
    for _ in range(CHECK_MS // 1000):
        net.run(1000, extend=config())
        net.check(TWO)
        net.media(ONE)
        net.media(TWO)
    span = net.report().spans[-1]
    assert (span.end, span.ended_by) == (START + CHECK_MS, "silence")
    assert not net.media(TWO)


def test_an_answered_challenge_is_a_sign_of_life() -> None:
    net = talking()
    net.run(60_000, extend=config())
    assert net.report().gate == "open"


def test_law2_a_returning_leg_opens_the_gate_again_and_the_gap_is_no_span() -> None:
    net = quiet(talking())
    net.run(10_000)
    net.check(ONE)
    assert not net.media(ONE)
    net.check(TWO)
    assert net.report().gate == "shut"
    assert net.media(TWO)
    net.run(200)
    assert net.media(ONE)
    spans = net.report().spans
    assert [(span.number, span.start, span.end) for span in spans] == [
        (1, START, START + 7000),
        (2, START + 10_200, START + 10_200),
    ]


def test_law2_a_client_that_sends_a_moment_in_eight_seconds_is_heard_no_longer_than_its_spans_say() -> None:
    net = quiet(talking())
    heard_by_one = []
    for _ in range(10):
        net.check(ONE)
        net.media(ONE)
        for _ in range(80):
            net.run(100, extend=config())
            net.check(TWO)
            if net.media(TWO):
                heard_by_one.append(net.now)
    net.run(8000)
    spans = net.report().spans
    assert heard_by_one
    assert all(any(span.start <= at < span.end for span in spans) for at in heard_by_one)
    assert {span.ended_by for span in spans} == {"silence"}


def test_spans_are_kept_for_a_while_only() -> None:
    net = talking()
    for n in range(SPAN_LIMIT + 5):
        extended(net, funded=False)
        extended(net, funded=True)
        net.media(ONE)
        net.media(TWO)
        assert net.report().spans[-1].number == n + 2
    assert len(net.report().spans) == SPAN_LIMIT


# --- funded, deadline, until


def test_law2_nothing_but_dtls_passes_an_unfunded_call() -> None:
    net = connected(funded=False)
    assert net.dtls(ONE)
    assert not net.media(ONE)
    assert net.drops == {"unfunded": 1}
    assert net.report().spans == ()
    extended(net)
    assert net.media(ONE)


def test_law2_a_lost_hold_ends_the_span_at_once() -> None:
    net = talking()
    net.stop(500)
    extended(net, funded=False)
    assert not net.media(ONE)
    span = net.report().spans[0]
    assert (span.end, span.ended_by) == (START + 500, "unfunded")


@pytest.mark.parametrize("late", [0, 1, 3000])
def test_law4_nothing_passes_from_the_deadline_on_and_the_span_ends_there(late: int) -> None:
    net = talking(deadline=START + 5000)
    net.run(4000)
    assert net.media(ONE)
    net.stop(999)
    assert net.media(ONE)
    net.stop(1 + late)
    assert not net.media(ONE)
    assert not net.media(TWO)
    assert not net.dtls(ONE)
    assert net.drops == {"over_deadline": 3}
    span = net.report().spans[0]
    assert (span.end, span.ended_by) == (START + 5000, "deadline")


def test_law4_the_relay_sets_the_deadline_itself_from_its_first_span() -> None:
    net = connected(limit_ms=20_000)
    net.run(3000)
    net.media(ONE)
    net.media(TWO)
    assert net.report().deadline == START + 23_000
    net.run(8000, extend=config(limit_ms=20_000))
    net.relay.configure(config(limit_ms=20_000), net.now)
    assert net.report().deadline == START + 23_000
    net.run(12_000)
    assert net.report().spans[0].end == START + 23_000
    assert not net.media(ONE)


def test_law4_an_interruption_does_not_move_the_deadline() -> None:
    net = quiet(talking(limit_ms=25_000))
    net.run(12_000)
    net.check(ONE)
    net.check(TWO)
    net.media(ONE)
    net.media(TWO)
    report = net.report()
    assert (len(report.spans), report.deadline) == (2, START + 25_000)
    net.relay.configure(config(limit_ms=25_000), net.now)
    assert net.report().deadline == START + 25_000


def test_law4_without_control_a_call_stops_by_itself() -> None:
    net = talking(until=START + 10_000)
    net.run(9_999)
    assert net.media(ONE)
    net.run(1)
    assert not net.media(ONE)
    span = net.report().spans[0]
    assert (span.end, span.ended_by) == (START + 10_000, "until")


def test_law4_until_is_never_further_ahead_than_thirty_seconds() -> None:
    net = talking(until=START + 3_600_000)
    for _ in range(35):
        net.run(1000)
        net.check(ONE)
        net.check(TWO)
    assert net.report().spans[0].end == START + UNTIL_MS


def test_a_control_that_comes_back_extends_the_call_and_the_gap_is_no_span() -> None:
    net = talking(until=START + 5000)
    net.run(6000)
    extended(net)
    assert net.report().spans[0].end == START + 5000
    assert net.media(ONE)


def test_an_orphaned_call_is_forgotten_in_the_end() -> None:
    net = talking(until=START + 5000)
    net.run(5000 + ORPHAN_MS - 1)
    assert net.report().spans
    net.run(1)
    assert net.relay.statistics().calls == 0
    assert net.relay.forgotten() == ["call"]
    assert net.relay.forgotten() == []
    assert net.relay.get_timer() is None
    assert net.send(net.callers[ONE].check(), ONE) == []


# --- release and incarnations


def test_after_release_nothing_passes_and_the_last_report_is_complete() -> None:
    net = talking()
    net.stop(2500)
    report = net.relay.release("call", net.now)
    assert report is not None
    assert [(s.start, s.end, s.ended_by) for s in report.spans] == [(START, START + 2500, "released")]
    assert report.legs[0].packets_in == report.legs[1].packets_out == 1
    assert not net.media(ONE)
    assert net.send(net.callers[ONE].check(), ONE) == []
    assert net.relay.get_timer() is None
    assert net.relay.release("call", net.now) is None
    assert net.adds_up()


def reloaded(net: Network, incarnation: int = 2, keep_old: bool = True) -> None:
    """A page was reloaded: both legs get fresh credentials; the old may still be listed."""
    legs = tuple(
        LegConfig((pair(f"again{leg}")[1], *(config().legs[leg].local if keep_old else ())), pair(f"again{leg}")[0])
        for leg in (0, 1)
    )
    net.relay.configure(config(incarnation=incarnation, legs=legs, until=net.now + 20_000), net.now)


def test_a_new_incarnation_ends_the_span_and_everything_is_earned_anew() -> None:
    net = talking()
    net.stop(700)
    reloaded(net)
    span = net.report().spans[0]
    assert (span.end, span.ended_by) == (START + 700, "reset")
    assert net.selected(0) is None
    assert not net.media(ONE)
    assert net.check(ONE) == []  # The page that is gone still checks with the old credentials.
    net.check(ONE, Caller(*pair("again0")))
    net.check(TWO, Caller(*pair("again1")))
    assert net.media(ONE)
    assert net.media(TWO)
    assert [span.number for span in net.report().spans] == [1, 2]
    assert net.adds_up()


def test_a_new_incarnation_renews_the_handshake_budget() -> None:
    net = connected()
    for _ in range(HANDSHAKE_DATAGRAMS):
        assert net.dtls(ONE)
    assert not net.dtls(ONE)
    reloaded(net)
    net.check(ONE, Caller(*pair("again0")))
    net.check(TWO, Caller(*pair("again1")))
    assert net.dtls(ONE)


def test_a_config_of_an_older_incarnation_changes_nothing() -> None:
    net = talking(incarnation=3)
    net.relay.configure(config(incarnation=2, funded=False), net.now)
    assert net.media(ONE)


def test_configuring_the_same_again_changes_nothing() -> None:
    net = talking()
    before = net.report()
    for _ in range(3):
        net.relay.configure(config(), net.now)
    assert net.report() == before


def test_a_username_fragment_belongs_to_one_leg() -> None:
    net = configured()
    taken = config().legs[0]
    with pytest.raises(Conflict) as refused:
        net.relay.configure(config("second", legs=(taken, config("second").legs[1])), net.now)
    assert refused.value.code == "ufrag_in_use"
    with pytest.raises(Conflict):
        net.relay.configure(config("third", legs=(taken, taken)), net.now)
    assert net.relay.statistics().calls == 1


# --- handshake and hold


def test_dtls_must_not_become_a_free_channel_by_count() -> None:
    net = connected()
    passed = sum(net.dtls(ONE, 60) for _ in range(HANDSHAKE_DATAGRAMS + 50))
    assert passed == HANDSHAKE_DATAGRAMS
    assert net.drops == {"budget": 50}
    assert net.dtls(TWO, 60)


def test_dtls_must_not_become_a_free_channel_by_size() -> None:
    net = connected()
    passed = sum(net.dtls(ONE, 1200) for _ in range(100))
    assert passed == HANDSHAKE_OCTETS // 1200


def test_dtls_must_not_become_a_free_channel_by_time() -> None:
    net = connected(funded=False)
    assert net.dtls(ONE)
    for _ in range(HANDSHAKE_MS // 5000):
        net.run(5000, extend=config(funded=False))
        net.check(ONE)
        net.check(TWO)
    assert net.report().gate == "shut"
    assert not net.dtls(ONE)
    assert net.report().spans == ()


def test_dtls_passes_an_open_gate_within_a_rate() -> None:
    net = talking()
    passed = sum(net.dtls(ONE, 1000) for _ in range(200))
    assert passed == OPEN_OCTETS // 1000
    net.run(1000)
    assert net.dtls(ONE, 1000)
    assert net.report().gate == "open"


def hello_held() -> tuple[Network, list[bytes]]:
    net = configured()
    net.check(ONE, nominate=True)
    flight = [net.callers[ONE].dtls(1200), net.callers[ONE].dtls(263, message=1)]
    for datagram in flight:
        assert net.send(datagram, ONE) == []
    return net, flight


def test_a_hello_waits_for_the_other_leg_and_then_arrives_whole() -> None:
    net, flight = hello_held()
    assert net.relay.statistics().held == 2
    net.run(400)
    net.check(TWO, nominate=True)
    assert net.callers[TWO].media == flight
    assert net.report().gate == "handshake"
    assert net.report().legs[1].packets_out == 2
    assert net.adds_up()


def test_a_held_hello_is_freed_after_ten_seconds() -> None:
    net, _ = hello_held()
    net.run(HOLD_MS)
    assert net.relay.statistics().held == 0
    net.check(ONE)
    net.check(TWO)
    assert net.callers[TWO].media == []
    assert net.adds_up()


def test_a_held_hello_is_freed_by_a_new_incarnation() -> None:
    net, _ = hello_held()
    reloaded(net)
    net.check(ONE, Caller(*pair("again0")))
    net.check(TWO, Caller(*pair("again1")))
    assert net.callers[TWO].media == []
    assert net.adds_up()


def test_a_held_hello_is_freed_by_release() -> None:
    net, _ = hello_held()
    net.relay.release("call", net.now)
    assert net.relay.statistics().held == 0
    assert net.adds_up()


def test_a_hello_that_is_ahead_of_the_answer_to_our_challenge_waits_too() -> None:
    net = configured()
    net.check(TWO)
    caller = net.callers[ONE]
    caller.silent = True
    net.check(ONE)
    flight = [caller.dtls(1200), caller.dtls(263, message=1)]
    for datagram in flight:
        assert net.send(datagram, ONE) == []
    assert net.callers[TWO].media == []
    caller.silent = False
    net.run(150)
    assert net.callers[TWO].media == flight
    assert net.adds_up()


def test_an_early_hello_is_freed_when_its_address_never_answers() -> None:
    net = configured()
    net.callers[ONE].silent = True
    net.check(ONE)
    net.send(net.callers[ONE].dtls(), ONE)
    assert net.relay.statistics().held == 1
    net.run(HOLD_MS)
    assert net.relay.statistics().held == 0
    assert net.drops == {"held_freed": 1}
    net.send(net.callers[ONE].dtls(), ONE)
    net.relay.release("call", net.now)
    assert net.relay.statistics().held == 0
    assert net.adds_up()


def test_law7_nothing_is_kept_for_a_stranger() -> None:
    net = connected()
    assert net.send(net.callers[ONE].dtls(), ("192.0.2.99", 9)) == []
    assert net.relay.statistics().held == 0
    assert net.drops == {"unknown_source": 1}


def test_media_is_never_held() -> None:
    net = configured()
    net.check(ONE)
    assert not net.media(ONE)
    net.check(TWO)
    assert net.callers[TWO].media == []


def calls_in_memory() -> int:
    return sum(isinstance(one, Call) for one in gc.get_objects())


def test_calls_that_are_over_leave_nothing_behind_not_even_for_the_garbage_collector() -> None:
    net = talking()
    gc.collect()
    before = calls_in_memory()
    gc.disable()
    try:
        for number in range(200):
            net.relay.configure(config("other", incarnation=number), net.now)
            for leg in (0, 1):
                net.check((f"192.0.2.{leg}", 1000 + number), Caller(*pair(f"other{leg}")))
            net.media(("192.0.2.0", 1000 + number))
            net.relay.release("other", net.now)
            net.run(20)
        assert calls_in_memory() - before < 100
    finally:
        gc.enable()
    assert len(net.relay._heap) < 100


# --- reports


def settled(net: Network) -> list[Report]:
    return net.relay.reports(net.now)


def test_changes_are_reported_at_once_and_an_open_gate_every_quarter_second() -> None:
    net = configured()
    assert settled(net) == []
    net.check(ONE)
    assert [report.legs[0].selected for report in settled(net)] == [True]
    net.check(TWO)
    assert [report.legs[1].present for report in settled(net)] == [True]
    assert settled(net) == []
    net.media(ONE)
    net.media(TWO)
    assert [(r.gate, len(r.spans)) for r in settled(net)] == [("open", 1)]
    times = []
    for _ in range(1000):
        net.run(1)
        times += [report.at - START for report in settled(net)]
    assert times == [250, 500, 750, 1000]


def test_a_shut_gate_is_reported_once_and_then_no_more() -> None:
    net = quiet(talking())
    settled(net)
    reports = []
    for _ in range(300):
        net.run(100)
        reports += settled(net)
    after = [report for report in reports if report.at >= START + PRESENCE_MS]
    assert [report.gate for report in after] == ["shut"]
    assert after[0].at == START + PRESENCE_MS


def test_a_new_reader_gets_every_call() -> None:
    net = configured()
    net.relay.configure(config("second"), net.now)
    net.relay.survey()
    assert {report.call for report in settled(net)} == {"call", "second"}


def test_legs_counters_add_up() -> None:
    net = talking()
    for _ in range(5):
        net.media(ONE, 200)
    net.dtls(TWO, 300)
    one, two = net.report().legs
    assert (one.packets_in, one.bytes_in) == (two.packets_out, two.bytes_out) == (6, 1100)
    assert (two.packets_in, two.bytes_in) == (one.packets_out, one.bytes_out) == (2, 400)
    assert (one.last_check, one.last_packet) == (START, START)


# --- any order of anything

NAMES = {"one": ONE, "two": TWO, "roam": ("198.51.100.9", 5), "stranger": ("192.0.2.99", 9)}
steps = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([1, 40, 250, 999, 1000, 2999, 3500, 6999, 7000, 15_000])),
        st.tuples(st.just("stop"), st.sampled_from([1, 300, 6999, 7001, 16_000])),
        st.tuples(st.sampled_from(["check", "media", "dtls"]), st.sampled_from(sorted(NAMES))),
        st.tuples(st.just("funded"), st.booleans()),
        st.tuples(st.just("extend"), st.sampled_from([0, 1000, 20_000])),
        st.tuples(st.just("reload"), st.just(0)),
        st.tuples(st.just("mute"), st.sampled_from(["one", "two"])),
    ),
    max_size=60,
)


class Model:
    """What may pass, told from the outside: arrivals and config only."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.config = config(limit_ms=40_000, until=START + 20_000)
        self.opened: list[int] = []
        self.passed: list[int] = []

    def leg(self, name: str) -> int:
        return 1 if name == "two" else 0

    def act(self, kind: str, value: object) -> None:
        net = self.net
        if kind == "wait":
            assert isinstance(value, int)
            net.run(value)
        elif kind == "stop":
            assert isinstance(value, int)
            net.stop(value)
        elif kind in ("check", "media", "dtls"):
            self._send(kind, str(value))
        elif kind == "mute":
            caller = net.callers[NAMES[str(value)]]
            caller.silent = not caller.silent
        else:
            self._configure(kind, value)

    def _configure(self, kind: str, value: object) -> None:
        net = self.net
        if kind == "funded":
            self.config = replace(self.config, funded=bool(value))
        elif kind == "extend":
            assert isinstance(value, int)
            self.config = replace(self.config, until=net.now + value)
        else:
            number = self.config.incarnation + 1
            pairs = tuple(pair(f"i{number}l{leg}") for leg in (0, 1))
            for name, leg in (("one", 0), ("roam", 0), ("stranger", 0), ("two", 1)):
                net.callers[NAMES[name]].restart(*pairs[leg])
            legs = tuple(LegConfig((ours,), theirs) for theirs, ours in pairs)
            self.config = replace(self.config, incarnation=number, legs=legs)  # type: ignore[arg-type]
        net.relay.configure(self.config, net.now)

    def _send(self, kind: str, name: str) -> None:
        net, source = self.net, NAMES[name]
        if kind == "check":
            net.check(source)
            return
        before, sent = net.report(), len(net.sent)
        deadline = before.deadline
        passed = net.media(source) if kind == "media" else net.dtls(source)
        if not passed:
            return
        assert name != "stranger"
        assert net.now < self.config.until
        assert deadline is None or net.now < deadline
        for names in (["one", "roam"], ["two"]):
            assert net.now - max(net.heard.get(NAMES[n], 0) for n in names) < PRESENCE_MS
            assert net.now - max(net.checked.get(NAMES[n], 0) for n in names) < CHECK_MS
        # The first: a flight that was held for the sender may come after it.
        to = next(to for data, to in net.sent[sent:] if data[0] > 3)
        assert to == net.selected(1 - self.leg(name))
        if kind == "media":
            assert self.config.funded
            self.passed.append(net.now)
            if before.gate != "open":
                self.opened.append(net.now)


@settings(max_examples=150, deadline=None)
@given(st.booleans(), steps)
def test_law2_law4_whatever_happens_media_passes_only_inside_spans(
    talking_first: bool, actions: list[tuple[str, object]]
) -> None:
    net = configured(limit_ms=40_000, until=START + 20_000)
    net.callers[NAMES["roam"]] = net.callers[ONE]
    net.callers[NAMES["stranger"]] = Caller(*pair("call0"))
    net.callers[NAMES["stranger"]].silent = True
    model = Model(net)
    begin = [(kind, name) for kind in ("check", "media")[: 1 + talking_first] for name in ("one", "two")]
    for kind, value in [*begin, *actions]:
        model.act(kind, value)
        assert net.adds_up()
    last = net.relay.release("call", net.now)
    assert last is not None
    assert net.adds_up()
    bounds = [edge for span in last.spans for edge in (span.start, span.end)]
    assert bounds == sorted(bounds)
    assert [span.number for span in last.spans] == list(range(1, len(last.spans) + 1))
    for at in model.passed:
        # The time that one side's late start may take is not in a span, and never longer than MUTUAL_MS.
        late_start = any(0 <= at - opened < MUTUAL_MS for opened in model.opened)
        assert late_start or any(span.start <= at <= span.end for span in last.spans)
