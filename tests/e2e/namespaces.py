"""Networks of their own for callers: a namespace each, wired to this machine's by a veth pair. Root only."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.pages import CHROMIUM

USABLE = os.geteuid() == 0 and shutil.which("ip") is not None and shutil.which("nft") is not None


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

    def firewall(self, *rules: str) -> None:
        """Rules of nftables for what leaves and for what comes in."""
        self.inside("nft", "add", "table", "inet", "test")
        for hook in ("input", "output"):
            self.inside("nft", f"add chain inet test {hook} {{ type filter hook {hook} priority 0; }}")
            for rule in rules:
                self.inside("nft", f"add rule inet test {hook} {rule}")

    def move(self) -> None:
        """Another network: a new address, then the old one is gone, and every connection over it."""
        end = f"{self.wire}b"
        self.ip("addr", "add", f"{self.subnet}.3/24", "dev", end)
        self.ip("addr", "del", f"{self.address}/24", "dev", end)
        with suppress(subprocess.CalledProcessError):
            self.ip("addr", "add", f"{self.subnet}.3/24", "dev", end)  # It went with its primary address.
        self.ip("route", "replace", "default", "via", self.gateway)

    def browser(self, folder: Path) -> Path:
        """A program that is Chromium in this network."""
        program = folder / f"chromium-{self.name}"
        program.write_text(f'#!/bin/sh\nexec ip netns exec {self.name} {CHROMIUM} "$@"\n')
        program.chmod(0o755)
        return program


@contextmanager
def network(number: int) -> Iterator[Network]:
    """10.213.`number`.0/24, gone with everything in it afterwards."""
    made = Network(f"parley{os.getpid()}-{number}", f"pv{os.getpid() % 100_000}{number}", f"10.213.{number}")
    run("ip", "netns", "add", made.name)
    try:
        run("ip", "link", "add", f"{made.wire}a", "type", "veth", "peer", f"{made.wire}b", "netns", made.name)
        run("ip", "addr", "add", f"{made.gateway}/24", "dev", f"{made.wire}a")
        run("ip", "link", "set", f"{made.wire}a", "up")
        made.ip("addr", "add", f"{made.address}/24", "dev", f"{made.wire}b")
        made.ip("link", "set", f"{made.wire}b", "up")
        made.ip("link", "set", "lo", "up")
        made.ip("route", "add", "default", "via", made.gateway)
        yield made
    finally:
        with suppress(subprocess.CalledProcessError):
            run("ip", "link", "del", f"{made.wire}a")
        run("ip", "netns", "del", made.name)
