"""Starts the processes of a run pinned to their cores, and ends each by its own id."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

HARDLY: Final = 3.0
"""Seconds that a process gets to end by itself."""
FIRST: Final = -19
"""Niceness of relays and generator, where we may set it: what else the machine does then takes little from either."""


def take_precedence(nice: int) -> None:
    """Give this process that niceness if we may."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        # A session of its own is an autogroup of its own, whose niceness is what counts between groups.
        Path("/proc/self/autogroup").write_text(str(nice))


class Child:
    """A process that is ended with the `with` block. With `talks`, lines go in and out by `ask`."""

    def __init__(
        self, command: Sequence[str], core: int, *, talks: bool = False, pass_fds: Sequence[int] = (), nice: int = FIRST
    ) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by `close`
        pipe = subprocess.PIPE if talks else subprocess.DEVNULL

        def prepare() -> None:
            os.sched_setaffinity(0, {core})
            take_precedence(nice)

        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe if talks else self._log, stderr=self._log, text=talks,
            pass_fds=pass_fds, preexec_fn=prepare, start_new_session=True,
        )  # fmt: skip

    @classmethod
    def module(cls, name: str, core: int, *arguments: str, nice: int = FIRST) -> Child:
        """A module of ours under this Python, spoken to by JSON lines."""
        return cls([sys.executable, "-m", name, *arguments], core, talks=True, nice=nice)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        """What it wrote to standard error (and output, unless that is spoken through), the end of it."""
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 2000))
        return self._log.read().decode(errors="replace")

    def write(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def read(self) -> str:
        """The next line. Raises RuntimeError when the process has ended instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{Path(str(self.process.args[0])).name} ended: {self.said()}")  # type: ignore[index]
        return str(line).rstrip("\n")

    def ask(self, **question: Any) -> dict[str, Any]:
        """One JSON object there, one back. Raises RuntimeError with its words when that holds an `error`."""
        self.write(json.dumps(question))
        answer: dict[str, Any] = json.loads(self.read())
        if "error" in answer:
            raise RuntimeError(str(answer["error"]))
        return answer

    def close(self) -> None:
        if self.alive:
            self.process.terminate()
            try:
                self.process.wait(HARDLY)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
