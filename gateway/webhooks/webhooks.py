"""The webhook sender: takes each session's events to each endpoint, signed, in order, until they arrive or are dead.

Work is done in lanes (`lanes`): first attempts for one endpoint, or one retry. Each pass over a session takes the lanes
that are free and due, works them side by side, and gives each back with what it found out.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter as Tally
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import structlog
from prometheus_client import Counter, Gauge
from redis.exceptions import RedisError

from gateway.clock import Clock
from gateway.errors import NotFound, StoreUnavailable
from gateway.ids import new_secret
from gateway.journal import Claim, Journal
from gateway.outbox import claims
from gateway.outbox.delivery import Answer, Delivery, Health, attempted
from gateway.webhooks.endpoints import Endpoint, Endpoints
from gateway.webhooks.lanes import QUEUE, Lane, Lanes, delivery_view, lane_of, opened
from gateway.webhooks.outbound import TIMEOUT_S, Outbound

DEAD: Final = "webhooks:dead"
UNDELIVERED: Final = "webhooks:undelivered"
LANE_BUDGET_MS: Final = 20_000  # after this a lane starts no further attempt
LEASE_MS: Final = 60_000  # budget, one time-out and room
SLOT_S: Final = 2.0  # a lane that got no place at its endpoint by then makes room for other sessions
BUSY_MS: Final = 500  # when to look again for an endpoint that has no place now
PATIENCE_S: Final = 2.5  # beyond SLOT_S: only a lane in the midst of an attempt goes on alone when its pass ends
BODY_BYTES: Final = 20_000  # Standard Webhooks: keep payloads small

PAGE: Final = 500  # events read at a time when many are sent again
STORE_AT_ONCE: Final = 32  # the client's pool refuses beyond 100 connections, and others use it too
T = TypeVar("T")
_Place = tuple[str, int, str]  # event, its sequence, endpoint

DELIVERIES = Counter("gateway_webhook_deliveries_total", "Attempts to deliver an event", ["outcome"])
OLDEST = Gauge("gateway_webhook_oldest_undelivered_seconds", "Age of the oldest event still to be delivered")
DEAD_LETTERS = Gauge("gateway_webhook_dead_letters", "Events given up and listed as dead letters")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """`allow_private`: also plain http and private networks (development). `per_endpoint`: deliveries at a time to one
    endpoint; `at_once`: sessions at a time, of which half may wait for the same endpoint."""

    allow_private: bool = False
    timeout_s: float = TIMEOUT_S
    per_endpoint: int = 32
    at_once: int = 1_024  # most of them wait for the disk, which comes once a second


class Webhooks:
    """Shell. `await run()` works until cancelled; the lists and `resend` may be used without it."""

    def __init__(self, journal: Journal, endpoints: Endpoints, settings: WebhookSettings, clock: Clock) -> None:
        self._journal, self._endpoints, self._settings, self._clock = journal, endpoints, settings, clock
        self._lanes = Lanes(journal)
        self._outbound = Outbound(clock, allow_private=settings.allow_private, timeout_s=settings.timeout_s)
        self._busy: Tally[str] = Tally()
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._health: dict[str, Health] = {}
        self._store = asyncio.Semaphore(STORE_AT_ONCE)

    async def run(self) -> None:
        """Deliver events as they come, until cancelled."""
        gauges = asyncio.create_task(self._measure())
        try:
            await claims.work(self._journal, QUEUE, self.handle, lease_ms=LEASE_MS, at_once=self._settings.at_once)
        finally:
            gauges.cancel()
            await asyncio.gather(gauges, return_exceptions=True)
            await self._outbound.close()

    async def handle(self, claim: Claim) -> None:
        """One pass over a claimed session: every lane that is free and due is worked, each on its own. The session is
        given back without waiting for the slow ones: what comes meanwhile goes to the others at once."""
        session, owner = claim.session, new_secret(size=9)
        known_to = await self._on_disk(claim)
        if known_to is None:
            return
        now, whose = self._clock.wall_ms(), await owning(self._journal, session) or {}
        known = await self._endpoints.cached()
        active = [e for e in known.values() if e.enabled and e.account in (None, whose.get("account"))]
        ready = self._reserve(active)
        names: list[str] = []
        try:
            names, state = await self._lanes.take(session, owner, ready, now, now + LEASE_MS)
        finally:
            self._busy.subtract(one for one in ready if one not in names)
        again = self._when_busy([e for e in active if e.id not in ready])
        lanes = [lane_of(name, known, known_to) for name in names]
        live = bool(whose.get("livemode"))
        works = [asyncio.create_task(self._work(session, owner, lane, state, live)) for lane in lanes]
        try:
            await _quick(lanes, works)
            buried = await self._stored(self._bury_orphans(session, state, {e.id for e in active}))
            more = any(name[:2] == "o:" or (name[:2] == "l:" and name[2:] not in names) for name in state)
            if buried or more or any(lane.alone for lane in lanes):
                again = await self._stored(self._next_look(session, again))
            await self._journal.done(claim, _earliest(again, *(lane.next_at for lane in lanes)))
        except asyncio.CancelledError:
            _ = [work.cancel() for work in works]
            raise
        finally:
            ends = await asyncio.gather(*works, return_exceptions=True)
        for end in ends:
            if end is not None:
                raise end

    async def _on_disk(self, claim: Claim) -> int | None:
        """Up to which event nothing can be lost any more; later ones have asked for another look. None: not now."""
        count = await self._journal.count_events(claim.session)
        try:
            await self._journal.disk.confirmed()
        except StoreUnavailable:
            await self._journal.done(claim, self._clock.wall_ms() + BUSY_MS)
            return None
        return count

    async def _stored(self, work: Awaitable[T]) -> T:
        async with self._store:
            return await work

    def _reserve(self, active: Sequence[Endpoint]) -> list[str]:
        """The endpoints that may be given more to do now; a place at each is taken at once, before anything waits."""
        now, most = self._clock.wall_ms(), self._settings.per_endpoint + self._settings.at_once // 2
        ready = [e.id for e in active if self._busy[e.id] < most and self._paused_until(e.id) <= now]
        self._busy.update(ready)
        return ready

    def _paused_until(self, endpoint: str) -> int:
        return self._health.get(endpoint, Health()).paused_until

    def _when_busy(self, left: Sequence[Endpoint]) -> int | None:
        """When to come back for endpoints that could be given nothing in this pass."""
        if not left:
            return None
        pauses = [self._paused_until(e.id) for e in left]
        return max(self._clock.wall_ms(), min(pauses)) + _soon()

    async def _work(self, session: str, owner: str, lane: Lane, state: Mapping[str, str], live: bool) -> None:
        endpoint = lane.endpoint.id
        self._busy[endpoint] += lane.sequence is not None  # first attempts have reserved their place
        slot = self._slots.setdefault(endpoint, asyncio.Semaphore(self._settings.per_endpoint))
        try:
            async with asyncio.timeout(SLOT_S):
                await slot.acquire()
            try:
                await self._work_lane(session, lane, state, live)
            finally:
                slot.release()
        except TimeoutError:
            lane.look_again(self._clock.wall_ms() + _soon())
        except asyncio.CancelledError:
            lane.look_again(self._clock.wall_ms())
            raise
        finally:
            self._busy[endpoint] -= 1
            lane.ended = True
            await self._lanes.give(session, owner, lane)

    async def _work_lane(self, session: str, lane: Lane, state: Mapping[str, str], live: bool) -> None:
        if lane.sequence is None:
            await self._first_attempts(session, lane, int(state.get(f"c:{lane.endpoint.id}", "0")), live)
        elif (paused := self._paused_until(lane.endpoint.id)) > self._clock.wall_ms():
            lane.look_again(paused + _soon())
        else:
            await self._retry(session, lane, opened(state[f"o:{lane.name}"]), live)

    async def _first_attempts(self, session: str, lane: Lane, cursor: int, live: bool) -> None:
        """Every event after the cursor once, in order; those that come meanwhile have asked for another look."""
        until = self._clock.wall_ms() + LANE_BUDGET_MS
        events = await self._journal.events(session, cursor)
        for event in events[: max(0, lane.known_to - cursor)]:
            paused = self._paused_until(lane.endpoint.id)
            if self._clock.wall_ms() > until or paused > self._clock.wall_ms():
                lane.look_again(max(self._clock.wall_ms(), paused) + _soon())
                return
            if lane.endpoint.wants(event) and await self._attempt(lane, event, Delivery(), live) == "disabled":
                return
            lane.put[f"c:{lane.endpoint.id}"] = str(event["sequence"])

    async def _retry(self, session: str, lane: Lane, delivery: Delivery, live: bool) -> None:
        assert lane.sequence is not None
        event = (await self._journal.events(session, lane.sequence - 1))[0]
        await self._attempt(lane, event, delivery, live)

    async def _attempt(self, lane: Lane, event: dict[str, Any], delivery: Delivery, live: bool) -> str:
        """One POST and what follows from its answer; returns the outcome's name."""
        endpoint, now = lane.endpoint, self._clock.wall_ms()
        body = body_of(event, live)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": event["id"],
            "webhook-timestamp": str(now // 1000),
            "webhook-signature": endpoint.signature(event["id"], now, body),
        }
        answer = await self._outbound.post(endpoint.url, body, headers)
        now = self._clock.wall_ms()
        self._health[endpoint.id] = self._health.get(endpoint.id, Health()).after(answer, now)
        result = attempted(delivery, answer, now, random.random())
        if result.state == "delivered":
            lane.drop.append(f"o:{endpoint.id}:{event['sequence']}")
        else:
            await self._stored(self._note(lane, event, result, now))
        if answer.gone:
            await self._endpoints.disable(endpoint.id, "gone")
            log.warning("webhook.endpoint_gone", endpoint=endpoint.id)
        outcome = _outcome(answer, result)
        DELIVERIES.labels(outcome).inc()
        return outcome

    async def _note(self, lane: Lane, event: Mapping[str, Any], result: Delivery, now: int) -> None:
        place = f"{lane.endpoint.id}:{event['sequence']}"
        if result.state == "open":
            lane.put[f"o:{place}"] = f"{result.attempts}:{result.next_at}:{result.why}"
            lane.look_again(result.next_at)
            await self._journal.redis.zadd(UNDELIVERED, {event["session"]: event["created"]}, lt=True)
            return
        lane.drop.append(f"o:{place}")
        lane.put[f"d:{place}"] = f"{result.attempts}:{now}:{result.why}"
        await self._list_dead(event, lane.endpoint.id, now)

    async def _list_dead(self, event: Mapping[str, Any], endpoint: str, now: int) -> None:
        # Listed before the session's own record says so: after a crash in between it is seen twice, never not at all.
        member = f"{event['id']}|{event['session']}|{event['sequence']}|{endpoint}"
        await self._journal.redis.zadd(DEAD, {member: now})
        log.error("webhook.dead_letter", event_id=event["id"], session=event["session"], endpoint=endpoint)

    async def _bury_orphans(self, session: str, state: Mapping[str, str], active: set[str]) -> bool:
        """What is open for an endpoint that was removed or disabled will not arrive: it becomes a dead letter."""
        orphans = [name for name in state if name.startswith("o:") and name.split(":")[1] not in active]
        if not orphans:
            return False
        events, now = await self._journal.events(session), self._clock.wall_ms()
        for name in orphans:
            _, endpoint, sequence = name.split(":")
            await self._list_dead(events[int(sequence) - 1], endpoint, now)
            attempts = opened(state[name]).attempts
            await self._lanes.change(session, {f"d:{endpoint}:{sequence}": f"{attempts}:{now}:endpoint_off"}, [name])
        return True

    async def _next_look(self, session: str, again: int | None) -> int | None:
        """When the session has to be looked at for what other lanes hold or was not due yet."""
        rows, now = await self._lanes.fields(session), self._clock.wall_ms()
        leases = {name[2:]: int(value.split(":")[0]) for name, value in rows.items() if name.startswith("l:")}
        opens = {name[2:]: opened(value).next_at for name, value in rows.items() if name.startswith("o:")}
        if not opens and not leases:
            await self._journal.redis.zrem(UNDELIVERED, session)
        # One that is due by now could not be taken, since its endpoint is busy or paused: not at once again. A lane
        # that somebody holds asks for a look when it ends; its lease is for those who died.
        looks = [max(at, leases.get(lane, 0)) for lane, at in opens.items()] + list(leases.values())
        return _earliest(again, *(max(at, again or now + BUSY_MS) for at in looks))

    async def deliveries(self, session: str) -> list[dict[str, Any]]:
        """Per endpoint and event of a session: `state` pending, delivered, open or dead, with attempts and why."""
        rows, events = await self._lanes.fields(session), await self._journal.events(session)
        known = await self._endpoints.cached()
        return [delivery_view(event, e, rows) for e in known.values() for event in events if e.wants(event)]

    async def dead_letters(self, limit: int = 100) -> list[dict[str, Any]]:
        """Events given up, latest first: event, session, sequence, endpoint, attempts, why, died_at (wall ms)."""
        newest = await self._journal.redis.zrevrange(DEAD, 0, limit - 1, withscores=True)
        found = []
        for member, died_at in cast(list[tuple[bytes, float]], newest):
            event, session, sequence, endpoint = member.decode().split("|")
            row = (await self._lanes.fields(session)).get(f"d:{endpoint}:{sequence}", "0:0:")
            found.append(
                {
                    "event": event,
                    "session": session,
                    "sequence": int(sequence),
                    "endpoint": endpoint,
                    "attempts": opened(row).attempts,
                    "why": opened(row).why,
                    "died_at": int(died_at),
                }
            )
        return found

    async def resend(self, event_id: str, session: str | None = None, endpoint: str | None = None) -> int:
        """Start the attempts of one event anew: for the endpoints where it is dead, or, with `session`, for all that
        want it (or for `endpoint` alone), also where it had arrived. Returns to how many. Raises NotFound (code
        `event_not_found`)."""
        await self._endpoints.list()  # one that was enabled a moment ago counts
        if session is None:
            found = await self._dead_places(event_id)
        else:
            found = {session: await self._places(session, {event_id})}
        started = 0
        for one, places in found.items():
            started += await self._start(one, [place for place in places if endpoint in (None, place[2])])
        if not started:
            raise NotFound("No such event to send again.", code="event_not_found")
        return started

    async def resend_since(self, at: int, endpoint: str | None = None, account: str | None = None) -> int:
        """All events made at `at` (wall ms) or later once more, to one endpoint or to all that want them (of an
        account, if given); a receiver tells those it had by their ids. Returns how many deliveries were started."""
        await self._endpoints.list()
        started, after = 0, ""
        while page := await self._journal.events_since(at, after, PAGE):
            events: dict[str, set[str]] = {}
            for event, session, _ in page:
                events.setdefault(session, set()).add(event)
            again = (self._stored(self._again(*each, endpoint, account)) for each in events.items())
            started += sum(await asyncio.gather(*again))
            after = page[-1][0]
        return started

    async def _again(self, session: str, events: set[str], endpoint: str | None, account: str | None) -> int:
        if account is not None and await self.owner(session) != account:
            return 0
        places = await self._places(session, events)
        return await self._start(session, [place for place in places if endpoint in (None, place[2])])

    async def _start(self, session: str, places: Sequence[_Place]) -> int:
        """The attempts of these anew; returns how many."""
        if not places:
            return 0
        await self._journal.wake(session)
        now, names = self._clock.wall_ms(), [f"{endpoint}:{sequence}" for _, sequence, endpoint in places]
        opens = {f"o:{name}": f"0:{now}:resend" for name in names}
        await self._lanes.change(session, opens, [f"d:{name}" for name in names])
        dead = [f"{event}|{session}|{sequence}|{endpoint}" for event, sequence, endpoint in places]
        await self._journal.redis.zrem(DEAD, *dead)
        await self._journal.schedule(QUEUE, session, now)
        return len(places)

    async def owner(self, session: str) -> str | None:
        """The account of a session, or of a connected account's stream; None when there is no such thing."""
        body = await owning(self._journal, session)
        return None if body is None else str(body["account"])

    async def _dead_places(self, event_id: str) -> dict[str, list[_Place]]:
        found: dict[str, list[_Place]] = {}
        async for member, _ in self._journal.redis.zscan_iter(DEAD, match=f"{event_id}|*", count=1000):
            _, session, sequence, endpoint = member.decode().split("|")
            found.setdefault(session, []).append((event_id, int(sequence), endpoint))
        return found

    async def _places(self, session: str, events: Collection[str]) -> list[_Place]:
        """Where these events of a session go, whether they had arrived or not."""
        owner = await self.owner(session)
        known = [e for e in (await self._endpoints.cached()).values() if e.enabled and e.account in (None, owner)]
        found = [event for event in await self._journal.events(session) if event["id"] in events]
        return [(event["id"], event["sequence"], e.id) for event in found for e in known if e.takes(event)]

    async def _measure(self) -> None:
        while True:
            try:
                await self.measure()
            except (RedisError, StoreUnavailable):
                log.warning("webhook.gauges_unknown")
            await asyncio.sleep(5)

    async def measure(self) -> None:
        """Set the gauges: the oldest event that failed and is open, or the longest-waiting entry of the queue."""
        now = self._clock.wall_ms()
        pipe = self._journal.redis.pipeline(transaction=False)
        queues = [self._journal.keys.shared(p, f"due:{QUEUE}") for p in range(self._journal.keys.partitions)]
        _ = [pipe.zrange(key, 0, 0, withscores=True) for key in (UNDELIVERED, *queues)]
        _ = [pipe.zcard(DEAD)]
        *heads, dead = await pipe.execute()
        oldest = min((score for head in heads for _, score in head), default=now)
        OLDEST.set(max(0.0, (now - oldest) / 1000))
        DEAD_LETTERS.set(dead)


async def _quick(lanes: Sequence[Lane], works: Sequence[asyncio.Task[None]]) -> None:
    """Wait for all, PATIENCE_S at most; the others go on alone. Raises what a quick one failed with."""
    if works:
        await asyncio.wait(works, timeout=PATIENCE_S)
    for lane in lanes:
        lane.alone = not lane.ended
    for lane, work in zip(lanes, works, strict=True):
        if lane.ended:
            await work  # what it found out may still be on its way to the store


async def owning(journal: Journal, stream: str) -> Mapping[str, Any] | None:
    """The record that says whose events a stream has (`account`, `livemode`): a session's or a connected account's."""
    docs = await journal.read(stream, "session", "account")
    doc = docs["session"] or docs["account"]
    return None if doc is None else doc.body


def body_of(event: Mapping[str, Any], livemode: bool) -> str:
    """The event as it is sent: the same bytes on every attempt. One too large goes without its data."""
    event = {**event, "livemode": livemode}
    text = json.dumps(event, separators=(",", ":"), ensure_ascii=False)
    if len(text.encode()) <= BODY_BYTES:
        return text
    return json.dumps({**event, "data": {}, "truncated": True}, separators=(",", ":"), ensure_ascii=False)


def _outcome(answer: Answer, result: Delivery) -> str:
    if result.state == "delivered":
        return "delivered"
    if answer.gone:
        return "disabled"
    return "dead" if result.state == "dead" else "retried"


def _soon() -> int:
    """A short wait (ms), spread so that those who wait for the same thing do not all come back together."""
    return int(BUSY_MS * (1 + 2 * random.random()))


def _earliest(*times: int | None) -> int | None:
    return min((at for at in times if at is not None), default=None)
