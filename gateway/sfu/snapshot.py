"""What of a call must outlive its worker: credentials, addresses that have proved themselves, gate, spans, counters.

A snapshot is a tuple of plain values. A call restored from one forwards as soon as media comes: nothing has to be
earned again. The span that ran when the worker died ends where it was last known to run (law 3), and the next
media starts another; deadline, budgets and counters go on. `latest` is what of it changes all the time, at a fraction
of the cost; it may stand at the end of a snapshot that is older.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

from gateway.sfu import activity
from gateway.sfu.agent import Agent
from gateway.sfu.call import Call, Direction
from gateway.sfu.path import Local, Path
from gateway.sfu.port import CallConfig, Credentials, LegConfig, Span
from gateway.sfu.stun import NEVER

Snapshot = tuple[Any, ...]

SPANS: Final = 12
"""Of those that are over; control had 250 ms to hear of each."""
ADDRESSES: Final = 3
"""A leg: the selected one and those that were checked last."""


_TIMES: Final = Struct("=qq")


def take(call: Call, now: int) -> Snapshot:
    """The call as of `now`. Holds passwords: it may go to memory that others cannot read, and nowhere else."""
    call.advance(now)
    spans = [_span(span) for span in list(call.spans)[-SPANS:]]
    if call.span_at is not None:
        spans.append((call.number, call.span_at, None, (call.legs[0].arrived, call.legs[1].arrived), "lost"))
    budgets = tuple((d.datagrams, d.octets, d.level, d.level_at) for d in call.directions)
    return (
        _config(call.config),
        (call.until, call.deadline, call.started_at, call.number, call.handshake_at),
        tuple(spans),
        budgets,
        tuple(_agent(agent) for agent in call.legs),
    )


def latest(call: Call, packed: bytes) -> bytes:
    """`packed`: the call's activity."""
    return _TIMES.pack(call.until, NEVER if call.deadline is None else call.deadline) + packed


def config_of(snapshot: Snapshot) -> CallConfig:
    """The configuration that the call had."""
    call, incarnation, legs, funded, limit_ms, until, deadline, tag = snapshot[0]
    return CallConfig(call, incarnation, (_leg(legs[0]), _leg(legs[1])), funded, limit_ms, until, deadline, tag)


def restore(call: Call, snapshot: Snapshot, until: int) -> None:
    """Give a call that was just made with `config_of(snapshot)` its past, as it was known at `until`."""
    _, state, spans, budgets, agents, *newer = snapshot
    call.until, call.deadline, call.started_at, call.number, call.handshake_at = state
    for direction, budget in zip(call.directions, budgets, strict=True):
        _restore_budget(direction, budget)
    for agent, kept in zip(call.legs, agents, strict=True):
        _restore_agent(agent, kept)
    if newer:
        _renew(call, newer[0])
    for number, start, end, heard, why in spans:
        if end is None:
            last = (call.legs[0].arrived, call.legs[1].arrived)
            call.spans.append(Span(number, start, max(start, until), last if newer else heard, why))
        else:
            call.spans.append(Span(number, start, end, heard, why))


def _renew(call: Call, newer: bytes) -> None:
    call.until, deadline = _TIMES.unpack_from(newer)
    call.deadline = None if deadline == NEVER else deadline
    legs = activity.unpack(newer[_TIMES.size :])
    for agent, own, other in zip(call.legs, legs, legs[::-1], strict=True):
        checked, heard, _arrived, packets, octets, *_ = own
        agent.retired_packets, agent.retired_octets = packets, octets
        # What the other leg was sent is what of this one's was forwarded.
        agent.refused_packets, agent.refused_octets = packets - other[5], octets - other[6]
        if agent.selected is not None:
            agent.selected.checked, agent.selected.heard = checked, heard


def _span(span: Span) -> Snapshot:
    return span.number, span.start, span.end, span.heard, span.ended_by


def _config(config: CallConfig) -> Snapshot:
    legs = tuple((_pairs(leg.local), None if leg.remote is None else _pairs((leg.remote,))[0]) for leg in config.legs)
    return (
        config.call, config.incarnation, legs, config.funded, config.limit_ms, config.until, config.deadline,
        config.tag,
    )  # fmt: skip


def _pairs(pairs: tuple[Credentials, ...]) -> Snapshot:
    return tuple((pair.ufrag, pair.password) for pair in pairs)


def _leg(kept: Snapshot) -> LegConfig:
    local, remote = kept
    return LegConfig(tuple(Credentials(*pair) for pair in local), None if remote is None else Credentials(*remote))


def _agent(agent: Agent) -> Snapshot:
    # A connection dies with its worker, and its address with it.
    lasting = (path for path in agent.paths.values() if path.valid and not path.stream)
    valid = sorted(lasting, key=lambda path: path.checked)
    chosen = agent.selected if agent.selected in valid or not valid else valid[-1]
    last = [path for path in valid if path is not chosen][-ADDRESSES + 1 :]
    paths = tuple(_path(path, selected=path is chosen) for path in valid if path is chosen or path in last)
    return (
        tuple((local.ufrag, local.password, local.generation) for local in agent.locals.values()),
        _pairs(tuple(agent.remotes.values())),
        tuple(agent.barred),
        agent.generation,
        (agent.selected_at, agent.lost_at, agent.floor_arrived, agent.floor_checked),
        (*agent.received(), agent.refused_packets, agent.refused_octets),
        paths,
    )


def _path(path: Path, *, selected: bool) -> Snapshot:
    return (
        path.address, path.local.ufrag, path.theirs, path.generation, path.heard, path.checked, path.dtls_at,
        path.answered_at, path.nominated, path.priority, path.rtt_ms, selected,
    )  # fmt: skip


def _restore_budget(direction: Direction, budget: Snapshot) -> None:
    direction.datagrams, direction.octets, direction.level, direction.level_at = budget


def _restore_agent(agent: Agent, kept: Snapshot) -> None:
    locals_, remotes, barred, generation, times, counters, paths = kept
    agent.locals = {ufrag: Local(ufrag, password, number) for ufrag, password, number in locals_}
    agent.remotes = {ufrag: Credentials(ufrag, password) for ufrag, password in remotes}
    agent.barred, agent.generation = frozenset(barred), generation
    agent.retired_packets, agent.retired_octets, agent.refused_packets, agent.refused_octets = counters
    for path in paths:
        _restore_path(agent, path)
    agent.selected_at, agent.lost_at, agent.floor_arrived, agent.floor_checked = times


def _restore_path(agent: Agent, kept: Snapshot) -> None:
    address, ufrag, theirs, generation, heard, checked, dtls_at, answered_at, nominated, priority, rtt, selected = kept
    local = agent.locals.get(ufrag)
    if local is None or address in agent.table.rows:
        return
    path = agent.paths[address] = Path(agent, agent.table.pool, address, local)
    path.theirs, path.generation, path.valid = theirs, generation, True
    path.heard, path.checked, path.dtls_at, path.answered_at = heard, checked, dtls_at, answered_at
    path.nominated, path.priority, path.rtt_ms = nominated, priority, rtt
    agent.table.enter(path)
    if selected:
        agent.resume(path)
