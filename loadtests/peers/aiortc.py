"""aiortc as an SFU: what this project would be if it did not pass sealed packets on."""

from __future__ import annotations

import contextlib
from functools import partial
from importlib.metadata import version
from typing import Final

from loadtests.peers.rig import MEASURED_CORE, Rig
from loadtests.peers.sealed import SealedCallers
from loadtests.processes import Child

PROFILE: Final = "SHA1"
"""AES-CM-128 with HMAC-SHA1-80; with GCM aiortc costs a few percent less."""


def open_aiortc(sessions: int) -> Rig:
    """One direction of each session, forwarded without decoding."""
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(Child.module("loadtests.peers.forwarder", MEASURED_CORE, PROFILE))
        callers = SealedCallers(stack, "127.0.0.1", PROFILE)
        for _ in range(2 * sessions):
            theirs = relay.ask(do="leg", other=callers.ask(do="gather")["other"])
            callers.connected(do="begin", other=theirs["other"])
        relay.ask(do="join")
        generator = callers.generator()
        generator.flows((number, number + 1, b"") for number in range(0, 2 * sessions, 2))
        rig = Rig("aiortc", f"{version('aiortc')}, uvloop", (relay.pid,), generator, sessions)
        rig.seal = partial(callers.seal, step=2)
        rig.notes.append(f"RTP forwarded without decoding, {PROFILE} on both legs")
        rig.stack = stack.pop_all()
    return rig
