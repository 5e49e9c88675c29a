"""The model of the Lua rules against the real scripts in a real Valkey: the same commands give the same answers.

The scripts read their time from a key here, so that the clock is the test's own and may also step back.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import redis.asyncio as aioredis

from gateway import journal as journals
from gateway.errors import GatewayError
from gateway.journal import NOW, Event, Fence, Journal
from gateway.keys import Keys
from gateway.meter import ledger as ledgers
from gateway.meter.ledger import Lease, Ledger, Write
from tests.simulation.store import Rules

SESSION = "ses_1"
START = 1_700_000_000_000
QUEUES = ("money", "watch", "outbox")


class Pair:
    """The real thing and the model, asked alike."""

    def __init__(self, redis: aioredis.Redis) -> None:
        self.redis, self.now = redis, START
        self.journal = Journal(redis, Keys(1))
        self.ledger = Ledger(redis, Keys(1), lease_ms=5_000, settling=lambda: self.settling)
        self.settling = False
        self.rules = Rules(lambda: self.now)
        for shell, module, names in (
            (self.journal, journals, ("commit", "claim", "done")),
            (self.ledger, ledgers, ("acquire", "flush", "release")),
        ):
            for name in names:
                script = getattr(module, name.upper()).replace("call('TIME')", "call('LRANGE', 'clock', 0, 1)")
                setattr(shell, f"_{name}", redis.register_script(script))

    async def at(self, now: int) -> None:
        self.now = now
        await self.redis.delete("clock")
        await self.redis.rpush("clock", now // 1000, now % 1000 * 1000)  # type: ignore[misc]

    async def same(self, real: Any, model: Any) -> Any:
        """Both answers, or both refusals; they must agree."""
        try:
            one = await real
        except GatewayError as error:
            one = error.code
        try:
            two = model()
        except GatewayError as error:
            two = error.code
        assert one == two
        return one

    async def look(self) -> None:
        """Everything that either knows."""
        docs = await self.journal.read(SESSION, "session", "payment")
        assert docs == {name: self.rules.docs.get(name) for name in docs}
        told = await self.journal.events(SESSION)
        assert [{k: v for k, v in event.items() if k != "api_version"} for event in told] == self.rules.events
        for queue in QUEUES:
            score = await self.redis.zscore(f"{{p0}}:due:{queue}", SESSION)
            assert (None if score is None else int(score)) == self.rules.queues.get(queue)
        assert await self.ledger.usage(SESSION) == self.rules.ledger()
        assert await self.ledger.state(SESSION) == self.rules.state()
        assert await self.redis.xlen("{p0}:finalized") == len(self.rules.finals)


@pytest.mark.parametrize("seed", range(6))
async def test_model_and_scripts_agree_on_any_series_of_commands(redis: aioredis.Redis, seed: int) -> None:
    rng, pair = Random(seed), Pair(redis)
    leases: list[Lease] = []
    await pair.at(START)
    for turn in range(100):
        await pair.at(pair.now + rng.choice((0, 1, 300, 4_000, 6_000, -2_500)))
        await _step(rng, pair, leases, turn)
    await pair.look()


async def _step(rng: Random, pair: Pair, leases: list[Lease], turn: int) -> None:
    rules, kind = pair.rules, rng.choice(("commit", "commit", "claim", "acquire", "write", "write", "release"))
    lease = rng.choice(leases) if leases else None
    if kind == "commit":
        await _commit(rng, pair, lease, turn)
    elif kind == "claim":
        queue = rng.choice(QUEUES)
        claims = await pair.journal.due(queue, lease_ms=2_000)
        until = rules.claim(queue, 2_000, None)
        assert [claim.until for claim in claims] == ([] if until is None else [until])
        for claim in claims:
            if rng.random() < 0.3:
                await pair.journal.schedule(queue, SESSION, pair.now)
                rules.schedule(queue, pair.now)
            elif rng.random() < 0.4:
                await pair.journal.due(queue, lease_ms=1, now=claim.until)
                rules.claim(queue, 1, claim.until)
            again = rng.choice((None, pair.now + 500))
            there = rules.docs.get("payment")
            left = rng.choice((None, ("payment", (there.version if there else 0) + rng.randrange(2))))
            await pair.journal.done(claim, again, left)
            rules.done(queue, claim.until, again, left)
    elif kind == "acquire":
        owner, gone = rng.choice("ab"), rng.random() < 0.4
        pair.settling = rng.random() < 0.2

        async def acquired() -> tuple[int, int, int]:
            made = await pair.ledger.acquire(SESSION, owner, owner_gone=gone)
            leases.append(made)
            return made.epoch, made.acquired_at, made.now

        await pair.same(acquired(), lambda: rules.acquire(owner, 5_000, gone, pair.settling))
    elif kind == "write":
        lease = lease or Lease(SESSION, rng.randrange(1, 3), "a", pair.now - 100, pair.now)
        rows = {n: (pair.now + rng.randrange(-9_000, 3_000), pair.now + rng.randrange(-4_000, 6_000))
                for n in rng.sample((1, 2, 3), rng.randrange(3))}  # fmt: skip
        write = Write(lease, rows, rng.choice((None, turn, turn - 5)), rng.random() < 0.7,
                      rng.choice((None, pair.now, pair.now - rng.randrange(9_000))))  # fmt: skip
        (written,) = await pair.ledger.write([write])
        assert written == rules.write(5_000, write)
    elif lease is not None:
        await pair.ledger.release(lease)
        rules.release(lease.epoch, lease.owner)


async def _commit(rng: Random, pair: Pair, lease: Lease | None, turn: int) -> None:
    rules = pair.rules
    names = rng.sample(("session", "payment"), rng.randrange(1, 3))
    versions = {name: rules.docs[name].version if name in rules.docs else 0 for name in names}
    put = {name: (version + (rng.random() < 0.1), {"turn": turn}) for name, version in versions.items()}
    events = [Event("session.rated", {"turn": turn}) for _ in range(rng.randrange(3))]
    due = {queue: rng.choice((NOW, None, pair.now + 900)) for queue in rng.sample(QUEUES, rng.randrange(3))}
    usage = rng.choice((None, rules.usage, rules.usage - 1))
    fence = Fence(lease.epoch, lease.owner, usage) if lease is not None and rng.random() < 0.6 else None
    final = {"turn": turn} if rng.random() < 0.02 else None
    real = pair.journal.commit(SESSION, put, events=events, due=due, fence=fence, finalized=final)
    if events:
        due = {**due, "outbox": due.get("outbox", NOW)}
    await pair.same(real, lambda: rules.commit(SESSION, put, events, due, fence, final))
