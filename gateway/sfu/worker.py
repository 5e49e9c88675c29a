"""A relay worker: one process, one core, its sockets, and a loop that does nothing else (architecture, Processes).

It waits for its sockets and its next timer alone, so an idle worker uses no CPU, and a busy one shares its interpreter
with no HTTP, TLS or JSON but the reports it sends. Control comes and goes on a Unix socket; calls go on without it
until their `until`. What must outlive the worker itself goes to its `Memory` as it changes.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.clock import SystemClock
from gateway.errors import GatewayError
from gateway.sfu import control, snapshot
from gateway.sfu.call import Call
from gateway.sfu.memory import Memory
from gateway.sfu.pace import TARGET, Pace
from gateway.sfu.port import Candidate, Report
from gateway.sfu.relay import Relay
from gateway.sfu.shell import Shell

PR_SET_PDEATHSIG: Final = 1
PR_SET_TIMERSLACK: Final = 29
BACKLOG_OCTETS: Final = 1_048_576
"""A control that does not read is told nothing more until it has; then it gets every call as it is."""
KEEP_MS: Final = 10_000
"""In the memory so old at most is what of a running call is neither a change nor activity: other addresses, budgets."""
TURNS: Final = 6
"""Control waits no longer than so many gatherings, about 10 ms."""
REPORTS: Final = 32
"""At once: more would keep media waiting for more than about half a millisecond."""
READ_OCTETS: Final = 65_536
STATISTICS_MS: Final = 1_000
"""Least time between two reports of statistics; none are made while nothing happens."""
COLLECT_AFTER: Final = (50_000, 20, 50)
"""Cycles are few here (a call and its legs), so the garbage collector may be rare."""


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What the supervisor hands to a worker. `instance` rises with each start of worker `number`."""

    number: int
    instance: int
    sockets: Sequence[socket.socket]
    listener: socket.socket
    memory: int
    candidates: Sequence[Candidate]
    streams: Sequence[socket.socket] = ()
    """Listening, for callers by TCP."""


class Worker:
    """See the module."""

    def __init__(self, given: Inheritance, *, batched: bool = True) -> None:
        self._given = given
        self._now = SystemClock().boot_ms
        self._relay = Relay(os.urandom, given.instance)
        self._shell = Shell(self._relay, given.sockets, self._now, listeners=given.streams, batched=batched)
        self._drains = self._shell.drains
        self._memory = Memory(given.memory)
        self._desk = Desk(self._relay, self._shell, self._memory, given, self._now)

    def run(self) -> None:
        """Never returns; a signal ends it. Nothing needs tidying up: sockets and memory are the supervisor's."""
        self._restore()
        pace, poll, figures = Pace(), select.poll(), self._shell.figures
        for descriptor in self._drains:
            poll.register(descriptor, select.POLLIN)
        self._desk.listen(poll)
        busy: list[Callable[[], int]] = []
        turns = 0
        while True:
            # Sockets that were gathered for are read without being asked first; control waits for a few turns of that.
            turns = (turns + 1) % TURNS if busy else 0
            messages, carried = 0, figures.carried
            if turns:
                for drain in busy:
                    messages += drain()
            if not messages:
                messages, busy = self._wait(poll)
            now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            self._catch_up(now_ns // 1_000_000)
            datagrams = messages + figures.carried - carried
            wait = pace.wait_ns(datagrams, now_ns) if datagrams else 0
            if wait:
                time.sleep(wait / 1e9)
            elif datagrams < TARGET:
                busy = []

    def _wait(self, poll: select.poll) -> tuple[int, list[Callable[[], int]]]:
        """Until something comes or is due: how many messages came, and how to take more from where they came."""
        messages, busy = 0, []
        for descriptor, events in poll.poll(self._timeout()):
            drain = self._drains.get(descriptor)
            if drain is None:
                self._desk.serve(descriptor, events)
            elif came := drain():
                messages += came
                busy.append(drain)
        return messages, busy

    def _catch_up(self, now: int) -> None:
        """Do what is due, and tell what changed."""
        at = self._shell.get_timer()
        if at is not None and at <= now:
            self._shell.handle_timer(now)
            for call in self._relay.forgotten():
                self._desk.forget(call)
        if self._relay.has_reports:
            self._desk.publish(now)

    def _timeout(self) -> int | None:
        if self._relay.has_reports:
            return 0
        at = self._shell.get_timer()
        return None if at is None else max(0, at - self._now())

    def _restore(self) -> None:
        """Go on with the calls of the instance before this one."""
        now = self._now()
        for kept, until in list(self._memory.load()):
            with contextlib.suppress(GatewayError):
                self._relay.restore(kept, until, now)
        for call in self._relay.calls:
            self._desk.keep(call, now)


class Desk:
    """Where control is served: one connection, that of the newest control."""

    def __init__(
        self, relay: Relay, shell: Shell, memory: Memory, given: Inheritance, now: Callable[[], int]
    ) -> None:  # fmt: skip
        self._relay, self._shell, self._memory, self._given, self._now = relay, shell, memory, given, now
        self._visitors: dict[int, Visitor] = {}
        self._control: Visitor | None = None
        self._kept: dict[str, int] = {}
        """When each call was kept last."""
        self._newest = 0
        self._told_at = 0
        self._poll = select.poll()

    def listen(self, poll: select.poll) -> None:
        self._poll = poll
        self._given.listener.setblocking(False)
        poll.register(self._given.listener, select.POLLIN)

    def serve(self, descriptor: int, events: int) -> None:
        """Something happened on a descriptor that is no media socket."""
        visitor = self._visitors.get(descriptor)
        if visitor is None:
            self._accept()
            return
        try:
            if events & select.POLLOUT:
                self._drained(visitor)
            if events & ~select.POLLOUT:
                self._read(visitor)
        except (OSError, control.ControlFault, KeyError, TypeError, ValueError):
            # Whatever it was, it is no control that we understand; the calls do not depend on it.
            self._dismiss(visitor)

    def publish(self, now: int) -> None:
        """Reports of what changed: into the memory, and to control if it listens."""
        reports: list[list[object]] = []
        still: list[int] = []
        active: dict[int, bytes] = {}
        for call, what in self._relay.news(now, REPORTS):
            if isinstance(what, Report):
                self.keep(call.id, now)
                reports.append([call.serial, control.pack_report(what)])
                continue
            self._touch(call, what, now)
            if what is None:
                still.append(call.serial)
            else:
                active[call.serial] = what
        self._tell(reports, control.Pulse(now, still, active))

    def _tell(self, reports: list[list[object]], pulse: control.Pulse) -> None:
        visitor = self._control
        if visitor is None:
            return
        if len(visitor.out) > BACKLOG_OCTETS:
            visitor.missed = True
            return
        frame: control.Frame = {"reports": reports} if reports else {}
        if pulse.at - self._told_at >= STATISTICS_MS:
            self._told_at = pulse.at
            frame["statistics"] = control.pack_statistics(self._shell.totals())
        data = control.encode(frame) if frame else b""
        if pulse.still or pulse.active:
            data += pulse.encode()
        self._send(visitor, data)

    def _touch(self, call: Call, packed: bytes | None, now: int) -> None:
        if now - self._kept.get(call.id, 0) >= KEEP_MS:
            self.keep(call.id, now)
        else:
            self._memory.touch(call.id, now, b"" if packed is None else snapshot.latest(call, packed))

    def keep(self, call: str, now: int) -> None:
        kept = self._relay.snapshot(call, now)
        if kept is None:
            self.forget(call)
        else:
            self._memory.keep(call, kept, now)
            self._kept[call] = now

    def forget(self, call: str) -> None:
        self._memory.drop(call)
        self._kept.pop(call, None)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            sock, _ = self._given.listener.accept()
            if control.peer_uid(sock) not in (None, os.getuid()):
                sock.close()
                return
            sock.setblocking(False)
            self._visitors[sock.fileno()] = Visitor(sock)
            self._poll.register(sock, select.POLLIN)

    def _read(self, visitor: Visitor) -> None:
        try:
            data = visitor.socket.recv(READ_OCTETS)
        except BlockingIOError:
            return
        if not data:
            self._dismiss(visitor)
            return
        for frame in visitor.decoder.feed(data):
            self._obey(visitor, frame)
        self._heed(visitor)

    def _obey(self, visitor: Visitor, frame: control.Frame) -> None:
        if "hello" in frame:
            self._greet(visitor, int(frame["hello"]))
            return
        if visitor is not self._control:
            raise control.ControlFault("said no hello")
        answer: control.Frame = {"id": frame["id"]}
        try:
            answer |= self._answer(frame)
        except GatewayError as error:
            answer |= {"error": error.code, "detail": error.detail}
        self._send(visitor, control.encode(answer))

    def _greet(self, visitor: Visitor, instance: int) -> None:
        """The newest control is the one that counts; an older one is sent away."""
        if instance < self._newest:
            raise control.ControlFault("a newer control was here")
        if self._control is not None and self._control is not visitor:
            self._dismiss(self._control)
        self._newest, self._control = instance, visitor
        candidates = [control.pack_candidate(candidate) for candidate in self._given.candidates]
        hello = {
            "hello": {"worker": self._given.number, "instance": self._given.instance, "candidates": candidates},
            "calls": list(self._relay.calls),
            "statistics": control.pack_statistics(self._shell.statistics()),
        }
        self._send(visitor, control.encode(hello))
        self._survey()

    def _survey(self) -> None:
        self._relay.survey()
        if self._relay.has_reports:
            self.publish(self._now())

    def _answer(self, frame: control.Frame) -> control.Frame:
        now = self._now()
        if "prolong" in frame:
            return {"unknown": [call for call, until in frame["prolong"] if not self._relay.prolong(call, until, now)]}
        if "configure" in frame:
            config = control.unpack_config(frame["configure"])
            if self._relay.configure(config, now):
                self.keep(config.call, now)
            return {}
        if "release" in frame:
            report = self._relay.release(frame["release"], now)
            self.forget(frame["release"])
            return {"report": None if report is None else control.pack_report(report)}
        return {"statistics": control.pack_statistics(self._shell.statistics())}

    def _send(self, visitor: Visitor, data: bytes) -> None:
        waiting = bool(visitor.out)
        visitor.out += data
        if not waiting:
            self._drained(visitor)

    def _drained(self, visitor: Visitor) -> None:
        try:
            while visitor.out:
                del visitor.out[: visitor.socket.send(visitor.out)]
        except BlockingIOError:
            pass
        except OSError:
            self._dismiss(visitor)
            return
        self._heed(visitor)
        if visitor.missed and not visitor.out:
            visitor.missed = False
            self._survey()

    def _heed(self, visitor: Visitor) -> None:
        """Who does not take his answers may not ask on."""
        if visitor.socket.fileno() not in self._visitors:
            return
        wants = select.POLLOUT if visitor.out else 0
        self._poll.modify(visitor.socket, wants | (select.POLLIN if len(visitor.out) <= BACKLOG_OCTETS else 0))

    def _dismiss(self, visitor: Visitor) -> None:
        if self._visitors.pop(visitor.socket.fileno(), None) is not None:
            self._poll.unregister(visitor.socket)
            visitor.socket.close()
        if self._control is visitor:
            self._control = None


class Visitor:
    """A connection to the control socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.decoder = control.Decoder()
        self.out = bytearray()
        self.missed = False


def main(given: Inheritance) -> None:
    """Be a worker until SIGTERM; SIGINT, which a terminal sends to all, is the supervisor's affair."""
    worker = Worker(given)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _sleep_exactly()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    worker.run()


def _sleep_exactly() -> None:
    """Without this the kernel rounds our shortest waits up by 50 µs."""
    _prctl(PR_SET_TIMERSLACK, 1000)


def die_with(parent: int) -> None:
    """End when the process that started us does, so that nobody is left on the ports."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    """Linux's; elsewhere nothing."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
