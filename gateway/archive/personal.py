"""The parts of `people`: a line for each side of a session, which may be erased or taken out while the chain stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from gateway.archive import segment
from gateway.archive.person import Person
from gateway.archive.snapshot import Parts, Personal, mark
from gateway.archive.store import ArchiveUnavailable, Store, Text
from gateway.ids import new_secret
from gateway.session import ROLES, Role

# More lost races than this on one part mean a writer in a loop, not contention.
ATTEMPTS: Final = 20


def lines_of(parts: Mapping[str, Parts]) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]]]:
    """The lines of personal data, and by session and role the hash that proves each."""
    lines = [
        _line(session, role, own.money, own.personal[role])
        for session, own in parts.items()
        for role in ROLES
        if own.personal[role]
    ]
    proofs: dict[str, dict[str, str]] = {session: {} for session in parts}
    for line in lines:
        proofs[session_in(line)][line["role"]] = mark(line["salt"], line["data"])
    return lines, proofs


def session_in(line: Mapping[str, Any]) -> str:
    return str(line["key"]).partition("/")[0]


def is_erased(line: Mapping[str, Any]) -> bool:
    """Not the same as a line that is lost: that one is written anew by whoever still has a copy."""
    return line["data"] is None


def erase(store: Store, name: str, found: Text | None, person: Person) -> set[str]:
    """Take somebody's data out of what was found there; out of which sessions."""

    def theirs(line: Mapping[str, Any]) -> bool:
        return not is_erased(line) and Person(line["account"], line["livemode"], line["person"]) == person

    lines: Iterable[dict[str, Any]] = ()
    if found is not None:
        lines = segment.holding(found.data, segment.compact(person.id))
    if sessions := {session_in(line) for line in lines if theirs(line)}:
        _rewrite(store, name, found, lambda line: {**line, "salt": None, "data": None} if theirs(line) else line)
    return sessions


def take_out(store: Store, name: str, found: Text | None, unwanted: Callable[[Mapping[str, Any]], bool]) -> None:
    """Without the lines that are not wanted, as if they had never been there."""
    _rewrite(store, name, found, lambda line: None if unwanted(line) else line)


def _rewrite(
    store: Store, name: str, found: Text | None, becomes: Callable[[dict[str, Any]], dict[str, Any] | None]
) -> None:
    """What was found there with each line as it becomes, in one step."""
    for _ in range(ATTEMPTS):
        if found is None:
            return
        lines = list(segment.lines_in(found.data))
        left = [new for line in lines if (new := becomes(line)) is not None]
        if left == lines or store.replace(name, segment.text_of(left), found.version):
            return
        found = store.read(name)
    raise ArchiveUnavailable(f"{name} changes faster than it can be rewritten; try again.")


def _line(session: str, role: Role, money: Mapping[str, Any], data: Personal) -> dict[str, Any]:
    record = money["docs"]["session"][1]
    return {
        "key": f"{session}/{role}", "role": role, "account": record["account"], "livemode": record["livemode"],
        "person": record[role]["id"], "salt": new_secret(size=16), "data": data,
    }  # fmt: skip
