"""One address of one leg: what it has proved, the challenges it owes an answer to, and its row for forwarding.

A row is kept in a form that a kernel map could hold as well: key (the address), `to` (the row it forwards to), `cut`,
`packets`, `octets`, `heard`. Times are milliseconds of the relay's clock.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final, Protocol

from gateway.sfu import stun
from gateway.sfu.hold import Hold, Pool
from gateway.sfu.port import Credentials
from gateway.sfu.stun import CONNECTIONS, NEVER, Address

Datagram = tuple[stun.Buffer, Address]

DATAGRAM_LIMIT: Final = 10
"""What goes to an address before it has answered, so that a spoofed source is no amplifier. The 12 KB of 6-media
follow from it: none of our datagrams is longer than 700 bytes."""
CHALLENGE_LIMIT: Final = 5
"""Challenges in a row; before validity answers get the other half of the ten. More would starve the answers."""
CHALLENGE_FIRST_MS: Final = 150
"""First repetition, then doubling: 0, 150, 450, 1050, 2250 ms. Shorter would waste the ten on a slow path."""
PRIORITY: Final = 1_845_501_695
"""Of a peer-reflexive candidate, as a check must state it (RFC 8445 section 7.1.1)."""

GRID_MS: Final = 50
"""What may come a little later falls on multiples of this, so that legs and calls share their wake-ups."""


@dataclass(frozen=True, slots=True)
class Local:
    """One of our credential pairs; `generation` rises with each newer pair of the leg."""

    ufrag: str
    password: bytes
    generation: int


class Challenge:
    """A check of ours under way: sent at `sent_at` for `path` under `local` and `remote`."""

    __slots__ = ("local", "path", "remote", "sent_at")

    def __init__(self, path: Path, local: Local, remote: Credentials, sent_at: int) -> None:
        self.path = path
        self.local = local
        self.remote = remote
        self.sent_at = sent_at


class Rows(Protocol):
    """A shell's own index of the rows, by socket addresses as the kernel writes them (or, one day, a kernel map)."""

    def enter(self, path: Path) -> None:
        """The address has this row from now on; `path.wire` is the shell's to set."""

    def leave(self, path: Path) -> None:
        """It is no longer."""

    def cut(self, path: Path) -> None:
        """Law 4: what still waits to be sent there must not be."""

    def forget(self, path: Path) -> None:
        """The address is nobody's any more, whether or not it ever was a row."""


class NoRows:
    """Of a relay whose shell asks for each datagram by its `Address`."""

    def enter(self, path: Path) -> None: ...

    def leave(self, path: Path) -> None: ...

    def cut(self, path: Path) -> None: ...

    def forget(self, path: Path) -> None: ...


class Table:
    """What all legs of one relay share: rows by source address, challenges by transaction id, held octets, counters."""

    __slots__ = (
        "asked", "challenges", "drops", "index", "moves", "pool", "rows", "sent_octets", "sent_packets", "streams",
        "switches",
    )  # fmt: skip

    def __init__(self) -> None:
        self.index: Rows = NoRows()
        self.switches = self.moves = 0
        self.sent_packets = self.sent_octets = 0
        self.drops: Counter[str] = Counter()
        self.rows: dict[Address, Path] = {}
        """Every address that anything is known of: whose it is, or else who claimed it last. Strangers have no row."""
        self.asked: dict[Address, Path] = {}
        """Addresses that have not answered yet, newest claim of each."""
        self.streams: dict[Address, Path] = {}
        """Connections whose checks were authentic: each is of one leg, for good."""
        self.pool = Pool()
        self.challenges: dict[bytes, Challenge] = {}

    def ask(self, path: Path) -> None:
        """An authentic check came from the address; until it has answered ours it is known, and no more."""
        self.asked[path.address] = path
        row = self.rows.get(path.address)
        if row is None or not row.valid:
            self._put(path.address, path)

    def unask(self, path: Path) -> None:
        """The address has answered, or is not asked any more."""
        if self.asked.get(path.address) is path:
            del self.asked[path.address]
            if self.rows.get(path.address) is path and not path.valid:
                self._put(path.address, None)

    def enter(self, path: Path) -> None:
        """The address is this path's now."""
        self._put(path.address, path)

    def leave(self, path: Path) -> None:
        """The address is not this path's any more, if it was."""
        if self.rows.get(path.address) is path:
            self._put(path.address, self.asked.get(path.address))

    def _put(self, address: Address, path: Path | None) -> None:
        before = self.rows.get(address)
        if before is path:
            return
        if before is not None:
            del self.rows[address]
            self.index.leave(before)
        if path is not None:
            self.rows[address] = path
            self.index.enter(path)

    def drop(self, reason: str, count: int = 1) -> None:
        """So many datagrams went nowhere."""
        if count:
            self.drops[reason] += count

    def send(self, message: bytes, to: Address, out: list[Datagram]) -> None:
        """One of our own STUN messages goes out, and is counted."""
        self.sent_packets += 1
        self.sent_octets += len(message)
        out.append((message, to))


class Path:
    """One address of one leg."""

    __slots__ = (
        "address", "answered_at", "checked", "cut", "dtls_at", "early", "generation", "heard", "interval",
        "local", "mark", "next_at", "nominated", "octets", "owner", "packets", "pending", "priority", "replies",
        "rtt_ms", "streak", "theirs", "to", "tries", "valid", "wire",
    )  # fmt: skip

    def __init__(self, owner: Any, pool: Pool, address: Address, local: Local) -> None:
        self.owner = owner
        """The leg that it is an address of: for whoever looks the address up, nothing here touches it."""
        self.address = address
        self.local = local
        """The newest of our credentials that a check from here was made with."""
        self.theirs = ""
        """The caller's ufrag as that check named it."""
        # The row: destination while the gate is open, instant from which it must be looked at again, counters.
        self.to: Path | None = None
        self.wire: Any = None
        """What the shell needs to send here, kept with the row so that forwarding takes no second look-up."""
        self.cut = self.packets = self.octets = 0
        self.heard = NEVER
        # What the address has shown.
        self.checked = self.dtls_at = self.answered_at = NEVER
        self.valid = self.nominated = False
        self.early = Hold(pool)
        """DTLS that came before the address was valid. A caller that just had its check answered sends its hello at
        once, ahead of its answer to our challenge or of its description; without this it waits for a repetition."""
        self.generation = self.priority = 0
        self.rtt_ms: float | None = None
        # Challenges and what was sent before validity.
        self.pending: list[bytes] = []
        self.next_at: int | None = None
        self.tries = self.interval = self.replies = 0
        # Datagrams in a row from here, none from the selected address between: `mark` is that one's count.
        self.streak = self.mark = 0

    @property
    def stream(self) -> bool:
        """Whether it is a TCP connection."""
        return len(self.address) > 2 and self.address[2] >= CONNECTIONS

    @property
    def arrived(self) -> int:
        """Last arrival of a check or of a packet of 128-191."""
        return max(self.heard, self.checked)

    @property
    def media_at(self) -> int:
        """Last arrival of DTLS or SRTP."""
        return max(self.heard, self.dtls_at)

    @property
    def answered(self) -> bool:
        """Whether it ever answered a challenge: then something that knows the caller's password is there."""
        return self.answered_at != NEVER

    def may_reply(self) -> bool:
        """Whether an answer may go there; counts it."""
        if not self.answered:
            if self.replies >= DATAGRAM_LIMIT - CHALLENGE_LIMIT:
                return False
            self.replies += 1
        return True

    def due_at(self) -> int | None:
        """When something is to be done here: a challenge, or freeing what was held."""
        expires_at = self.early.expires_at()
        if self.next_at is None or (expires_at is not None and expires_at < self.next_at):
            return expires_at
        return self.next_at

    def begin(self, table: Table, now: int) -> None:
        """Start a round of challenges, the first of which is due at once."""
        self.settle(table)
        self.next_at = now

    def challenge(self, table: Table, transaction: bytes, remote: Credentials, now: int) -> bytes:
        """The next challenge of the round. Each has its own transaction id, so that its answer times the round trip."""
        self.interval = self.interval * 2 if self.tries else CHALLENGE_FIRST_MS
        self.tries += 1
        self.next_at = now + self.interval
        self.pending.append(transaction)
        table.challenges[transaction] = Challenge(self, self.local, remote, now)
        username = f"{remote.ufrag}:{self.local.ufrag}"
        return stun.challenge(transaction, username, remote.password.encode(), PRIORITY)

    def settle(self, table: Table) -> None:
        """End the round: later answers to it mean nothing."""
        for transaction in self.pending:
            table.challenges.pop(transaction, None)
        self.pending.clear()
        self.tries = 0
        self.next_at = None
