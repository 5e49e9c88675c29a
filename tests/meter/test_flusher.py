"""The flusher and its file: one write after the other, also when the node leaves in the midst of one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from gateway.meter.flusher import Flusher
from gateway.meter.ledger import Lease, Ledger, Write, Written
from gateway.meter.usage_file import Line, UsageFile

LEASE = Lease("ses_1", 1, "n1", 0, 0)


class Slow(UsageFile):
    """A disk that takes its time; it notices two writes at once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.begun, self.go_on, self.one = threading.Event(), threading.Event(), threading.Lock()
        self.overlapped = False

    def append(self, lines: Iterable[Line]) -> None:
        self.overlapped |= not self.one.acquire(blocking=False)
        self.begun.set()
        self.go_on.wait(5)
        super().append(lines)
        self.one.release()


class Away:
    async def write(self, writes: list[Write]) -> list[Written]:
        return [Written("away")] * len(writes)


class Clock:
    now = 10_000

    def boot_ms(self) -> int:
        return self.now


async def test_law3_a_node_that_leaves_while_its_file_is_written_writes_its_last_words_after(tmp_path: Path) -> None:
    file, clock = Slow(tmp_path / "usage.jsonl"), Clock()
    flusher = Flusher(cast(Ledger, Away()), cast(Any, clock), flush_ms=10, file=file)
    tab = flusher.open(LEASE)
    tab.put({1: (100, 200)}, clock.now)
    clock.now += 1_000
    running = asyncio.create_task(flusher.run())
    await asyncio.to_thread(file.begun.wait, 5)
    running.cancel()
    tab.put({1: (100, 300)}, clock.now)
    leaving = asyncio.create_task(flusher.stop())
    await asyncio.sleep(0)
    file.go_on.set()
    await leaving
    assert not file.overlapped
    kept = UsageFile(tmp_path / "usage.jsonl")
    assert [line.rows for line in kept.read()] == [{1: (100, 300)}]
    kept.close()
