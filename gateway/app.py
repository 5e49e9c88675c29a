"""The composition root: the only place that knows all rooms, and makes a running gateway of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

import redis.asyncio as aioredis
import structlog
from aiohttp import web
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.driver_info import DriverInfo
from redis.exceptions import RedisError

from gateway import __version__, platforms, supervisor
from gateway.api.auth import ApiKey, KeyRing
from gateway.api.context import ApiContext, PayPage
from gateway.api.health import private_app
from gateway.api.idempotency import Idempotency
from gateway.api.pay import pay_app
from gateway.api.routes import public_app
from gateway.api.terms import Limits
from gateway.archive.archive import Archive, Retention
from gateway.archive.hot import meet
from gateway.archive.people import People
from gateway.archive.places import store_at
from gateway.billing_bridge import payment
from gateway.billing_bridge.accounts import Accounts
from gateway.billing_bridge.archiver import Archiver, ArchiverSettings
from gateway.billing_bridge.audit import Sweep
from gateway.billing_bridge.platform import Unhurried
from gateway.billing_bridge.stripe_events import StripeEvents
from gateway.billing_bridge.wallets import Wallets
from gateway.billing_bridge.worker import Bridge
from gateway.bookings.bookings import Bookings
from gateway.changes import Changes
from gateway.clock import Clock
from gateway.errors import StoreUnavailable
from gateway.journal import Journal
from gateway.keys import Keys
from gateway.meter.ledger import Ledger
from gateway.meter.sweeper import Sweeper
from gateway.meter.usage_file import UsageFile
from gateway.nodes import Node, RedisClock
from gateway.payees.earnings import Earnings
from gateway.payees.payability import Payees
from gateway.payees.routes import MAIN
from gateway.plans import relay_plan
from gateway.receipts.mailer import Mailer, MailSettings
from gateway.receipts.receipt import Issuer
from gateway.sessions.doors import Doors
from gateway.sessions.paying import PayDesk
from gateway.sessions.rules import Rules
from gateway.sessions.sessions import Sessions
from gateway.settings import Settings
from gateway.sfu.remote import RemoteRelay
from gateway.signaling.call import Timers
from gateway.signaling.host import Host
from gateway.signaling.turn import Turn
from gateway.signaling.websocket import add_signaling
from gateway.tokens import Tokens
from gateway.webhooks.endpoints import Endpoints, configured
from gateway.webhooks.webhook_desk import WebhookDesk
from gateway.webhooks.webhooks import Webhooks, WebhookSettings

log = structlog.get_logger(__name__)

REDIS_WAIT_S: Final = 30.0
REDIS_RETRY_S: Final = 0.2
REDIS_TOLD_AFTER_S: Final = 1.0
REDIS_TOLD_EVERY_S: Final = 10.0
# A connection that waits for an fsync, once a second with `appendfsync everysec`, does nothing else meanwhile: so many
# steps of money can be written down in a second.
CONNECTIONS: Final = 512
STOP_S: Final = 5.0
RESTART_S: Final = 1.0


class Tasks:
    """Background loops of a process. One that fails is a bug: it is logged and started again after a moment."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stopping = False

    def start(self, name: str, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._tasks[name] = asyncio.create_task(self._kept(name, loop), name=name)

    async def _kept(self, name: str, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await loop()
                return
            except Exception:
                log.exception("loop_failed", loop=name)
                if self._stopping:
                    return
                await asyncio.sleep(RESTART_S)

    def alive(self, name: str) -> bool:
        task = self._tasks.get(name)
        return task is not None and not task.done()

    async def stop(self) -> None:
        """Cancel all, once: what a loop must still put in order, such as calls to Stripe under way, is not cut off."""
        self._stopping = True
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


class Gateway:
    """A running node, a bridge, or both. `start` returns when everything answers; `stop` leaves nothing behind."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._parts, self._connections = AsyncExitStack(), AsyncExitStack()
        self._tasks = Tasks()
        # Blocking: with all connections in use the next command waits for one instead of failing.
        pool = aioredis.BlockingConnectionPool.from_url(
            settings.redis.url.get_secret_value(),
            max_connections=CONNECTIONS, timeout=5, socket_timeout=5, socket_connect_timeout=2,
            health_check_interval=15, retry=Retry(ExponentialBackoff(cap=0.5, base=0.02), 2),
            driver_info=DriverInfo(),  # else each connection reads the package's metadata anew: 4 ms
        )  # fmt: skip
        self.redis = aioredis.Redis.from_pool(pool)
        keys = Keys(settings.redis.partitions)
        self.archive = archive(settings)
        self.journal = Journal(self.redis, keys, waitaof_ms=settings.redis.waitaof_ms, archive=self.archive)
        self.clock = RedisClock()
        self.node = Node(self.redis, self.clock, info={"version": __version__})
        self.ledger = Ledger(self.redis, keys, settling=lambda: self.node.settling, archive=self.archive)

    @classmethod
    async def start(
        cls,
        settings: Settings,
        *,
        with_node: bool = True,
        with_bridge: bool = True,
        extra_routes: Sequence[web.AbstractRouteDef] = (),
    ) -> Gateway:
        """Raises StoreUnavailable when Redis does not answer within half a minute, RelayUnavailable or OSError when a
        port is taken."""
        gateway = cls(settings)
        gateway._connections.push_async_callback(gateway.redis.aclose)
        try:
            await gateway._meet_redis()
            if gateway.archive is not None:
                await meet(gateway.archive, gateway.redis)
            if with_bridge:
                await gateway._start_bridge()
            if with_node:
                await gateway._start_node(extra_routes)
            await gateway._serve_private(with_node=with_node, with_bridge=with_bridge)
        except BaseException:
            await gateway.stop()
            raise
        return gateway

    async def stop(self) -> None:
        """Leave within seconds: sessions given up and doors closed, then loops ended, then what they all speak over."""
        try:
            await self._parts.aclose()
        finally:
            await self._tasks.stop()
            await self._connections.aclose()

    async def _meet_redis(self) -> None:
        telling = asyncio.create_task(self._tell_of_waiting())
        try:
            async with asyncio.timeout(REDIS_WAIT_S):
                while True:
                    with suppress(RedisError):
                        await self.node.beat()
                        break
                    await asyncio.sleep(REDIS_RETRY_S)
        except TimeoutError:
            raise StoreUnavailable("Redis does not answer; is redis.url right?") from None
        finally:
            telling.cancel()
        self._tasks.start("heartbeat", self.node.run)
        self._connections.push_async_callback(self._say_goodbye)

    async def _tell_of_waiting(self) -> None:
        """Beside the attempts: one that gets no answer at all lasts many seconds."""
        await asyncio.sleep(REDIS_TOLD_AFTER_S)
        while True:
            log.warning("redis_awaited", url=self._settings.redis.shown, gives_up_after_s=REDIS_WAIT_S)
            await asyncio.sleep(REDIS_TOLD_EVERY_S)

    async def _say_goodbye(self) -> None:
        with suppress(RedisError):
            await self.node.leave()

    async def _start_bridge(self) -> None:
        settings = self._settings
        stripe = platforms.clients(settings)
        for client in stripe.values():
            self._connections.push_async_callback(client.close)
        bridge = Bridge(
            self.journal, stripe[MAIN], platforms.bridge_settings(settings), self.clock,
            platforms.others(settings, self.redis, stripe),
        )  # fmt: skip
        mailer = Mailer(self.journal, mail_settings(settings), self.clock, self._pay_link())
        webhooks = Webhooks(
            self.journal, endpoints(settings, self.redis, self.clock), webhook_settings(settings), self.clock
        )
        accounts = Accounts(self.journal, bridge.platforms, self.clock, settings.stripe.payout_weekday)
        loops = {"bridge": bridge.run, "mailer": mailer.run, "webhooks": webhooks.run, "accounts": accounts.run}
        loops["wallets"] = Wallets(self.journal, bridge.platforms, self.clock).run
        for name, platform in bridge.platforms.items():
            asking = Unhurried(platform)
            sweep = Sweep(self.journal, asking, self.clock, sole=settings.stripe.sole_gateway, platform=name)
            loops[f"sweep {name}"] = sweep.run
        if self.archive is not None:
            loops["archiver"] = Archiver(self.journal, self.archive, archiver_settings(settings), self.clock).run
        for name, loop in loops.items():
            self._tasks.start(name, loop)

    async def _start_node(self, extra_routes: Sequence[web.AbstractRouteDef]) -> None:
        settings, timers = self._settings, call_timers(self._settings)
        changes = Changes(self.journal)
        self._tasks.start("changes", changes.run)
        tokens = Tokens(settings.secrets.signing_key.get_secret_value().encode())
        payees = Payees(self.journal, changes, self.clock, platforms.payers(settings))
        sessions = Sessions(
            self.journal, self.ledger, tokens, self.clock, changes, rules=session_rules(settings),
            public_url=settings.server.public_url, open_payment=payment.opened, payees=payees,
            pay_url=settings.pay.url,
        )  # fmt: skip
        self._relay = await self._reach_relay()
        host = Host(
            sessions, self.ledger, self._relay, self.node, tokens, timers, flush_ms=settings.session.flush_ms,
            file=UsageFile(settings.meter.journal) if settings.meter.journal else None, turn=turn(settings),
        )  # fmt: skip
        self._tasks.start("host", host.run)
        sweeper = Sweeper(
            self.journal, self.ledger, sessions.records, self.clock, owner=self.node.nonce, grace_ms=timers.grace_ms,
            gone=self.node.gone, settling=lambda: self.node.settling,
        )  # fmt: skip
        self._tasks.start("sweeper", sweeper.run)
        await self._serve_public(sessions, payees, host, extra_routes)
        self._parts.push_async_callback(host.stop)

    async def _reach_relay(self) -> RemoteRelay:
        """The workers that our supervisor keeps, or, when there is none, workers of our own."""
        inherited = supervisor.inherited()
        if inherited is None:
            paths = await self._parts.enter_async_context(supervisor.relay_workers(relay_plan(self._settings)))
        else:
            paths = inherited.relay
        relay = await RemoteRelay.open(paths, self.clock)
        self._parts.push_async_callback(relay.close)
        return relay

    async def _serve_public(
        self, sessions: Sessions, payees: Payees, host: Host, extra_routes: Sequence[web.AbstractRouteDef]
    ) -> None:
        settings = self._settings
        mailer = Mailer(self.journal, mail_settings(settings), self.clock, self._pay_link())
        events = StripeEvents(
            self.journal, platforms.webhook_secrets(settings), self.clock, livemode=settings.stripe.livemode
        )
        bookings = Bookings(sessions, open_payment=payment.opened)
        context = ApiContext(
            sessions=sessions, keys=key_ring(settings), idempotency=Idempotency(self.redis),
            public_url=settings.server.public_url, limits=limits(settings), clock=self.clock,
            receipt_page=mailer.receipt_page, stripe_events=events.receive, webhooks=self._desk(),
            bookings=bookings, people=People(self.journal),
            payees=payees, pay=pay_page(settings, PayDesk(sessions, bookings)),
            earnings=Earnings(self.journal),
            archived_after_ms=archiver_settings(settings).quiet_ms if self.archive else None,
        )  # fmt: skip
        app = public_app(context)
        add_signaling(app, host)
        app.router.add_routes(extra_routes)
        await self._serve("public", app, settings.server.host, settings.server.port)
        if settings.pay.port:
            await self._serve("pay", pay_app(context), settings.pay.host, settings.pay.port)

    def _pay_link(self) -> Callable[[str], str | None] | None:
        """How mails lead to the pay page; None where there is none."""
        settings = self._settings
        if not settings.pay.url:
            return None
        tokens = Tokens(settings.secrets.signing_key.get_secret_value().encode())
        return Doors(self.redis, tokens, self.clock, settings.server.public_url, settings.pay.url).pay_link

    def _desk(self) -> WebhookDesk:
        known = endpoints(self._settings, self.redis, self.clock)
        return WebhookDesk(
            self.journal, known, Webhooks(self.journal, known, webhook_settings(self._settings), self.clock)
        )

    async def _serve_private(self, *, with_node: bool, with_bridge: bool) -> None:
        checks: dict[str, Callable[[], Awaitable[object]]] = {"redis": self.redis.ping}
        names = (["host", "sweeper", "changes"] if with_node else []) + (
            ["bridge", "mailer", "webhooks", "accounts", "wallets"] if with_bridge else []
        )
        for name in names:
            checks[name] = self._running(name)
        server = self._settings.server
        await self._serve("private", private_app(checks), server.private_host, server.private_port)

    def _running(self, name: str) -> Callable[[], Coroutine[Any, Any, object]]:
        async def check() -> bool:
            return self._tasks.alive(name)

        return check

    async def _serve(self, name: str, app: web.Application, host: str, port: int) -> None:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_S, handle_signals=False)
        await runner.setup()
        self._parts.push_async_callback(runner.cleanup)
        inherited = supervisor.inherited()
        if inherited is not None and name in inherited.sockets:
            await web.SockSite(runner, inherited.listener(name)).start()
        else:
            await web.TCPSite(runner, host, port).start()


async def serve(settings: Settings, *, with_bridge: bool) -> None:
    """A node, until cancelled."""
    await _run(settings, with_node=True, with_bridge=with_bridge)


async def bridge(settings: Settings) -> None:
    """A bridge alone, until cancelled."""
    await _run(settings, with_node=False, with_bridge=True)


async def _run(settings: Settings, *, with_node: bool, with_bridge: bool) -> None:
    gateway = await Gateway.start(settings, with_node=with_node, with_bridge=with_bridge)
    try:
        await asyncio.Event().wait()
    finally:
        await gateway.stop()


def call_timers(settings: Settings) -> Timers:
    session = settings.session
    return Timers(session.lone_seconds * 1000, session.grace_seconds * 1000, session.warnings, session.free_warnings)


def session_rules(settings: Settings) -> Rules:
    """The bridge knows the smallest charge of a currency; the meter must know it before the bill is frozen."""
    return Rules(
        cap_ms=settings.session.cap_seconds * 1000,
        expires_ms=settings.session.expires_hours * 3_600_000,
        minimums=platforms.minimums(settings),
        free_window_ms=settings.session.free_window_hours * 3_600_000,
    )


def turn(settings: Settings) -> Turn:
    found = settings.turn
    return Turn(found.urls, found.secret.get_secret_value(), found.ttl_seconds)


def limits(settings: Settings) -> Limits:
    session = settings.session
    return Limits(session.rate_min_minor, session.rate_max_minor, session.limit_default_minutes, session.commission_bps)


def key_ring(settings: Settings) -> KeyRing:
    return KeyRing(ApiKey(key.account, key.sha256, frozenset(key.scopes), key.livemode) for key in settings.api_keys)


def archive(settings: Settings) -> Archive | None:
    """That of the settings; `hot.meet` tells whether it is the right one."""
    place = settings.archive.place
    return None if place is None else Archive(store_at(place))


def archiver_settings(settings: Settings) -> ArchiverSettings:
    kept, retention = settings.archive, settings.retention
    return ArchiverSettings(
        kept.after_days * 86_400_000, kept.per_second, kept.every_minutes * 60_000, settings.issuer.id,
        Retention(retention.money_days, retention.people_days, retention.ticks_days),
    )  # fmt: skip


def mail_settings(settings: Settings) -> MailSettings:
    mail, issuer = settings.mail, settings.issuer
    return MailSettings(
        host=mail.host, port=mail.port, username=mail.username,
        password=mail.password.get_secret_value() if mail.password else None, starttls=mail.starttls,
        sender=mail.sender, public_url=settings.server.public_url,
        issuer=Issuer(issuer.name, issuer.id, issuer.address, issuer.tax_id, issuer.support),
    )  # fmt: skip


def pay_page(settings: Settings, desk: PayDesk) -> PayPage:
    stripe = settings.stripe
    return PayPage(desk, settings.server.public_url, stripe.js_url, platforms.publishable_keys(settings))


def webhook_settings(settings: Settings) -> WebhookSettings:
    return WebhookSettings(allow_private=settings.webhooks.allow_private)


def endpoints(settings: Settings, redis: aioredis.Redis, clock: Clock) -> Endpoints:
    """Those of the configuration; more may be stored in Redis."""
    return Endpoints(
        redis, clock, [configured(e.url, e.secret.get_secret_value()) for e in settings.webhooks.endpoints],
        allow_private=settings.webhooks.allow_private,
    )  # fmt: skip
