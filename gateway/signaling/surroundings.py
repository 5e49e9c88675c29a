"""What every session that a node hosts works with."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from redis.exceptions import RedisError

from gateway.errors import GatewayError
from gateway.meter.flusher import Flusher
from gateway.meter.ledger import Lease, Ledger
from gateway.nodes import Node
from gateway.sessions.sessions import Sessions
from gateway.sfu.port import RelayPort
from gateway.signaling.call import Timers
from gateway.signaling.resume import ResumeSecrets
from gateway.signaling.room import Room
from gateway.signaling.turn import Turn

# Longer than any session may be interrupted.
ROOM_KEPT_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Shells that all sessions of the node share."""

    sessions: Sessions
    ledger: Ledger
    relay: RelayPort
    node: Node
    timers: Timers
    resume: ResumeSecrets
    flusher: Flusher
    turn: Turn

    def now(self) -> int:
        """Wall ms on Redis's clock."""
        return self.node.clock.wall_ms()

    async def keep_room(self, session: str, room: Room) -> None:
        """So that another owner can go on with the same connections; lost, the pages would make new ones."""
        key = self.sessions.journal.keys.of(session, "room")
        with suppress(RedisError):
            await self.sessions.journal.redis.set(key, json.dumps(room.snapshot()), ex=ROOM_KEPT_S)

    async def give_back(self, lease: Lease) -> None:
        """Let go of a session that goes on: another may claim it at once, and who looks after sessions without an
        owner need not wait for its next round."""
        with suppress(GatewayError, RedisError):
            await self.ledger.release(lease)
            await self.sessions.journal.schedule("watch", lease.session, self.now())
