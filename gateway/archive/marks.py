"""Empty names that lead into the archive's parts: from a session's id, and from a person.

    sessions/2026-11-22/ses_…       something is kept of this session
    named/9f86d08188…/ses_….prt_…   this person is in this session; what was personal is in that part of `people`

Both are there before the parts that they lead to, and until the figures' time is over, so that nothing personal is ever
missed; one that leads nowhere was left by a crash, and costs a look. Erasing somebody leaves theirs: the figures, which
stay, are found by them.

A person's folder is a hash of account and id, keyed with the archive's name: names of objects are in access logs and
inventories, where a plain hash would tell a guessed id from a wrong one. The name is in the archive and in Redis; a
secret kept elsewhere could be lost, and with it the way to what has to be erased.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final

from gateway.archive.person import Person, person_in
from gateway.archive.segment import compact
from gateway.archive.store import Store
from gateway.ids import born_ms
from gateway.session import ROLES

DAY: Final = "%Y-%m-%d"
HASH_BYTES: Final = 16


class Marks:
    """Shell over a store. Raises ArchiveUnavailable, OSError."""

    def __init__(self, store: Store, archive: str) -> None:
        self._store, self._archive = store, archive

    def has(self, session: str) -> bool:
        """False for a session of which nothing is kept, by one look."""
        return self._store.read(_of_session(session)) is not None

    def of(self, person: Person) -> list[tuple[str, str]]:
        """The sessions that somebody may be in, oldest first, and the part of `people` for each."""
        names = self._store.names(_folder(self._archive, person))
        found = (name.rpartition("/")[2].partition(".") for name in names)
        return [(session, part) for session, _, part in found]

    def put(self, lines: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """For good when it returns. `lines`: sessions with what the chain is to say of each."""
        self._store.mark(self._leading_to(lines))

    def remove(self, lines: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        self._store.remove(*self._leading_to(lines))

    def missing(self, lines: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
        names = self._leading_to(lines)
        return [name for name, text in zip(names, self._store.several(names), strict=True) if text is None]

    def _leading_to(self, lines: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """Without doubles, in the order of the lines."""
        return list(dict.fromkeys(name for session, content in lines for name in self._to(session, content)))

    def _to(self, session: str, content: Mapping[str, Any]) -> Iterator[str]:
        yield _of_session(session)
        for role in ROLES:
            person = person_in(content["docs"]["session"][1], role)
            yield f"{_folder(self._archive, person)}/{session}.{content['part']}"


def day_of(session: str) -> str:
    """The day of a session's creation by its id, in UTC; "" for what is no id of ours."""
    try:
        return datetime.fromtimestamp(born_ms(session) // 1000, UTC).strftime(DAY)
    except (ValueError, OverflowError):
        return ""


def _of_session(session: str) -> str:
    return f"sessions/{day_of(session)}/{session}"


def _folder(archive: str, person: Person) -> str:
    text = compact([person.account, person.livemode, person.id])
    return f"named/{blake2b(text.encode(), key=archive.encode(), digest_size=HASH_BYTES).hexdigest()}"
