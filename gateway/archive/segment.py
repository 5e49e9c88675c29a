"""Append-only files of JSON lines, found by the key that each begins with; the last line of a key counts.

A line that a crash cut short has no end; it was never answered for, so reading skips it and the next append removes it.
Blocking: call it in a thread. Writers must hold the archive's lock; readers need none.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.errors import GatewayError

START: Final = "parley-archive-1"
PRIVATE: Final = 0o600


class ArchiveDamaged(GatewayError):
    """A line of the archive is not as it was written: take the file from a backup."""

    code = "archive_damaged"


@dataclass(slots=True)
class LineFile:
    """Lines `{"key": …, …}`. Where each key's last line begins is remembered, and read on as the file grows."""

    path: Path
    _places: dict[str, tuple[int, int]] = field(default_factory=dict)
    _read_to: int = 0
    _inode: int = 0

    def append(self, things: Iterable[dict[str, Any]]) -> None:
        """On disk when it returns."""
        new = not self.path.exists()
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, PRIVATE)
        try:
            os.ftruncate(file, end := _whole(file))
            data = memoryview("".join(f"{compact(thing)}\n" for thing in things).encode())
            while data:
                written = os.pwrite(file, data, end)
                data, end = data[written:], end + written
            os.fsync(file)
        finally:
            os.close(file)
        if new:
            sync_folder(self.path.parent)

    def rewrite(self, wanted: Callable[[dict[str, Any]], bool]) -> int:
        """Without the lines that are not wanted, in one step; how many those were."""
        lines = list(self)
        left = [line for line in lines if wanted(line)]
        if len(left) == len(lines):
            return 0
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.unlink(missing_ok=True)
        LineFile(fresh).append(left)
        fresh.rename(self.path)
        sync_folder(self.path.parent)
        return len(lines) - len(left)

    def find(self, key: str) -> dict[str, Any] | None:
        """The last line of that key."""
        try:
            file = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            self._catch_up(file)
            if (place := self._places.get(key)) is None:
                return None
            return _parsed(os.pread(file, place[1], place[0]))
        finally:
            os.close(file)

    def keys(self) -> list[str]:
        self.find("")
        return list(self._places)

    def holding(self, text: str) -> Iterator[dict[str, Any]]:
        """The lines in which that text stands anywhere: the others need not be parsed."""
        wanted = text.encode()
        if self.path.exists():
            with self.path.open("rb") as file:
                yield from (_parsed(line) for line in file if wanted in line and line.endswith(b"\n"))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All whole lines, in order. Raises ArchiveDamaged."""
        if self.path.exists():
            with self.path.open("rb") as file:
                yield from (_parsed(line) for line in file if line.endswith(b"\n"))

    def _catch_up(self, file: int) -> None:
        found = os.fstat(file)
        if found.st_ino != self._inode or found.st_size < self._read_to:
            self._places, self._read_to, self._inode = {}, 0, found.st_ino
        if found.st_size == self._read_to:
            return
        with os.fdopen(os.dup(file), "rb") as lines:
            lines.seek(self._read_to)
            for line in lines:
                if line.endswith(b"\n"):
                    self._places[_key(line)] = self._read_to, len(line)
                    self._read_to += len(line)


class Segment(LineFile):
    """A file whose lines are chained: `link` is SHA-256 over the link before it and the line's own text, so a line that
    was changed, taken out or put in between is seen."""

    def chain(self, things: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Append (key, content) at the end of the chain; on disk when it returns."""
        last = self._last()
        number, link = (last["n"], last["link"]) if last else (0, self._first())
        lines = []
        for key, content in things:
            number += 1
            line = {"key": key, "n": number, "content": content, "before": link}
            link = line["link"] = _link(line)
            lines.append(line)
        self.append(lines)

    def content(self, key: str) -> dict[str, Any] | None:
        """The last content of a key. Raises ArchiveDamaged when it is not as it was written."""
        line = self.find(key)
        if line is None:
            return None
        if line["key"] != key or _link(line) != line["link"]:
            raise ArchiveDamaged(f"{self.path.name}: the line of {key} was changed.")
        return dict(line["content"])

    def faults(self) -> list[str]:
        """What of the whole chain is not as it was written."""
        link, number, found = self._first(), 0, []
        try:
            for line in self:
                number += 1
                if line["n"] != number or line["before"] != link:
                    found.append(f"{self.path.name}: a line before number {line['n']} is missing or was added")
                if _link(line) != line["link"]:
                    found.append(f"{self.path.name}: line {line['n']}, {line['key']}, was changed")
                link, number = line["link"], line["n"]
        except (ArchiveDamaged, KeyError, TypeError):
            found.append(f"{self.path.name}: line {number + 1} cannot be read")
        return found

    def _first(self) -> str:
        return f"{START}/{self.path.name}"

    def _last(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        with self.path.open("rb") as file:
            size = _whole(file.fileno())
            start = max(0, size - 1)
            text = b""
            while start > 0 and b"\n" not in text[:-1]:
                start = max(0, start - 65_536)
                text = os.pread(file.fileno(), size - start, start)
        return _parsed(text[:-1].rpartition(b"\n")[2]) if size else None


def compact(thing: Any) -> str:
    return json.dumps(thing, separators=(",", ":"), ensure_ascii=True)


def sync_folder(path: Path) -> None:
    """A new or renamed file is only there for good when its folder is on disk too."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _link(line: dict[str, Any]) -> str:
    text = compact({name: value for name, value in line.items() if name != "link"})
    return hashlib.sha256(text.encode()).hexdigest()


def _whole(file: int) -> int:
    """Where the last whole line ends."""
    end = os.fstat(file).st_size
    while end:
        start = max(0, end - 65_536)
        cut = os.pread(file, end - start, start).rfind(b"\n")
        if cut >= 0:
            return start + cut + 1
        end = start
    return 0


def _key(line: bytes) -> str:
    """Every line begins with its key, which holds neither quotes nor backslashes."""
    return line[8 : line.index(b'"', 8)].decode() if line.startswith(b'{"key":"') else ""


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        raise ArchiveDamaged("A line of the archive cannot be read.") from None
    if not isinstance(found, dict):
        raise ArchiveDamaged("A line of the archive cannot be read.")
    return found
