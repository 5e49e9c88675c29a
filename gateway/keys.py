"""Names of all Redis keys. Everything of one session shares a hash tag, so one script may touch all of it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# The documents that a session may have. One that is not named here would be left behind when the session is archived,
# so nobody may write it.
RECORDS: Final = ("session", "payment", "people", "receipts", "refunds", "stripe")
# Those of other streams of events, which are never archived.
LASTING: Final = ("account",)
# All events of a partition as ID|SESSION|SEQUENCE; ids sort by time, so it serves to find one and to list what is new.
EVENT_INDEX: Final = "events"


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

    def lines_of(self, session: str, name: str) -> str:
        """Where the lines of a list are, by session; `beside` has the list itself, which sorts the sessions."""
        return self.beside(session, f"{name}:lines")


def list_of(account: str, livemode: bool, *, bookings: bool = False) -> str:
    """A sorted set of an account's sessions, or bookings, by their ids alone, which sort by time."""
    return f"gateway:index:{account}:{'live' if livemode else 'test'}{':bookings' if bookings else ''}"


@dataclass(frozen=True, slots=True)
class Line:
    """A session's line in a list that spans sessions, such as what an expert earned; `at` sorts it (wall ms)."""

    list: str
    at: int
    body: dict[str, Any]


def lists_of(record: Mapping[str, Any]) -> list[str]:
    """The lists that name a session or a booking, by its `session` document."""
    base = list_of(record["account"], record["livemode"], bookings=record["kind"] == "booking")
    keys = [base, f"{base}:client:{record['client']['id']}", f"{base}:expert:{record['expert']['id']}"]
    return keys + ([f"{base}:reference:{record['reference']}"] if record["reference"] else [])


def reference_of(account: str, reference: str) -> str:
    """Who has a marketplace's reference."""
    return f"gateway:reference:{account}:{reference}"
