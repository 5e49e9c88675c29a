"""The contract of the stores: names are taken once, replaced by who knows the version, and nothing is half there."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from gateway.archive.directory import ASIDE, LEFT_S, Directory
from gateway.archive.places import BucketPlace, store_at
from gateway.archive.store import ArchiveUnavailable, Store


@pytest.fixture
def store(place: Path | BucketPlace) -> Store:
    store = store_at(place)
    store.prepare()
    return store


def test_a_name_is_taken_once(store: Store) -> None:
    assert store.create("money/d/1", b"first")
    assert not store.create("money/d/1", b"second")
    found = store.read("money/d/1")
    assert found is not None
    assert found.data == b"first"
    assert (store.piece("money/d/1", 1, 3), store.piece("money/d/2", 1, 3)) == (b"irs", None)
    assert [text and text.data for text in store.several(["money/d/1", "money/d/2"])] == [b"first", None]
    assert list(store.tails(["money/d/1", "money/d/2"], 3)) == [b"rst", None]
    assert list(store.tails(["money/d/1"], 30)) == [b"first"]


def test_only_who_knows_the_last_version_replaces_it(store: Store) -> None:
    assert store.create("a/1", b"first")
    first = store.read("a/1")
    assert first is not None
    assert store.replace("a/1", b"second", first.version)
    assert not store.replace("a/1", b"third", first.version)
    assert not store.replace("a/2", b"third", first.version)
    second = store.read("a/1")
    assert second is not None
    assert (second.data, store.read("a/2")) == (b"second", None)
    assert store.replace("a/1", b"", second.version)


def test_what_is_there_is_listed(store: Store) -> None:
    for name in ("money/d2/1", "money/d1/2", "money/d1/1", "people/d3/1"):
        store.create(name, b"x")
    assert (store.folders("money"), store.folders("ticks")) == (["d1", "d2"], [])
    assert (store.names("money/d1"), store.names("money/d9")) == (["money/d1/1", "money/d1/2"], [])
    for name in ("money/d1/1", "money/d1/2", "money/d1/3"):
        store.remove(name)
    assert store.folders("money") == ["d2"]


def test_marks_are_there_and_empty_and_may_be_made_again(store: Store) -> None:
    names = ["named/a/1", "named/b/1", "named/b/2"]
    store.mark(names)
    store.mark(names[1:])
    assert [text and text.data for text in store.several([*names, "named/c/1"])] == [b"", b"", b"", None]
    assert (store.folders("named"), store.names("named/b")) == (["a", "b"], names[1:])
    store.remove(*names, "named/c/1")
    assert store.folders("named") == []


def test_nobody_else_may_read_the_files(tmp_path: Path) -> None:
    store = Directory(tmp_path / "archive")
    store.prepare()
    store.create("money/d/1", b"x")
    store.mark(["named/a/1"])
    assert [path for path in tmp_path.rglob("*") if path.stat().st_mode & 0o077] == []


def test_r22_what_a_crash_left_aside_goes(tmp_path: Path) -> None:
    store = Directory(tmp_path / "archive")
    store.prepare()
    store.create("people/d/1", b"x")
    left, fresh = tmp_path / "archive" / ASIDE / "left", tmp_path / "archive" / ASIDE / "fresh"
    for path in (left, fresh):
        path.write_bytes(b"Private C")
    os.utime(left, (time.time() - LEFT_S - 1,) * 2)
    store.tidy()
    assert (left.exists(), fresh.exists()) == (False, True)


def test_a_directory_that_is_not_there_is_not_made_by_writing(tmp_path: Path) -> None:
    with pytest.raises(ArchiveUnavailable):
        Directory(tmp_path / "unmounted").create("money/d/1", b"x")
    with pytest.raises(ArchiveUnavailable):
        Directory(tmp_path / "unmounted").mark(["named/a/1"])
    assert not (tmp_path / "unmounted").exists()
