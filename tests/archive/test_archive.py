"""The archive's files: a session comes out as it went in, the personal data may go, and what was changed is named."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.archive.archive import Archive, ArchiveUnavailable, Person, Retention, day_of
from gateway.archive.hot import meet
from gateway.archive.segment import ArchiveDamaged, LineFile, Segment
from gateway.archive.snapshot import BLANK_PERSON, Snapshot
from gateway.ids import first_id, new_id
from gateway.journal import Journal

DAY = 86_400_000
NOW = 1_700_000_000_000
CLIENT, EXPERT = Person("acc_test", False, "c1"), Person("acc_test", False, "e1")


def snapshot(ident: str, version: int = 1, **changes: Any) -> Snapshot:
    record = {"id": ident, "account": "acc_test", "livemode": False, "client": {"id": "c1"}, "expert": {"id": "e1"}}
    people = {"client": {"name": "Private C"}, "expert": {"name": "Private E"}}
    docs = {"session": (version, record | changes), "people": (1, people)}
    return Snapshot(ident, docs, (), {"epoch": "1", "usage": "2"}, {"1:a:1": "0:60000"}, {"c:whe_1": "0"})


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive.opened(tmp_path / "archive")


async def test_what_was_kept_is_found_by_its_id_alone(archive: Archive) -> None:
    some = [snapshot(new_id("ses")), snapshot(first_id("ses", NOW)), snapshot(first_id("ses", NOW + 40 * DAY))]
    await archive.keep(some)
    fresh = Archive(archive.folder)
    assert [await fresh.find(one.session) for one in some] == some
    assert await fresh.find(new_id("ses")) is None
    assert await fresh.find("ses_1") is None
    assert await fresh.sessions(NOW + DAY) == sorted(one.session for one in (some[0], some[2]))
    assert await fresh.faults() == []


async def test_keeping_again_writes_only_what_changed(archive: Archive) -> None:
    one = snapshot(new_id("ses"))
    await archive.keep([one])
    path = archive.folder / "money" / f"{day_of(one.session)}.jsonl"
    before = path.read_bytes()
    await archive.keep([one])
    assert path.read_bytes() == before
    newer = replace(one, docs={**one.docs, "payment": (4, {"settled": True})})
    await archive.keep([newer])
    assert await archive.find(one.session) == newer
    assert path.read_bytes().startswith(before), "what was written is never changed"
    assert await archive.faults() == []


@pytest.mark.parametrize("part", ["append", "chain", "rewrite"])
async def test_a_crash_between_the_parts_of_a_line_is_mended_by_the_next_try(
    archive: Archive, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a session that was kept before, came back and changed: its new people stand beside its old figures."""
    one = snapshot(new_id("ses"))
    await archive.keep([one])
    newer = replace(one, docs={**one.docs, "payment": (4, {"settled": True})})

    def dies(*_: object) -> None:
        raise OSError("power")

    monkeypatch.setattr(Segment if part == "chain" else LineFile, part, dies)
    with pytest.raises(OSError, match="power"):
        await archive.keep([newer])
    monkeypatch.undo()
    await archive.keep([newer])
    assert await Archive(archive.folder).find(one.session) == newer
    assert await Archive(archive.folder).faults() == []


async def test_r22_a_person_goes_from_all_files_and_the_figures_stay(archive: Archive) -> None:
    some = [snapshot(first_id("ses", NOW + n * DAY)) for n in range(3)]
    other = snapshot(new_id("ses"), account="acc_other")
    await archive.keep([*some, other])
    assert await archive.of_person(CLIENT) == sorted(one.session for one in some)
    assert await archive.erase(CLIENT) == 3
    assert "Private C" not in "".join(path.read_text() for one in some for path in files(archive, one.session))
    for one in some:
        left = await archive.find(one.session)
        assert left is not None
        assert left.docs["people"][1] == {"client": BLANK_PERSON, "expert": {"name": "Private E"}}
        assert left.docs["session"] == one.docs["session"]
    assert await archive.find(other.session) == other, "another account's person of that id is another person"
    assert (await archive.of_person(CLIENT), await archive.erase(CLIENT)) == ([], 0)
    assert await archive.faults() == []


async def test_r22_a_session_that_was_erased_meanwhile_leaves_no_older_copy_behind(archive: Archive) -> None:
    one = snapshot(new_id("ses"))
    await archive.keep([one])
    people = {"client": dict(BLANK_PERSON), "expert": {"name": "Private E"}}
    await archive.keep([replace(one, docs={**one.docs, "people": (2, people)})])
    assert "Private C" not in "".join(path.read_text() for path in files(archive, one.session))


async def test_each_part_is_kept_for_its_own_time(archive: Archive) -> None:
    one = snapshot(first_id("ses", NOW))
    await archive.keep([one])
    times = Retention(money=3653, people=400, ticks=90)
    assert await archive.expire(NOW + 90 * DAY, times) == []
    assert await archive.expire(NOW + 91 * DAY, times) == [f"ticks/{day_of(one.session)}.jsonl"]
    without_rows = await archive.find(one.session)
    assert without_rows is not None
    assert (without_rows.rows_dropped, without_rows.docs) == (True, one.docs)
    assert await archive.expire(NOW + 401 * DAY, times) == [f"people/{day_of(one.session)}.jsonl"]
    assert await archive.faults() == []
    assert await archive.expire(NOW + 3654 * DAY, times) == [f"money/{day_of(one.session)}.jsonl"]
    assert await archive.find(one.session) is None


async def test_a_change_in_any_of_the_files_is_named(archive: Archive) -> None:
    one = snapshot(new_id("ses"))
    await archive.keep([one])
    for path, was, now in ((files(archive, one.session)[0], "acc_test", "acc_evil"),
                           (files(archive, one.session)[1], "Private C", "Private X")):  # fmt: skip
        text = path.read_text()
        path.write_text(text.replace(was, now))
        assert len(await Archive(archive.folder).faults()) > 0
        with pytest.raises(ArchiveDamaged):
            await Archive(archive.folder).find(one.session)
        path.write_text(text)
    assert await Archive(archive.folder).faults() == []


async def test_a_directory_that_is_not_mounted_is_no_empty_archive(archive: Archive) -> None:
    os.rename(archive.folder, archive.folder.with_name("elsewhere"))
    with pytest.raises(ArchiveUnavailable):
        await archive.find(new_id("ses"))


async def test_a_directory_that_came_up_empty_is_not_made_an_archive_again(redis: Redis, tmp_path: Path) -> None:
    first, session = Archive(tmp_path / "archive"), new_id("ses")
    await meet(first, redis)
    await first.keep([snapshot(session)])
    again = Archive(tmp_path / "archive")
    await meet(again, redis)
    assert await again.find(session) is not None
    (tmp_path / "archive").rename(tmp_path / "unmounted")
    for other in (Archive(tmp_path / "archive"), Archive.opened(tmp_path / "another")):
        await meet(other, redis)
        with pytest.raises(ArchiveUnavailable):
            await other.find(session)
    assert not (tmp_path / "archive").exists()
    await redis.flushall()
    known = Archive(tmp_path / "unmounted")
    await meet(known, redis)
    assert await known.find(session) is not None, "a Redis that lost everything takes the archive that is there"


async def test_new_sessions_need_no_archive(redis: Redis, tmp_path: Path) -> None:
    journal = Journal(redis, archive=Archive(tmp_path / "unmounted"))
    fresh, old = new_id("ses"), first_id("ses", NOW)
    assert (await journal.read(fresh, "session"))["session"] is None
    await journal.commit(fresh, {"session": (0, {})})
    with pytest.raises(ArchiveUnavailable):
        await journal.read(old, "session")


async def test_two_writers_make_one_chain(archive: Archive) -> None:
    other = Archive(archive.folder)
    some = [snapshot(new_id("ses")) for _ in range(20)]
    await asyncio.gather(*((archive, other)[n % 2].keep([one]) for n, one in enumerate(some)))
    assert await archive.faults() == []
    assert await other.sessions() == sorted(one.session for one in some)


def files(archive: Archive, session: str) -> list[Path]:
    return [archive.folder / part / f"{day_of(session)}.jsonl" for part in ("money", "people")]
