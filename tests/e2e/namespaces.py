"""Networks of their own for callers: a namespace each, wired to this machine's by a veth pair or a line. Root only."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.line import Line

USABLE = os.geteuid() == 0 and shutil.which("ip") is not None and shutil.which("nft") is not None
NEEDS = "network namespaces need root, iproute2 and nftables"
BLOCK = f"198.{18 + os.getpid() // 32 % 2}", os.getpid() % 32 * 8
"""Where this process's networks lie: RFC 2544 keeps 198.18.0.0/15 for tests, and two runs must not meet in it."""
CLONE_NEWNET = 0x40000000


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Network:
    """A caller's network: it sits at `address`, this machine is `gateway` to it."""

    name: str
    wire: str
    subnet: str

    @property
    def gateway(self) -> str:
        return f"{self.subnet}.1"

    @property
    def address(self) -> str:
        return f"{self.subnet}.2"

    def ip(self, *arguments: str) -> str:
        return run("ip", "-n", self.name, *arguments)

    def inside(self, *command: str) -> str:
        return run("ip", "netns", "exec", self.name, *command)

    def firewall(self, *rules: str, hooks: tuple[str, ...] = ("input", "output")) -> None:
        """Rules of nftables for what leaves and for what comes in."""
        self.inside("nft", "add", "table", "inet", "test")
        for hook in hooks:
            self.inside("nft", f"add chain inet test {hook} {{ type filter hook {hook} priority 0; }}")
            for rule in rules:
                self.inside("nft", f"add rule inet test {hook} {rule}")

    def open(self) -> None:
        """No firewall any more."""
        self.inside("nft", "delete", "table", "inet", "test")

    def move(self) -> None:
        """Another network: a new address, then the old one is gone, and every connection over it."""
        end = f"{self.wire}b"
        self.ip("addr", "add", f"{self.subnet}.3/24", "dev", end)
        self.ip("addr", "del", f"{self.address}/24", "dev", end)
        with suppress(subprocess.CalledProcessError):
            self.ip("addr", "add", f"{self.subnet}.3/24", "dev", end)  # It went with its primary address.
        self.ip("route", "replace", "default", "via", self.gateway)

    def kill(self) -> None:
        """End every process in this network at once."""
        for process in run("ip", "netns", "pids", self.name).split():
            with suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)

    def program(self, folder: Path, command: str) -> Path:
        """A program that is `command` in this network."""
        program = folder / f"{Path(command.split()[0]).name}-{self.name}"
        program.write_text(f'#!/bin/sh\nexec ip netns exec {self.name} {command} "$@"\n')
        program.chmod(0o755)
        return program

    def socket(self) -> socket.socket:
        """A TCP socket of this network, for use here: a socket stays where it was made."""
        made: list[socket.socket] = []

        def make() -> None:
            with Path(f"/run/netns/{self.name}").open() as namespace:
                assert ctypes.CDLL(None).setns(namespace.fileno(), CLONE_NEWNET) == 0
            made.append(socket.socket())

        # The thread goes over to the network and ends there.
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]


@contextmanager
def network(number: int, line: Line | None = None) -> Iterator[Network]:
    """One of eight networks (0 to 7) of this process, gone with everything in it afterwards."""
    subnet = f"{BLOCK[0]}.{BLOCK[1] + number}"
    made = Network(f"parley{os.getpid()}-{number}", f"pv{os.getpid() % 100_000}{number}", subnet)
    run("ip", "netns", "add", made.name)
    try:
        if line is None:
            run("ip", "link", "add", f"{made.wire}a", "type", "veth", "peer", f"{made.wire}b", "netns", made.name)
        else:
            line.lay(f"{made.wire}a", f"{made.wire}b")
            run("ip", "link", "set", f"{made.wire}b", "netns", made.name)
        run("ip", "addr", "add", f"{made.gateway}/24", "dev", f"{made.wire}a")
        run("ip", "link", "set", f"{made.wire}a", "up")
        made.ip("addr", "add", f"{made.address}/24", "dev", f"{made.wire}b")
        made.ip("link", "set", f"{made.wire}b", "up")
        made.ip("link", "set", "lo", "up")
        made.ip("route", "add", "default", "via", made.gateway)
        yield made
    finally:
        if line is not None:
            line.close()
        with suppress(subprocess.CalledProcessError):
            run("ip", "link", "del", f"{made.wire}a")
        run("ip", "netns", "del", made.name)
