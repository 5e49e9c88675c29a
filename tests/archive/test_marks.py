"""What leads to people and sessions: nothing is missed by it, only their own is read, and it tells nobody's id."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.archive.archive import Archive, Retention
from gateway.archive.marks import Marks
from gateway.archive.person import Person
from gateway.archive.segment import ArchiveDamaged
from gateway.archive.snapshot import BLANK_PERSON, Snapshot
from gateway.archive.store import Store
from gateway.ids import first_id, new_id
from tests.archive.counting import Counting
from tests.archive.test_archive import CLIENT, DAY, EXPERT, NOW, Dying, snapshot

DAYS, A_DAY = 100, 5
ASKED = Person("acc_test", False, "c_asked")


@pytest.fixture
def store() -> Counting:
    return Counting()


async def archive_of(store: Counting) -> Archive:
    """As a process that starts has it, after its first look at what archive it is."""
    archive = Archive(store)
    await archive.made()
    await archive.naming(Person("acc_none", False, "nobody"))
    store.asked.clear()
    return archive


async def five_hundred(store: Counting) -> list[Snapshot]:
    """Five hundred sessions of a hundred days; those of one client who was there on three of the days."""
    archive, asked = await archive_of(store), []
    for day in range(DAYS):
        some = [snapshot(first_id("ses", NOW + day * DAY + n), client={"id": f"c{day}.{n}"}) for n in range(A_DAY - 1)]
        theirs = snapshot(first_id("ses", NOW + day * DAY + A_DAY), client={"id": "c_asked"})
        some.append(theirs if day in (3, 50, 97) else snapshot(theirs.session, client={"id": f"c{day}"}))
        asked += [theirs] if day in (3, 50, 97) else []
        await archive.keep(some)
    store.asked.clear()
    return asked


def private(store: Counting) -> list[str]:
    return [name for name, text in store.held.items() if b"Private C" in text.data]


async def test_r22_one_person_among_500_sessions_is_erased_by_reading_their_own_parts_only(store: Counting) -> None:
    """By reading all of `people` it was 101 LISTs and 103 GETs, and grew with the archive."""
    asked = await five_hundred(store)
    archive = await archive_of(store)
    assert await archive.erase(ASKED) == [one.session for one in asked]
    assert store.asked == {"LIST": 1, "GET": 3, "PUT": 3}
    store.asked.clear()
    assert await archive.erase(ASKED) == []
    assert store.asked == {"LIST": 1, "GET": 3}
    store.asked.clear()
    assert await archive.erase(Person("acc_test", True, "c_asked")) == []
    assert store.asked == {"LIST": 1}


async def test_r22_one_person_among_500_sessions_is_exported_by_reading_their_own_only(store: Counting) -> None:
    """By reading all of `money` it was 101 LISTs and 100 GETs before the first session was found."""
    asked = await five_hundred(store)
    archive = await archive_of(store)
    assert await archive.naming(ASKED) == [one.session for one in asked]
    assert store.asked == {"LIST": 1}
    store.asked.clear()
    assert [await archive.find(one.session) for one in asked] == asked
    # Each: whether it is there, its day, the end of the day's only part, its line, people and ticks.
    assert store.asked == {"LIST": 3, "GET": 15}


async def test_a_session_that_was_never_kept_costs_one_look_on_any_day(store: Counting) -> None:
    await five_hundred(store)
    archive = await archive_of(store)
    unknown = [first_id("ses", NOW + day * DAY + 77) for day in range(-5, DAYS, 10)] + [new_id("ses")]
    for session in unknown:
        assert await archive.find(session) is None
    assert store.asked == {"GET": len(unknown)}
    assert await archive.find("ses_1") is None
    assert store.asked == {"GET": len(unknown)}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", range(4))
async def test_r22_wherever_a_writer_dies_an_erasure_misses_nothing_that_it_left(
    store: Counting, number: int, after: bool
) -> None:
    """Its part of `people` may be there while no line of the chain names it."""
    archive, one = await archive_of(store), snapshot(new_id("ses"))
    with pytest.raises(OSError, match="power"):
        await Archive(cast(Store, Dying(store, number, after=after))).keep([one])
    assert bool(private(store)) is ((number, after) >= (1, True))
    await archive.erase(CLIENT)
    assert private(store) == []
    await archive.keep([one])
    assert await archive.naming(CLIENT) == await archive.naming(EXPERT) == [one.session]


class Meanwhile:
    """A store on which something else happens just before its holder's `number`th write."""

    def __init__(self, store: Counting, number: int, happens: Callable[[], None]) -> None:
        self._store, self._left, self._happens = store, number, happens

    def __getattr__(self, name: str) -> Any:
        if name in ("create", "replace", "mark", "remove"):
            self._left -= 1
            if self._left == -1:
                self._happens()
        return getattr(self._store, name)


@pytest.mark.parametrize("number", [2, 3])
async def test_r22_who_is_erased_while_a_session_is_written_does_not_come_with_it(store: Counting, number: int) -> None:
    """The personal data are there, the line that names them is not yet."""
    archive, one = await archive_of(store), snapshot(new_id("ses"))
    erased: list[str] = []
    meanwhile = Meanwhile(store, number, lambda: erased.extend(asyncio.run(Archive(store).erase(CLIENT))))
    await Archive(cast(Store, meanwhile)).keep([one])
    assert (erased, private(store)) == ([one.session], [])
    left = await archive.find(one.session)
    assert left is not None
    assert left.docs["people"][1] == {"client": BLANK_PERSON, "expert": {"name": "Private E"}}


async def test_r22_a_writer_that_was_slow_does_not_bring_back_who_was_erased(store: Counting) -> None:
    """It has read the session out of Redis before another one put it into the archive."""
    archive, one = await archive_of(store), snapshot(new_id("ses"))
    await archive.keep([one])
    await archive.erase(CLIENT)
    await Archive(store).keep([one])
    assert private(store) == []
    rated = replace(one, docs={**one.docs, "payment": (4, {"settled": True})})
    await archive.keep([rated])
    assert await archive.find(one.session) == rated, "what is newer is kept, and has the data that it came with"


async def test_law5_a_writer_that_was_slow_does_not_put_an_older_copy_over_a_newer_one(store: Counting) -> None:
    archive, one = await archive_of(store), snapshot(new_id("ses"))
    newer = replace(one, docs={**one.docs, "payment": (4, {"settled": True})})
    await archive.keep([newer])
    await Archive(store).keep([one])
    assert await archive.find(one.session) == newer


async def test_r22_of_two_writers_at_once_each_ones_people_are_found(store: Counting) -> None:
    archive, other = await archive_of(store), await archive_of(store)
    some = [snapshot(first_id("ses", NOW + n)) for n in range(8)]
    await asyncio.gather(*((archive, other)[n % 2].keep([one]) for n, one in enumerate(some)))
    assert await archive.erase(CLIENT) == [one.session for one in some]
    assert private(store) == []


async def test_r22_whoever_was_erased_still_has_their_figures_exported(store: Counting) -> None:
    archive, one = await archive_of(store), snapshot(new_id("ses"))
    await archive.keep([one])
    await archive.erase(CLIENT)
    assert await archive.naming(CLIENT) == [one.session]
    assert await archive.faults() == []


async def test_r22_when_the_figures_time_is_over_no_trace_of_anybody_is_left(store: Counting) -> None:
    archive, one, young = await archive_of(store), snapshot(first_id("ses", NOW)), snapshot(new_id("ses"))
    await archive.keep([one])
    await archive.keep([snapshot(one.session, version=2), young])
    await archive.expire(NOW + 3654 * DAY, Retention())
    assert {name for name in store.held if one.session in name or "2023-11-14" in name} == set()
    assert await archive.naming(CLIENT) == [young.session]


@pytest.mark.parametrize("folder", ["named/", "sessions/"])
async def test_r22_a_name_that_is_missing_is_a_fault(store: Counting, folder: str) -> None:
    archive, one = await archive_of(store), snapshot(new_id("ses"))
    await archive.keep([one])
    lost = next(name for name in store.held if name.startswith(folder))
    store.remove(lost)
    day = next(name.split("/")[1] for name in store.held if name.startswith("money/"))
    assert await archive.faults() == [
        f"{lost} is missing, which leads to money/{day}/000001.jsonl: put it there, empty"
    ]


@pytest.mark.parametrize("changed", [b"no JSON\n", b"{}\n", b'{"key":"ses_1","content":{}}\n'])
async def test_r22_a_line_that_was_changed_hides_no_missing_name_of_the_others(store: Counting, changed: bytes) -> None:
    archive, some = await archive_of(store), [snapshot(first_id("ses", NOW + n)) for n in range(2)]
    await archive.keep(some)
    name = next(name for name in store.held if name.startswith("money/"))
    text = store.held[name]
    assert store.replace(name, changed + text.data.partition(b"\n")[2], text.version)
    store.remove(*(each for each in list(store.held) if each.startswith("named/") and some[1].session in each))
    assert sum("is missing, which leads to" in fault for fault in await Archive(store).faults()) == 2
    with pytest.raises(ArchiveDamaged):
        await Archive(store).find(some[0].session)


def test_r22_names_tell_nobodys_id_to_who_sees_the_names_only(store: Counting) -> None:
    """Not even to who guesses it: in two archives it is another one."""
    one, folders = line("e-mail@example.com"), set()
    for archive in ("arc_1", "arc_2"):
        store.held.clear()
        Marks(store, archive).put([one])
        folders |= {name.split("/")[1] for name in store.held if name.startswith("named/")}
        assert "example" not in str(sorted(store.held))
    assert len(folders) == 4


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["acc_1", "acc_2"]), st.booleans(), st.text()), unique=True, max_size=5))
def test_r22_everybody_has_names_of_their_own_whatever_their_id(people: list[tuple[str, bool, str]]) -> None:
    marks = Marks(Counting(), "arc_1")
    for number, (account, livemode, ident) in enumerate(people):
        marks.put([line(ident, number, account=account, livemode=livemode, expert={"id": f"expert of {number}"})])
    for number, person in enumerate(people):
        assert marks.of(Person(*person)) == [(first_id("ses", NOW + number), "prt_1")]


def line(client: str, number: int = 0, **changes: Any) -> tuple[str, dict[str, Any]]:
    session = first_id("ses", NOW + number)
    record = snapshot(session, client={"id": client}, **changes).record
    return session, {"part": "prt_1", "docs": {"session": [1, record]}}
