"""The relay workers of this node as one `RelayPort`: a link to each, calls placed by load, each call sticky.

What a call should be is kept here and said again whenever a worker is reached anew, so a worker that was started again
or that we have just found knows it within milliseconds, and `configure` need not fail while one is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import structlog

from gateway.clock import Clock, SystemClock
from gateway.errors import Conflict, RelayUnavailable
from gateway.sfu import activity, control, metrics
from gateway.sfu.port import CallConfig, Candidate, RelayPort, Report, Statistics

log = structlog.get_logger(__name__)

OPEN_S: Final = 10.0
"""How long workers may take to answer for the first time."""
ANSWER_S: Final = 2.0
"""A worker that does not answer for so long is taken for stopped: what it was told stands, and is said again."""
TOGETHER_S: Final = 0.1
"""How long a later `until` waits for those of other calls."""
AGAIN_S: Final = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25)
"""Pauses before trying to reach a worker again; the last repeats."""
PATIENCE: Final = 10
"""Failures in a row before it is worth a line in the log."""


class RemoteRelay(RelayPort):
    """Made by `open`, ended by `close`, which leaves the workers and their calls alone."""

    def __init__(self, paths: Sequence[Path], clock: Clock | None = None) -> None:
        # A control that is started later has a higher number, also over restarts: the clock runs on.
        instance = (clock or SystemClock()).boot_ms()
        self._links = [Link(path, instance, self._heard, self._found) for path in paths]
        self._places: dict[str, Link] = {}
        self._readers: set[Reader] = set()
        self._closed = False

    @classmethod
    async def open(cls, paths: Sequence[Path], clock: Clock | None = None) -> RemoteRelay:
        """Reach every worker, and learn which calls they have. Raises RelayUnavailable."""
        relay = cls(paths, clock)
        for link in relay._links:
            link.start()
        try:
            async with asyncio.timeout(OPEN_S):
                await asyncio.gather(*(link.greeted.wait() for link in relay._links))
        except TimeoutError:
            await relay.close()
            raise RelayUnavailable("the relay's workers do not answer") from None
        metrics.watch(relay)
        return relay

    async def close(self) -> None:
        """Let go of the workers; iterators of reports end. Idempotent."""
        self._closed = True
        metrics.forget(self)
        await asyncio.gather(*(link.close() for link in self._links))
        for reader in self._readers:
            reader.wake.set()

    def candidates(self, call: str) -> Sequence[Candidate]:
        """As the port says: those of the least loaded worker for a call that has none yet."""
        return self._place(call).candidates

    def _place(self, call: str) -> Link:
        link = self._places.get(call)
        if link is None:
            up = [link for link in self._links if link.up and not self._closed]
            if not up:
                raise RelayUnavailable("no relay worker answers")
            link = self._places[call] = min(up, key=lambda link: link.load)
            link.expected.add(call)
        return link

    async def configure(self, config: CallConfig) -> None:
        """As the port says. While the call's worker is away this is remembered, and said when it is back.

        Raises RelayUnavailable when closed or when no worker could ever take the call, Conflict when a ufrag is
        another leg's.
        """
        if self._closed:
            raise RelayUnavailable("the relay is closed")
        await self._place(config.call).configure(config)

    async def release(self, call: str) -> Report | None:
        for reader in self._readers:
            reader.newest.pop(call, None)
        link = self._places.pop(call, None)
        return None if link is None or self._closed else await link.release(call)

    async def reports(self) -> AsyncIterator[Report]:
        """As the port says; each iterator begins with the newest report of each call, and ends with `close`.

        A slow reader misses reports that a newer one of the same call has overtaken, never the newest.
        """
        reader = Reader()
        self._readers.add(reader)
        for link in self._links:
            for report in link.newest.values():
                reader.put(report)
        try:
            while reader.newest or not self._closed:
                await reader.wake.wait()
                reader.wake.clear()
                while reader.newest:
                    yield reader.newest.pop(next(iter(reader.newest)))
        finally:
            self._readers.discard(reader)

    async def statistics(self) -> Statistics:
        """Sums over all workers, as of now; of one that does not answer, as it last said."""
        await asyncio.gather(*(link.ask_statistics() for link in self._links))
        return metrics.total(self.counters())

    def counters(self) -> list[Statistics]:
        """Each worker's statistics, as it last said."""
        return [link.statistics for link in self._links if link.statistics is not None]

    def _found(self, link: Link, calls: Sequence[str]) -> None:
        for call in calls:
            self._places.setdefault(call, link)

    def _heard(self, report: Report) -> None:
        for reader in self._readers:
            reader.put(report)


class Reader:
    """One iterator's waiting reports, the newest of each call."""

    def __init__(self) -> None:
        self.newest: dict[str, Report] = {}
        self.wake = asyncio.Event()

    def put(self, report: Report) -> None:
        self.newest[report.call] = report
        self.wake.set()


class Link:
    """The way to one worker, found again whenever it is lost."""

    def __init__(
        self, path: Path, instance: int, heard: Callable[[Report], None], found: Callable[[Link, Sequence[str]], None]
    ) -> None:  # fmt: skip
        self._path, self._instance, self._on_report, self._on_found = path, instance, heard, found
        self.greeted = asyncio.Event()
        self.candidates: tuple[Candidate, ...] = ()
        self.statistics: Statistics | None = None
        self.newest: dict[str, Report] = {}
        """The last report of each call that the worker has."""
        self._numbers: dict[str, int] = {}
        self._numbered: dict[int, str] = {}
        """Calls by the numbers that pulses name them by."""
        self.expected: set[str] = set()
        """Calls that are placed there, and of which it has not reported yet."""
        self._wanted: dict[str, CallConfig] = {}
        self._released: set[str] = set()
        """Calls whose release the worker has not confirmed; said again with everything else."""
        self._lengthened: dict[str, int] = {}
        """Calls of which the worker is to be told a later `until`, with others."""
        self._prolonging: set[asyncio.Task[None]] = set()
        self._writer: asyncio.StreamWriter | None = None
        self._met = False
        """Whether the worker has answered on this connection."""
        self._answers: dict[int, asyncio.Future[control.Frame]] = {}
        self._ids = itertools.count(1)
        self._task: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        return self._met

    @property
    def load(self) -> int:
        return len(self.newest) + len(self.expected)

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_up(), name=f"relay {self._path.name}")

    async def close(self) -> None:
        for task in (self._task, *self._prolonging):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._lost()

    async def configure(self, config: CallConfig) -> None:
        before = self._wanted.get(config.call)
        self._wanted[config.call] = config
        self._released.discard(config.call)
        if before is not None and replace(before, until=config.until) == config:
            self._prolong(config)
            return
        try:
            await self._tell(config)
        except Conflict:
            if before is None:
                self._wanted.pop(config.call, None)
            else:
                self._wanted[config.call] = before
            raise

    async def _tell(self, config: CallConfig) -> None:
        self._lengthened.pop(config.call, None)
        await self._ask({"configure": control.pack_config(config)})

    def _prolong(self, config: CallConfig) -> None:
        """The usual case by far, once a second for each call: several of them wake the worker up once."""
        if not self._lengthened:
            task = asyncio.create_task(self._prolong_soon())
            self._prolonging.add(task)
            task.add_done_callback(self._prolonging.discard)
        self._lengthened[config.call] = config.until

    async def _prolong_soon(self) -> None:
        await asyncio.sleep(TOGETHER_S)
        calls, self._lengthened = self._lengthened, {}
        answer = await self._ask({"prolong": list(calls.items())}) if calls else None
        for call in () if answer is None else answer["unknown"]:
            if call in self._wanted:
                with contextlib.suppress(Conflict):
                    await self._tell(self._wanted[call])

    async def release(self, call: str) -> Report | None:
        self._wanted.pop(call, None)
        self._lengthened.pop(call, None)
        self.expected.discard(call)
        self._released.add(call)
        answer = await self._ask({"release": call})
        last = self.newest.pop(call, None)
        self._numbered.pop(self._numbers.pop(call, 0), None)
        if answer is None:
            return last
        self._released.discard(call)
        return None if answer["report"] is None else control.unpack_report(answer["report"])

    async def ask_statistics(self) -> None:
        answer = await self._ask({"ask": "statistics"})
        if answer is not None:
            self.statistics = control.unpack_statistics(answer["statistics"])

    async def _ask(self, request: control.Frame) -> control.Frame | None:
        """The worker's answer, or None if it is away or too slow. Raises Conflict."""
        if not self.up or self._writer is None:
            return None
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._writer.write(control.encode({"id": number, **request}))
        try:
            async with asyncio.timeout(ANSWER_S):
                frame: control.Frame = await answer
        except (TimeoutError, ConnectionError):
            return None
        finally:
            self._answers.pop(number, None)
        if "error" in frame:
            raise Conflict(frame["detail"], code=frame["error"])
        return frame

    async def _keep_up(self) -> None:
        failures = 0
        while True:
            try:
                await self._serve()
                failures = 0
            except (OSError, control.ControlFault) as error:
                failures += 1
                if failures == PATIENCE:
                    log.warning("relay_worker_away", worker=self._path.name, error=type(error).__name__)
            self._lost()
            await asyncio.sleep(AGAIN_S[min(failures, len(AGAIN_S) - 1)])

    async def _serve(self) -> None:
        """Until the connection ends. Raises OSError, ControlFault."""
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            with _socket_of(writer) as sock:
                uid = control.peer_uid(sock)
            if uid not in (None, os.getuid()):
                raise control.ControlFault("another user's process sits at the control socket")
            self._writer = writer
            writer.write(control.encode({"hello": self._instance}))
            decoder = control.Decoder()
            while data := await reader.read(262_144):
                for frame in decoder.feed(data):
                    self._take(frame)
        finally:
            writer.close()

    def _take(self, frame: control.Frame) -> None:
        if "pulse" in frame:
            self._felt(frame["pulse"])
            return
        if "hello" in frame:
            self._greeted(frame)
        if "statistics" in frame and "id" not in frame:
            self.statistics = control.unpack_statistics(frame["statistics"])
        for number, packed in frame.get("reports", ()):
            report = control.unpack_report(packed)
            self._numbers[report.call], self._numbered[number] = number, report.call
            self._reported(report)
        answer = self._answers.get(frame.get("id", 0))
        if answer is not None and not answer.done():
            answer.set_result(frame)

    def _greeted(self, frame: control.Frame) -> None:
        """A worker, new or found again: say everything once more."""
        self.candidates = tuple(control.unpack_candidate(packed) for packed in frame["hello"]["candidates"])
        known = [call for call in frame["calls"] if call not in self._released]
        self.newest = {call: report for call, report in self.newest.items() if call in known}
        self._numbers.clear()
        self._numbered.clear()
        self.expected = set(known) | set(self._wanted)
        assert self._writer is not None
        for config in self._wanted.values():
            self._writer.write(control.encode({"id": 0, "configure": control.pack_config(config)}))
        for call in self._released:
            self._writer.write(control.encode({"id": 0, "release": call}))
        self._met = True
        self.greeted.set()
        self._on_found(self, known)

    def _felt(self, pulse: control.Pulse) -> None:
        for number, packed in (*((number, None) for number in pulse.still), *pulse.active.items()):
            report = self.newest.get(self._numbered.get(number, ""))
            if report is not None:
                self._reported(activity.renew(report, pulse.at, packed))

    def _reported(self, report: Report) -> None:
        if report.call in self._released:
            return
        self.newest[report.call] = report
        self.expected.discard(report.call)
        self._on_report(report)

    def _lost(self) -> None:
        self._writer, self._met = None, False
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError())
        self._answers.clear()


def _socket_of(writer: asyncio.StreamWriter) -> socket.socket:
    sock: Any = writer.get_extra_info("socket")
    # uvloop gives a stand-in without getsockopt's third argument; the descriptor is the same.
    return socket.socket(fileno=os.dup(sock.fileno()))
