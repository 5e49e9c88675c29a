"""One day of the archive, as its store holds it at one moment: found in, checked, written on.

    money/2026-11-22/000001.jsonl       chained lines; each names the part of the other two where the rest of it is
    people/2026-11-22/prt_….jsonl       personal data
    ticks/2026-11-22/prt_….jsonl        rows of the ledgers

The numbers of `money` have no gap, and a number is given once: of two who write on at the same moment one is first, and
the other begins again with what is there then. What a line vouches for is there before it, and before all of it the
names that lead to it (`gateway.archive.marks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from gateway.archive import segment
from gateway.archive.marks import Marks
from gateway.archive.personal import is_erased, lines_of, session_in, take_out
from gateway.archive.segment import ArchiveDamaged, End, Index
from gateway.archive.snapshot import Personal, Snapshot, divided, erased, joined, mark
from gateway.archive.store import Store
from gateway.ids import new_id
from gateway.session import ROLES, Role

# Parts whose keys are remembered: about 150 bytes for each session in them.
INDEXES: Final = 512
# The index of about a thousand sessions; twice of what a pass puts into one part.
TAIL: Final = 65_536


class Indexes:
    """Where which session is in the chained parts. These never change, so a name is enough to know one by."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Index] = {}

    def of(self, names: Sequence[str]) -> dict[str, Index]:
        """In the order of the names, without those that are gone by now."""
        known = {name: self._known[name] for name in names if name in self._known}
        new = [name for name in names if name not in known]
        for name, tail in zip(new, self._store.tails(new, TAIL), strict=True):
            found = None if tail is None else segment.index_in(tail)
            if found is None and (text := self._store.read(name)) is not None:
                found = segment.index_in(text.data) or segment.index_of(text.data)
            if found is not None:
                known[name] = found
        if len(self._known) > INDEXES:
            self._known = {}
        self._known |= known
        return {name: known[name] for name in names if name in known}


class Day:
    """Raises ArchiveUnavailable, ArchiveDamaged, OSError."""

    def __init__(self, store: Store, indexes: Indexes, marks: Marks, day: str) -> None:
        self._store, self._marks, self.day = store, marks, day
        self._indexes = indexes.of(store.names(f"money/{day}"))
        self._held: dict[str, bytes | None] = {}

    @property
    def parts(self) -> list[str]:
        """The names of the chained parts, in order."""
        return list(self._indexes)

    @property
    def sessions(self) -> set[str]:
        return {key for index in self._indexes.values() for key in index.places}

    def hold(self, *names: str) -> None:
        """Read these parts whole, once: more of them is wanted than a line or two."""
        for name, text in zip(names, self._store.several(names), strict=True):
            self._held[name] = None if text is None else text.data

    def find(self, session: str) -> Snapshot | None:
        """A session as it was kept last; None for one that never was."""
        money = self.content(session)
        return None if money is None else self._whole(session, money)

    def _whole(self, session: str, money: Mapping[str, Any]) -> Snapshot:
        personal = {role: data for role in ROLES if (data := self._personal(session, role, money)) is not None}
        return joined(session, money, personal, self._ticks(session, money))

    def content(self, session: str) -> dict[str, Any] | None:
        """What the chain says of it last."""
        for name, index in reversed(self._indexes.items()):
            if (place := index.places.get(session)) is not None:
                line = self._piece(name, *place)
                return None if line is None else self._content(name, line, session)
        return None

    def _content(self, name: str, line: bytes, session: str) -> dict[str, Any]:
        try:
            return segment.content_of(segment.parsed(line), session)
        except ArchiveDamaged as fault:
            raise ArchiveDamaged(f"{name}: {fault.detail}") from None

    def has(self, snapshot: Snapshot) -> bool:
        """Whether its last line is this or a later copy. One that cannot be read is not, and is written anew."""
        try:
            return self._holds(snapshot)
        except ArchiveDamaged:
            return False

    def _holds(self, snapshot: Snapshot) -> bool:
        """A writer that was slow must bring back neither an older copy nor what was erased meanwhile."""
        money = self.content(session := snapshot.session)
        if money is None:
            return False
        found = self._whole(session, money)
        for role in money["people"]:
            line = self._person(session, role, money)
            snapshot = erased(snapshot, role) if line is not None and is_erased(line) else snapshot
        return found == snapshot or found.outranks(snapshot)

    def write(self, snapshots: Sequence[Snapshot]) -> bool:
        """One part more with these; False if another writer was first, and then nothing of it counts."""
        last, end = self._end()
        parts = {snapshot.session: divided(snapshot) for snapshot in snapshots}
        people, proofs = lines_of(parts)
        rest = new_id("prt")
        lines = [
            (session, {**own.money, "part": rest, "people": proofs[session], "ticks": len(own.ticks)})
            for session, own in parts.items()
        ]
        self._marks.put(lines)
        self._put(rest_name("people", self.day, rest), people)
        rows = [{"key": session, "rows": own.ticks} for session, own in parts.items() if own.ticks]
        self._put(rest_name("ticks", self.day, rest), rows)
        text = segment.chained(end, lines)
        if self._store.create(name := f"money/{self.day}/{last + 1:06}.jsonl", text):
            return True
        written = self._store.read(name)  # by us, if only the answer was lost
        if written is None or written.data != text:
            self._store.remove(*(rest_name(kind, self.day, rest) for kind in ("people", "ticks")))
            return False
        return True

    def check(self, snapshots: Iterable[Snapshot]) -> None:
        """Raises ArchiveDamaged if one of them does not read back as it is."""
        contents = {snapshot.session: self.content(snapshot.session) or {} for snapshot in snapshots}
        rests = {money["part"] for money in contents.values() if money}
        self.hold(*(rest_name(kind, self.day, rest) for kind in ("people", "ticks") for rest in sorted(rests)))
        for snapshot in snapshots:
            if not self._holds(snapshot):
                raise ArchiveDamaged(f"{snapshot.session} does not read back as it was written.")

    def scrub(self, sessions: Iterable[str]) -> None:
        """Take the personal data of these out of all parts but those that the chain names: of an older line, or of one
        that a crash kept from being written. It may have been erased meanwhile."""
        rest = {session: (self.content(session) or {}).get("part") for session in sessions}
        names = self._store.names(f"people/{self.day}")
        for name, text in zip(names, self._store.several(names), strict=True):
            part = stem(name)

            def outdated(line: Mapping[str, Any], part: str = part) -> bool:
                return rest.get(session_in(line), part) != part

            take_out(self._store, name, text, outdated)

    def _end(self) -> tuple[int, End]:
        """The number of the last part, and where the chain has come to with it."""
        if not self._indexes:
            return 0, segment.first(self.day)
        name, index = next(reversed(self._indexes.items()))
        if index.end is None:
            raise ArchiveDamaged(f"{name} does not end as it was written.")
        return number_of(name), index.end

    def _personal(self, session: str, role: Role, money: Mapping[str, Any]) -> Personal | None:
        line = self._person(session, role, money) if role in money["people"] else None
        if line is None or is_erased(line):
            return None
        if mark(line["salt"], line["data"]) != money["people"][role]:
            raise ArchiveDamaged(f"people/{self.day}/{money['part']}: the {role} of {session} was changed.")
        return dict(line["data"])

    def _person(self, session: str, role: str, money: Mapping[str, Any]) -> dict[str, Any] | None:
        return self._rest(rest_name("people", self.day, money["part"]), f"{session}/{role}")

    def _ticks(self, session: str, money: Mapping[str, Any]) -> dict[str, str] | None:
        if not money["ticks"]:
            return {}
        line = self._rest(rest_name("ticks", self.day, money["part"]), session)
        return None if line is None else dict(line["rows"])

    def _rest(self, name: str, key: str) -> dict[str, Any] | None:
        if name not in self._held:
            self.hold(name)
        text = self._held[name]
        return None if text is None else segment.line_of(text, key)

    def _piece(self, name: str, start: int, length: int) -> bytes | None:
        if (held := self._held.get(name)) is not None:
            return held[start : start + length]
        return self._store.piece(name, start, length)

    def _put(self, name: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Under a name that nobody else has: refused, it was our own write, whose answer was lost."""
        if lines:
            self._store.create(name, segment.text_of(lines))


def rest_name(kind: str, day: str, rest: str) -> str:
    return f"{kind}/{day}/{rest}.jsonl"


def stem(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(".jsonl")


def number_of(name: str) -> int:
    """Of a chained part; 0 for what is none."""
    return int(stem(name)) if stem(name).isdecimal() else 0


def content_in(text: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """Session and content of each line of a chained part that is as it was written."""
    for line in text.splitlines(keepends=True):
        with suppress(ArchiveDamaged):
            if key := (found := segment.parsed(line)).get("key", segment.INDEX):
                yield key, segment.content_of(found, key)


def faults(store: Store, indexes: Indexes, marks: Marks, day: str) -> Iterator[str]:
    """Everything of that day that is not as it was written."""
    names = store.names(f"money/{day}")
    texts = [(name, text.data) for name, text in zip(names, store.several(names), strict=True) if text is not None]
    broken = list(segment.faults(day, texts))
    if [number_of(name) for name in names] != list(range(1, len(names) + 1)):
        broken.append(f"money/{day}: a part is missing or was added")
    yield from broken
    for name, text in texts:
        for missing in marks.missing(content_in(text)):
            yield f"{missing} is missing, which leads to {name}: put it there, empty"
    found = Day(store, indexes, marks, day)
    found.hold(*found.parts)
    for session in sorted(found.sessions):
        try:
            found.find(session)
        except ArchiveDamaged as fault:
            yield fault.detail
