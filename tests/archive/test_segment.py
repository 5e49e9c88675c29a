"""A day's chain over its parts: the last line of a key counts, and any change of any part is seen."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.archive.segment import (
    INDEX,
    ArchiveDamaged,
    chained,
    compact,
    content_of,
    faults,
    first,
    index_in,
    index_of,
    line_of,
    parsed,
    text_of,
)

DAY = "2026-11-22"


def two() -> list[tuple[str, bytes]]:
    """Three lines in two parts, and their indexes; the first key is written twice."""
    one = chained(first(DAY), [("ses_a", {"n": 1}), ("ses_b", {"n": 2})])
    index = index_in(one)
    assert index is not None
    assert index.end is not None
    return [("1.jsonl", one), ("2.jsonl", chained(index.end, [("ses_a", {"n": 3})]))]


def test_the_chain_goes_on_from_part_to_part() -> None:
    assert list(faults(DAY, two())) == []
    assert list(faults("2026-11-23", two())) != [], "a day's parts are no other day's"
    lines = [json.loads(line) for _, text in two() for line in text.splitlines()]
    assert [line["n"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["key"] for line in lines] == ["ses_a", "ses_b", INDEX, "ses_a", INDEX]


def test_each_key_is_found_by_its_index() -> None:
    (_, text), _ = two()
    tail = text[text.index(b'{"key":"ses_b"') + 5 :]  # its end is enough
    for index in (index_in(tail), index_of(text)):
        assert index is not None
        for key, n in (("ses_a", 1), ("ses_b", 2)):
            at, length = index.places[key]
            assert content_of(parsed(text[at : at + length]), key) == {"n": n}
        assert index.places.keys() == {"ses_a", "ses_b"}


@given(st.data())
@settings(max_examples=50)
def test_an_index_that_is_damaged_or_not_whole_is_none(data: Any) -> None:
    (_, text), _ = two()
    start = text.index(b'{"key":""')
    assert index_in(text[start + data.draw(st.integers(1, len(text) - start)) :]) is None
    place = data.draw(st.integers(start, len(text) - 1))
    wrong = bytearray(text)
    wrong[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[place]))
    assert index_in(bytes(wrong)) is None


def test_the_last_line_of_a_key_counts() -> None:
    text = text_of([{"key": "a", "n": 1}, {"key": "b", "n": 2, "said": '{"key":"c"'}, {"key": "a", "n": 3}])
    assert line_of(text, "a") == {"key": "a", "n": 3}
    assert line_of(text, "c") is None, "words are no keys"
    assert line_of(b"", "a") is None


@given(st.data())
@settings(max_examples=50)
def test_any_changed_byte_is_seen(data: Any) -> None:
    parts = two()
    number = data.draw(st.integers(0, 1))
    text = bytearray(parts[number][1])
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[place]))
    parts[number] = (parts[number][0], bytes(text))
    assert list(faults(DAY, parts)) != []


@pytest.mark.parametrize("gone", [0, 1])
def test_a_line_that_was_taken_out_is_seen(gone: int) -> None:
    (name, text), second = two()
    left = b"".join(line for number, line in enumerate(text.splitlines(keepends=True)) if number != gone)
    assert len(list(faults(DAY, [(name, left), second]))) == 1


def test_a_part_that_was_taken_out_is_seen() -> None:
    assert len(list(faults(DAY, two()[1:]))) == 1


@given(st.integers(1, 60))
@settings(max_examples=30)
def test_a_part_that_was_cut_short_is_seen(cut: int) -> None:
    (name, text), second = two()
    assert list(faults(DAY, [(name, text[:-cut]), second])) != []


def test_a_changed_line_is_not_read_as_if_it_were_right() -> None:
    _, (_, text) = two()
    with pytest.raises(ArchiveDamaged):
        content_of(parsed(text.replace(b'{"n":3}', b'{"n":4}').splitlines(keepends=True)[0]), "ses_a")


def test_text_is_ascii_so_that_a_line_never_breaks() -> None:
    assert compact({"name": "A\nB\u2028é"}).isascii()
