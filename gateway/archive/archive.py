"""The archive: settled sessions in files, a day's sessions (by their creation) in one chained segment.

    DIRECTORY/money/2026-11-22.jsonl    records, events, bill: ids only, chained, never changed
             /people/2026-11-22.jsonl   the personal data of each side; erasing rewrites the file without it
             /ticks/2026-11-22.jsonl    the rows of the ledgers, proved by each session's own chain

A session's id tells its day, so nothing else is needed to find it. Kept again (after it went back to Redis and changed)
it is written once more, and its last line counts. A session in Redis always outranks its line here.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar

from gateway.archive.segment import ArchiveDamaged, LineFile, Segment, compact, sync_folder
from gateway.archive.snapshot import Personal, Snapshot, divided, joined, mark
from gateway.errors import Unavailable
from gateway.ids import born_ms, new_id, new_secret
from gateway.session import ROLES, Role

T = TypeVar("T")
DAY: Final = "%Y-%m-%d"
PARTS: Final = ("money", "people", "ticks")
# In the directory's root; without it the directory is not mounted, which must not look like an empty archive.
MARKER: Final = "parley-archive"
# Files whose keys are remembered: about 150 bytes a session.
FILES: Final = 96


class ArchiveUnavailable(Unavailable):
    """The archive's directory is not there."""

    code = "archive_unavailable"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody as an account names them, on either side of its sessions."""

    account: str
    livemode: bool
    id: str


@dataclass(frozen=True, slots=True)
class Retention:
    """For how many days after a session's creation each part is kept."""

    money: int = 3653
    people: int = 3653
    ticks: int = 90

    def of(self, part: str) -> int:
        return {"money": self.money, "people": self.people, "ticks": self.ticks}[part]


class Archive:
    """Shell over a directory, which may be shared by many processes. Raises ArchiveUnavailable, ArchiveDamaged."""

    def __init__(self, folder: Path) -> None:
        """`expected`: which archive it must be, once Redis has told (`hot.meet`); another one is as good as none."""
        self.folder = folder
        self.expected: str | None = None
        self._files: dict[Path, LineFile] = {}
        self._turn = Lock()

    @classmethod
    def opened(cls, folder: Path) -> Archive:
        """Of that directory, made when it is not there. Raises OSError."""
        archive = cls(folder)
        if archive.ident is None:
            archive.make()
        return archive

    @property
    def ident(self) -> str | None:
        """Which archive this is; None when the directory holds none."""
        try:
            return (self.folder / MARKER).read_text()
        except FileNotFoundError:
            return None

    def make(self) -> str:
        """An empty archive, with a name of its own. Raises OSError."""
        for part in PARTS:
            (self.folder / part).mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self.folder / f"{MARKER}.{new_secret(size=6)}"
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(name := new_id("arc"))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(fresh, self.folder / MARKER)  # of two that make it at once, one does
        fresh.unlink()
        sync_folder(self.folder)
        return self.ident or name

    async def keep(self, snapshots: Sequence[Snapshot]) -> None:
        """On disk, and read back as they are, when it returns. Again with the same ones writes nothing."""
        await self._do(lambda: self._keep(snapshots))

    async def find(self, session: str) -> Snapshot | None:
        """A session as it was kept last; None for one that never was."""
        return await self._do(lambda: self._find(session)) if day_of(session) else None

    async def sessions(self, since_ms: int = 0) -> list[str]:
        """The ids of all that were created on that day or later, oldest first."""
        return await self._do(lambda: self._sessions(since_ms))

    async def of_person(self, person: Person) -> list[str]:
        """The sessions that still hold personal data of somebody, oldest first."""
        return await self._do(lambda: sorted({line["key"].partition("/")[0] for line in self._lines_of(person)}))

    async def naming(self, person: Person, since: str = "") -> list[str]:
        """All sessions of somebody from that day on, also those whose personal data are gone, oldest first."""
        return await self._do(lambda: sorted(self._naming(person, since)))

    async def erase(self, person: Person) -> int:
        """Take somebody's personal data out of all files; from how many sessions."""
        return await self._do(lambda: self._erase(person))

    async def expire(self, now_ms: int, retention: Retention) -> list[str]:
        """Remove the files whose time is over; their names."""
        return await self._do(lambda: self._expire(now_ms, retention))

    async def faults(self) -> list[str]:
        """Everything that is not as it was written: the chains of the segments, and what their lines vouch for."""
        return await self._do(lambda: list(self._faults()))

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(self._one_by_one, work)

    def _one_by_one(self, work: Callable[[], T]) -> T:
        found = self.ident
        if found is None or self.expected not in (None, found):
            raise ArchiveUnavailable(f"The archive {self.expected or ''} is not at {self.folder}; is it mounted?")
        with self._turn:
            if len(self._files) > FILES:
                self._files.clear()
            return work()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """No other process writes meanwhile."""
        lock = os.open(self.folder / MARKER, os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _keep(self, snapshots: Sequence[Snapshot]) -> None:
        with self._writing():
            days: dict[str, list[Snapshot]] = {}
            for snapshot in snapshots:
                if not self._has(snapshot):
                    days.setdefault(day_of(snapshot.session), []).append(snapshot)
            for day, some in days.items():
                self._write(day, some)
        for snapshot in snapshots:
            if self._find(snapshot.session) != snapshot:
                raise ArchiveDamaged(f"{snapshot.session} does not read back as it was written.")

    def _has(self, snapshot: Snapshot) -> bool:
        """Whether its last line is this. One that does not fit together is not: a crash came between its parts."""
        with suppress(ArchiveDamaged):
            return self._find(snapshot.session) == snapshot
        return False

    def _write(self, day: str, snapshots: Sequence[Snapshot]) -> None:
        """What a line vouches for is there before it. Personal data of an older line of the same session goes: it may
        have been erased meanwhile."""
        parts = {snapshot.session: divided(snapshot) for snapshot in snapshots}
        people, marks = [], {}
        for session, own in parts.items():
            lines = [_person_line(session, role, own.money, own.personal[role]) for role in ROLES if own.personal[role]]
            marks[session] = {line["role"]: mark(line["salt"], line["data"]) for line in lines}
            people += lines
        file = self._file("people", day)
        if {f"{session}/{role}" for session in parts for role in ROLES} & set(file.keys()):
            file.rewrite(lambda line: line["key"].partition("/")[0] not in parts)
        file.append(people)
        kept = [(session, own.ticks) for session, own in parts.items() if own.ticks]
        self._file("ticks", day).append({"key": session, "rows": rows} for session, rows in kept)
        self._segment(day).chain(
            (session, {**own.money, "people": marks[session], "ticks": len(own.ticks)})
            for session, own in parts.items()
        )

    def _find(self, session: str) -> Snapshot | None:
        day = day_of(session)
        money = self._segment(day).content(session) if day else None
        if money is None:
            return None
        personal = {role: data for role in ROLES if (data := self._personal(day, session, role, money)) is not None}
        return joined(session, money, personal, self._ticks(day, session, money))

    def _personal(self, day: str, session: str, role: Role, money: Mapping[str, Any]) -> Personal | None:
        line = self._file("people", day).find(f"{session}/{role}")
        if line is None or role not in money["people"]:
            return None
        if mark(line["salt"], line["data"]) != money["people"][role]:
            raise ArchiveDamaged(f"people/{day}.jsonl: the {role} of {session} was changed.")
        return dict(line["data"])

    def _ticks(self, day: str, session: str, money: Mapping[str, Any]) -> dict[str, str] | None:
        if not money["ticks"]:
            return {}
        line = self._file("ticks", day).find(session)
        return None if line is None else dict(line["rows"])

    def _sessions(self, since_ms: int) -> list[str]:
        first = datetime.fromtimestamp(since_ms // 1000, UTC).strftime(DAY)
        days = [path.stem for path in sorted((self.folder / "money").glob("*.jsonl")) if path.stem >= first]
        return sorted(key for day in days for key in self._segment(day).keys())  # noqa: SIM118

    def _lines_of(self, person: Person) -> Iterator[dict[str, Any]]:
        for path in sorted((self.folder / "people").glob("*.jsonl")):
            found = self._file("people", path.stem).holding(compact(person.id))
            yield from (line for line in found if _is_of(line, person))

    def _naming(self, person: Person, since: str) -> set[str]:
        found = set()
        for path in (self.folder / "money").glob("*.jsonl"):
            lines = self._segment(path.stem).holding(compact(person.id)) if path.stem >= since else ()
            found |= {line["key"] for line in lines if roles_in(line["content"]["docs"]["session"][1], person)}
        return found

    def _erase(self, person: Person) -> int:
        with self._writing():
            days = {day_of(line["key"].partition("/")[0]) for line in self._lines_of(person)}
            return sum(self._file("people", day).rewrite(lambda line: not _is_of(line, person)) for day in days)

    def _expire(self, now_ms: int, retention: Retention) -> list[str]:
        today, gone = datetime.fromtimestamp(now_ms // 1000, UTC), []
        with self._writing():
            for part in PARTS:
                oldest = (today - timedelta(days=retention.of(part))).strftime(DAY)
                for path in (self.folder / part).glob("*.jsonl"):
                    if path.stem < oldest:
                        path.unlink()
                        self._files.pop(path, None)
                        gone.append(f"{part}/{path.name}")
        return sorted(gone)

    def _faults(self) -> Iterator[str]:
        for path in sorted((self.folder / "money").glob("*.jsonl")):
            segment = self._segment(path.stem)
            yield from segment.faults()
            for session in segment.keys():  # noqa: SIM118
                try:
                    self._find(session)
                except ArchiveDamaged as fault:
                    yield fault.detail

    def _segment(self, day: str) -> Segment:
        path = self.folder / "money" / f"{day}.jsonl"
        found = self._files.setdefault(path, Segment(path))
        assert isinstance(found, Segment)
        return found

    def _file(self, part: str, day: str) -> LineFile:
        path = self.folder / part / f"{day}.jsonl"
        return self._files.setdefault(path, LineFile(path))


def day_of(session: str) -> str:
    """The day of a session's creation by its id, in UTC; "" for what is no id of ours."""
    try:
        return datetime.fromtimestamp(born_ms(session) // 1000, UTC).strftime(DAY)
    except (ValueError, OverflowError):
        return ""


def roles_in(record: Mapping[str, Any], person: Person) -> list[Role]:
    """On which sides of a session somebody is, by its `session` document."""
    if (record["account"], record["livemode"]) != (person.account, person.livemode):
        return []
    return [role for role in ROLES if record[role]["id"] == person.id]


def _person_line(session: str, role: Role, money: Mapping[str, Any], data: Personal) -> dict[str, Any]:
    record = money["docs"]["session"][1]
    return {
        "key": f"{session}/{role}", "role": role, "account": record["account"], "livemode": record["livemode"],
        "person": record[role]["id"], "salt": new_secret(size=16), "data": data,
    }  # fmt: skip


def _is_of(line: Mapping[str, Any], person: Person) -> bool:
    return (line["account"], line["livemode"], line["person"]) == (person.account, person.livemode, person.id)
