"""The flusher of a node: its sessions' usage into the ledger, many in one call; into a file while Redis is away.

Sessions hand their rows over and go on; nobody waits for Redis but who freezes a bill. Two loops work side by side, so
that a Redis that hangs holds up the file no more than the calls: one writes to the ledger what waits, the other puts on
disk what has waited for a whole period.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import structlog
from prometheus_client import Counter, Gauge, Histogram

from gateway.clock import Clock
from gateway.errors import StoreUnavailable
from gateway.meter.ledger import Lease, Ledger, refusal
from gateway.meter.tab import Tab
from gateway.meter.usage_file import COMPACT_BYTES, Line, UsageFile

# A node that leaves waits this long for a Redis that hangs; the file has everything by then.
STOP_S: Final = 3.0
log = structlog.get_logger(__name__)

INTERVALS = Counter("gateway_meter_intervals_total", "Rows written to ledgers.")
FLUSHES = Counter("gateway_meter_flushes_total", "Sessions' writes to the ledger, by outcome.", ["outcome"])
FLUSH_LAG = Histogram(
    "gateway_meter_flush_seconds", "How long a flush took: all sessions of the node that had something to write.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15),
)  # fmt: skip
WAITING = Gauge("gateway_meter_waiting_sessions", "Sessions with usage that is not in the ledger yet.")
FILED = Counter("gateway_meter_filed_total", "Lines written to the node's journal file because Redis was away.")
FILE_FAULTS = Counter("gateway_meter_file_faults_total", "Writes to the node's journal file that failed.")


class Flusher:
    """Shell. `open` a tab for each session owned, `put` rows, `close` it; `run` until cancelled, then `stop`."""

    def __init__(self, ledger: Ledger, clock: Clock, *, flush_ms: int = 500, file: UsageFile | None = None) -> None:
        self._ledger, self._clock, self._flush_s, self._file = ledger, clock, flush_ms / 1000, file
        self._tabs: set[Tab] = set()
        self._writing: asyncio.Future[None] | None = None
        self._filed, self._filed_at = file is not None and file.size > 0, 0
        for line in file.read() if file else ():
            self._tabs.add(self._left_over(line))

    def _left_over(self, line: Line) -> Tab:
        lease = Lease(line.session, line.epoch, line.owner, line.since, line.since)
        tab = Tab(lease, self._clock.boot_ms(), sequence=line.sequence - 1, left_over=True)
        tab.put(line.rows, self._clock.boot_ms())
        tab.closed, tab.filed = True, tab.sequence
        log.info("usage_left_over", session=line.session, rows=len(line.rows))
        return tab

    def open(self, lease: Lease) -> Tab:
        tab = Tab(lease, self._clock.boot_ms())
        self._tabs.add(tab)
        return tab

    def close(self, tab: Tab) -> None:
        """No more rows will come and the lease is not renewed; what waits is still written."""
        tab.closed = True
        if not tab.waiting:
            self._tabs.discard(tab)

    async def run(self) -> None:
        """Flush and file until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._flushing())
            if self._file is not None:
                tasks.create_task(self._filing())

    async def stop(self) -> None:
        """The last words of a node that leaves: what Redis does not take stays in the file for the next start."""
        if self._writing is not None:
            await self._writing  # whoever began it was cancelled, and its thread goes on
        if self._file is not None:
            await self.file(at_once=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self._flush([tab for tab in self._tabs if tab.waiting])
        if self._file is not None:
            await self.file()
            file, self._file = self._file, None
            await asyncio.to_thread(file.close)

    async def settle(self, tab: Tab) -> None:
        """Until the ledger holds all that was put. Raises Conflict `fenced` or `final`, StoreUnavailable."""
        while tab.waiting or tab.fault:
            if tab.fault:
                raise refusal(tab.fault)
            before = tab.acked_at, tab.sequence
            await self._flush([tab])
            if tab.waiting and (tab.acked_at, tab.sequence) == before and not tab.ahead_ms:
                raise StoreUnavailable("The session store is away; try again.")
            if tab.ahead_ms:
                await asyncio.sleep(min(tab.ahead_ms, 250) / 1000)

    async def _flushing(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            now = self._clock.boot_ms()
            due = [tab for tab in self._tabs if tab.due(now)]
            if due:
                with FLUSH_LAG.time():
                    await self._flush(due)
            self._tabs -= {tab for tab in due if tab.closed and not tab.waiting}
            WAITING.set(sum(bool(tab.waiting) for tab in self._tabs))
            await asyncio.sleep(max(0.0, self._flush_s - (loop.time() - started)))

    async def _flush(self, tabs: Sequence[Tab]) -> None:
        if not tabs:
            return
        now = self._clock.boot_ms()
        writes = [tab.write(now) for tab in tabs]
        results = await self._ledger.write(writes)
        now = self._clock.boot_ms()
        outcomes: dict[str, int] = {}
        for tab, write, result in zip(tabs, writes, results, strict=True):
            tab.written(write, result, now)
            outcomes[result.code] = outcomes.get(result.code, 0) + 1
            if result.code in ("restored", "fenced"):
                log.warning("usage_" + result.code, session=tab.lease.session, epoch=tab.lease.epoch)
        for code, count in outcomes.items():
            FLUSHES.labels(code).inc(count)
        if "away" not in outcomes:
            INTERVALS.inc(sum(len(write.rows) for write in writes))

    async def _filing(self) -> None:
        """Looks often and writes once a period: usage is on disk within a second of being forwarded, or in Redis."""
        while True:
            await asyncio.sleep(self._flush_s / 5)
            if self._clock.boot_ms() - self._filed_at >= self._flush_s * 1000:
                self._writing = asyncio.ensure_future(self._file_safely())
                await asyncio.shield(self._writing)

    async def _file_safely(self) -> None:
        try:
            await self.file()
        except OSError as error:
            FILE_FAULTS.inc()
            log.error("usage_file_failed", error=error.strerror)

    async def file(self, *, at_once: bool = False) -> None:
        """Put on disk what has waited for a period (`at_once`: all), or empty the file when nothing waits any more.
        Raises OSError."""
        if self._file is None:
            return
        now = self._clock.boot_ms()
        # A flush that is merely due must not touch the disk.
        latest = now if at_once else now - int(self._flush_s * 1200)
        old = [tab for tab in self._tabs if tab.since is not None and tab.since <= latest]
        if not any(tab.waiting for tab in self._tabs):
            if self._filed:
                await asyncio.to_thread(self._file.rewrite, ())
                self._filed = False
            return
        news = [tab for tab in old if tab.filed != tab.sequence]
        if not news:
            return
        if self._file.size > COMPACT_BYTES:
            await asyncio.to_thread(self._file.rewrite, [_line(tab) for tab in old])
        else:
            await asyncio.to_thread(self._file.append, [_line(tab) for tab in news])
        self._filed, self._filed_at = True, now
        FILED.inc(len(news))


def _line(tab: Tab) -> Line:
    tab.filed = tab.sequence
    lease = tab.lease
    return Line(lease.session, lease.epoch, lease.owner, lease.acquired_at, tab.sequence, dict(tab.waiting))
