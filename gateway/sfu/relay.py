"""The sealed relay's core for one socket: datagrams in, datagrams out, by one look-up each.

Packets of an open gate go by `forward` alone: one dictionary look-up by source address. Everything else (STUN, DTLS,
the first packets, the unknown) goes by `accept`; `receive` is both. What is not authentic or not known gets no answer
and changes nothing but a counter (law 7). The core reads no clock and owns no socket: `now` is milliseconds of
CLOCK_BOOTTIME, read after the datagram was, and `get_timer` says when `handle_timer` wants to be called.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

from gateway.errors import Conflict
from gateway.sfu import snapshot, stun
from gateway.sfu.agent import Agent
from gateway.sfu.call import FAR, ORPHAN_MS, Call
from gateway.sfu.demux import DTLS, JUNK, MEDIA, STUN, classify, is_rtcp
from gateway.sfu.path import Challenge, Datagram, Local, Path, Rows, Table
from gateway.sfu.port import CallConfig, Report, Statistics
from gateway.sfu.reporting import News, Reporting
from gateway.sfu.snapshot import Snapshot
from gateway.sfu.stun import Address, Buffer, Message, StunError

SIZE_LIMIT: Final = 1500
"""Longer datagrams are dropped: no caller sends them, and forwarding fragments would invite floods of them."""
HOLDER_MS: Final = 15_000
"""An address stays with the leg that holds it while that leg heard from it within this time (6-media, Addresses)."""
SPANS_BITS: Final = 20
"""A million spans a call and start of the worker: one every 5 ms of the longest call."""

STALE: Final = 8
"""Timers a call, with those that mean nothing any more."""


class Relay:
    """All calls of one socket. Not thread-safe; every method returns at once."""

    def __init__(self, random_bytes: Callable[[int], bytes], instance: int = 0) -> None:
        """`instance` rises with each start of the worker: numbers of spans follow from it, and so never come twice."""
        self._random_bytes = random_bytes
        self._first_number = instance << SPANS_BITS
        self._table = Table()
        self._rows = self._table.rows
        self._locals: dict[str, tuple[Call, Agent, Local]] = {}
        self._calls: dict[str, Call] = {}
        self._heap: list[tuple[int, int, Call]] = []
        self._serial = 0
        self._told = Reporting(self._after)
        self._drop = self._table.drop
        self._checks = self._answers = 0
        self._forgotten: list[str] = []
        self._other_packets = self._other_octets = 0
        self._gone = [0, 0, 0, 0]
        """Of released calls: packets and octets received, packets and octets forwarded."""

    def index_by(self, rows: Rows) -> None:
        """Have a shell's own index follow the rows; before anything else happens."""
        self._table.index = rows

    # --- desired state

    def configure(self, config: CallConfig, now: int) -> bool:
        """Make a call so; idempotent. A config of an older incarnation than the known one changes nothing.

        Raises Conflict (`ufrag_in_use`) when a username fragment of ours is another leg's already. What is to be sent
        because of it (challenges to addresses that waited for the caller's password) comes out of `handle_timer`.
        False if at most the times of a call were new.
        """
        known = self._calls.get(config.call)
        if known is not None and known.extend(config, now):
            self._after(known, now)
            return False
        self._check_ufrags(config)
        call = self._calls.get(config.call) or self._add(config, now)
        if config.incarnation < call.config.incarnation:
            return False
        restart = config.incarnation > call.config.incarnation
        call.configure(config, now)
        for agent, leg in zip(call.legs, config.legs, strict=True):
            (agent.restart if restart else agent.configure)(leg, now)
        self._index(call)
        call.advance(now)
        self._after(call, now)
        return True

    def prolong(self, call: str, until: int, now: int) -> bool:
        """`configure` where `until` alone is new, at a fraction of its cost; False if the call is not known."""
        known = self._calls.get(call)
        if known is None:
            return False
        before = known.until
        known.prolong(until, now)
        if known.changed or known.until < before:
            self._after(known, now)
        else:
            # Its timer comes too early now, and then finds nothing to do.
            known.arm()
        return True

    def release(self, call: str, now: int) -> Report | None:
        """Forget a call; its last report with every span ended, or None if it was not known."""
        known = self._calls.get(call)
        return None if known is None else self._remove(known, now)

    def snapshot(self, call: str, now: int) -> Snapshot | None:
        """What of the call must outlive this relay; None if it is not known."""
        known = self._calls.get(call)
        return None if known is None else snapshot.take(known, now)

    def restore(self, kept: Snapshot, until: int, now: int) -> None:
        """Go on with a call that another instance had, last at `until`. Raises Conflict as `configure` does."""
        config = snapshot.config_of(kept)
        self._check_ufrags(config)
        call = self._add(config, now)
        snapshot.restore(call, kept, until)
        self._index(call)
        call.changed = True
        call.advance(now)
        self._after(call, now)

    def forgotten(self) -> list[str]:
        """Calls that were given up since this was asked last, because nobody extended them."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    @property
    def calls(self) -> tuple[str, ...]:
        return tuple(self._calls)

    def _check_ufrags(self, config: CallConfig) -> None:
        for number, leg in enumerate(config.legs):
            for pair in leg.local:
                holder = self._locals.get(pair.ufrag)
                if holder is not None and (holder[0].id, holder[1].number) != (config.call, number):
                    raise Conflict("this username fragment belongs to another leg", code="ufrag_in_use")
        if {pair.ufrag for pair in config.legs[0].local} & {pair.ufrag for pair in config.legs[1].local}:
            raise Conflict("both legs have the same username fragment", code="ufrag_in_use")

    def _add(self, config: CallConfig, now: int) -> Call:
        call = self._calls[config.call] = Call(config, self._table, self._random_bytes, now, self._first_number)
        self._serial += 1
        call.serial = self._serial
        return call

    def _index(self, call: Call) -> None:
        for ufrag in call.ufrags:
            del self._locals[ufrag]
        call.ufrags = tuple(ufrag for agent in call.legs for ufrag in agent.locals)
        for agent in call.legs:
            for local in agent.locals.values():
                self._locals[local.ufrag] = (call, agent, local)

    def _remove(self, call: Call, now: int) -> Report:
        call.release(now)
        call.look(now)
        report = call.report(now)
        for agent in call.legs:
            for place, count in enumerate((*agent.received(), *agent.forwarded())):
                self._gone[place] += count
            agent.locals.clear()
            agent.clear(now)
        self._index(call)
        del self._calls[call.id]
        self._told.forget(call)
        call.wake = -1
        self._sweep()
        for agent in call.legs:
            agent.call = None  # Or only the garbage collector would free them, and hold media up for it.
        return report

    # --- datagrams

    def forward(self, first: int, size: int, source: Address, now: int) -> Address | None:
        """The fast path: where a datagram of an open gate goes (counted as sent), or None: ask `accept`.

        `first` is the first byte, `size` the length. Nothing is allocated here.
        """
        path = self._rows.get(source)
        if path is None or first >> 6 != 2:
            return None
        to = path.to
        if to is None or now >= path.cut or size > SIZE_LIMIT:
            return None
        path.packets += 1
        path.octets += size
        path.heard = now
        return to.address

    def receive(self, data: Buffer, source: Address, now: int) -> list[Datagram]:
        """Take any datagram; what is to be sent because of it.

        A forwarded datagram is `data` itself, so it has to be sent before a reused buffer is overwritten.
        """
        to = self.forward(data[0], len(data), source, now) if data else None
        return self.accept(data, source, now) if to is None else [(data, to)]

    def accept(self, data: Buffer, source: Address, now: int) -> list[Datagram]:
        """`receive` for a datagram that `forward` has declined already."""
        size, kind = len(data), classify(data)
        path = self._rows.get(source) if kind in (DTLS, MEDIA) else None
        if path is not None and path.valid:
            return self._pass(path, data, kind, now)
        if path is not None and kind == DTLS and size <= SIZE_LIMIT:
            self._keep_early(path, data, now)
            return []
        out: list[Datagram] = []
        if kind == STUN and size <= SIZE_LIMIT:
            self._other_packets += 1
            self._other_octets += size
            self._stun(data, source, now, out)
        else:
            self.ignore(kind, size)
        return out

    def ignore(self, kind: int, octets: int) -> None:
        """`accept` for junk, and for media and DTLS whose source the shell has looked up in vain: counted, no more."""
        self._other_packets += 1
        self._other_octets += octets
        if octets > SIZE_LIMIT:
            self._drop("oversize")
        else:
            self._drop("junk" if kind == JUNK else "unknown_source")

    def knows(self, source: Address) -> bool:
        """Whether an authentic check came by this connection."""
        return source in self._table.streams

    def hang_up(self, source: Address, now: int) -> list[Datagram]:
        """A connection ended, whoever ended it; what is to be sent because of it."""
        path = self._table.streams.get(source)
        out: list[Datagram] = []
        if path is not None:
            self._let_go_of(path, now, out)
        return out

    def _let_go_of(self, path: Path, now: int, out: list[Datagram]) -> None:
        agent, call = _owners(path)
        call.advance(now)
        agent.forget(path, now)
        self._settle(call, now, out)

    def _stun(self, data: Buffer, source: Address, now: int, out: list[Datagram]) -> None:
        try:
            message = stun.parse(data)
        except StunError:
            self._drop("bad_stun")
            return
        if message.kind == stun.REQUEST:
            self._request(message, data, source, now, out)
        elif message.kind == stun.INDICATION:
            self._drop("indication")
        else:
            self._response(message, data, source, now, out)

    def _request(self, message: Message, data: Buffer, source: Address, now: int, out: list[Datagram]) -> None:
        known = self._locals.get((message.username or "").partition(":")[0])
        if known is None:
            self._drop("unknown_ufrag")
            return
        call, agent, local = known
        if not stun.authentic(message, data, local.password):
            self._drop("bad_integrity")
            return
        holder = self._table.streams.get(source)
        if holder is not None and holder.owner is not agent:
            self._drop("connection_of_another_leg")
            return
        call.advance(now)
        answer: list[Datagram] = []
        reason = agent.check(message, local, source, now, answer)
        if reason is None:
            self._checks += 1
        else:
            self._drop(reason)
        self._settle(call, now, out)
        # After the challenge: its answer then comes ahead of the hello that our own answer sets off.
        out += answer

    def _response(self, message: Message, data: Buffer, source: Address, now: int, out: list[Datagram]) -> None:
        challenge = self._table.challenges.get(message.transaction)
        if challenge is None or challenge.path.address != source:
            self._drop("unknown_transaction")
        elif not stun.authentic(message, data, challenge.remote.password.encode()):
            self._drop("bad_integrity")
        elif message.kind == stun.ERROR:
            self._drop("challenge_refused")
        else:
            self._answers += 1
            self._answered(challenge, now, out)

    def _answered(self, challenge: Challenge, now: int, out: list[Datagram]) -> None:
        path, holder = challenge.path, self._rows.get(challenge.path.address)
        holder = holder if holder is not None and holder.valid else None
        agent, call = _owners(path)
        call.advance(now)
        agent.answered(path, challenge, now)
        if holder is None or holder is path or now - holder.arrived >= HOLDER_MS:
            if holder is not None and holder is not path:
                self._table.moves += 1
                self._let_go_of(holder, now, out)
            agent.validate(path, challenge.local.generation, now)
            self._let_in(path, agent, call, now)
        self._settle(call, now, out)

    def _keep_early(self, path: Path, data: Buffer, now: int) -> None:
        """DTLS from an address that has not answered our challenge yet: kept there until it has."""
        agent, call = _owners(path)
        path.packets += 1
        path.octets += len(data)
        agent.refuse(1, len(data))
        self._told.stir(call)
        self._drop("held_replaced", path.early.add(data, now))
        self._schedule(call)

    def _let_in(self, path: Path, agent: Agent, call: Call, now: int) -> None:
        """The address is valid now: what it sent early waits with the leg's own, for the other leg."""
        hold = call.directions[agent.number].hold
        for datagram in path.early.take():
            self._drop("held_replaced", hold.add(datagram, now))

    def _pass(self, path: Path, data: Buffer, kind: int, now: int) -> list[Datagram]:
        """DTLS or SRTP from a valid address, off the fast path."""
        (agent, call), size = _owners(path), len(data)
        self._told.stir(call)
        call.advance(now)
        path.packets += 1
        path.octets += size
        if path is not agent.selected:
            agent.follow(path, now)
        if kind == MEDIA:
            path.heard = now
        else:
            path.dtls_at = now
        reason = self._verdict(call, agent.number, data, kind, now)
        out: list[Datagram] = []
        if reason is None:
            self._send_on(call, agent.number, data, out)
        else:
            agent.refuse(1, size)
            self._keep_or_drop(call, agent.number, data, reason, now)
        self._settle(call, now, out)
        return out

    def _verdict(self, call: Call, number: int, data: Buffer, kind: int, now: int) -> str | None:
        if len(data) > SIZE_LIMIT:
            return "oversize"
        if kind == MEDIA:
            return call.media(number, now, heard=not is_rtcp(data))
        return call.handshake(number, len(data), now)

    def _keep_or_drop(self, call: Call, number: int, data: Buffer, reason: str, now: int) -> None:
        if reason == "hold":
            self._drop("held_replaced", call.directions[number].hold.add(data, now))
        else:
            self._drop(reason)

    def _send_on(self, call: Call, number: int, data: Buffer, out: list[Datagram]) -> None:
        to = call.legs[1 - number].selected
        assert to is not None, "an open gate has two selected addresses"
        out.append((data, to.address))

    # --- after anything that changed a call

    def _settle(self, call: Call, now: int, out: list[Datagram]) -> None:
        """Send what is due, let a held flight go, and put rows, timer and report in order."""
        call.advance(now)
        for agent in call.legs:
            agent.handle_timer(now, out)
        if self._table.pool.datagrams and call.closed(now) is None:
            for number in (0, 1):
                self._let_go(call, number, now, out)
        self._after(call, now)

    def _let_go(self, call: Call, number: int, now: int, out: list[Datagram]) -> None:
        for datagram in call.directions[number].hold.take():
            reason = call.handshake(number, len(datagram), now)
            if reason is None:
                call.legs[number].refuse(-1, -len(datagram))
                self._send_on(call, number, datagram, out)
            else:
                self._drop(reason)

    def _after(self, call: Call, now: int) -> None:
        call.arm()
        self._told.note(call, now)
        self._schedule(call)

    # --- time

    def _schedule(self, call: Call) -> None:
        at = call.get_timer()
        if at < call.wake:
            # The former, later entry stays in the heap and is recognised as stale by its time.
            self._serial += 1
            heapq.heappush(self._heap, (at, self._serial, call))
            call.wake = at

    def _sweep(self) -> None:
        """Entries of calls that are gone lie under those of others for a quarter of an hour: too many are cleared."""
        if len(self._heap) > STALE * (len(self._calls) + STALE):
            self._heap = [entry for entry in self._heap if entry[2].wake == entry[0]]
            heapq.heapify(self._heap)

    def get_timer(self) -> int | None:
        """When `handle_timer` wants to be called, or None while nothing is configured."""
        heap, report_at = self._heap, self._told.get_timer()
        while heap and heap[0][2].wake != heap[0][0]:
            heapq.heappop(heap)
        if not heap or (report_at is not None and report_at < heap[0][0]):
            return report_at
        return heap[0][0]

    def handle_timer(self, now: int) -> list[Datagram]:
        """Do what is due by `now`; what is to be sent because of it."""
        out: list[Datagram] = []
        self._told.handle_timer(now)
        while (at := self.get_timer()) is not None and at <= now:
            call = heapq.heappop(self._heap)[2]
            call.wake = FAR
            if call.until + ORPHAN_MS <= now:
                self._remove(call, now)
                self._forgotten.append(call.id)
            else:
                self._settle(call, now, out)
        return out

    # --- reports

    @property
    def has_reports(self) -> bool:
        return self._told.waiting

    def news(self, now: int, limit: int = FAR) -> list[News]:
        """Of the calls that changed, and of those with a gate not shut, 250 ms after their last; as of `now`.

        At most `limit` of them, those that wait longest: the others are for the next time.
        """
        return [(call, self._told.tell(call, now)) for call in self._told.take(limit)]

    def reports(self, now: int, limit: int = FAR) -> list[Report]:
        """`news`, all of each call."""
        return [self._told.report(call, now) for call in self._told.take(limit)]

    def survey(self) -> None:
        """Let every call be reported in full, changed or not: for a reader that has just come."""
        for call in self._calls.values():
            self._told.survey(call)

    def talking(self) -> list[Agent]:
        """The legs of open gates."""
        return [agent for call in self._told.running if call.gate == "open" for agent in call.legs]

    def silence(self, now: int) -> tuple[int, int]:
        """One-way calls, and silent legs in all."""
        return self._told.listen(now)

    def statistics(self) -> Statistics:
        """Sums over the relay's life. packets_in = forwarded + checks + answers + drops + datagrams still held."""
        self._told.count(self._calls.values())
        return self.totals()

    def totals(self) -> Statistics:
        """`statistics` without a walk over all calls: what an open gate passed since its last report is missing."""
        packets_in, octets_in, packets_out, octets_out, legs, open_gates = self._told.sums()
        one_way_calls, silent_legs = self._told.silence()
        return Statistics(
            calls=len(self._calls),
            legs=legs,
            open_gates=open_gates,
            packets_in=packets_in + self._gone[0] + self._other_packets,
            packets_out=packets_out + self._gone[2] + self._table.sent_packets,
            bytes_in=octets_in + self._gone[1] + self._other_octets,
            bytes_out=octets_out + self._gone[3] + self._table.sent_octets,
            checks=self._checks,
            address_switches=self._table.switches,
            drops=dict(self._table.drops),
            answers=self._answers,
            address_moves=self._table.moves,
            held=self._table.pool.datagrams,
            one_way_calls=one_way_calls,
            silent_legs=silent_legs,
        )


def _owners(path: Path) -> tuple[Agent, Call]:
    """Whose address it is."""
    agent: Agent = path.owner
    return agent, agent.call
