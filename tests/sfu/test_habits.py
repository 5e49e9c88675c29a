"""How browsers and networks behave, one habit a test: who is selected, and that nothing is lost by it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.sfu.port import Credentials, LegConfig
from gateway.sfu.stun import Address
from tests.sfu.caller import Caller
from tests.sfu.network import ONE, TWO, Network, config, connected, pair, talking

WIFI: Address = ("198.51.100.1", 50001)
CELL: Address = ("100.64.0.9", 50002)
HIGH, LOW = 2_000_000_000, 1_000_000_000


def both(net: Network, count: int, source: Address = ONE) -> int:
    """Packets in turn from `source` and the other leg, 20 ms apart; how many were passed on."""
    passed = 0
    for _ in range(count):
        net.run(20)
        passed += net.media(source) + net.media(TWO)
    return passed


# --- nomination


def test_chromium_and_safari_nominate_the_pair_they_chose() -> None:
    net = connected()
    caller = net.callers[ONE]
    net.run(400)
    net.check(WIFI, caller, priority=LOW)
    net.check(CELL, caller, priority=HIGH)
    assert net.selected(0) == ONE
    net.run(2_000)
    for _ in range(3):
        net.check(WIFI, nominate=True, priority=HIGH + 1)
        net.run(500)
    assert net.selected(0) == WIFI
    assert both(net, 10, WIFI) == 20
    assert net.relay.statistics().address_switches == 1


def test_firefox_nominates_with_every_check_and_nothing_flaps() -> None:
    net = talking()
    caller = net.callers[ONE]
    for address in (WIFI, CELL):
        net.callers[address] = caller
    for _ in range(50):
        for address, priority in ((ONE, LOW), (WIFI, HIGH), (CELL, HIGH)):
            net.check(address, nominate=True, priority=priority)
            net.run(30)
        assert both(net, 2) == 4
    assert net.selected(0) == ONE
    assert net.relay.statistics().address_switches == 0


def test_firefox_before_media_the_best_of_several_nominated_pairs_is_kept() -> None:
    net = connected()
    caller = net.callers[ONE]
    for _ in range(10):
        for address, priority in ((ONE, LOW), (WIFI, HIGH), (CELL, LOW)):
            net.check(address, caller, nominate=True, priority=priority)
            net.run(400)
    assert net.selected(0) == WIFI
    assert net.relay.statistics().address_switches == 1


def test_renomination_without_use_candidate_is_followed_by_its_media() -> None:
    net = talking()
    caller = net.callers[ONE]
    net.run(400)
    net.check(WIFI, caller)
    assert both(net, 5) == 10
    assert net.selected(0) == ONE
    assert both(net, 5, WIFI) == 10
    assert net.selected(0) == WIFI
    assert net.relay.statistics().address_switches == 1


def test_an_alg_that_eats_nominations_does_not_keep_a_call_from_coming_up() -> None:
    net = Network()
    net.relay.configure(config(), net.now)
    for leg, address in ((0, ONE), (1, TWO)):
        net.check(address, Caller(*pair(f"call{leg}")), nominate=False)
    assert (net.selected(0), net.selected(1)) == (ONE, TWO)
    assert both(net, 5) == 10


# --- addresses that change


def test_a_nat_that_rebinds_in_mid_call_costs_no_more_than_the_next_check() -> None:
    net = talking()
    rebound: Address = (ONE[0], 61_000)
    caller = net.callers.pop(ONE)
    net.callers[rebound] = caller
    net.run(400)
    assert not net.media(rebound)
    net.check(rebound)
    assert both(net, 5, rebound) == 10
    assert net.selected(0) == rebound


def test_a_nat_that_rebinds_a_muted_caller_is_followed_by_its_checks_alone() -> None:
    net = talking()
    rebound: Address = (ONE[0], 61_000)
    net.callers[rebound] = net.callers.pop(ONE)
    for _ in range(3):
        net.run(2_500)
        net.check(TWO)
        net.check(rebound)
    assert net.selected(0) == rebound
    net.media(TWO)
    assert net.sent[-1][1] == rebound


def test_a_switch_of_networks_takes_the_media_along_at_once() -> None:
    net = talking()
    caller = net.callers.pop(ONE)
    net.run(2_000)
    net.check(CELL, caller, nominate=True)
    assert both(net, 3, CELL) == 6
    assert net.selected(0) == CELL
    assert net.callers[CELL].media, "the other leg's media goes to the new address"


def test_a_switch_back_and_forth_is_followed_each_time() -> None:
    net = talking()
    caller = net.callers[ONE]
    net.check(CELL, caller)
    for address in (CELL, ONE, CELL, ONE):
        net.run(400)
        assert both(net, 20, address) == 40
        assert net.selected(0) == address
        net.check(ONE)
        net.check(CELL)
    assert net.relay.statistics().address_switches == 4


# --- ICE restart of one leg


def restarted(net: Network, *, window: bool) -> tuple[Credentials, Credentials]:
    """Leg 0 gets new credentials; `window`: the old ones stay listed. The caller's own are new too."""
    own, ours = pair("restarted")
    old = pair("call0")[1]
    now = config()
    leg = LegConfig((ours, old) if window else (ours,), own)
    net.relay.configure(replace(now, legs=(leg, now.legs[1])), net.now)
    return own, ours


def test_one_legs_restart_is_nothing_to_the_other() -> None:
    net = talking()
    net.run(400)
    own, ours = restarted(net, window=True)
    old = net.callers[ONE]
    challenges = net.callers[TWO].challenges
    assert both(net, 5) == 10
    net.check(WIFI, Caller(own, ours), nominate=True)
    assert net.selected(0) == WIFI
    assert net.selected(1) == TWO
    assert both(net, 5, WIFI) == 10
    assert net.callers[TWO].challenges == challenges
    assert net.callers[TWO].own == pair("call1")[0]
    assert old.media
    assert len(net.report().spans) == 1
    assert net.report().spans[0].ended_by is None


def test_both_ufrags_are_valid_in_the_window_and_only_the_new_one_after_it() -> None:
    net = talking()
    own, ours = restarted(net, window=True)
    confirmed = net.callers[ONE].confirmed
    net.check(ONE)
    assert net.callers[ONE].confirmed == confirmed + 1
    new = Caller(own, ours)
    net.check(WIFI, new, nominate=True)
    assert new.confirmed == 1
    assert not net.drops
    restarted(net, window=False)
    net.check(ONE)
    assert net.callers[ONE].confirmed == confirmed + 1
    assert net.drops == {"unknown_ufrag": 1}
    assert both(net, 5, WIFI) == 10
    assert not net.media(ONE)


def test_a_control_that_has_made_no_credentials_yet_changes_nothing() -> None:
    net = talking()
    net.relay.configure(config(legs=(LegConfig(), LegConfig()), tag="another"), net.now)
    assert both(net, 5) == 10
    assert net.report().tag == "another"
    assert len(net.report().spans) == 1


@pytest.mark.parametrize("seen", [True, False])
def test_after_a_takeover_old_credentials_carry_the_call_until_their_window_is_over(seen: bool) -> None:
    net = talking()
    if seen:
        net.relay.configure(config(legs=(LegConfig(), LegConfig()), tag="another"), net.now)
    own, ours = pair("taken")
    legs = (LegConfig((ours,), own, inherits=True), config().legs[1])
    net.relay.configure(config(legs=legs, tag="another"), net.now)
    assert both(net, 5) == 10
    confirmed = net.callers[ONE].confirmed
    net.check(ONE)
    assert net.callers[ONE].confirmed == confirmed + 1
    new = Caller(own, ours)
    net.check(WIFI, new, nominate=True)
    assert net.selected(0) == WIFI
    assert both(net, 5, WIFI) == 10
    net.relay.configure(config(legs=(LegConfig((ours,), own), legs[1]), tag="another"), net.now)
    assert both(net, 5, WIFI) == 10
    assert not net.media(ONE)
    net.check(ONE)
    assert net.drops["unknown_ufrag"] == 1
    assert len(net.report().spans) == 1


def test_what_the_new_control_takes_back_is_not_inherited() -> None:
    net = talking()
    for name in ("rolled", "kept"):
        own, ours = pair(name)
        legs = (LegConfig((ours,), own, inherits=True), config().legs[1])
        net.relay.configure(config(legs=legs, tag="another"), net.now)
    assert set(net.call().legs[0].locals) == {pair("call0")[1].ufrag, pair("kept")[1].ufrag}


def test_a_second_takeover_inherits_from_both_before_it() -> None:
    net = talking()
    for name in ("second", "third"):
        net.relay.configure(config(legs=(LegConfig(), LegConfig()), tag=name), net.now)
        own, ours = pair(name)
        legs = (LegConfig((ours,), own, inherits=True), config().legs[1])
        net.relay.configure(config(legs=legs, tag=name), net.now)
    names = {pair(name)[1].ufrag for name in ("call0", "second", "third")}
    assert set(net.call().legs[0].locals) == names
    assert both(net, 5) == 10
