"""A gateway as an operator runs it, a process for each part: Valkey, Stripe's sandbox, a node, a bridge; each can be
killed by its own id and started again. Mail server and webhook receiver are the test's, and keep what they get."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import aiohttp
import redis.asyncio as aioredis
from aiohttp import web

from gateway.billing_bridge.audit import reconciled
from gateway.billing_bridge.record import Payment
from gateway.billing_bridge.stripe_client import StripeClient
from gateway.dev.valkey import binary
from gateway.journal import Journal
from tests.billing_bridge.post import Sink, sunk
from tests.conftest import free_port
from tests.integration.caller import Caller
from tests.market import Market

Part = Literal["valkey", "sandbox", "node", "bridge"]
KEY: Final = "pg_test_yard"
STRIPE_KEY: Final = "sk_test_yard"
QUEUES: Final = ("money", "mail", "outbox", "watch")


@dataclass
class Yard(Market):
    """A marketplace's client of it all, and the strings that it hangs on."""

    folder: Path
    redis: aioredis.Redis
    sink: Sink
    processes: dict[Part, subprocess.Popen[bytes]] = field(default_factory=dict)
    received: list[dict[str, Any]] = field(default_factory=list)
    # Set while mails and events are taken; cleared, their senders wait for an answer.
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    callers: list[Caller] = field(default_factory=list)

    @property
    def journal(self) -> Journal:
        return Journal(self.redis)

    def start(self, *parts: Part) -> None:
        for part in parts:
            log = (self.folder / f"{part}.log").open("ab")
            command = [str(word) for word in self._command(part)]
            self.processes[part] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def _command(self, part: Part) -> Sequence[object]:
        config = self.folder / "gateway.toml"
        match part:
            case "valkey":
                place = {"port": 0, "unixsocket": self.folder / "valkey.sock", "dir": self.folder, "save": ""}
                options = place | {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
                return [binary(), *(word for name, value in options.items() for word in (f"--{name}", value))]
            case "sandbox":
                port = self.stripe.rpartition(":")[2]
                return [sys.executable, "-m", "tests.faults.sandbox", port, self.folder / "stripe"]
            case "node":
                return [sys.executable, "-m", "gateway", "serve", "--config", config]
            case "bridge":
                return [sys.executable, "-m", "gateway", "bridge", "--config", config]

    def kill(self, part: Part) -> None:
        """`kill -9` of the part's own process group."""
        process = self.processes.pop(part)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    async def back(self, part: Part) -> None:
        """Killed and started again; and as if the lease of what it had in hand had run out."""
        self.start(part)
        await self.ready()
        await self.leases_run_out()

    async def ready(self) -> None:
        """Everything that was started answers."""
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(aiohttp.ClientError, aioredis.RedisError, OSError):
                    await self.redis.ping()
                    async with self.http.get(f"{self.stripe}/sandbox/state") as answer:
                        stripe = answer.status
                    if (stripe, (await self.call("GET", "/v1/sessions"))[0]) == (200, 200):
                        return
                await asyncio.sleep(0.05)

    async def leases_run_out(self) -> None:
        """What a killed process had claimed comes back after a minute, for a test at once."""
        for key in [key async for key in self.redis.scan_iter("*due:*")]:
            if key.endswith(b":claims"):
                await self.redis.delete(key)
            elif not key.endswith(b"due:watch"):
                for member in await self.redis.zrange(key, 0, -1):
                    await self.redis.zadd(key, {member: 1}, xx=True)
        for key in [key async for key in self.redis.scan_iter("idem:*")]:
            await self.redis.hset(key, "locked_until", "0")
        for key in [key async for key in self.redis.scan_iter("*:deliveries")]:
            leases = [name for name in await self.redis.hkeys(key) if name.startswith(b"l:")]
            if leases:
                await self.redis.hdel(key, *leases)

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

    async def fault(self, match: str, kind: str, **more: Any) -> None:
        body = {"match": match, "kind": kind, **more}
        async with self.http.post(f"{self.stripe}/sandbox/faults", json=body) as answer:
            assert answer.status == 200, await answer.text()

    async def no_faults(self) -> None:
        async with self.http.delete(f"{self.stripe}/sandbox/faults") as answer:
            assert answer.status == 200

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

    async def objects(self, session: str) -> dict[str, Any]:
        """What Stripe has of a session: intents and transfers."""
        state = await self.sandbox()
        return {
            kind: [each for each in state[kind] if each["metadata"].get("session") == session]
            for kind in ("payment_intents", "transfers")
        }

    # The check

    async def check(self, session: str) -> dict[str, Any]:
        """All that must be so after any fault: one bill over the ledger, charged and shared once, told to both and to
        the marketplace, and Stripe of the same mind."""
        final = await self.settled(session, 30)
        usage = await self.get(f"/v1/sessions/{session}/usage")
        assert final["billable_seconds"] == usage["union_ms"] // 1000, "law 3"
        assert usage["union_ms"] == sum(interval["ms"] for interval in usage["intervals"])
        total = final["amount_total"]
        assert total == 100 * final["billable_seconds"]
        assert total == final["amount_expert"] + final["amount_platform"] + final["amount_ambassador"], "law 6"
        there = await self.objects(session)
        assert [i["amount_received"] for i in there["payment_intents"] if i["status"] == "succeeded"] == [total], (
            "law 5"
        )
        assert {i["status"] for i in there["payment_intents"]} <= {"succeeded", "canceled"}
        assert [t["amount"] for t in there["transfers"]] == [final["amount_expert"]]
        await self._check_told(session)
        async with StripeClient(STRIPE_KEY, self.stripe) as stripe:
            _, differences = await reconciled(self.journal, stripe, 0)
        assert [str(each) for each in differences if each.session == session] == []
        return final

    async def _check_told(self, session: str) -> None:
        receipts = await self.receipts(session)
        mails = [m for m in self.sink.mails if session in str(m["Message-ID"])]
        assert {m["To"].addresses[0].addr_spec for m in mails} == {"client@example.com", "expert@example.com"}
        assert len({m["Message-ID"] for m in mails}) == len(receipts) == 2, "one mail each, however often it was sent"
        events = await self.events(session)
        assert [event["sequence"] for event in events] == list(range(1, len(events) + 1)), "law 8"
        kinds = [event["type"] for event in events]
        for once in ("session.created", "session.finalized", "session.settled", "payment.captured"):
            assert kinds.count(once) == 1, once
        async with asyncio.timeout(15):
            while {event["id"] for event in events} - {event["id"] for event in self.received}:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def yard(folder: Path) -> AsyncIterator[Yard]:
    """Everything runs."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        sink = await stack.enter_async_context(sunk())
        port, stripe, private, media = (free_port() for _ in range(4))
        redis = aioredis.Redis.from_url(f"unix://{folder}/valkey.sock")
        stack.push_async_callback(redis.aclose)
        made = Yard(f"http://127.0.0.1:{port}", KEY, f"http://127.0.0.1:{stripe}", "", http, folder, redis, sink)
        made.answering.set()
        sink.hold = made.answering
        receiver = await _receiver(stack, made)
        (folder / "gateway.toml").write_text(_config(made, port, private, media, receiver))
        stack.callback(lambda: [made.kill(part) for part in list(made.processes)])
        made.start("valkey", "sandbox", "node", "bridge")
        await made.ready()
        try:
            yield made
        finally:
            for caller in made.callers:
                await caller.close()


async def _receiver(stack: AsyncExitStack, made: Yard) -> int:
    async def receive(request: web.Request) -> web.Response:
        made.received.append(await request.json())
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
[stripe]
api_key = "{STRIPE_KEY}"
api_base = "{made.stripe}"
webhook_secret = "whsec_yard"
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
[[api_keys]]
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
account = "acc_yard"
[secrets]
signing_key = "{"k" * 32}"
"""
