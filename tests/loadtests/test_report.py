"""The picture and the tables that a run leaves behind."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from loadtests import picture, table
from loadtests.figures import Figure, Sample, document, paired

MACHINE = {"cpu": "a processor", "cores": 2, "virtual": True, "kernel": "6", "python": "3.11"}
METHOD = {"rounds": 3, "seconds": 1.6, "relays": {"peer": "1.0"}}


def figure(name: str, peer_name: str, peer: float, **rest: object) -> Figure:
    ours, theirs = [Sample(9.0), Sample(2.0), Sample(3.0)], [Sample(peer)] * 3
    return Figure("relay", name, "µs", paired(ours, theirs), peer_name, **rest)  # type: ignore[arg-type]


def drawn(*figures: Figure) -> ElementTree.Element:
    return ElementTree.fromstring(picture.draw(picture.panels(figures, [("cost", "Cost <of> it")]), "caption & more"))


def test_the_picture_is_svg_with_a_bar_for_each_relay_in_proportion() -> None:
    root = drawn(figure("cost", "one", 5.0), figure("cost", "two", 10.0), figure("other", "three", 1.0))
    widths = [float(rect.get("width", "0")) for rect in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert len(widths) == 3
    assert widths[2] == pytest.approx(2 * widths[1], abs=0.2)
    assert widths[0] == pytest.approx(widths[1] / 2, abs=0.2)


def test_the_picture_can_be_read_out_and_stays_within_its_frame() -> None:
    root = drawn(figure("cost", "one", 5.0))
    assert root.get("aria-label") == "Cost <of> it: Parley 2.5 µs, one 5 µs"
    width = float(root.get("width", "0"))
    for rect in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert float(rect.get("x", "0")) + float(rect.get("width", "0")) < width


def test_a_bar_that_would_hide_all_others_is_left_out() -> None:
    root = drawn(figure("cost", "one", 5.0), figure("cost", "MediaRelay", 3000.0))
    assert len(list(root.iter("{http://www.w3.org/2000/svg}rect"))) == 2


def test_figures_that_were_not_measured_make_no_panel() -> None:
    assert picture.panels([], [("cost", "Cost")]) == []


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2.345, "µs", "2.35 µs"),
        (3712.0, "µs", "3,712 µs"),
        (297_400.0, "1/s", "297k/s"),
        (950.0, "1/s", "950/s"),
        (None, "µs", "–"),
    ],
)
def test_amounts_are_written_for_people(value: float | None, unit: str, text: str) -> None:
    assert picture.amount(value, unit) == text


def test_a_row_says_whether_it_reaches_what_it_must() -> None:
    row = table.cells(figure("cost", "one", 5.0, must=0.8, aim=0.4))
    assert row == ("cost", "2.5 µs", "one", "5 µs", "0.5 ×", "0.45 – 0.55", "≤ 0.8 × ✓", "≤ 0.4 × ✗", "0/2")


def test_the_table_of_the_docs_names_machine_method_and_who_is_missing() -> None:
    figures = [figure("cost", "one", 5.0)]
    text = table.markdown(figures, document(figures, MACHINE, METHOD, {"Janus": "not installed"}))
    assert "a processor, 2 cores (virtual)" in text
    assert "Janus was not measured: not installed" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    assert re.fullmatch(r"\| cost \| 2\.5 µs \| one .*", rows[-1])


def test_publishing_replaces_the_last_run_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.publish("new", page)
    assert page.read_text() == f"before\n{table.BEGIN}\nnew\n{table.END}\nafter\n"
    page.write_text("no place")
    with pytest.raises(ValueError):
        table.publish("new", page)


def test_the_docs_have_a_place_for_the_last_run() -> None:
    text = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    assert text.count(table.BEGIN) == text.count(table.END) == 1
