"""Many sessions: whatever number of processes, and however often stopped, the tally is the same."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.simulation import __main__, many
from tests.simulation.many import Progress
from tests.simulation.run import simulate
from tests.simulation.tally import Tally

SEED, ORDERS = 5, 40


def counted(tally: Tally) -> dict[str, Any]:
    return {**vars(tally), "cpu_s": 0}


def never() -> bool:
    return False


def only_the_first(seed: int, first: int, count: int) -> Tally:
    if first:
        raise MemoryError
    return Tally()


@pytest.fixture(scope="module")
def whole() -> Tally:
    tally = Tally()
    simulate(ORDERS, SEED, tally)
    assert tally.sessions >= ORDERS
    return tally


@pytest.mark.parametrize("jobs", [1, 3])
def test_the_tally_does_not_depend_on_the_number_of_processes(jobs: int, whole: Tally) -> None:
    progress = Progress(SEED, 0, 0)
    many.run(progress, ORDERS, jobs=jobs, stop=never, state=None)
    assert progress.next == ORDERS
    assert counted(progress.tally) == counted(whole)


def test_a_stopped_run_goes_on_from_its_file(tmp_path: Path, whole: Tally) -> None:
    file, asked = tmp_path / "state", iter([False] * 2 + [True] * 100)
    many.run(Progress(SEED, 0, 0), ORDERS, jobs=2, stop=lambda: next(asked), state=file)
    stopped = Progress.load(file)
    assert 0 < stopped.next < ORDERS
    many.run(stopped, ORDERS, jobs=2, stop=never, state=file)
    assert counted(Progress.load(file).tally) == counted(whole)


def test_what_was_done_is_kept_when_a_block_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "_block", only_the_first)
    with pytest.raises(MemoryError):
        many.run(Progress(SEED, 0, 0), ORDERS, jobs=1, stop=never, state=tmp_path / "state")
    assert Progress.load(tmp_path / "state").next == ORDERS // 2


def test_a_tally_comes_back_from_its_file(whole: Tally) -> None:
    whole.broken.append(("5:1", ["law 1"]))
    again = Tally.from_dict(json.loads(json.dumps(whole.as_dict())))
    whole.broken.pop()
    assert again.broken == [("5:1", ["law 1"])]
    again.broken.clear()
    assert vars(again) == vars(whole)
    assert again.report() == whole.report()


def test_merging_adds_each_count() -> None:
    one, two = Tally(), Tally()
    one.sessions, one.payment_arrows = 2, Counter({("held", "capturing"): 1})
    two.sessions, two.payment_arrows = 3, Counter({("held", "capturing"): 2, ("held", "released"): 1})
    two.broken = [("5:1", ["law 1"])]
    one.merge(two)
    assert (one.sessions, one.broken) == (5, [("5:1", ["law 1"])])
    assert one.payment_arrows == {("held", "capturing"): 3, ("held", "released"): 1}


def test_the_file_of_another_seed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Progress(4, 0, 7).save(tmp_path / "state")
    monkeypatch.setattr("sys.argv", ["simulation", "--seed", "5", "--state", str(tmp_path / "state")])
    with pytest.raises(SystemExit, match="2"):
        __main__.main()
