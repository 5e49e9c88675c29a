"""Addresses are earned, selection follows the media, strangers get nothing (6-media, Addresses; law 7)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sfu import stun
from gateway.sfu.agent import ADDRESS_LIMIT, DWELL_MS, FORGET_MS, SILENT_MS
from gateway.sfu.path import DATAGRAM_LIMIT
from gateway.sfu.port import LegConfig
from gateway.sfu.stun import Address
from tests.sfu.caller import Caller, credentials, transaction
from tests.sfu.network import ONE, TWO, Network, config, configured, connected, kinds, pair, talking

OTHER: Address = ("198.51.100.9", 50009)
VICTIM: Address = ("198.51.100.77", 7777)


def moved(net: Network, source: Address, to: Address) -> None:
    """The caller at `source` can be reached at `to` as well."""
    net.callers[to] = net.callers[source]


# --- earning an address


def test_a_check_is_answered_and_challenged_and_the_answer_makes_the_address_valid() -> None:
    net = configured()
    out = net.check(ONE)
    assert kinds(out) == [stun.REQUEST, stun.SUCCESS]
    assert {to for _, to in out} == {ONE}
    assert stun.parse(bytes(out[1][0])).mapped == ONE
    assert net.selected(0) == ONE
    assert net.callers[ONE].challenges == 1
    assert net.adds_up()


def test_an_address_that_does_not_answer_is_never_selected() -> None:
    net = configured()
    net.callers[ONE].silent = True
    for _ in range(30):
        net.check(ONE, nominate=True)
        net.run(100)
    assert net.selected(0) is None
    assert not net.media(ONE)
    assert net.drops["unknown_source"] == 1


def test_without_the_callers_credentials_a_check_is_answered_but_not_challenged_until_they_come() -> None:
    legs = config().legs
    net = configured(legs=(replace(legs[0], remote=None), legs[1]))
    assert kinds(net.check(ONE)) == [stun.SUCCESS]
    net.run(500)
    assert net.callers[ONE].challenges == 0
    net.relay.configure(config(), net.now)
    net.run(0)
    assert net.selected(0) == ONE


@given(st.lists(st.integers(0, 400), min_size=1, max_size=60))
def test_law7_an_unproven_address_gets_ten_datagrams_at_most(gaps: list[int]) -> None:
    """A caller that names a victim's address as its own cannot make us hammer it."""
    net = configured()
    net.callers[VICTIM] = Caller(*pair("call0"))
    net.callers[VICTIM].silent = True
    for gap in gaps:
        net.run(gap)
        net.check(VICTIM)
    net.run(60_000)
    to_victim = [data for data, to in net.sent if to == VICTIM]
    assert 0 < len(to_victim) <= DATAGRAM_LIMIT
    assert sum(map(len, to_victim)) <= 12_000
    assert net.adds_up()


def test_challenges_are_repeated_with_growing_gaps_and_a_late_answer_counts() -> None:
    net = configured()
    caller = net.callers[ONE]
    caller.silent = True
    net.check(ONE)
    times = []
    for _ in range(300):
        before = caller.challenges
        net.run(10)
        if caller.challenges > before:
            times.append(net.now - 1_000_000)
    assert times == [150, 450, 1050, 2250]
    caller.silent = False
    reply = caller.take(net.challenge())
    assert reply is not None
    net.send(reply, ONE)
    assert net.selected(0) == ONE


def test_a_longest_challenge_keeps_the_ten_datagrams_under_twelve_kilobytes() -> None:
    assert len(stun.challenge(transaction(), "x" * 256 + ":" + "y" * 256, b"key", 1)) * DATAGRAM_LIMIT <= 12_000


def test_the_round_trip_is_measured() -> None:
    net = configured()
    caller = net.callers[ONE]
    caller.silent = True
    net.check(ONE)
    challenge = net.challenge()
    net.stop(40)
    caller.silent = False
    reply = caller.take(challenge)
    assert reply is not None
    net.send(reply, ONE)
    assert net.report().legs[0].rtt_ms == 40.0


def test_the_selected_address_is_challenged_every_five_seconds_or_so() -> None:
    net = connected()
    before = net.callers[ONE].challenges
    for _ in range(24):
        net.run(2500, extend=config())
        net.check(ONE)
    assert 10 <= net.callers[ONE].challenges - before <= 15


def test_an_absent_leg_is_left_in_peace() -> None:
    net = connected()
    for caller in net.callers.values():
        caller.silent = True
    net.run(20_000)
    before = len(net.sent)
    net.run(600_000)
    assert len(net.sent) == before


# --- strangers


def forged(kind: str, caller: Caller) -> bytes:
    good = caller.check()
    if kind == "wrong password":
        return Caller(caller.own, replace(caller.relay, password="y" * 24)).check()
    if kind == "unknown ufrag":
        return Caller(caller.own, credentials("nobody")).check()
    if kind == "truncated":
        return good[:-3]
    if kind == "one byte":
        return b"\x00"
    if kind == "no fingerprint":
        return good[:2] + (len(good) - 28).to_bytes(2, "big") + good[4:-8]
    if kind == "oversize":
        return good[:2] + b"\x0f\xf0" + good[4:] + bytes(3000)
    if kind == "stray response":
        return stun.success(transaction(), ONE, caller.relay.password.encode())
    if kind == "indication":
        return b"\x00\x11\x00\x00\x21\x12\xa4\x42" + transaction()
    if kind == "client hello":
        return caller.dtls()
    return {"rtp": caller.rtp(), "empty": b"", "turn": b"\x40\x00\x00\x04abcd", "http": b"GET / HTTP/1.1\r\n\r\n"}[kind]


STRANGE = [
    "wrong password", "unknown ufrag", "truncated", "one byte", "no fingerprint", "oversize", "stray response",
    "indication", "empty", "turn", "http",
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "source"),
    # From a valid address the last two are what the address is for.
    [(kind, source) for kind in STRANGE for source in (OTHER, ONE)] + [("client hello", OTHER), ("rtp", OTHER)],
)
def test_law7_strangers_get_silence_and_disturb_nothing(kind: str, source: Address) -> None:
    net = talking()
    before = net.report()
    assert net.send(forged(kind, net.callers[ONE]), source) == []
    after = net.report()
    assert (after.gate, after.legs) == (before.gate, before.legs)
    assert net.media(ONE)
    assert net.media(TWO)
    assert net.adds_up()


def test_law7_a_check_replayed_from_another_address_is_dropped() -> None:
    net = talking()
    check = net.callers[ONE].check(nominate=True)
    net.send(check, ONE)
    assert net.send(check, OTHER) == []
    assert net.drops["replayed"] == 1
    assert net.selected(0) == ONE


def test_a_check_repeated_from_its_own_address_is_answered_but_no_sign_of_life() -> None:
    net = connected()
    check = net.callers[ONE].check()
    net.send(check, ONE)
    last = net.report().legs[0].last_check
    net.stop(3000)
    assert kinds(net.send(check, ONE)) == [stun.SUCCESS]
    assert net.report().legs[0].last_check == last


def test_law7_an_answer_from_another_address_earns_nothing() -> None:
    net = configured()
    caller = net.callers[ONE]
    caller.silent = True
    net.check(ONE)
    caller.silent = False
    reply = caller.take(net.challenge())
    assert reply is not None
    assert net.send(reply, OTHER) == []
    assert net.selected(0) is None
    net.send(reply, ONE)
    assert net.selected(0) == ONE


def test_law7_an_answer_with_the_wrong_password_earns_nothing() -> None:
    net = configured()
    net.callers[ONE].silent = True
    net.check(ONE)
    tid = stun.parse(net.challenge()).transaction
    net.send(stun.success(tid, ONE, b"guess"), ONE)
    assert net.selected(0) is None
    assert net.drops["bad_integrity"] == 1


def test_a_caller_that_calls_itself_controlled_gets_487_and_earns_nothing() -> None:
    net = configured()
    out = net.check(ONE, ICE_CONTROLLED=1)
    assert kinds(out) == [stun.ERROR]
    assert stun.parse(bytes(out[0][0])).error_code == 487
    assert net.selected(0) is None


def test_an_error_as_an_answer_to_our_challenge_earns_nothing() -> None:
    net = configured()
    caller = net.callers[ONE]
    caller.silent = True
    net.check(ONE)
    tid = stun.parse(net.challenge()).transaction
    net.send(stun.role_conflict(tid, caller.own.password.encode()), ONE)
    assert net.selected(0) is None
    assert net.drops["challenge_refused"] == 1


# --- selection


def test_media_from_another_valid_address_moves_the_selection_at_the_second_datagram() -> None:
    net = talking()
    moved(net, ONE, OTHER)
    net.check(OTHER)
    net.run(DWELL_MS)
    assert net.media(OTHER)
    assert net.selected(0) == ONE
    assert net.media(OTHER)
    assert net.selected(0) == OTHER
    net.media(TWO)
    assert net.sent[-1][1] == OTHER
    assert net.relay.statistics().address_switches == 1


def test_packets_in_turn_from_both_addresses_move_nothing() -> None:
    net = talking()
    moved(net, ONE, OTHER)
    net.check(OTHER)
    net.run(DWELL_MS)
    for _ in range(10):
        assert net.media(OTHER)
        assert net.media(ONE)
    assert net.selected(0) == ONE


def test_the_selection_stays_for_the_dwell_time() -> None:
    net = talking()
    moved(net, ONE, OTHER)
    net.check(OTHER)
    net.run(DWELL_MS)
    net.media(OTHER)
    net.media(OTHER)
    net.run(DWELL_MS - 1)
    for _ in range(5):
        net.media(ONE)
    assert net.selected(0) == OTHER
    net.run(1)
    net.media(ONE)
    assert net.selected(0) == ONE


def test_nominations_do_not_decide_while_media_flows() -> None:
    net = talking()
    moved(net, ONE, OTHER)
    for _ in range(20):
        net.run(100)
        net.media(ONE)
        net.check(ONE)
        net.check(OTHER, nominate=True, priority=2**31)
        assert net.selected(0) == ONE


def test_a_nomination_moves_a_muted_leg() -> None:
    net = connected()
    moved(net, ONE, OTHER)
    net.run(1000)
    net.check(ONE, nominate=False)
    net.check(OTHER, nominate=True, priority=1)
    net.check(OTHER, nominate=True, priority=1)
    assert net.selected(0) == OTHER


def test_of_two_nominated_addresses_the_higher_priority_has_it_without_flapping() -> None:
    """Firefox nominates on every check of every pair."""
    net = connected()
    moved(net, ONE, OTHER)
    chosen = []
    for _ in range(20):
        net.run(500)
        net.check(ONE, nominate=True, priority=100)
        net.check(OTHER, nominate=True, priority=200)
        chosen.append(net.selected(0))
    assert chosen[3:] == [OTHER] * 17
    assert net.relay.statistics().address_switches == 1


def test_a_rebound_nat_is_followed_without_nomination_once_the_old_address_is_silent() -> None:
    net = connected()
    caller = net.callers.pop(ONE)
    net.callers[OTHER] = caller
    for _ in range(SILENT_MS // 500 + 2):
        net.run(500)
        net.check(OTHER)
    assert net.selected(0) == OTHER


def test_a_leg_has_eight_addresses_and_makes_room_only_for_forgotten_ones() -> None:
    net = connected()
    sources: list[Address] = [("198.51.100.1", 41000 + n) for n in range(ADDRESS_LIMIT)]
    for source in sources:
        moved(net, ONE, source)
        net.check(source)
    assert net.drops["too_many_addresses"] == 1
    assert len(net.call().legs[0].paths) == ADDRESS_LIMIT
    net.run(FORGET_MS)
    net.check(ONE)
    net.check(sources[-1])
    assert sources[-1] in net.call().legs[0].paths
    assert ONE in net.call().legs[0].paths
    assert len(net.call().legs[0].paths) == ADDRESS_LIMIT


# --- an address of another leg


def two_calls() -> Network:
    net = talking()
    net.relay.configure(config("second"), net.now)
    return net


def test_law7_an_address_in_use_stays_with_its_leg() -> None:
    net = two_calls()
    thief = Caller(*pair("second0"))
    holder = net.callers[ONE]
    for _ in range(30):
        net.run(1000, extend=config())
        net.callers[ONE] = holder
        net.check(ONE)
        net.check(TWO)
        net.check(ONE, thief)
        net.relay.configure(config("second"), net.now)
    assert net.selected(0) == ONE
    assert net.selected(0, "second") is None
    net.callers[ONE] = holder
    assert net.media(ONE)


def test_an_abandoned_address_moves_to_the_leg_that_answers_there() -> None:
    net = two_calls()
    net.callers[ONE].silent = True
    net.run(15_000)
    net.check(ONE, Caller(*pair("second0")))
    assert net.selected(0, "second") == ONE
    assert net.selected(0) is None
    assert net.relay.statistics().address_moves == 1
    assert net.adds_up()


# --- ICE restart of one leg


def restarted(net: Network) -> None:
    """Control tells of new credentials on leg 0, the old ones still listed."""
    old, new = config().legs[0], pair("new")
    leg = LegConfig((new[1], *old.local), new[0])
    net.relay.configure(config(legs=(leg, config().legs[1])), net.now)


def test_an_ice_restart_takes_over_when_its_address_is_valid_and_until_then_the_old_one_forwards() -> None:
    net = talking()
    restarted(net)
    assert net.media(ONE)
    assert net.media(TWO)
    fresh = Caller(*pair("new"))
    fresh.silent = True
    net.check(OTHER, fresh)
    assert net.selected(0) == ONE
    assert net.media(ONE)
    fresh.silent = False
    net.run(200)
    assert net.selected(0) == OTHER
    assert net.media(OTHER)
    assert net.media(TWO)
    assert net.sent[-1][1] == OTHER
    report = net.report()
    assert len(report.spans) == 1
    assert net.adds_up()


def test_media_still_coming_from_the_old_address_passes_but_does_not_win_the_selection_back() -> None:
    net = talking()
    restarted(net)
    net.check(OTHER, Caller(*pair("new")))
    net.run(DWELL_MS)
    for _ in range(5):
        assert net.media(ONE)
    assert net.selected(0) == OTHER


def test_a_restart_on_the_same_address_is_proven_anew_with_the_new_credentials() -> None:
    net = talking()
    restarted(net)
    caller = net.callers[ONE]
    caller.restart(*pair("new"))
    before = caller.challenges
    net.check(ONE)
    assert caller.challenges == before + 1
    net.relay.configure(config(legs=(LegConfig((pair("new")[1],), pair("new")[0]), config().legs[1])), net.now)
    assert net.selected(0) == ONE
    assert net.media(ONE)


def test_withdrawn_credentials_take_their_addresses_with_them() -> None:
    net = talking()
    net.relay.configure(config(legs=(LegConfig((pair("new")[1],), pair("new")[0]), config().legs[1])), net.now)
    assert net.selected(0) is None
    assert not net.media(ONE)
    assert net.check(ONE) == []
    report = net.report()
    assert (report.gate, report.spans[-1].ended_by, report.spans[-1].end) == ("shut", "silence", net.now)
    assert net.adds_up()
