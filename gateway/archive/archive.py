"""The archive: settled sessions in parts that are written once, a day's sessions (by their creation) in one chain.

A session's id tells its day, so nothing else is needed to find it; what names a person is found by who that is. Kept
again (after it went back to Redis and changed) a session is written once more, and its last line counts. A session in
Redis always outranks its line here. The layout is told in `gateway.archive.day` and `gateway.archive.marks`; where the
parts are is the store's affair.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Final, TypeVar

from gateway.archive.day import Day, Indexes, content_in, faults, rest_name
from gateway.archive.marks import DAY, Marks, day_of
from gateway.archive.person import Person
from gateway.archive.personal import ATTEMPTS, erase
from gateway.archive.segment import compact
from gateway.archive.snapshot import Snapshot
from gateway.archive.store import ArchiveUnavailable, Store
from gateway.ids import new_id

T = TypeVar("T")
# In the order in which they go: nothing outlives the money line that leads to it.
KINDS: Final = ("ticks", "people", "money")
# Holds the archive's name. A place without it is not mounted or another's, which must not look like an empty archive.
MARKER: Final = "parley-archive-2"
# How far counts had come that must never be begun anew: by name, and replaced as they rise.
COUNTS: Final = "counts.json"
# No version of anything.
NEVER: Final = '"00000000000000000000000000000000"'
THREADS: Final = 16


@dataclass(frozen=True, slots=True)
class Retention:
    """For how many days after a session's creation each part is kept."""

    money: int = 3653
    people: int = 3653
    ticks: int = 90

    def of(self, kind: str) -> int:
        return {"money": self.money, "people": self.people, "ticks": self.ticks}[kind]


class Archive:
    """Shell over a store, which may be shared by many processes. Raises ArchiveUnavailable, ArchiveDamaged, OSError."""

    def __init__(self, store: Store) -> None:
        """`expected`: which archive it must be, once Redis has told (`hot.meet`); another one is as good as none."""
        self.store = store
        self.expected: str | None = None
        self._met: str | None = None
        self._marks: Marks  # since the first time that it was met
        self._indexes = Indexes(store)
        self._writing = Lock()
        # Threads of its own: those that wait for a store which is away keep nobody else waiting.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="archive")

    async def made(self) -> str:
        """The name of the archive that is there, or of a new one. Raises ArchiveUnavailable also for a store on which
        two writers could overwrite each other."""
        return await self._in_thread(self._made)

    async def keep(self, snapshots: Sequence[Snapshot]) -> None:
        """Kept for good, and read back, when it returns. Again with the same ones, or older ones, writes nothing."""
        await self._do(lambda: self._keep(snapshots), anew=True)

    async def find(self, session: str) -> Snapshot | None:
        """A session as it was kept last; None for one that never was, which costs one look."""
        return await self._do(lambda: self._find(session)) if day_of(session) else None

    async def sessions(self, since_ms: int = 0) -> list[str]:
        """The ids of all that were created on that day or later, oldest first."""
        return await self._do(lambda: self._sessions(since_ms))

    async def naming(self, person: Person) -> list[str]:
        """All sessions of somebody, also those whose personal data are gone, oldest first; and some that a crash kept
        from being written."""
        return await self._do(lambda: sorted({session for session, _ in self._marks.of(person)}))

    async def erase(self, person: Person) -> list[str]:
        """Take somebody's personal data out of all parts; the sessions that held any, oldest first."""
        return await self._do(lambda: self._erase(person))

    async def expire(self, now_ms: int, retention: Retention) -> list[str]:
        """Remove the parts whose time is over; their names."""
        return await self._do(lambda: self._expire(now_ms, retention))

    async def counts(self) -> dict[str, int]:
        """The counts that were noted, as they stood then."""
        return await self._do(lambda: self._counts()[0])

    async def note(self, counts: Mapping[str, int]) -> None:
        """Keep them for good; one that is noted as higher stays so."""
        await self._do(lambda: self._note(counts))

    async def faults(self) -> list[str]:
        """Everything that is not as it was written: the chains of the days, and what their lines vouch for."""
        return await self._do(
            lambda: [
                one
                for day in self.store.folders("money")
                for one in faults(self.store, self._indexes, self._marks, day)
            ]
        )

    async def _do(self, work: Callable[[], T], *, anew: bool = False) -> T:
        def met() -> T:
            self._meet(anew=anew)
            return work()

        return await self._in_thread(met)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _meet(self, *, anew: bool) -> None:
        """It is there, and the right one. What cannot vanish is looked at once, but `anew` before Redis gives something
        up for it."""
        if anew or self._met is None or self.store.vanishes or self.expected not in (None, self._met):
            self._met = self._name()
        if self._met is None or self.expected not in (None, self._met):
            raise ArchiveUnavailable(
                f"The archive {self.expected or ''} is not at {self.store}; is it mounted, is [archive] location right?"
            )
        self._marks = Marks(self.store, self._met)

    def _name(self) -> str | None:
        found = self.store.read(MARKER)
        return None if found is None else found.data.decode()

    def _made(self) -> str:
        self.store.prepare()
        if self._name() is None:
            if self.store.folders("money") or self.store.folders("people"):
                raise ArchiveUnavailable(
                    f"{self.store} has parts of an archive but no {MARKER}, without which nobody in it is found: put "
                    "that file back, or take another place. What an older version kept is not read."
                )
            self.store.create(MARKER, new_id("arc").encode())  # of two that make it at once, one does
        if (name := self._name()) is None:
            raise ArchiveUnavailable(f"What is written to {self.store} is not there afterwards.")
        # Both are refused, or would leave everything as it is.
        if self.store.create(MARKER, name.encode()) or self.store.replace(MARKER, name.encode(), NEVER):
            raise ArchiveUnavailable(
                f"{self.store} ignores conditions on writes (If-None-Match, If-Match), so that bridges could overwrite "
                "each other's parts: take a service that knows them, or a directory."
            )
        return name

    def _day(self, day: str) -> Day:
        return Day(self.store, self._indexes, self._marks, day)

    def _find(self, session: str) -> Snapshot | None:
        return self._day(day_of(session)).find(session) if self._marks.has(session) else None

    def _keep(self, snapshots: Sequence[Snapshot]) -> None:
        days: dict[str, list[Snapshot]] = {}
        for snapshot in snapshots:
            days.setdefault(day_of(snapshot.session), []).append(snapshot)
        with self._writing:
            for day, some in days.items():
                self._write(day, some)

    def _write(self, day: str, snapshots: Sequence[Snapshot]) -> None:
        for _ in range(ATTEMPTS):
            now = self._day(day)
            new = [snapshot for snapshot in snapshots if not now.has(snapshot)]
            if not new or now.write(new):
                break
        else:
            raise ArchiveUnavailable(f"money/{day} changes faster than it can be written on; try again.")
        after = self._day(day)
        after.hold(*after.parts[-1:])
        after.check(snapshots)
        after.scrub([snapshot.session for snapshot in snapshots])

    def _sessions(self, since_ms: int) -> list[str]:
        first = datetime.fromtimestamp(since_ms // 1000, UTC).strftime(DAY)
        days = [day for day in self.store.folders("money") if day >= first]
        return sorted(session for day in days for session in self._day(day).sessions)

    def _erase(self, person: Person) -> list[str]:
        self.store.tidy()
        names = sorted({rest_name("people", day_of(session), part) for session, part in self._marks.of(person)})
        found = set[str]()
        for name, text in zip(names, self.store.several(names), strict=True):
            found |= erase(self.store, name, text, person)
        return sorted(found)

    def _counts(self) -> tuple[dict[str, int], str | None]:
        found = self.store.read(COUNTS)
        return ({}, None) if found is None else (json.loads(found.data), found.version)

    def _note(self, counts: Mapping[str, int]) -> None:
        for _ in range(ATTEMPTS):
            had, version = self._counts()
            new = had | {name: max(count, had.get(name, 0)) for name, count in counts.items()}
            text = compact(new).encode()
            if new == had or (
                self.store.replace(COUNTS, text, version) if version else self.store.create(COUNTS, text)
            ):
                return
        raise ArchiveUnavailable(f"{COUNTS} changes faster than it can be written on; try again.")

    def _expire(self, now_ms: int, retention: Retention) -> list[str]:
        self.store.tidy()
        today, gone = datetime.fromtimestamp(now_ms // 1000, UTC), []
        for kind in KINDS:
            oldest = (today - timedelta(days=retention.of(kind))).strftime(DAY)
            for day in self.store.folders(kind):
                for name in self.store.names(f"{kind}/{day}") if day < oldest else ():
                    if kind == "money" and (text := self.store.read(name)) is not None:
                        self._marks.remove(content_in(text.data))
                    self.store.remove(name)
                    gone.append(name)
        return sorted(gone)
