"""The supervisor of a node: owns what must outlive its children, and starts them again when they die.

It holds the media sockets, the control sockets and the memories of the relay workers, and the listening sockets of the
control process. Workers are forked from it, so that one that died is back within milliseconds, with the same sockets
and calls. The control process is a program of its own that finds all it inherits in one environment variable.
Nothing else happens here: no threads, no event loop, little that could fail. It reaps whatever it is the parent of,
so it may be process 1 of a container.
"""

from __future__ import annotations

import gc
import json
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from gateway.errors import GatewayError, RelayUnavailable
from gateway.sfu import memory, worker
from gateway.sfu.sockets import Media, open_media

INHERITED: Final = "PARLEY_INHERITED"
"""JSON for the control process: {"relay": [paths of control sockets], "sockets": {name: descriptor}}."""
QUICK_S: Final = 1.0
"""A child that lived shorter is started again after a pause, each time a longer one."""
PAUSES_S: Final = (0.0, 0.1, 0.5, 2.0, 5.0)
POISONED: Final = 3
"""After so many quick deaths a worker's memory is taken for what kills it, and forgotten."""
STOP_S: Final = 15.0
"""How long the control process may take to leave: it gives its sessions up meanwhile."""
SETTLED_S: Final = 5.0
"""A control process that ends sooner than this after the first start has a reason that starting again won't cure."""
FORWARDED: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
HANDLED: Final = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, *FORWARDED)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `control` None: workers alone. `listen`: TCP sockets for control, by name."""

    media_hosts: Sequence[str]
    media_port: int
    advertise: Sequence[str]
    workers: int
    control: Sequence[str] | None = None
    listen: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    tcp_port: int | None = None
    """For media by TCP, if not the number of UDP; both count up from worker to worker."""


class Child:
    """What was started how often, and how soon it died."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pid: int | None = None
        self.starts = self.quick = 0
        self.started_at = 0.0
        self.due_at: float | None = 0.0

    def started(self, pid: int, now: float) -> None:
        self.pid, self.started_at, self.due_at = pid, now, None
        self.starts += 1

    def died(self, now: float) -> None:
        self.pid = None
        self.quick = self.quick + 1 if now - self.started_at < QUICK_S else 0
        self.due_at = now + PAUSES_S[min(self.quick, len(PAUSES_S) - 1)]


class Supervisor:
    """`run` returns the exit code. Raises RelayUnavailable or OSError when a socket cannot be had."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan, self._folder = plan, folder
        self._media: list[Media] = []
        self._listeners: list[socket.socket] = []
        self._memories = [memory.new_file() for _ in range(plan.workers)]
        self._public: dict[str, socket.socket] = {}
        self._workers = [Child(f"relay {number}") for number in range(plan.workers)]
        self._control = Child("control")
        self._code: int | None = None
        self._stop_at: float | None = None
        self._open()

    def _open(self) -> None:
        plan = self._plan
        for number in range(plan.workers):
            port = plan.media_port + number if plan.media_port else 0
            tcp_port = plan.tcp_port + number if plan.tcp_port else None
            self._media.append(open_media(plan.media_hosts, port, plan.advertise, tcp_port))
            self._listeners.append(_control_socket(self.paths[number]))
        for name, (host, port) in plan.listen.items():
            self._public[name] = _listening(host, port)

    @property
    def paths(self) -> list[Path]:
        """Of the workers' control sockets."""
        return [self._folder / f"relay-{number}" for number in range(self._plan.workers)]

    def run(self, parent: int | None = None) -> int:
        """Until told to stop, or the control process has ended for good; `parent`: a pipe whose end means so too."""
        told, wake = os.pipe()
        for end in (told, wake):
            os.set_blocking(end, False)
        for number in HANDLED:
            signal.signal(number, lambda number, _: self._signalled(number))
        if parent is not None:
            # A terminal's SIGINT goes to our parent too, which needs the workers until it has taken its leave.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(wake)
        poll = select.poll()
        for descriptor in [told] if parent is None else [told, parent]:
            poll.register(descriptor, select.POLLIN)
        gc.collect()
        gc.freeze()
        while not self._finished():
            self._start_due()
            for descriptor, _ in poll.poll(self._wait_ms()):
                if not _read(descriptor) and descriptor == parent:
                    poll.unregister(parent)
                    self._stop()
            self._reap()
        self._end_workers()
        return self._code or 0

    def _signalled(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop()
        elif number in FORWARDED and self._control.pid is not None:
            os.kill(self._control.pid, number)

    def _stop(self) -> None:
        """The control process goes first, in its own time; the workers carry its calls until then."""
        hurried = self._stop_at is not None
        self._stop_at = self._stop_at or time.monotonic() + STOP_S
        if self._control.pid is not None:
            os.kill(self._control.pid, signal.SIGKILL if hurried else signal.SIGTERM)

    def _finished(self) -> bool:
        if self._stop_at is not None and self._control.pid is None:
            return True
        return self._code is not None and self._control.pid is None

    def _wait_ms(self) -> float | None:
        instants = [child.due_at for child in [*self._workers, self._control] if child.due_at is not None]
        if self._plan.control is None:
            instants = [child.due_at for child in self._workers if child.due_at is not None]
        if self._stop_at is not None:
            instants.append(self._stop_at)
        return max(0.0, min(instants) - time.monotonic()) * 1000 + 1 if instants else None

    def _start_due(self) -> None:
        now = time.monotonic()
        if self._stop_at is not None:
            if now >= self._stop_at and self._control.pid is not None:
                os.kill(self._control.pid, signal.SIGKILL)
            return
        for number, child in enumerate(self._workers):
            if child.due_at is not None and child.due_at <= now:
                self._start_worker(number, child, now)
        if self._plan.control is not None and self._control.due_at is not None and self._control.due_at <= now:
            self._control.started(self._start_control(self._plan.control), now)

    def _start_worker(self, number: int, child: Child, now: float) -> None:
        if child.quick >= POISONED:
            os.ftruncate(self._memories[number], 0)
        given, parent = self._inheritance(number, child.starts), os.getpid()
        # Between the two the child would take our signals for its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        pid = os.fork()
        if pid == 0:
            _be_worker(given, parent)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        child.started(pid, now)

    def _inheritance(self, number: int, instance: int) -> worker.Inheritance:
        media = self._media[number]
        return worker.Inheritance(
            number, instance, media.sockets, self._listeners[number], self._memories[number], media.candidates,
            media.listeners,
        )  # fmt: skip

    def _start_control(self, command: Sequence[str]) -> int:
        sockets = {name: sock.fileno() for name, sock in self._public.items()}
        told = json.dumps({"relay": [str(path) for path in self.paths], "sockets": sockets})
        # S603: our own command line, once more.
        process = subprocess.Popen(  # noqa: S603
            list(command), env={**os.environ, INHERITED: told}, pass_fds=list(sockets.values())
        )
        process.returncode = 0  # Reaped below with all others; nobody waits for this object.
        return process.pid

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            now = time.monotonic()
            for child in self._workers:
                if child.pid == pid:
                    child.died(now)
            if self._control.pid == pid:
                self._control_ended(os.waitstatus_to_exitcode(status), now)

    def _control_ended(self, code: int, now: float) -> None:
        first = self._control.starts == 1 and now - self._control.started_at < SETTLED_S
        self._control.died(now)
        if code == 0 or first or self._stop_at is not None:
            self._code = code if code >= 0 else 128 - code

    def _end_workers(self) -> None:
        for child in self._workers:
            if child.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
        for child in self._workers:
            if child.pid is not None:
                with suppress(ChildProcessError):
                    os.waitpid(child.pid, 0)


def _be_worker(given: worker.Inheritance, parent: int) -> None:
    """In the child: never returns."""
    try:
        signal.set_wakeup_fd(-1)
        for number in HANDLED:
            ours = number in (signal.SIGCHLD, signal.SIGTERM)
            signal.signal(number, signal.SIG_DFL if ours else signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        worker.die_with(parent)
        worker.main(given)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _control_socket(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(stat.S_IRWXG | stat.S_IRWXO | stat.S_IXUSR)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(8)
    return listener


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind((host, port))
    listener.listen(128)
    return listener


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except BlockingIOError:
        return b"\0"


def supervise(plan: Plan, parent: int | None = None, announce: int | None = None) -> int:
    """Run the plan to its end; the exit code. `announce`: a pipe that is told the control sockets' paths, as JSON."""
    folder = Path(tempfile.mkdtemp(prefix="parley-"))
    try:
        supervisor = Supervisor(plan, folder)
        if announce is not None:
            os.write(announce, json.dumps([str(path) for path in supervisor.paths]).encode() + b"\n")
            os.close(announce)
        return supervisor.run(parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a control process has of its supervisor."""

    relay: list[Path]
    sockets: dict[str, int]

    def listener(self, name: str) -> socket.socket:
        """The listening socket of that name; each call makes a handle of its own."""
        return socket.socket(fileno=os.dup(self.sockets[name]))


def inherited() -> Inherited | None:
    """None in a process that no supervisor of ours has started."""
    told = os.environ.get(INHERITED)
    if told is None:
        return None
    body = json.loads(told)
    return Inherited([Path(path) for path in body["relay"]], body["sockets"])


def become(plan: Plan) -> NoReturn:
    """Go on as the supervisor, in this very process: the small program instead of the one that read the settings."""
    os.execv(sys.executable, [sys.executable, "-m", "gateway.supervisor", json.dumps(asdict(plan))])  # noqa: S606


@asynccontextmanager
async def relay_workers(plan: Plan) -> AsyncIterator[list[Path]]:
    """Workers of our own, for a control process that nobody supervises; the paths of their control sockets.

    Raises RelayUnavailable.
    """
    import asyncio

    command = (sys.executable, "-m", "gateway.supervisor", json.dumps(asdict(plan)))
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        told = json.loads(await process.stdout.readline() or "{}")
        if not isinstance(told, list):
            raise RelayUnavailable(told.get("detail", "the relay does not start"), code=told.get("error"))
        yield [Path(path) for path in told]
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def main() -> int:
    """`python -m gateway.supervisor PLAN`: a node, or only workers for a control process that holds our input."""
    plan = Plan(**json.loads(sys.argv[1]))
    if plan.control is not None:
        return supervise(plan)
    try:
        return supervise(plan, parent=0, announce=1)
    except (GatewayError, OSError) as fault:
        print(json.dumps({"error": getattr(fault, "code", "internal_error"), "detail": str(fault)}), flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
