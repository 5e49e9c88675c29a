"""A store in memory that counts what is asked of it, in the requests that a bucket would bill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from gateway.archive.store import Text


class Counting:
    """A store (`gateway.archive.store.Store`). `asked`: how many requests of each kind since it was cleared."""

    vanishes = False

    def __init__(self) -> None:
        self.held: dict[str, Text] = {}
        self.asked: Counter[str] = Counter()
        self._versions = 0

    def prepare(self) -> None: ...

    def tidy(self) -> None: ...

    def read(self, name: str) -> Text | None:
        self.asked["GET"] += 1
        return self.held.get(name)

    def several(self, names: Iterable[str]) -> Iterator[Text | None]:
        return map(self.read, names)

    def tails(self, names: Iterable[str], length: int) -> Iterator[bytes | None]:
        return (None if text is None else text.data[-length:] for text in self.several(names))

    def piece(self, name: str, start: int, length: int) -> bytes | None:
        text = self.read(name)
        return None if text is None else text.data[start : start + length]

    def create(self, name: str, data: bytes) -> bool:
        return name not in self.held and self._put(name, data)

    def replace(self, name: str, data: bytes, version: str) -> bool:
        return name in self.held and self.held[name].version == version and self._put(name, data)

    def mark(self, names: Iterable[str]) -> None:
        for name in names:
            self._put(name, b"")

    def remove(self, *names: str) -> None:
        self.asked["DELETE"] += len(names)
        for name in names:
            self.held.pop(name, None)

    def names(self, folder: str) -> list[str]:
        self.asked["LIST"] += 1
        return sorted(name for name in self.held if name.rpartition("/")[0] == folder)

    def folders(self, folder: str) -> list[str]:
        self.asked["LIST"] += 1
        return sorted({name.split("/")[1] for name in self.held if name.startswith(f"{folder}/")})

    def _put(self, name: str, data: bytes) -> bool:
        self.asked["PUT"] += 1
        self._versions += 1
        self.held[name] = Text(data, str(self._versions))
        return True
