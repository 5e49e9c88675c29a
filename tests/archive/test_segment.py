"""Files of lines: the last of a key counts, what a crash cut short does not, and any change of a chain is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.archive.segment import ArchiveDamaged, LineFile, Segment, compact


def three(path: Path) -> Segment:
    path.unlink(missing_ok=True)
    segment = Segment(path)
    segment.chain([("ses_a", {"n": 1}), ("ses_b", {"n": 2})])
    segment.chain([("ses_a", {"n": 3})])
    return segment


def test_the_last_line_of_a_key_counts(tmp_path: Path) -> None:
    segment = three(tmp_path / "day.jsonl")
    assert (segment.content("ses_a"), segment.content("ses_b"), segment.content("ses_c")) == ({"n": 3}, {"n": 2}, None)
    assert segment.keys() == ["ses_a", "ses_b"]
    assert segment.faults() == []


def test_one_who_has_read_before_sees_what_was_appended_and_rewritten_since(tmp_path: Path) -> None:
    path = tmp_path / "day.jsonl"
    reader, writer = LineFile(path), LineFile(path)
    assert reader.find("a") is None
    writer.append([{"key": "a", "n": 1}])
    assert reader.find("a") == {"key": "a", "n": 1}
    writer.append([{"key": "b", "n": 2}, {"key": "a", "n": 3}])
    assert reader.find("a") == {"key": "a", "n": 3}
    assert writer.rewrite(lambda line: line["key"] != "a") == 2
    assert (reader.find("a"), reader.find("b")) == (None, {"key": "b", "n": 2})


@given(st.integers(1, 200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
def test_a_line_that_a_crash_cut_short_was_never_there(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "day.jsonl"
    segment = three(path)
    whole, size = path.read_bytes(), len(path.read_bytes().splitlines(keepends=True)[-1])
    path.write_bytes(whole[: -min(cut, size)])
    assert segment.content("ses_a") == {"n": 1}
    assert Segment(path).faults() == []
    Segment(path).chain([("ses_a", {"n": 3})])
    assert path.read_bytes() == whole


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_any_changed_byte_is_seen(tmp_path: Path, data: Any) -> None:
    path = tmp_path / "day.jsonl"
    three(path)
    text = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(text) - 2))  # the last line's end is what a crash cuts: not a change
    text[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[place]))
    path.write_bytes(text)
    assert Segment(path).faults() != []


@pytest.mark.parametrize("gone", [0, 1])
def test_a_line_that_was_taken_out_is_seen(tmp_path: Path, gone: int) -> None:
    path = tmp_path / "day.jsonl"
    three(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for number, line in enumerate(lines) if number != gone))
    assert len(Segment(path).faults()) == 1


def test_a_changed_line_is_not_read_as_if_it_were_right(tmp_path: Path) -> None:
    path = tmp_path / "day.jsonl"
    segment = three(path)
    path.write_text(path.read_text().replace('"n":3}', '"n":4}'))
    with pytest.raises(ArchiveDamaged):
        segment.content("ses_a")


def test_nobody_else_may_read_the_file(tmp_path: Path) -> None:
    three(tmp_path / "day.jsonl")
    assert (tmp_path / "day.jsonl").stat().st_mode & 0o077 == 0


def test_text_is_ascii_so_that_a_line_never_breaks() -> None:
    assert compact({"name": "A\nB\u2028é"}).isascii()
