"""One leg's ICE credentials as signaling renews them: current, pending until an answer passes, past for a while.

Pure; times are ms of any clock that the caller keeps to.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.sfu.port import Credentials, LegConfig

# Checks under the old credentials that are under way, or that a browser still sends until the new pair is nominated,
# have to be answered; longer would only keep a door open that nobody needs.
OVERLAP_MS = 10_000
# A caller that restarts again and again must not grow the list that every check is compared with.
MAX_PAST = 2


@dataclass(slots=True)
class Past:
    """Former credentials, valid until `until`; None: until the browser was told the new ones.

    `credentials`: None for those of a former owner, which only the relay has.
    """

    credentials: Credentials | None
    until: int | None


@dataclass(slots=True)
class Leg:
    """`number` counts local credentials over the whole session: the generation's `transport`.

    `inherits`: the browser still uses those that a former owner of the session gave it.
    """

    number: int = 0
    inherits: bool = False
    local: Credentials | None = None
    pending: Credentials | None = None
    remote: Credentials | None = None
    past: list[Past] = field(default_factory=list)

    def begin(self, credentials: Credentials) -> None:
        """A new incarnation: nothing of the former counts any more."""
        self.number += 1
        self.local, self.pending, self.remote, self.inherits = credentials, None, None, False
        self.past.clear()

    def promote(self, now: int, *, told: bool) -> None:
        """The pending credentials become current. `told`: the browser knows them by now, so the overlap starts."""
        if self.pending is None:
            return
        if self.local is not None or self.inherits:
            self.past.insert(0, Past(self.local, now + OVERLAP_MS if told else None))
            del self.past[MAX_PAST:]
        self.local, self.pending, self.inherits = self.pending, None, False
        self.number += 1

    def told(self, now: int) -> None:
        """The browser was told the current credentials: the overlap with former ones starts."""
        for past in self.past:
            past.until = now + OVERLAP_MS if past.until is None else past.until

    def timer(self) -> int | None:
        """When former credentials expire next."""
        return min((past.until for past in self.past if past.until is not None), default=None)

    def expire(self, now: int) -> bool:
        """Drop what has expired; True if anything has."""
        kept = [past for past in self.past if past.until is None or past.until > now]
        changed = len(kept) != len(self.past)
        self.past = kept
        return changed

    @property
    def config(self) -> LegConfig:
        """What the relay is told; newest first."""
        newest = (self.pending, self.local, *(past.credentials for past in self.past))
        listed = tuple(one for one in newest if one is not None)
        inherits = self.inherits or any(past.credentials is None for past in self.past)
        return LegConfig(listed, self.remote, inherits and bool(listed))
