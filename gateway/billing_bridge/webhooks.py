"""The webhook sender: takes each session's events to each endpoint, signed, in order, until they arrive or are dead.

A *lane* is a piece of work on one session that one sender holds under a lease: the first attempts for one endpoint
(in order of `sequence`), or the retry of one event. Lanes are independent, so a retry never delays later events and a
receiver that hangs delays nobody else. What is known of a session's deliveries is one hash beside its events:

    c:ENDPOINT           cursor: first attempts have been made up to this sequence
    o:ENDPOINT:SEQUENCE  open: attempts made, when the next is due, why the last one failed
    d:ENDPOINT:SEQUENCE  dead: attempts made, when it was given up, why
    l:LANE               lease of a lane: until when, and whose

An event at or below the cursor that is neither open nor dead has arrived.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import structlog
from prometheus_client import Counter, Gauge
from redis.exceptions import RedisError

from gateway.billing_bridge import claims
from gateway.billing_bridge.delivery import Answer, Delivery, Health, attempted
from gateway.billing_bridge.endpoints import Endpoint, Endpoints
from gateway.billing_bridge.outbound import TIMEOUT_S, Outbound
from gateway.clock import Clock
from gateway.errors import NotFound, StoreUnavailable
from gateway.ids import new_secret
from gateway.journal import Claim, Journal

QUEUE: Final = "outbox"
HASH: Final = "deliveries"
DEAD: Final = "webhooks:dead"
UNDELIVERED: Final = "webhooks:undelivered"
LANE_BUDGET_MS: Final = 20_000  # after this a lane starts no further attempt
LEASE_MS: Final = 60_000  # budget, one time-out and room
BUSY_MS: Final = 500  # when to look again at a session whose lane another pass holds
BODY_BYTES: Final = 20_000  # Standard Webhooks: keep payloads small

DELIVERIES = Counter("gateway_webhook_deliveries_total", "Attempts to deliver an event", ["outcome"])
OLDEST = Gauge("gateway_webhook_oldest_undelivered_seconds", "Age of the oldest event still to be delivered")
DEAD_LETTERS = Gauge("gateway_webhook_dead_letters", "Events given up and listed as dead letters")
log = structlog.get_logger(__name__)

# KEYS: deliveries; ARGV: now, until, owner, then the ids of endpoints that may be worked on
# Takes every lane that is free: the first attempts of each endpoint and the retries that are due.
TAKE = """
local now, taken, wanted = tonumber(ARGV[1]), {}, {}
local function take(lane)
  local held = redis.call('HGET', KEYS[1], 'l:' .. lane)
  if held and tonumber(string.match(held, '^%d+')) > now then return end
  redis.call('HSET', KEYS[1], 'l:' .. lane, ARGV[2] .. ':' .. ARGV[3])
  taken[#taken + 1] = lane
end
for i = 4, #ARGV do wanted[ARGV[i]] = true; take(ARGV[i]) end
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local lane, endpoint = string.match(all[i], '^o:(([^:]+):%d+)$')
  if lane and wanted[endpoint] and tonumber(string.match(all[i + 1], '^%d+:(%d+)')) <= now then take(lane) end
end
return {taken, redis.call('HGETALL', KEYS[1])}
"""

# KEYS: deliveries, queue; ARGV: owner, lane, session, when to look next ('' = no matter), number of fields to set,
# field and value of each, then fields to drop. Refused (0) when the lease was lost meanwhile.
GIVE = """
local held = redis.call('HGET', KEYS[1], 'l:' .. ARGV[2])
if not held or string.match(held, ':(.+)$') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'l:' .. ARGV[2])
local last = 5 + 2 * tonumber(ARGV[5])
for i = 6, last, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
for i = last + 1, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
if ARGV[4] ~= '' then
  local at = redis.call('ZSCORE', KEYS[2], ARGV[3])
  if not at or tonumber(at) > tonumber(ARGV[4]) then redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3]) end
end
return 1
"""


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """`allow_private`: also plain http and private networks (development). `per_endpoint`: deliveries at a time."""

    allow_private: bool = False
    timeout_s: float = TIMEOUT_S
    per_endpoint: int = 32
    at_once: int = 512


@dataclass(slots=True)
class Lane:
    """A lane that this pass holds, and what it found out; `sequence` None = first attempts."""

    endpoint: Endpoint
    sequence: int | None
    put: dict[str, str] = field(default_factory=dict)
    drop: list[str] = field(default_factory=list)
    next_at: int | None = None

    @property
    def name(self) -> str:
        return self.endpoint.id if self.sequence is None else f"{self.endpoint.id}:{self.sequence}"

    def look_again(self, at: int) -> None:
        self.next_at = at if self.next_at is None else min(self.next_at, at)


class Webhooks:
    """Shell. `await run()` works until cancelled; the lists and `resend` may be used without it."""

    def __init__(self, journal: Journal, endpoints: Endpoints, settings: WebhookSettings, clock: Clock) -> None:
        self._journal, self._endpoints, self._settings, self._clock = journal, endpoints, settings, clock
        self._take = journal.redis.register_script(TAKE)
        self._give = journal.redis.register_script(GIVE)
        self._outbound = Outbound(clock, allow_private=settings.allow_private, timeout_s=settings.timeout_s)
        self._busy: Tally[str] = Tally()
        self._health: dict[str, Health] = {}

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
        """One pass over a claimed session: every lane that is free and due is worked, each on its own."""
        session, owner = claim.session, new_secret(size=9)
        account = await self._account(session)
        known = await self._endpoints.cached()
        active = [e for e in known.values() if e.enabled and e.account in (None, account)]
        ready = [e for e in active if self._free(e)]
        names, state = await self._taken(session, owner, ready)
        again = self._when_busy(active, names)
        lanes = [_lane(name, known) for name in names]
        await self._bury_orphans(session, state, {e.id for e in active})
        results = await asyncio.gather(
            *(self._work(session, owner, lane, state) for lane in lanes), return_exceptions=True
        )
        for failed in (one for one in results if isinstance(one, BaseException)):
            raise failed
        await self._settle(claim, again)

    async def _account(self, session: str) -> str | None:
        if all(e.account is None for e in (await self._endpoints.cached()).values()):
            return None
        doc = (await self._journal.read(session, "session"))["session"]
        return None if doc is None else str(doc.body["account"])

    def _free(self, endpoint: Endpoint) -> bool:
        paused = self._health.get(endpoint.id, Health()).paused_until
        return self._busy[endpoint.id] < self._settings.per_endpoint and paused <= self._clock.wall_ms()

    def _when_busy(self, active: Sequence[Endpoint], taken: Sequence[str]) -> int | None:
        """When to come back for endpoints whose first attempts this pass could not take."""
        left = [e for e in active if e.id not in taken]
        if not left:
            return None
        now = self._clock.wall_ms()
        pauses = [self._health.get(e.id, Health()).paused_until for e in left]
        return max(now, min(pauses)) + int(BUSY_MS * (1 + 2 * random.random()))

    async def _taken(self, session: str, owner: str, ready: Sequence[Endpoint]) -> tuple[list[str], dict[str, str]]:
        now = self._clock.wall_ms()
        args = [now, now + LEASE_MS, owner, *(e.id for e in ready)]
        try:
            names, flat = await self._take(keys=[self._journal.keys.of(session, HASH)], args=args)
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error
        texts = [text.decode() for text in flat]
        return [name.decode() for name in names], dict(zip(texts[::2], texts[1::2], strict=True))

    async def _work(self, session: str, owner: str, lane: Lane, state: Mapping[str, str]) -> None:
        self._busy[lane.endpoint.id] += 1
        try:
            if lane.sequence is None:
                await self._first_attempts(session, lane, int(state.get(f"c:{lane.endpoint.id}", "0")))
            else:
                await self._retry(session, lane, _opened(state[f"o:{lane.name}"]))
        finally:
            self._busy[lane.endpoint.id] -= 1
            await self._give_back(session, owner, lane)

    async def _first_attempts(self, session: str, lane: Lane, cursor: int) -> None:
        """Every event after the cursor once, in order; also those that come while this goes on."""
        until = self._clock.wall_ms() + LANE_BUDGET_MS
        while events := await self._journal.events(session, cursor):
            for event in events:
                paused = self._health.get(lane.endpoint.id, Health()).paused_until
                if self._clock.wall_ms() > until or paused > self._clock.wall_ms():
                    lane.look_again(max(self._clock.wall_ms(), paused))
                    return
                if lane.endpoint.wants(event) and await self._attempt(lane, event, Delivery()) == "disabled":
                    return
                cursor = event["sequence"]
                lane.put[f"c:{lane.endpoint.id}"] = str(cursor)

    async def _retry(self, session: str, lane: Lane, delivery: Delivery) -> None:
        assert lane.sequence is not None
        events = await self._journal.events(session, lane.sequence - 1)
        await self._attempt(lane, events[0], delivery)

    async def _attempt(self, lane: Lane, event: dict[str, Any], delivery: Delivery) -> str:
        """One POST and what follows from its answer; returns the outcome's name."""
        endpoint, now = lane.endpoint, self._clock.wall_ms()
        body = body_of(event)
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
        await self._note(lane, event, result, now)
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
        if result.state == "dead":
            lane.put[f"d:{place}"] = f"{result.attempts}:{now}:{result.why}"
            await self._list_dead(event, lane.endpoint.id, now)

    async def _list_dead(self, event: Mapping[str, Any], endpoint: str, now: int) -> None:
        # Listed before the session's own record says so: after a crash in between it is seen twice, never not at all.
        member = f"{event['id']}|{event['session']}|{event['sequence']}|{endpoint}"
        await self._journal.redis.zadd(DEAD, {member: now})
        log.error("webhook.dead_letter", event=event["id"], session=event["session"], endpoint=endpoint)

    async def _give_back(self, session: str, owner: str, lane: Lane) -> None:
        put = [text for pair in lane.put.items() for text in pair]
        look = "" if lane.next_at is None else lane.next_at
        args = [owner, lane.name, session, look, len(lane.put), *put, *lane.drop]
        keys = [self._journal.keys.of(session, HASH), self._journal.keys.beside(session, f"due:{QUEUE}")]
        try:
            await self._give(keys=keys, args=args)
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error

    async def _bury_orphans(self, session: str, state: Mapping[str, str], active: set[str]) -> None:
        """What is open for an endpoint that was removed or disabled will not arrive: it becomes a dead letter."""
        orphans = [name for name in state if name.startswith("o:") and name.split(":")[1] not in active]
        if not orphans:
            return
        events, now = await self._journal.events(session), self._clock.wall_ms()
        for name in orphans:
            _, endpoint, sequence = name.split(":")
            await self._list_dead(events[int(sequence) - 1], endpoint, now)
            pipe = self._journal.redis.pipeline()
            key = self._journal.keys.of(session, HASH)
            pipe.hset(key, f"d:{endpoint}:{sequence}", f"{_opened(state[name]).attempts}:{now}:endpoint_off")
            pipe.hdel(key, name)
            await pipe.execute()

    async def _settle(self, claim: Claim, again: int | None) -> None:
        """Come again when the next retry is due, or not at all; new events since the claim bring their own look."""
        rows = await self._fields(claim.session)
        times = [_opened(value).next_at for name, value in rows.items() if name.startswith("o:")]
        times += [int(value.split(":")[0]) for name, value in rows.items() if name.startswith("l:")]
        times += [again] if again is not None else []
        if not any(name.startswith("o:") for name in rows):
            await self._journal.redis.zrem(UNDELIVERED, claim.session)
        await self._journal.done(claim, min(times, default=None))

    async def _fields(self, session: str) -> dict[str, str]:
        try:
            rows = cast(dict[bytes, bytes], await self._journal.redis.hgetall(self._journal.keys.of(session, HASH)))
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error
        return {name.decode(): value.decode() for name, value in rows.items()}

    async def deliveries(self, session: str) -> list[dict[str, Any]]:
        """Per endpoint and event of a session: `state` pending, delivered, open or dead, with attempts and why."""
        rows, events = await self._fields(session), await self._journal.events(session)
        known = await self._endpoints.cached()
        return [_delivery_view(event, e, rows) for e in known.values() for event in events if e.wants(event)]

    async def dead_letters(self, limit: int = 100) -> list[dict[str, Any]]:
        """Events given up, latest first: event, session, sequence, endpoint, attempts, why, died_at (wall ms)."""
        newest = await self._journal.redis.zrevrange(DEAD, 0, limit - 1, withscores=True)
        found = []
        for member, died_at in cast(list[tuple[bytes, float]], newest):
            event, session, sequence, endpoint = member.decode().split("|")
            row = (await self._fields(session)).get(f"d:{endpoint}:{sequence}", "0:0:")
            found.append(
                {
                    "event": event,
                    "session": session,
                    "sequence": int(sequence),
                    "endpoint": endpoint,
                    "attempts": _opened(row).attempts,
                    "why": _opened(row).why,
                    "died_at": int(died_at),
                }
            )
        return found

    async def resend(self, event_id: str, session: str | None = None) -> int:
        """Start the attempts of one event anew: for the endpoints where it is dead, or, with `session`, for all that
        want it, also where it had arrived. Returns to how many. Raises NotFound (code `event_not_found`)."""
        places = await self._dead_places(event_id) if session is None else await self._all_places(event_id, session)
        if not places:
            raise NotFound("No such event to send again.", code="event_not_found")
        now = self._clock.wall_ms()
        for owner, sequence, endpoint in places:
            key = self._journal.keys.of(owner, HASH)
            pipe = self._journal.redis.pipeline()
            pipe.hset(key, f"o:{endpoint}:{sequence}", f"0:{now}:resend")
            pipe.hdel(key, f"d:{endpoint}:{sequence}")
            await pipe.execute()
            await self._journal.redis.zrem(DEAD, f"{event_id}|{owner}|{sequence}|{endpoint}")
            await self._journal.schedule(QUEUE, owner, now)
        return len(places)

    async def _dead_places(self, event_id: str) -> list[tuple[str, int, str]]:
        places = []
        async for member, _ in self._journal.redis.zscan_iter(DEAD, match=f"{event_id}|*", count=1000):
            _, session, sequence, endpoint = member.decode().split("|")
            places.append((session, int(sequence), endpoint))
        return places

    async def _all_places(self, event_id: str, session: str) -> list[tuple[str, int, str]]:
        known = (await self._endpoints.cached()).values()
        events = [event for event in await self._journal.events(session) if event["id"] == event_id]
        return [(session, event["sequence"], e.id) for event in events for e in known if e.enabled and e.wants(event)]

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
        pipe.zrange(UNDELIVERED, 0, 0, withscores=True)
        for partition in range(self._journal.keys.partitions):
            pipe.zrange(self._journal.keys.shared(partition, f"due:{QUEUE}"), 0, 0, withscores=True)
        pipe.zcard(DEAD)
        *heads, dead = await pipe.execute()
        oldest = min((score for head in heads for _, score in head), default=now)
        OLDEST.set(max(0.0, (now - oldest) / 1000))
        DEAD_LETTERS.set(dead)


def body_of(event: Mapping[str, Any]) -> str:
    """The event as it is sent: the same bytes on every attempt. One too large goes without its data."""
    text = json.dumps(event, separators=(",", ":"), ensure_ascii=False)
    if len(text.encode()) <= BODY_BYTES:
        return text
    return json.dumps({**event, "data": {}, "truncated": True}, separators=(",", ":"), ensure_ascii=False)


def _lane(name: str, known: Mapping[str, Endpoint]) -> Lane:
    endpoint, _, sequence = name.partition(":")
    return Lane(known[endpoint], int(sequence) if sequence else None)


def _opened(value: str) -> Delivery:
    attempts, next_at, why = value.split(":", 2)
    return Delivery(int(attempts), int(next_at), "open", why)


def _outcome(answer: Answer, result: Delivery) -> str:
    if result.state == "delivered":
        return "delivered"
    if answer.gone:
        return "disabled"
    return "dead" if result.state == "dead" else "retried"


def _delivery_view(event: Mapping[str, Any], endpoint: Endpoint, rows: Mapping[str, str]) -> dict[str, Any]:
    place = f"{endpoint.id}:{event['sequence']}"
    view = {"event": event["id"], "type": event["type"], "sequence": event["sequence"], "endpoint": endpoint.id}
    for prefix, state in (("o", "open"), ("d", "dead")):
        if row := rows.get(f"{prefix}:{place}"):
            last = _opened(row)
            return {**view, "state": state, "attempts": last.attempts, "at": last.next_at, "why": last.why}
    attempted_to = int(rows.get(f"c:{endpoint.id}", "0"))
    return {**view, "state": "delivered" if event["sequence"] <= attempted_to else "pending"}
