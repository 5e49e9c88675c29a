"""Nodes know each other through Redis: a heartbeat each second, and with it the estimate of Redis's clock."""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import dataclass
from typing import Any, Final

import redis.asyncio as aioredis
import structlog
from redis.exceptions import RedisError

from gateway.clock import Clock, SystemClock
from gateway.ids import new_secret

log = structlog.get_logger(__name__)

HEARTBEAT_S: Final = 1.0
# Shorter, and a slow second of Redis gets a live node's sessions claimed; longer, and callers wait (6-media, rule c).
SILENT_MS: Final = 3_000
# After Redis was away nobody's heartbeat and no lease says anything; for one lease only a session's last owner may act.
SETTLE_MS: Final = 5_000
# Nodes that were killed leave their line behind; once an hour is soon enough.
SWEEP_BEATS: Final = 3600
REGISTRY: Final = "gateway:nodes"


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of Redis's clock: its time, our boot clock at the middle of the round trip, half of the trip."""

    redis_ms: float
    boot_ms: float
    error_ms: float


class RedisClock:
    """Wall time as Redis tells it, carried on between readings by CLOCK_BOOTTIME; the best recent sample counts."""

    def __init__(self, host: Clock | None = None) -> None:
        self._host = host or SystemClock()
        self._offset: float = self._host.wall_ms() - self._host.boot_ms()
        self.error_ms: float = float("inf")

    def boot_ms(self) -> int:
        return self._host.boot_ms()

    def wall_ms(self) -> int:
        return int(self._host.boot_ms() + self._offset)

    @property
    def offset_ms(self) -> int:
        """Wall minus boot, rounded down: a session keeps the one it started with (law 3)."""
        return int(self._offset)

    def learn(self, sample: Sample) -> None:
        """A tighter sample counts at once; a looser one only when the old one has aged past it."""
        aged = self.error_ms + 0.05  # quartz drifts by some 50 µs a second
        if sample.error_ms <= aged or abs(sample.redis_ms - sample.boot_ms - self._offset) > aged + sample.error_ms:
            self._offset, self.error_ms = sample.redis_ms - sample.boot_ms, sample.error_ms
        else:
            self.error_ms = aged


class Node:
    """This process among the nodes. `nonce` is new at each start: an owner that was restarted is another owner."""

    def __init__(self, redis: aioredis.Redis, clock: RedisClock, *, info: dict[str, Any] | None = None) -> None:
        self._redis, self.clock, self._info = redis, clock, info or {}
        self.nonce = new_secret("n", 9).replace(":", "")
        self._beat_at: int | None = None
        self._settled_at = 0

    async def beat(self) -> None:
        """One heartbeat: read Redis's clock, tell that we live. Raises RedisError."""
        before = self.clock.boot_ms()
        seconds, micros = await self._redis.time()
        after = self.clock.boot_ms()
        self.clock.learn(Sample(seconds * 1000 + micros / 1000, (before + after) / 2, (after - before) / 2))
        told = json.dumps({**self._info, "at": self.clock.wall_ms()})
        await self._redis.execute_command("HSET", REGISTRY, self.nonce, told)
        if self._beat_at is not None and after - self._beat_at > SILENT_MS:
            self._settled_at = after + SETTLE_MS
        self._beat_at = after

    @property
    def settling(self) -> bool:
        """Redis is away for us, or has only just come back: what it says of other nodes may be older than it looks."""
        boot = self.clock.boot_ms()
        return boot < self._settled_at or (self._beat_at is not None and boot - self._beat_at > SILENT_MS)

    async def run(self) -> None:
        """Beat until cancelled; Redis being away is waited out."""
        for count in itertools.count():
            try:
                await self.beat()
                if count % SWEEP_BEATS == 0:
                    await self.sweep()
            except RedisError as error:
                log.warning("heartbeat_failed", error=type(error).__name__)
            await asyncio.sleep(HEARTBEAT_S)

    async def leave(self) -> None:
        await self._redis.execute_command("HDEL", REGISTRY, self.nonce)

    async def gone(self, nonce: str) -> bool:
        """Whether another node's heartbeat has stopped, so that its sessions may be claimed."""
        if nonce == self.nonce or self.settling:
            return False
        told = await self._redis.execute_command("HGET", REGISTRY, nonce)
        return told is None or self.clock.wall_ms() - int(json.loads(told)["at"]) > SILENT_MS

    async def sweep(self, older_than_ms: int = 86_400_000) -> None:
        """Forget nodes that have been silent for a day."""
        for nonce, told in (await self._redis.hgetall(REGISTRY)).items():
            if self.clock.wall_ms() - int(json.loads(told)["at"]) > older_than_ms:
                await self._redis.execute_command("HDEL", REGISTRY, nonce)
