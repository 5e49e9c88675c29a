"""Names of all Redis keys. Everything of one session shares a hash tag, so one script may touch all of it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """Sessions are spread over `partitions` hash slots; the number may not change while sessions are open."""

    partitions: int = 64

    def partition(self, session: str) -> int:
        return zlib.crc32(session.encode()) % self.partitions

    def of(self, session: str, name: str) -> str:
        """A key of one session: its docs, `events`, `usage`, `lease`, …"""
        return f"{{p{self.partition(session)}}}:ses:{session}:{name}"

    def shared(self, partition: int, name: str) -> str:
        """A key that all sessions of a partition share: queues and the stream of finalized sessions."""
        return f"{{p{partition}}}:{name}"

    def beside(self, session: str, name: str) -> str:
        return self.shared(self.partition(session), name)
