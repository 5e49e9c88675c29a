"""The C reflector: pairs of addresses on one port, nothing else."""

from __future__ import annotations

import contextlib

from loadtests import native
from loadtests.generator import Generator
from loadtests.peers.rig import MEASURED_CORE, OTHER_CORE, Missing, Rig
from loadtests.processes import Child


def open_reflector(sessions: int) -> Rig:
    """Both directions of each session. Raises Missing without a compiler."""
    if not native.has_compiler():
        raise Missing("no C compiler")
    with contextlib.ExitStack() as stack:
        relay = stack.enter_context(Child([str(native.program("reflector")), "127.0.0.1"], MEASURED_CORE, talks=True))
        port = int(relay.read())
        generator = stack.enter_context(Generator(OTHER_CORE))
        ends = generator.open(2 * sessions)
        pairs = list(zip(ends[::2], ends[1::2], strict=True))
        for (_, one), (_, two) in pairs:
            relay.write(f"{one} {two}")
        relay.write("go")
        relay.read()
        generator.connect((socket, "127.0.0.1", port) for socket, _ in ends)
        generator.flows((one, two, b"") for (one, _), (two, _) in pairs)
        generator.flows((two, one, b"") for (one, _), (two, _) in pairs)
        rig = Rig("C reflector", "recvmmsg/sendmmsg", (relay.pid,), generator, sessions, sessions)
        rig.stack = stack.pop_all()
    return rig
