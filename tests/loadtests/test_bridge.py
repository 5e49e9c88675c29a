"""What the bridge's parts of the run make of what arrived."""

from __future__ import annotations

from dataclasses import replace

from gateway.billing_bridge.record import Payment, Step
from loadtests.bridge.settlement import overtaken, wrong
from loadtests.bridge.webhooks import too_early


def test_captures_are_out_of_turn_when_others_whose_holds_last_longer_went_long_before() -> None:
    one_a_second = [(1_000 * n, n) for n in range(20)]
    assert overtaken(one_a_second) == 0
    assert overtaken([(at + 1_500 * (n % 2), n) for at, n in one_a_second]) == 0, "a moment is not counted"
    assert overtaken([(0, 99), (100, 98), *one_a_second[1:]]) == 0, "the first went before the others were there"
    assert overtaken([*one_a_second[:8], (19_500, 8), *one_a_second[9:]]) == 1


def test_wrong_is_what_was_not_settled_and_what_was_sent_twice() -> None:
    step = Step("capture", 1, "k", {}, "done", tries=1)
    good = Payment("captured", "usd", settled=True, steps=(step,))
    assert wrong([good] * 3, 0) == 0
    assert wrong([replace(good, settled=False), replace(good, steps=(replace(step, tries=2),)), good], 1) == 3


def test_an_event_is_too_early_only_before_one_of_its_own_session() -> None:
    came = [(0.1, "a", "t", 1), (0.2, "b", "t", 1), (0.3, "a", "t", 3), (0.4, "a", "t", 2), (0.5, "b", "t", 2)]
    assert too_early(came) == 1
