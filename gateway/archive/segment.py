"""A day's segment as text: parts of JSON lines, each found by its key, all lines chained from part to part. Pure.

A part is written once and whole. `link` is SHA-256 over the link before it and the line's own text, so a line that was
changed, taken out or put in between is seen. The last line of a key counts. A part's own last line is its index, so
that its end alone tells what is in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import GatewayError

START: Final = "parley-archive-1"
# The key of an index.
INDEX: Final = ""


class ArchiveDamaged(GatewayError):
    """A line of the archive is not as it was written: take the file from a backup."""

    code = "archive_damaged"


@dataclass(frozen=True, slots=True)
class End:
    """Where a chain has come to: its last line's number and link."""

    number: int
    link: str


@dataclass(frozen=True, slots=True)
class Index:
    """Of a chained part: where the last line of each key begins and how long it is, in bytes; and the chain's end, None
    if that is damaged."""

    places: Mapping[str, tuple[int, int]]
    end: End | None


def first(day: str) -> End:
    """Before the first line of a day."""
    return End(0, f"{START}/{day}")


def compact(thing: Any) -> str:
    return json.dumps(thing, separators=(",", ":"), ensure_ascii=True)


def text_of(lines: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(f"{compact(line)}\n" for line in lines).encode()


def lines_in(text: bytes) -> Iterator[dict[str, Any]]:
    """Raises ArchiveDamaged."""
    return (parsed(line) for line in text.splitlines(keepends=True))


def parsed(line: bytes) -> dict[str, Any]:
    """Raises ArchiveDamaged for what is no whole line of ours."""
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not line.endswith(b"\n"):
        raise ArchiveDamaged("A line of the archive cannot be read.")
    return found


def line_of(text: bytes, key: str) -> dict[str, Any] | None:
    """The last line of that key, without parsing the others."""
    start = text.rfind(begin := f'{{"key":"{key}"'.encode())
    while start > 0 and text[start - 1 : start] != b"\n":
        start = text.rfind(begin, 0, start)
    return parsed(text[start : text.find(b"\n", start) + 1]) if start >= 0 else None


def holding(text: bytes, words: str) -> Iterator[dict[str, Any]]:
    """The lines in which that stands anywhere: the others need not be parsed."""
    wanted = words.encode()
    return (parsed(line) for line in text.splitlines(keepends=True) if wanted in line) if wanted in text else iter(())


def chained(end: End, things: Iterable[tuple[str, Mapping[str, Any]]]) -> bytes:
    """A part of (key, content) that goes on where the chain has come to."""
    text, places = bytearray(), dict[str, tuple[int, int]]()
    for key, content in things:
        line, end = _following(end, key, content)
        places[key] = len(text), len(line)
        text += line
    return bytes(text) + _following(end, INDEX, {"places": places})[0]


def index_in(tail: bytes) -> Index | None:
    """By the end of a part; None if not all of its index is in that, as it was written."""
    try:
        line = parsed(tail[tail.rfind(b"\n", 0, -1) + 1 :])
        places = content_of(line, INDEX)["places"]
    except ArchiveDamaged:
        return None
    return Index({key: (at, length) for key, (at, length) in places.items()}, End(line["n"], line["link"]))


def index_of(text: bytes) -> Index:
    """Of a whole part whose own is damaged: what can still be found in it."""
    places, at = dict[str, tuple[int, int]](), 0
    for line in text.splitlines(keepends=True):
        places[_key(line)] = at, len(line)
        at += len(line)
    places.pop(INDEX, None)
    return Index(places, None)


def content_of(line: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Raises ArchiveDamaged when it is not as it was written."""
    if line.get("key") != key or _link(line) != line.get("link"):
        raise ArchiveDamaged(f"The line of {key or 'an index'} was changed.")
    return dict(line["content"])


def faults(day: str, parts: Iterable[tuple[str, bytes]]) -> Iterator[str]:
    """What of a day's whole chain is not as it was written. `parts`: name and text of each, in order."""
    end = first(day)
    for name, text in parts:
        try:
            for line in lines_in(text):
                if line["n"] != end.number + 1 or line["before"] != end.link:
                    yield f"{name}: a line before number {line['n']} is missing or was added"
                if _link(line) != line["link"]:
                    yield f"{name}: line {line['n']}, {line['key']}, was changed"
                end = End(line["n"], line["link"])
        except (ArchiveDamaged, KeyError, TypeError):
            yield f"{name}: the line after number {end.number} cannot be read"


def _following(end: End, key: str, content: Mapping[str, Any]) -> tuple[bytes, End]:
    """The next line of a chain, and where the chain has come to with it."""
    line = {"key": key, "n": end.number + 1, "content": content, "before": end.link}
    line["link"] = link = _link(line)
    return text_of([line]), End(end.number + 1, link)


def _link(line: Mapping[str, Any]) -> str:
    text = compact({name: value for name, value in line.items() if name != "link"})
    return hashlib.sha256(text.encode()).hexdigest()


def _key(line: bytes) -> str:
    """Every line begins with its key, which holds neither quotes nor backslashes."""
    return line[8 : line.find(b'"', 8)].decode(errors="replace") if line.startswith(b'{"key":"') else ""
