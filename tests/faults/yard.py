"""A gateway as an operator runs it, a process for each part: Valkey, Stripe's sandbox, a node, a bridge; each can be
killed by its own id and started again. Mail server and webhook receiver are the test's, and keep what they get."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import aiohttp
import redis.asyncio as aioredis
from aiohttp import web

from gateway.billing_bridge.record import Payment
from gateway.dev.valkey import binary
from gateway.journal import Journal
from tests.conftest import free_port
from tests.faults.sandbox import SECRET
from tests.faults.wire import Side, Stop, Wire, wire
from tests.integration.caller import Caller
from tests.market import Market
from tests.receipts.post import Sink, sunk

T = TypeVar("T")
Part = Literal["valkey", "sandbox", "node", "bridge", "archiver"]
# A process, the write at which it is stopped (a regular expression), and on which side of it.
Point = tuple[Part, str, Side]
KEY: Final = "pg_test_yard"
STRIPE_KEY: Final = "sk_test_yard"
QUEUES: Final[dict[Part, tuple[str, ...]]] = {
    "valkey": ("money", "mail", "outbox", "watch"), "bridge": ("money", "mail", "outbox"), "node": ("watch",),
    "sandbox": ("money",), "archiver": ("archive",),
}  # fmt: skip
WIRED: Final = ("node", "bridge", "archiver")


@dataclass
class Yard(Market):
    """A marketplace's client of it all, and the strings that it hangs on."""

    folder: Path
    redis: aioredis.Redis
    sink: Sink
    nursery: asyncio.subprocess.Process
    wires: dict[str, Wire]
    fsync: str = "always"
    pids: dict[Part, int] = field(default_factory=dict)
    received: list[dict[str, Any]] = field(default_factory=list)
    # Set while mails and events are taken; cleared, their senders wait for an answer.
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    callers: list[Caller] = field(default_factory=list)
    put_away: list[str] = field(default_factory=list)  # numbers of receipts that went into the archive

    @property
    def journal(self) -> Journal:
        return Journal(self.redis)

    # The processes

    async def start(self, part: Part, *words: str) -> None:
        log, config = self.folder / f"{part}.log", str(self.folder / "gateway.toml")
        environ = {"REDIS_URL": f"unix://{self.folder}/{part}.sock"}
        match part:
            case "valkey":
                place = {"port": 0, "unixsocket": self.folder / "valkey.sock", "dir": self.folder, "save": ""}
                options = place | {"appendonly": "yes", "appendfsync": self.fsync, "maxmemory-policy": "noeviction"}
                with log.open("ab") as file:
                    process = await asyncio.create_subprocess_exec(
                        binary(), *_words(options), stdout=file, stderr=file, start_new_session=True
                    )
                self.pids[part] = process.pid
            case "node":
                self.pids[part] = await self._fork(["node", config], environ, log)
            case "sandbox":
                port, events = self.stripe.rpartition(":")[2], f"{self.url}/v1/stripe/events"
                self.pids[part] = await self._fork(["sandbox", port, str(self.folder / "stripe"), events], {}, log)
            case "bridge":
                self.pids[part] = await self._fork(["bridge", "--config", config], environ, log)
            case "archiver":
                self.pids[part] = await self._fork(["archive", *words, "--config", config], environ, log)

    async def _fork(self, argv: list[str], environ: dict[str, str], log: Path) -> int:
        assert self.nursery.stdin is not None
        assert self.nursery.stdout is not None
        order = {"argv": argv, "environ": environ, "log": str(log)}
        self.nursery.stdin.write(json.dumps(order).encode() + b"\n")
        return int(await self.nursery.stdout.readline())

    async def kill(self, part: Part) -> None:
        """`kill -9` of the part's own process group; it is gone when this returns."""
        pid = self.pids.pop(part)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        await self.gone(pid)

    async def gone(self, pid: int) -> None:
        async with asyncio.timeout(20):
            while True:
                try:
                    os.kill(pid, 0)
                except ProcessLookupError:
                    return
                await asyncio.sleep(0.01)

    async def back(self, part: Part) -> None:
        """Killed and started again; and as if the lease of what it had in hand had run out."""
        if part != "archiver":
            await self.start(part)
        await self.ready()
        await self.leases_run_out(part)

    async def ready(self) -> None:
        """Everything that was started answers."""
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(aiohttp.ClientError, aioredis.RedisError, OSError):
                    await self.redis.ping()
                    async with self.http.get(f"{self.stripe}/sandbox/faults") as answer:
                        stripe = answer.status
                    if (stripe, (await self.call("GET", "/v1/sessions?limit=1"))[0]) == (200, 200):
                        return
                await asyncio.sleep(0.03)

    async def leases_run_out(self, part: Part) -> None:
        """What a killed process had claimed comes back after a minute, for a test at once. The living keep theirs."""
        for queue in QUEUES[part]:
            async for key in self.redis.scan_iter(f"*:due:{queue}", count=1000):
                if part != "sandbox":
                    await self.redis.delete(key.decode() + ":claims")
                for member in await self.redis.zrange(key, 0, -1):
                    await self.redis.zadd(key, {member: 1}, xx=True)
        if part in ("node", "valkey"):
            async for key in self.redis.scan_iter("idem:*", count=1000):
                await self.redis.hset(key, "locked_until", "0")
        if part in ("bridge", "valkey"):
            async for key in self.redis.scan_iter("*:deliveries", count=1000):
                leases = [name for name in await self.redis.hkeys(key) if name.startswith(b"l:")]
                if leases:
                    await self.redis.hdel(key, *leases)

    async def killed_at(self, points: Sequence[Point], doing: Awaitable[T], *, victim: Part | None = None) -> T:
        """What is done brings the processes to those points, one after the other; at each the process (or `victim`) is
        killed and started again. Then what is being done is done."""
        stop, task = self._stop_at(points[0]), asyncio.ensure_future(doing)
        for place, (part, word, _) in enumerate(points, 1):
            try:
                async with asyncio.timeout(30):
                    await stop.reached.wait()
            except TimeoutError:
                raise AssertionError(f"the {part} never came to {word}") from None
            await self.kill(victim or part)
            passed = stop
            if place < len(points):  # before anything is started again, which might pass by
                stop = self._stop_at(points[place])
            passed.let_go()
            await self.back(victim or part)
        return await task

    def _stop_at(self, point: Point) -> Stop:
        part, word, side = point
        return self.wires[part].stop_at(word, side)

    # A marketplace that does not give up

    async def insist(self, method: str, path: str, body: Any = None) -> Any:
        """One request, repeated under its key until it is answered."""
        headers = {"Authorization": f"Bearer {self.key}", "Idempotency-Key": secrets.token_hex(8)}
        async with asyncio.timeout(40):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with self.http.request(method, self.url + path, json=body, headers=headers) as answer:
                        said = await answer.json(content_type=None)
                        if answer.status < 300:
                            return said
                        busy = answer.status >= 500 or said["code"] == "idempotency_key_in_use"
                        assert busy, (answer.status, said)
                await asyncio.sleep(0.1)

    # A session

    async def talk(self, seconds: float = 1.2) -> tuple[dict[str, Any], Caller, Caller]:
        """Two callers in a live call; a second costs 1.00."""
        session = await self.order(rate={"unit_amount": 6000, "currency": "usd"})
        pair = []
        for role in ("client", "expert"):
            secret = session["participants"][role]["url"].partition("#")[2]
            pair.append(Caller(self.http, self.url, secret))
        self.callers += pair
        for caller in pair:
            assert (await caller.join())["type"] == "welcome"
        for caller in pair:
            await caller.until("status", status="live")
        await asyncio.sleep(seconds)
        return session, pair[0], pair[1]

    async def over(self) -> str:
        """A session whose call is over."""
        session, client, _ = await self.talk()
        await client.say("leave")
        return str(session["id"])

    async def watched(self, session: str) -> None:
        """Until a session whose node was lost is final: it is looked at every fifteen seconds, for a test at once."""
        async with asyncio.timeout(30):
            while (await self.get(f"/v1/sessions/{session}"))["status"] != "finalized":
                await self.journal.schedule("watch", session, 1)
                await asyncio.sleep(0.2)

    async def fault(self, match: str, kind: str, **more: Any) -> None:
        await self.private("faults", match=match, kind=kind, **more)

    async def private(self, path: str, **body: Any) -> Any:
        """The sandbox's own door: what people and banks do."""
        async with self.http.post(f"{self.stripe}/sandbox/{path}", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def payment(self, session: str) -> Payment | None:
        doc = (await self.journal.read(session, "payment"))["payment"]
        return None if doc is None else Payment.from_dict(doc.body)

    async def sent(self, session: str, step: str) -> None:
        """Until the step is written down as sent: its call is on its way."""
        async with asyncio.timeout(15):
            while True:
                payment = await self.payment(session)
                latest = payment.latest(step) if payment else None
                if latest is not None and latest.state == "sent":
                    return
                await asyncio.sleep(0.01)

    async def done_at_stripe(self, session: str, done: Callable[[dict[str, Any]], bool]) -> None:
        """Until Stripe has done it, whoever knows of it."""
        async with asyncio.timeout(15):
            while not done(await self.objects(session)):
                await asyncio.sleep(0.02)

    async def grown(self, kind: str, before: dict[str, Any] | None = None) -> None:
        """Until Stripe has made one more of a kind (`reversed`: taken back from a transfer), whoever knows of it."""
        known = _count(before or await self.sandbox(), kind)
        async with asyncio.timeout(20):
            while _count(await self.sandbox(), kind) == known:
                await asyncio.sleep(0.02)

    async def objects(self, session: str) -> dict[str, Any]:
        """What Stripe has of a session or booking: intents, transfers and refunds."""
        state = await self.sandbox()
        return {
            kind: [each for each in state[kind] if (each["metadata"] or {}).get("session") == session]
            for kind in ("payment_intents", "transfers", "refunds")
        }


def _count(state: dict[str, Any], kind: str) -> int:
    if kind == "reversed":
        return sum(transfer["amount_reversed"] > 0 for transfer in state["transfers"])
    return len(state[kind])


def _words(options: dict[str, object]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


@asynccontextmanager
async def yard(folder: Path, fsync: str = "always") -> AsyncIterator[Yard]:
    """Everything runs. `fsync` is Valkey's `appendfsync`: a killed process loses nothing of it either way, and `always`
    answers at once."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        sink = await stack.enter_async_context(sunk())
        port, stripe, private, media = (free_port() for _ in range(4))
        redis = aioredis.Redis.from_url(f"unix://{folder}/valkey.sock")
        stack.push_async_callback(redis.aclose)
        wires = {
            part: await stack.enter_async_context(wire(folder / f"{part}.sock", folder / "valkey.sock"))
            for part in WIRED
        }
        nursery = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.faults.nursery", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        stack.push_async_callback(_closed, nursery)
        made = Yard(
            f"http://127.0.0.1:{port}", KEY, f"http://127.0.0.1:{stripe}", "", http, folder, redis, sink, nursery,
            wires, fsync,
        )  # fmt: skip
        made.answering.set()
        sink.hold = made.answering
        receiver = await _receiver(stack, made)
        (folder / "gateway.toml").write_text(_config(made, port, private, media, receiver))
        stack.push_async_callback(_all_killed, made)
        for part in ("valkey", "node", "sandbox", "bridge"):
            await made.start(part)
        await made.ready()
        try:
            yield made
        finally:
            for caller in made.callers:
                await caller.close()


async def _all_killed(made: Yard) -> None:
    for part in list(made.pids):
        await made.kill(part)


async def _closed(nursery: asyncio.subprocess.Process) -> None:
    assert nursery.stdin is not None
    nursery.stdin.close()
    await nursery.wait()


async def _receiver(stack: AsyncExitStack, made: Yard) -> int:
    async def receive(request: web.Request) -> web.Response:
        made.received.append({**await request.json(), "received": time.monotonic()})
        await made.answering.wait()
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", port := free_port()).start()
    return port


def _config(made: Yard, port: int, private: int, media: int, receiver: int) -> str:
    return f"""
[server]
port = {port}
private_port = 0
[media]
host = "127.0.0.1"
port = {media}
workers = 1
[redis]
url = "unix://{made.folder}/valkey.sock"
[session]
rate_max_minor = 6000
grace_seconds = 1
[meter]
journal = "{made.folder}/usage.jsonl"
[stripe]
api_key = "{STRIPE_KEY}"
api_base = "{made.stripe}"
webhook_secret = "{SECRET}"
sole_gateway = true
requests_per_second = 0
requests_per_endpoint = 0
[mail]
port = {made.sink.port}
starttls = false
[webhooks]
allow_private = true
[[webhooks.endpoints]]
url = "http://127.0.0.1:{receiver}/"
secret = "whsec_{"A" * 43}="
[archive]
location = "{made.folder}/archive"
[[api_keys]]
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
account = "acc_yard"
[secrets]
signing_key = "{"k" * 32}"
"""
