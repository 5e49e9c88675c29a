"""One relay worker without a supervisor: `python -m loadtests.peers.worker MEDIA_FD LISTENER_FD MEMORY_FD`.

It is what the gateway's supervisor starts, with the same sockets and memory; only nobody starts it again.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence

from gateway.sfu.port import Candidate
from gateway.sfu.worker import Inheritance, main


def inherit(descriptors: Sequence[int]) -> Inheritance:
    """What a supervisor would hand over, made of inherited descriptors."""
    media, listener, memory = descriptors
    sock = socket.socket(fileno=media)
    address, port = sock.getsockname()[:2]
    return Inheritance(0, 1, [sock], socket.socket(fileno=listener), memory, [Candidate(address, port)])


if __name__ == "__main__":
    main(inherit([int(word) for word in sys.argv[1:]]))
