"""The two seats of a session on this node, and the sockets in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.session import ROLES, Role
from gateway.signaling.messages import Close, ServerMessage
from gateway.signaling.websocket import Socket


@dataclass(frozen=True, slots=True)
class Seated:
    """A side's socket."""

    role: Role
    socket: Socket


class Seats:
    """Who sits where. A message to an empty seat is nobody's."""

    def __init__(self) -> None:
        self._taken: dict[Role, Seated] = {}

    def __len__(self) -> int:
        return len(self._taken)

    def __iter__(self) -> Iterator[Seated]:
        return iter(list(self._taken.values()))

    def take(self, seated: Seated) -> None:
        self._taken[seated.role] = seated

    def give_up(self, role: Role, socket: Socket) -> bool:
        """False if someone else sits there by now."""
        if not self.holds(role, socket):
            return False
        del self._taken[role]
        return True

    def holds(self, role: Role, socket: Socket) -> bool:
        return role in self._taken and self._taken[role].socket is socket

    def send(self, role: Role, message: ServerMessage) -> None:
        if role in self._taken:
            self._taken[role].socket.send(message)

    def send_both(self, message: ServerMessage) -> None:
        for role in ROLES:
            self.send(role, message)

    def close(self, role: Role, code: Close) -> None:
        if role in self._taken:
            self._taken.pop(role).socket.close(code)

    def close_both(self, code: Close) -> None:
        for role in ROLES:
            self.close(role, code)
