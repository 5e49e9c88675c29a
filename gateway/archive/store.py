"""What the archive asks of the place where it keeps its parts: put once, list, read, replace, remove.

Two places do it: a directory (`gateway.archive.directory`) and an S3-compatible bucket (`gateway.archive.bucket`). All
calls block; the archive makes them in threads of its own. Names are like paths: `money/2026-11-22/000001.jsonl`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import Unavailable


class ArchiveUnavailable(Unavailable):
    """The directory or bucket is not there, does not answer, or refuses us; nothing is known about what is in it."""

    code = "archive_unavailable"


@dataclass(frozen=True, slots=True)
class Text:
    """What stands under a name, and what it must be replaced as: any change gives it another `version`."""

    data: bytes
    version: str


class Store(Protocol):
    """All of it raises ArchiveUnavailable, and OSError where the disk does."""

    # Whether another one can come up in its place while we run, as when a directory is unmounted.
    vanishes: bool

    def prepare(self) -> None:
        """Make the place ready for its first archive."""

    def read(self, name: str) -> Text | None:
        """The whole of it; None if it is certain that nothing is there."""

    def several(self, names: Iterable[str]) -> Iterator[Text | None]:
        """The same for many names, in their order; a few at a time."""

    def tails(self, names: Iterable[str], length: int) -> Iterator[bytes | None]:
        """The last so many bytes of each, or all if it has no more; None if nothing is there."""

    def piece(self, name: str, start: int, length: int) -> bytes | None:
        """So many bytes from there on; None if nothing is there."""

    def create(self, name: str, data: bytes) -> bool:
        """Put it there whole and for good, or not at all; False, and nothing changed, if something is there already.

        False also for a write of ours that came through although its answer was lost."""

    def replace(self, name: str, data: bytes, version: str) -> bool:
        """Put it in the place of that version; False, and nothing changed, if another or none is there."""

    def mark(self, names: Iterable[str]) -> None:
        """Have something empty under each of them, for good when it returns; what is there already stays."""

    def remove(self, *names: str) -> None:
        """Nothing is there when it returns."""

    def names(self, folder: str) -> list[str]:
        """All names in that folder, sorted; empty if there is no such folder."""

    def folders(self, folder: str) -> list[str]:
        """The folders in that folder, by their last name, sorted."""

    def tidy(self) -> None:
        """Remove what crashed writers have left half done."""
