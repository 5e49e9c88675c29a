"""The Debian packages that a full run needs: which are there, and their installation when we may."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

WANTED: Final = {
    "gcc": "the generator and the reflector",
    "libc6-dev": "the generator and the reflector",
    "iproute2": "a network namespace for Janus",
    "coturn": "a peer",
    "rtpengine-daemon": "a peer",
    "janus": "a peer",
}
_POLICY: Final = Path("/usr/sbin/policy-rc.d")


def installed(package: str) -> str | None:
    """Its version, or None."""
    if shutil.which("dpkg-query") is None:
        return None
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", package]
    told = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split()
    return told[1] if len(told) == 2 and told[0] == "installed" else None


def missing() -> list[str]:
    """Wanted packages that are not there; a compiler from elsewhere counts as one."""
    have_compiler = shutil.which("cc") is not None
    skipped = {"gcc", "libc6-dev"} if have_compiler else set()
    return [package for package in WANTED if package not in skipped and installed(package) is None]


def may_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(packages: list[str]) -> bool:
    """By apt, without their services being started; False when that failed, and the run goes on without them."""
    with _no_services():
        for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            done = subprocess.run(["apt-get", "-qq", *command], env=environment, capture_output=True, check=False)
            if done.returncode:
                return False
    return True


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Debian's own means to keep packages from starting what they bring, unless one is in place already."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
