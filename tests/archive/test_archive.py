"""The archive's files: a session comes out as it went in, the personal data may go, and what was changed is named."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from gateway.archive.archive import KINDS, MARKER, Archive, Retention
from gateway.archive.directory import Directory
from gateway.archive.hot import meet
from gateway.archive.marks import day_of
from gateway.archive.person import Person
from gateway.archive.segment import ArchiveDamaged
from gateway.archive.snapshot import BLANK_PERSON, Snapshot
from gateway.archive.store import ArchiveUnavailable, Store
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


async def test_what_was_kept_is_found_by_its_id_alone(archive: Archive) -> None:
    some = [snapshot(new_id("ses")), snapshot(first_id("ses", NOW)), snapshot(first_id("ses", NOW + 40 * DAY))]
    await archive.keep(some)
    fresh = Archive(archive.store)
    assert [await fresh.find(one.session) for one in some] == some
    assert await fresh.find(new_id("ses")) is None
    assert await fresh.find("ses_1") is None
    assert await fresh.sessions(NOW + DAY) == sorted(one.session for one in (some[0], some[2]))
    assert await fresh.faults() == []


async def test_keeping_again_writes_only_what_changed(archive: Archive) -> None:
    one = snapshot(new_id("ses"))
    await archive.keep([one])
    before = files(archive, one.session)
    await archive.keep([one])
    assert files(archive, one.session) == before
    newer = replace(one, docs={**one.docs, "payment": (4, {"settled": True})})
    await archive.keep([newer])
    assert await archive.find(one.session) == newer
    after = files(archive, one.session)
    money = [name for name in before if name.startswith("money/")]
    assert [after[name] for name in money] == [before[name] for name in money], "what was written is never changed"
    assert await archive.faults() == []


class Dying:
    """A store whose holder dies at its `number`th write: before it is done, or after."""

    def __init__(self, store: Store, number: int, *, after: bool) -> None:
        self._store, self._left, self._after = store, number, after

    def __getattr__(self, name: str) -> Any:
        work = getattr(self._store, name)
        if name not in ("create", "replace", "mark", "remove"):
            return work

        def write(*arguments: Any) -> Any:
            self._left -= 1
            if self._left < 0 and not self._after:
                raise OSError("power")
            answer = work(*arguments)
            if self._left < 0:
                raise OSError("power")
            return answer

        return write


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", range(5))
async def test_a_crash_between_any_two_writes_is_mended_by_the_next_try(
    archive: Archive, number: int, after: bool
) -> None:
    """Of a session that was kept before, came back and changed: names, people, ticks, figures, the old people's end."""
    one = snapshot(new_id("ses"))
    await archive.keep([one])
    people = {"client": dict(BLANK_PERSON), "expert": {"name": "Private E"}}
    newer = replace(one, docs={**one.docs, "people": (2, people), "payment": (4, {"settled": True})})
    with pytest.raises(OSError, match="power"):
        await Archive(cast(Store, Dying(archive.store, number, after=after))).keep([newer])
    left = await Archive(archive.store).find(one.session)
    assert left in (one, newer), "whole, whichever of the two"
    again = Archive(archive.store)
    await again.keep([newer])
    assert await again.find(one.session) == newer
    assert await again.faults() == []
    assert not any("Private C" in text for text in files(archive, one.session).values()), "R22"


async def test_after_the_last_write_nothing_is_open(archive: Archive) -> None:
    """The range of the test above is all writes there are."""
    one = snapshot(new_id("ses"))
    await archive.keep([one])
    people = {"client": dict(BLANK_PERSON), "expert": {"name": "Private E"}}
    await Archive(cast(Store, Dying(archive.store, 5, after=False))).keep(
        [replace(one, docs={**one.docs, "people": (2, people)})]
    )


async def test_r22_a_person_goes_from_all_files_and_the_figures_stay(archive: Archive) -> None:
    some = [snapshot(first_id("ses", NOW + n * DAY)) for n in range(3)]
    other = snapshot(new_id("ses"), account="acc_other")
    await archive.keep([*some, other])
    assert await archive.erase(CLIENT) == sorted(one.session for one in some)
    assert not any("Private C" in text for one in some for text in files(archive, one.session).values())
    for one in some:
        left = await archive.find(one.session)
        assert left is not None
        assert left.docs["people"][1] == {"client": BLANK_PERSON, "expert": {"name": "Private E"}}
        assert left.docs["session"] == one.docs["session"]
    assert await archive.find(other.session) == other, "another account's person of that id is another person"
    assert await archive.erase(CLIENT) == []
    assert await archive.faults() == []


async def test_r22_a_session_that_was_erased_meanwhile_leaves_no_older_copy_behind(archive: Archive) -> None:
    one = snapshot(new_id("ses"))
    await archive.keep([one])
    people = {"client": dict(BLANK_PERSON), "expert": {"name": "Private E"}}
    await archive.keep([replace(one, docs={**one.docs, "people": (2, people)})])
    assert not any("Private C" in text for text in files(archive, one.session).values())


async def test_r22_two_who_erase_at_once_do_not_bring_back_what_the_other_took(archive: Archive) -> None:
    await archive.keep([snapshot(first_id("ses", NOW + n)) for n in range(5)])
    other = Archive(archive.store)
    erased = await asyncio.gather(archive.erase(CLIENT), other.erase(EXPERT))
    assert [len(sessions) for sessions in erased] == [5, 5]
    assert not any("Private" in text for text in files(archive, first_id("ses", NOW)).values())


async def test_each_part_is_kept_for_its_own_time(archive: Archive) -> None:
    one = snapshot(first_id("ses", NOW))
    await archive.keep([one])
    times = Retention(money=3653, people=400, ticks=90)
    money, people, ticks = sorted(files(archive, one.session))
    assert await archive.expire(NOW + 90 * DAY, times) == []
    assert await archive.expire(NOW + 91 * DAY, times) == [ticks]
    without_rows = await archive.find(one.session)
    assert without_rows is not None
    assert (without_rows.rows_dropped, without_rows.docs) == (True, one.docs)
    assert await archive.expire(NOW + 401 * DAY, times) == [people]
    assert await archive.faults() == []
    assert await archive.expire(NOW + 3654 * DAY, times) == [money]
    assert await archive.find(one.session) is None


@pytest.mark.parametrize(("kind", "was", "now"), [("money", b"acc_test", b"acc_evil"), ("people", b"ate C", b"ate X")])
async def test_a_change_in_any_of_the_parts_is_named(archive: Archive, kind: str, was: bytes, now: bytes) -> None:
    one = snapshot(new_id("ses"))
    await archive.keep([one])
    (name,) = (name for name in files(archive, one.session) if name.startswith(kind))
    found = archive.store.read(name)
    assert found is not None
    assert archive.store.replace(name, found.data.replace(was, now), found.version)
    assert len(await Archive(archive.store).faults()) > 0
    with pytest.raises(ArchiveDamaged):
        await Archive(archive.store).find(one.session)


async def test_a_damaged_index_hides_no_session(archive: Archive) -> None:
    one = snapshot(new_id("ses"))
    await archive.keep([one])
    name = f"money/{day_of(one.session)}/000001.jsonl"
    found = archive.store.read(name)
    assert found is not None
    assert archive.store.replace(name, found.data.replace(b'"places"', b'"plaices"'), found.version)
    again = Archive(archive.store)
    assert await again.find(one.session) == one
    assert len(await again.faults()) == 1
    with pytest.raises(ArchiveDamaged):
        await again.keep([snapshot(new_id("ses"))])


async def test_a_part_that_is_gone_is_named(archive: Archive) -> None:
    some = [snapshot(first_id("ses", NOW + n)) for n in range(3)]
    for one in some:
        await archive.keep([one])
    assert await archive.faults() == []
    archive.store.remove(f"money/{day_of(some[0].session)}/000002.jsonl")
    assert len(await Archive(archive.store).faults()) > 0


async def test_a_directory_that_is_not_mounted_is_no_empty_archive(tmp_path: Path) -> None:
    archive = Archive(Directory(tmp_path / "archive"))
    await archive.made()
    assert await archive.sessions() == []
    os.rename(tmp_path / "archive", tmp_path / "elsewhere")
    with pytest.raises(ArchiveUnavailable):
        await archive.find(new_id("ses"))


async def test_a_directory_that_came_up_empty_is_not_made_an_archive_again(redis: Redis, tmp_path: Path) -> None:
    def at(name: str) -> Archive:
        return Archive(Directory(tmp_path / name))

    first, session = at("archive"), new_id("ses")
    await meet(first, redis)
    await first.keep([snapshot(session)])
    again = at("archive")
    await meet(again, redis)
    assert await again.find(session) is not None
    (tmp_path / "archive").rename(tmp_path / "unmounted")
    await at("another").made()
    for other in (at("archive"), at("another")):
        await meet(other, redis)
        with pytest.raises(ArchiveUnavailable):
            await other.find(session)
    assert not (tmp_path / "archive").exists()
    await redis.flushall()
    known = at("unmounted")
    await meet(known, redis)
    assert await known.find(session) is not None, "a Redis that lost everything takes the archive that is there"


async def test_parts_without_the_name_of_their_archive_are_no_place_for_a_new_one(archive: Archive) -> None:
    """Nobody in them would be found by who they are: an erasure would miss them."""
    await archive.keep([snapshot(new_id("ses"))])
    archive.store.remove(MARKER)
    with pytest.raises(ArchiveUnavailable, match=MARKER):
        await Archive(archive.store).made()


async def test_new_sessions_need_no_archive(redis: Redis, tmp_path: Path) -> None:
    journal = Journal(redis, archive=Archive(Directory(tmp_path / "unmounted")))
    fresh, old = new_id("ses"), first_id("ses", NOW)
    assert (await journal.read(fresh, "session"))["session"] is None
    await journal.commit(fresh, {"session": (0, {})})
    with pytest.raises(ArchiveUnavailable):
        await journal.read(old, "session")


async def test_two_writers_make_one_chain(archive: Archive) -> None:
    other = Archive(archive.store)
    some = [snapshot(new_id("ses")) for _ in range(8)]
    await asyncio.gather(*((archive, other)[n % 2].keep([one]) for n, one in enumerate(some)))
    assert await archive.faults() == []
    assert await other.sessions() == sorted(one.session for one in some)


def files(archive: Archive, session: str) -> dict[str, str]:
    """All parts of its day, as text."""
    names = [name for kind in sorted(KINDS) for name in archive.store.names(f"{kind}/{day_of(session)}")]
    return {name: text.data.decode() for name in names if (text := archive.store.read(name)) is not None}
