"""The order of measurements, and that a run stays within its time."""

from __future__ import annotations

import time

import pytest

from loadtests.__main__ import PARTS, arguments
from loadtests.bench import SHORTEST_S, Bench
from loadtests.figures import Sample


def test_every_round_has_everyone_and_every_other_goes_backwards() -> None:
    order: list[str] = []

    def measuring(name: str) -> Sample:
        order.append(name)
        return Sample(float(len(order)))

    bench = Bench(rounds=3, seconds=0.0)
    entries = [(name, lambda seconds, name=name: measuring(name)) for name in "abc"]
    samples = bench.alternate("order", entries)
    assert "".join(order) == "abccbaabc"
    assert [one.value for one in samples["a"]] == [1, 6, 7]
    assert bench.done == 9


def test_measurements_become_shorter_when_time_runs_out_but_not_useless() -> None:
    plenty = Bench(seconds=2.0, budget_s=1000.0)
    plenty.plan(10)
    assert plenty.length() == 2.0
    scarce = Bench(seconds=2.0, budget_s=13.5, started=time.monotonic())
    scarce.plan(10)
    assert scarce.length() == pytest.approx(1.0, abs=0.01)
    scarce.budget_s = 0.0
    assert scarce.length() == SHORTEST_S


def test_time_for_setting_up_is_not_measuring_time() -> None:
    bench = Bench(seconds=2.0, budget_s=23.5, started=time.monotonic())
    bench.plan(10, aside_s=10.0)
    assert bench.length() == pytest.approx(1.0, abs=0.01)


def test_progress_is_shown_before_each_measurement() -> None:
    shown: list[tuple[str, int, int]] = []
    bench = Bench(rounds=2, seconds=0.0, show=lambda text, done, planned: shown.append((text, done, planned)))
    bench.plan(2)
    bench.alternate("title", [("one", lambda seconds: Sample(1.0))])
    assert shown == [("title: one, round 1 of 2", 0, 2), ("title: one, round 2 of 2", 1, 2)]


def test_only_names_a_part() -> None:
    assert arguments(["--only", "relay"]).only == ["relay"]
    assert "relay" in PARTS


@pytest.mark.parametrize("words", [["--only", "nothing"], ["--rounds", "1"]])
def test_nonsense_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        arguments(words)
    assert refused.value.code == 2
    assert capsys.readouterr().err
