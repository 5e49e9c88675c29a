"""Statistics, ratios and the report of a bench run."""

from __future__ import annotations

import json
from statistics import median

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.figures import Figure, Sample, document, paired, spread

VALUES = st.floats(0.001, 1e9)
SAMPLE = {
    "type": "object",
    "required": ["value", "steal", "foreign", "marks"],
    "properties": {"value": {"type": "number"}, "marks": {"type": "array", "items": {"type": "string"}}},
}
NUMBER = {"type": ["number", "null"]}
EDGES = {"type": ["array", "null"], "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
REPORT = {
    "type": "object",
    "required": ["schema", "machine", "method", "missing", "figures"],
    "properties": {
        "figures": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["figure", "unit", "ours", "peer", "peer_name", "ratio", "rounds"],
                "properties": {
                    "figure": {"type": "string"},
                    "unit": {"type": "string"},
                    "ours": {"type": "number"},
                    "peer": NUMBER,
                    "peer_name": {"type": ["string", "null"]},
                    "ratio": NUMBER,
                    "ratio_quartiles": EDGES,
                    "ours_quartiles": EDGES,
                    "reached": {"type": ["boolean", "null"]},
                    "judged": {"enum": ["ratio", "ours"]},
                    "rounds": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["round", "discarded", "marked", "ours", "peer", "ratio"],
                            "properties": {"ours": SAMPLE, "peer": {"anyOf": [SAMPLE, {"type": "null"}]}},
                        },
                    },
                },
            },
        }
    },
}


def series(*values: float) -> list[Sample]:
    return [Sample(value) for value in values]


def figure(ours: list[Sample], peer: list[Sample] | None = None, **rest: object) -> Figure:
    name = None if peer is None else "peer"
    return Figure("part", "figure", "µs", paired(ours, peer), name, **rest)  # type: ignore[arg-type]


def test_the_first_round_is_discarded_and_stays_in_the_report() -> None:
    one = figure(series(100, 1, 2, 3), series(1, 4, 4, 4))
    assert (one.ours, one.peer, one.ratio) == (2, 4, 0.5)
    rounds = one.body()["rounds"]
    assert [entry["discarded"] for entry in rounds] == [True, False, False, False]
    assert rounds[0]["ours"]["value"] == 100


def test_marked_rounds_count() -> None:
    disturbed = [Sample(9), Sample(1), Sample(3, steal=0.031), Sample(5, foreign=0.2)]
    one = figure(disturbed)
    assert one.ours == 3
    assert one.body()["marked"] == 2
    assert [entry["ours"]["marks"] for entry in one.body()["rounds"]] == [[], [], ["steal"], ["foreign"]]


def test_a_round_with_steal_at_the_limit_is_not_marked() -> None:
    assert Sample(1, steal=0.03).marks == ()


def test_a_generator_that_fell_behind_marks_the_round() -> None:
    assert Sample(1, about={"behind": 1.0}).marks == ("behind",)


def test_the_ratio_is_of_the_same_rounds_not_of_the_medians() -> None:
    # Each round twice as slow as the one before, for both: the ratio does not feel it.
    one = figure(series(0, 2, 4, 8), series(1, 1, 2, 4))
    assert one.ratio == 2
    assert one.ratios == [2, 2, 2]


@given(st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=12))
def test_medians_and_ratio_lie_within_what_was_measured(pairs: list[tuple[float, float]]) -> None:
    one = figure(series(*(ours for ours, _ in pairs)), series(*(peer for _, peer in pairs)))
    ratios = [ours / peer for ours, peer in pairs[1:]]
    assert one.ratio == median(ratios)
    assert min(ours for ours, _ in pairs[1:]) <= one.ours <= max(ours for ours, _ in pairs[1:])


@given(st.lists(VALUES, min_size=2, max_size=20))
def test_quartiles_are_in_order_and_within_the_values(values: list[float]) -> None:
    edges = spread(values)
    assert edges is not None
    assert min(values) - 1e-6 <= edges[0] <= edges[1] <= max(values) + 1e-6


def test_one_value_has_no_quartiles() -> None:
    assert spread([1.0]) is None


def test_series_of_unequal_length_do_not_pair() -> None:
    with pytest.raises(ValueError):
        paired(series(1, 2), series(1))


@pytest.mark.parametrize(
    ("better", "must", "reached"),
    [("less", 2.0, True), ("less", 1.9, False), ("more", 2.0, True), ("more", 2.1, False)],
)
def test_bounds_are_judged_on_the_ratio_and_may_be_met_exactly(better: str, must: float, reached: bool) -> None:
    assert figure(series(0, 4, 4), series(1, 2, 2), better=better, must=must).body()["reached"] is reached


def test_without_a_peer_or_beside_one_for_orientation_our_own_value_is_judged() -> None:
    assert figure(series(0, 0.5, 0.5), must=1.0).body()["reached"] is True
    beside = figure(series(0, 0.5, 0.5), series(1, 0.1, 0.1), must=1.0, comparison=True)
    assert (beside.body()["judged"], beside.body()["reached"]) == ("ours", True)


def test_without_a_bound_nothing_is_reached_or_missed() -> None:
    assert figure(series(1, 2)).body()["reached"] is None


def test_the_report_has_the_shape_that_others_read() -> None:
    figures = [
        figure(series(1, 2, 3), series(4, 5, 6), must=1.0, aim=0.5),
        figure(series(1, 2)),
        figure([Sample(1, 0.5, 0.5, {"pps": 12.0})]),
    ]
    report = document(figures, {"cpu": "a"}, {"rounds": 3}, {"Janus": "not installed"})
    jsonschema.validate(json.loads(json.dumps(report)), REPORT)
    assert report["missing"] == {"Janus": "not installed"}
