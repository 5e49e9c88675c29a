"""A directory as the archive's store; it may be shared by several machines, when its file system has links and `flock`.

A file is written aside, brought to the disk and then linked under its name, so that nobody ever sees half of it and two
writers of one name do not overwrite each other.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from gateway.archive.store import ArchiveUnavailable, Text
from gateway.ids import new_secret

# Files on their way; one that is as old as this was left by a crash.
ASIDE: Final = ".writing"
LEFT_S: Final = 600
LOCK: Final = ".lock"
# Folders that are brought to the disk at once.
AT_ONCE: Final = 16


class Directory:
    """A store (`gateway.archive.store.Store`)."""

    vanishes = True

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def prepare(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def read(self, name: str) -> Text | None:
        try:
            with (self.root / name).open("rb") as file:
                return Text(file.read(), _version(os.fstat(file.fileno())))
        except FileNotFoundError:
            return None

    def several(self, names: Iterable[str]) -> Iterator[Text | None]:
        return map(self.read, names)

    def tails(self, names: Iterable[str], length: int) -> Iterator[bytes | None]:
        return (self._tail(name, length) for name in names)

    def _tail(self, name: str, length: int) -> bytes | None:
        try:
            with (self.root / name).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - length))
                return file.read()
        except FileNotFoundError:
            return None

    def piece(self, name: str, start: int, length: int) -> bytes | None:
        try:
            file = os.open(self.root / name, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return os.pread(file, length, start)
        finally:
            os.close(file)

    def create(self, name: str, data: bytes) -> bool:
        path = self.root / name
        self._folder(path.parent)
        with self._aside(data) as fresh:
            try:
                os.link(fresh, path)
            except FileExistsError:
                return False
        _sync(path.parent)
        return True

    def replace(self, name: str, data: bytes, version: str) -> bool:
        path = self.root / name
        with self._locked(), self._aside(data) as fresh:
            try:
                if _version(path.stat()) != version:
                    return False
            except FileNotFoundError:
                return False
            os.replace(fresh, path)
            _sync(path.parent)
        return True

    def mark(self, names: Iterable[str]) -> None:
        """An empty file cannot be half there, so it needs no writing aside. The disk hears of all folders together,
        and flushes once for many."""
        paths = [self.root / name for name in names]
        folders = {path.parent for path in paths}
        for above in {folder.parent for folder in folders}:
            self._folder(above)
        for folder in folders:
            folder.mkdir(mode=0o700, exist_ok=True)
        for path in paths:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="mark") as flushing:
            for _ in flushing.map(_sync, folders | {folder.parent for folder in folders}):
                pass

    def remove(self, *names: str) -> None:
        for path in (self.root / name for name in names):
            with self._locked():
                path.unlink(missing_ok=True)
                with suppress(OSError):  # others are left in it
                    path.parent.rmdir()

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(f"{folder}/{each.name}" for each in os.scandir(self.root / folder) if each.is_file())
        except FileNotFoundError:
            return []

    def folders(self, folder: str) -> list[str]:
        try:
            return sorted(each.name for each in os.scandir(self.root / folder) if each.is_dir())
        except FileNotFoundError:
            return []

    def tidy(self) -> None:
        for each in (self.root / ASIDE).glob("*"):
            if time.time() - each.stat().st_mtime > LEFT_S:
                each.unlink(missing_ok=True)

    @contextmanager
    def _aside(self, data: bytes) -> Iterator[Path]:
        """A file with these bytes, on the disk, for as long as it is needed."""
        self._folder(self.root / ASIDE)
        fresh = self.root / ASIDE / new_secret(size=9)
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield fresh
        finally:
            fresh.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """No other process replaces or removes meanwhile."""
        lock = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _folder(self, path: Path) -> None:
        """There, and its name on the disk. The root is made by whoever makes the archive: an unmounted one is not."""
        if path.is_dir():
            return
        if path == self.root:
            raise ArchiveUnavailable(f"There is no directory {self.root}; is it mounted?")
        self._folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        _sync(path.parent)


def _version(found: os.stat_result) -> str:
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"


def _sync(path: Path) -> None:
    """A new or renamed file is only there for good when its folder is on disk too."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
