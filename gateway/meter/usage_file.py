"""The journal file of a node: usage that Redis has not taken yet, on disk, so that a crash meanwhile loses no more than
the last moment. Written only while Redis is slow or away; empty otherwise.

One JSON object a line: {session, epoch, owner, since, sequence, rows: [[number, start, end], …]}, times in wall ms. A
later line of the same owner replaces the rows that it names. A line that a crash cut short is the last, and is skipped.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.errors import GatewayError
from gateway.meter.intervals import Interval

# A long outage of a busy node rewrites its rows again and again; beyond this the file is written anew with the latest.
COMPACT_BYTES: Final = 32 * 1024 * 1024


class UsageFileTaken(GatewayError):
    """Another process writes this file; each node needs one of its own (`meter.journal`)."""

    code = "usage_file_taken"


@dataclass(frozen=True, slots=True)
class Line:
    """The rows of one owner of one session; `since`: when it acquired the session, wall ms."""

    session: str
    epoch: int
    owner: str
    since: int
    sequence: int
    rows: Mapping[int, Interval]

    def text(self) -> str:
        rows = [[number, start, end] for number, (start, end) in self.rows.items()]
        body = {"session": self.session, "epoch": self.epoch, "owner": self.owner, "since": self.since,
                "sequence": self.sequence, "rows": rows}  # fmt: skip
        return json.dumps(body, separators=(",", ":"))

    @classmethod
    def parse(cls, text: bytes) -> Line:
        """Raises ValueError or KeyError for a line that was not written to its end."""
        body = json.loads(text)
        rows = {int(number): (int(start), int(end)) for number, start, end in body["rows"]}
        return cls(body["session"], body["epoch"], body["owner"], body["since"], body["sequence"], rows)


class UsageFile:
    """Shell over the file; blocking, so call it in a thread. Raises OSError when the disk refuses."""

    def __init__(self, path: Path) -> None:
        """Opens (or makes) the file for this process alone. Raises UsageFileTaken, OSError."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = path
        self._lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise UsageFileTaken(f"{path} belongs to another gateway; set meter.journal for each node.") from None
        self._file = self._opened(path)

    @staticmethod
    def _opened(path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    @property
    def size(self) -> int:
        return os.fstat(self._file).st_size

    def append(self, lines: Iterable[Line]) -> None:
        """On disk when it returns."""
        self._write(self._file, lines)
        os.fsync(self._file)

    def read(self) -> list[Line]:
        """What a former process left: one line for each owner, its latest rows; oldest owner first."""
        found: dict[tuple[str, int, str], Line] = {}
        for text in self.path.read_bytes().split(b"\n"):
            try:
                line = Line.parse(text)
            except (ValueError, KeyError, TypeError):
                continue
            before = found.get((line.session, line.epoch, line.owner))
            rows = {**before.rows, **line.rows} if before else line.rows
            found[line.session, line.epoch, line.owner] = Line(
                line.session, line.epoch, line.owner, line.since, line.sequence, rows
            )
        return list(found.values())

    def rewrite(self, lines: Iterable[Line]) -> None:
        """These lines and no others, in one step; empty is the file's normal state."""
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.unlink(missing_ok=True)
        file = self._opened(fresh)
        self._write(file, lines)
        os.fsync(file)
        fresh.rename(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)
        os.close(self._file)
        self._file = file

    def close(self) -> None:
        os.close(self._file)
        os.close(self._lock)

    @staticmethod
    def _write(file: int, lines: Iterable[Line]) -> None:
        data = memoryview("".join(f"{line.text()}\n" for line in lines).encode())
        while data:
            data = data[os.write(file, data) :]
