"""A network namespace of the run's own, for relays that will not use loopback addresses."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Final

from loadtests.peers.rig import Missing

ADDRESS: Final = "198.18.0.1"
"""Of the block for benchmarks (RFC 2544); exists in the namespace alone."""
# What is sent to the address goes through the namespace's loopback; the pair only gives it an interface that counts.
_COMMANDS: Final = (
    "link set lo up",
    "link add media0 type veth peer name media1",
    f"addr add {ADDRESS}/24 dev media0",
    "link set media1 up",
    "link set media0 up",
)
_NEW_NET: Final = 0x40000000


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """Inside, this thread and the processes it starts are in an empty network with one address; yields that.

    The namespace goes with the last process in it. Raises Missing without the rights for it.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise Missing("needs root and iproute2 for a network namespace")
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(_NEW_NET):
            raise Missing(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            for command in _COMMANDS:
                if subprocess.run(["ip", *command.split()], check=False, capture_output=True).returncode:
                    raise Missing(f"ip {command} does not work here")
            yield ADDRESS
        finally:
            if libc.setns(before, _NEW_NET):
                raise RuntimeError("cannot leave the network namespace")
    finally:
        os.close(before)
