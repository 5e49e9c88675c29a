"""The ICE-lite agent of one leg: who may speak for it, from which addresses, and which of them is selected.

    asked ──answered our challenge──► valid ──media, nomination──► selected

An address is *asked* when an authenticated check came from it. Only its own answer to our challenge makes it *valid*
(6-media, Addresses), so neither a replayed check nor a spoofed source takes a leg over or makes us hammer a victim.
DTLS and SRTP are accepted from valid addresses and sent to the selected one. The agent sends nothing itself: what is
to go out is appended to the list it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from gateway.sfu import stun
from gateway.sfu.path import CHALLENGE_LIMIT, GRID_MS, Challenge, Datagram, Local, Path, Table
from gateway.sfu.port import Credentials, LegConfig
from gateway.sfu.quality import UNHEARD_MS, Ear
from gateway.sfu.stun import NEVER, Address, Message

PRESENCE_MS: Final = 7_000
"""A leg is absent this long after its last arrival. Firefox checks a quiet pair every 5.9 s at most (6-media)."""
CHECK_MS: Final = 15_000
"""A leg is absent this long after its last authenticated check, whatever else arrives: packets can be forged."""
ADDRESS_LIMIT: Final = 8
FORGET_MS: Final = 30_000
"""An address without a check for so long makes room for a new one; libwebrtc gives a pair up after as long."""
CONTEST_MS: Final = 1_000
"""Least time between rounds to an address that answered but is held by another leg."""
CONSENT_MS: Final = 4_000
CONSENT_SPREAD_MS: Final = 2_000 - GRID_MS
"""The selected address is challenged every 4 to 6 s (RFC 7675 section 5.1): for the round trip, as a sign of life."""

DWELL_MS: Final = 300
"""Least stay at a selected address. Shorter, and packets reordered across a switch would make it flap."""
QUIET_MS: Final = 1_000
"""Without media for so long nominations decide again. Longer delays the roaming of muted callers."""
SILENT_MS: Final = 3_500
"""A selected address without any arrival for so long yields to one that lives; Chromium checks every 2.7 s."""

TRANSACTION_LIMIT: Final = 64
"""Transaction ids remembered a leg. More costs memory (about 100 bytes each); fewer lets replays look fresh sooner."""
REMOTE_LIMIT: Final = 3
"""Credentials of the caller remembered, newest last: those before a restart go on until the new addresses are valid."""


class Agent:
    """One leg. `number` is its place in `call`, kept for whoever looks an address up; the agent never touches that."""

    __slots__ = (
        "barred", "call", "ear", "floor_arrived", "floor_checked", "generation", "inherited", "locals", "lost_at",
        "number", "paths", "random_bytes", "refused_octets", "refused_packets", "remotes", "retired_octets",
        "retired_packets", "selected", "selected_at", "table", "transactions",
    )  # fmt: skip

    def __init__(self, call: Any, number: int, table: Table, random_bytes: Callable[[int], bytes]) -> None:
        self.call = call
        self.number = number
        self.table = table
        self.random_bytes = random_bytes
        self.locals: dict[str, Local] = {}
        self.remotes: dict[str, Credentials] = {}
        self.barred: frozenset[str] = frozenset()
        self.inherited: frozenset[str] | None = None
        """Pairs of a former control, that the present one cannot list; None while nobody has taken over."""
        self.generation = 0
        self.paths: dict[Address, Path] = {}
        self.ear = Ear()
        self.transactions: dict[bytes, Address] = {}
        self.selected: Path | None = None
        self.selected_at = NEVER
        self.lost_at = NEVER
        """When the last selected address was lost without another in its place."""
        self.floor_arrived = self.floor_checked = NEVER
        # Counters of DTLS and SRTP: received on paths that are gone, and received but not forwarded.
        self.retired_packets = self.retired_octets = 0
        self.refused_packets = self.refused_octets = 0

    # --- desired state

    def configure(self, config: LegConfig, now: int) -> None:
        """Take over credentials. Addresses that no valid pair stands for are forgotten; others go on forwarding.

        With none listed those that are known stand, and are what may be inherited.
        """
        if not config.local:
            self.inherited = frozenset(self.locals)
            return
        listed = {pair.ufrag: pair.password.encode() for pair in config.local if pair.ufrag not in self.barred}
        if config.inherits and self.inherited is None:
            self.inherited = frozenset(self.locals)
        if not config.inherits:
            self.inherited = None
        former = self.inherited or ()
        self.locals = {u: old for u, old in self.locals.items() if listed.get(u) == old.password or u in former}
        for pair in reversed(config.local):
            if pair.ufrag in listed and pair.ufrag not in self.locals:
                self.generation += 1
                self.locals[pair.ufrag] = Local(pair.ufrag, listed[pair.ufrag], self.generation)
        if config.remote is not None:
            self._learn(config.remote)
        self._withdraw(now)
        for path in self.paths.values():
            if path.theirs in self.remotes:
                self._consider(path, now)

    def restart(self, config: LegConfig, now: int) -> None:
        """A new incarnation: everything is earned anew, and only with credentials that were not listed before."""
        before = frozenset(self.locals) | self.barred
        new = {pair.ufrag for pair in config.local} - before
        self.clear(now)
        self.barred = before if new else frozenset()
        self.locals.clear()
        self.remotes.clear()
        self.configure(config, now)

    def clear(self, now: int) -> None:
        """Forget every address and that the leg was ever there."""
        for path in self.paths.values():
            path.valid = False
        for path in list(self.paths.values()):
            self.forget(path, now)
        self.floor_arrived = self.floor_checked = self.selected_at = self.lost_at = NEVER
        self.ear = Ear()

    def _learn(self, remote: Credentials) -> None:
        self.remotes.pop(remote.ufrag, None)
        self.remotes[remote.ufrag] = remote
        while len(self.remotes) > REMOTE_LIMIT:
            del self.remotes[next(iter(self.remotes))]

    def _withdraw(self, now: int) -> None:
        generations = {local.generation for local in self.locals.values()}
        for path in list(self.paths.values()):
            if path.local.generation not in generations:
                self.forget(path, now)
            elif path.valid and path.generation not in generations:
                self._invalidate(path, now)

    # --- checks and challenges

    def check(self, message: Message, local: Local, source: Address, now: int, out: list[Datagram]) -> str | None:
        """Act on an authenticated Binding request made with `local`; the reason, if it was dropped instead."""
        seen = self.transactions.get(message.transaction)
        if seen is not None and seen != source:
            return "replayed"
        path = self.paths.get(source) or self._admit(source, local, now)
        if path is None:
            return "too_many_addresses"
        if not path.may_reply():
            return "unanswered"
        if message.controlled is not None:
            self.table.send(stun.role_conflict(message.transaction, local.password), source, out)
            return "role_conflict"
        self.table.send(stun.success(message.transaction, source, local.password), source, out)
        if seen is None:
            self._remember(message.transaction, source)
            self._checked(path, message, local, now)
        return None

    def _admit(self, source: Address, local: Local, now: int) -> Path | None:
        if len(self.paths) >= ADDRESS_LIMIT:
            idle = [p for p in self.paths.values() if p is not self.selected and now - p.checked >= FORGET_MS]
            if not idle:
                return None
            self.forget(min(idle, key=lambda path: path.checked), now)
        path = self.paths[source] = Path(self, self.table.pool, source, local)
        self.table.ask(path)
        if path.stream:
            self.table.streams[source] = path
        return path

    def _remember(self, transaction: bytes, source: Address) -> None:
        if len(self.transactions) >= TRANSACTION_LIMIT:
            del self.transactions[next(iter(self.transactions))]
        self.transactions[transaction] = source

    def _checked(self, path: Path, message: Message, local: Local, now: int) -> None:
        path.checked = now
        path.nominated = message.use_candidate
        path.priority = message.priority or 0
        theirs = (message.username or "").partition(":")[2]
        if local.generation > path.local.generation:
            path.local = local
            path.replies = 0
            path.settle(self.table)
        if local.generation == path.local.generation:
            path.theirs = theirs
        self._consider(path, now)
        if path.valid:
            self._nominate(path, now)

    def _consider(self, path: Path, now: int) -> None:
        """Challenge the address if it has something to prove and no round is under way.

        A round that failed before any answer stays: an address gets one for each generation of our credentials.
        """
        if path.pending or path.next_at is not None or path.theirs not in self.remotes:
            return
        unproven = not path.valid or path.generation < path.local.generation
        if (unproven and now - path.answered_at >= CONTEST_MS) or path is self.selected:
            path.begin(self.table, now)

    def answered(self, path: Path, challenge: Challenge, now: int) -> None:
        """An authenticated answer came from the address that was asked; a sign of life like a check."""
        path.answered_at = path.checked = now
        rtt = float(now - challenge.sent_at)
        path.rtt_ms = rtt if path.rtt_ms is None else path.rtt_ms + (rtt - path.rtt_ms) / 8
        path.settle(self.table)

    def validate(self, path: Path, generation: int, now: int) -> None:
        """The address is this leg's now. Newer credentials win at once: that is how an ICE restart takes over."""
        path.valid = True
        path.generation = max(path.generation, generation)
        self.table.enter(path)
        self.table.unask(path)
        if self.selected is None or path.generation > self.selected.generation:
            self._select(path, now)
        elif path is not self.selected:
            self._nominate(path, now)
        if path is self.selected:
            path.next_at = self._next_consent(now)

    def forget(self, path: Path, now: int) -> None:
        """The address is no longer this leg's; what it counted stays counted."""
        del self.paths[path.address]
        self.table.streams.pop(path.address, None)
        self.retired_packets += path.packets
        self.retired_octets += path.octets
        path.settle(self.table)
        self.table.drop("held_freed", len(path.early.take()))
        self.table.unask(path)
        self._invalidate(path, now)
        self.table.index.forget(path)

    def _invalidate(self, path: Path, now: int) -> None:
        path.valid = False
        path.to = None
        self.table.leave(path)
        if path is self.selected:
            self._deselect(path)
            valid = [other for other in self.paths.values() if other.valid]
            if valid:
                self._select(max(valid, key=lambda other: (other.generation, other.checked)), now)
            else:
                self.lost_at = now

    # --- selection

    def follow(self, path: Path, now: int) -> None:
        """Media came from a valid address that is not selected: two in a row, and the selection follows."""
        selected = self.selected
        if selected is None or path.generation < selected.generation:
            return
        path.streak = path.streak + 1 if path.mark == selected.packets else 1
        path.mark = selected.packets
        if path.streak >= 2 and now - self.selected_at >= DWELL_MS:
            self._select(path, now)

    def _nominate(self, path: Path, now: int) -> None:
        """A check came from a valid address: while no media flows, nomination and priority decide."""
        selected = self.selected
        if selected is None or path is selected or path.generation < selected.generation:
            return
        if now - selected.media_at < QUIET_MS or now - self.selected_at < DWELL_MS:
            return
        silent = now - selected.arrived >= SILENT_MS
        better = path.nominated and (not selected.nominated or path.priority > selected.priority)
        if silent or better:
            self._select(path, now)

    def _select(self, path: Path, now: int) -> None:
        if self.selected is not None:
            self._deselect(self.selected)
        if self.selected_at != NEVER:
            self.table.switches += 1
        self.selected = path
        self.selected_at = now
        path.streak = 0
        if path.next_at is None:
            path.next_at = self._next_consent(now)

    def resume(self, path: Path) -> None:
        """The address was selected before the worker was started again."""
        self.selected = path
        path.next_at = path.checked + CONSENT_MS + CONSENT_SPREAD_MS

    def _deselect(self, path: Path) -> None:
        # The leg was there when its former address was: arrivals never go back in time.
        self.floor_arrived = max(self.floor_arrived, path.arrived)
        self.floor_checked = max(self.floor_checked, path.checked)
        path.to = None
        self.selected = None

    # --- counters of DTLS and SRTP

    def received(self) -> tuple[int, int]:
        """Packets and octets that came from this leg's valid addresses."""
        packets, octets = self.retired_packets, self.retired_octets
        for path in self.paths.values():
            packets += path.packets
            octets += path.octets
        return packets, octets

    def sources(self) -> list[Address]:
        """Addresses that are valid now."""
        return [path.address for path in self.paths.values() if path.valid]

    def refuse(self, packets: int, octets: int) -> None:
        """They were received but not forwarded; negative when a held datagram goes out after all."""
        self.refused_packets += packets
        self.refused_octets += octets

    def forwarded(self) -> tuple[int, int]:
        """Those of them that were sent to the other leg."""
        packets, octets = self.received()
        return packets - self.refused_packets, octets - self.refused_octets

    # --- presence (law 2)

    @property
    def arrived(self) -> int:
        """The last arrival that counts for presence: a check, or a packet of 128-191, from the selected address."""
        selected, arrived = self.selected, self.floor_arrived
        if selected is not None:
            arrived = selected.heard if selected.heard > arrived else arrived
            arrived = selected.checked if selected.checked > arrived else arrived
        return arrived

    @property
    def present_until(self) -> int:
        """The instant at which the leg is absent if nothing more arrives; NEVER before it had a selected address."""
        selected = self.selected
        if selected is None:
            return min(self.lost_at, self.floor_arrived + PRESENCE_MS, self.floor_checked + CHECK_MS)
        # Asked a dozen times a report and a check, so without calls: this alone was a third of both.
        arrived, checked = self.floor_arrived, self.floor_checked
        checked = selected.checked if selected.checked > checked else checked
        arrived = selected.heard if selected.heard > arrived else arrived
        arrived = (selected.checked if selected.checked > arrived else arrived) + PRESENCE_MS
        return arrived if arrived < checked + CHECK_MS else checked + CHECK_MS

    def silent(self, since: int, now: int) -> bool:
        """Whether neither RTP nor RTCP has come for so long, counted from `since` at the earliest, that none does."""
        if now - since < UNHEARD_MS or (self.selected is not None and now - self.selected.heard < UNHEARD_MS):
            return False
        heard = max((path.heard for path in self.paths.values()), default=NEVER)
        return now - max(heard, since) >= UNHEARD_MS

    # --- time

    def get_timer(self) -> int | None:
        first, held = None, self.table.pool.datagrams
        for path in self.paths.values():
            at = path.due_at() if held else path.next_at
            if at is not None and (first is None or at < first):
                first = at
        return first

    def handle_timer(self, now: int, out: list[Datagram]) -> None:
        for path in self.paths.values():
            if path.next_at is not None and path.next_at <= now:
                self._due(path, now, out)
            if self.table.pool.datagrams:
                expires_at = path.early.expires_at()
                if expires_at is not None and expires_at <= now:
                    self.table.drop("held_freed", len(path.early.take()))

    def _due(self, path: Path, now: int, out: list[Datagram]) -> None:
        remote = self.remotes.get(path.theirs)
        proven = path.valid and path.generation == path.local.generation
        if remote is None or (proven and not path.tries and not self._wants_consent(path, now)):
            path.settle(self.table)
        elif path.tries < CHALLENGE_LIMIT:
            self.table.send(path.challenge(self.table, self.random_bytes(12), remote, now), path.address, out)
        elif not path.answered:
            path.next_at = None
        else:
            path.settle(self.table)
            if path is self.selected:
                path.next_at = self._next_consent(now)

    def _wants_consent(self, path: Path, now: int) -> bool:
        # An absent leg is left in peace; its next check starts the rounds again.
        return path is self.selected and now < self.present_until

    def _next_consent(self, now: int) -> int:
        at = now + CONSENT_MS + self.random_bytes(1)[0] * CONSENT_SPREAD_MS // 255
        return at + -at % GRID_MS
