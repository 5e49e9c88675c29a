"""The journal file: what was appended is read back, a torn last line hurts nothing, one process at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.meter.usage_file import Line, UsageFile, UsageFileTaken


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.jsonl"


def line(sequence: int, rows: dict[int, tuple[int, int]], owner: str = "a") -> Line:
    return Line("ses_1", 1, owner, 1000, sequence, rows)


def test_later_lines_replace_the_rows_they_name(path: Path) -> None:
    file = UsageFile(path)
    file.append([line(1, {1: (0, 5), 2: (6, 7)}), line(1, {1: (0, 9)}, owner="b")])
    file.append([line(2, {1: (0, 8)})])
    assert file.read() == [line(2, {1: (0, 8), 2: (6, 7)}), line(1, {1: (0, 9)}, owner="b")]
    assert path.stat().st_mode & 0o777 == 0o600
    file.close()


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_that_a_crash_cut_short_is_skipped(path: Path, cut: int) -> None:
    file = UsageFile(path)
    file.append([line(1, {1: (0, 5)}), line(2, {1: (0, 8)})])
    file.close()
    path.write_bytes(path.read_bytes()[:-cut])
    file = UsageFile(path)
    assert file.read() == [line(1 if cut > 1 else 2, {1: (0, 5 if cut > 1 else 8)})]
    file.close()


def test_rewriting_leaves_exactly_what_was_given(path: Path) -> None:
    file = UsageFile(path)
    file.append([line(1, {1: (0, 5)}), line(1, {1: (0, 9)}, owner="b")])
    file.rewrite([line(3, {1: (0, 6)})])
    file.append([line(4, {2: (7, 8)})])
    assert file.read() == [line(4, {1: (0, 6), 2: (7, 8)})]
    file.rewrite([])
    assert file.size == 0
    file.close()


def test_two_gateways_never_share_a_file(path: Path) -> None:
    file = UsageFile(path)
    with pytest.raises(UsageFileTaken):
        UsageFile(path)
    file.close()
    UsageFile(path).close()
