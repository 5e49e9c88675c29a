"""The sandbox as an HTTP server: `Sandbox(SandboxConfig(...))`, `await start()`, `url`, `await stop()`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiohttp import web

from gateway.dev.sandbox import accounts, elements, intents, pages, private
from gateway.dev.sandbox.api import Answer, Api, Request
from gateway.dev.sandbox.faults import AFTER, BEFORE, Fault
from gateway.dev.sandbox.limits import Limits
from gateway.dev.sandbox.platform import Platform, wall_ms
from gateway.dev.sandbox.refusals import Refusal
from gateway.dev.sandbox.store import Doc, Store
from gateway.dev.sandbox.turn import Terms

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PlatformConfig:
    """One more platform account, chosen by its `api_key`: on its own, with a connected account `acct_demo_NAME`. Its
    events go where the sandbox's go, signed with its own secret."""

    name: str
    api_key: str
    country: str
    settlement_currencies: tuple[str, ...]
    webhook_secret: str = "whsec_sandbox"  # noqa: S105 - signs test events on one machine


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """`data_dir` None keeps everything in memory; `latency_ms` is added to every API call.

    `webhook_url`/`webhook_secret`: an endpoint that exists from the start and gets `webhook_events`.
    `rate_limit_per_s`, `endpoint_rate_limit_per_s`: 0 is none; Stripe's test mode has 25 and 25.
    `public_url`: how a browser reaches us, for the 3DS page, when that is not `url`.
    """

    port: int = 0
    host: str = "127.0.0.1"
    data_dir: Path | None = None
    webhook_url: str | None = None
    webhook_secret: str = "whsec_sandbox"  # noqa: S105 - signs test events on one machine
    settlement_currencies: tuple[str, ...] = ("usd",)
    latency_ms: int = 0
    country: str = "US"
    webhook_events: tuple[str, ...] = ("*",)
    public_url: str | None = None
    rate_limit_per_s: int = 0
    endpoint_rate_limit_per_s: int = 0


class Sandbox:
    """A Stripe of one's own. `url` is the SDK's `base_addresses={"api": url}`; valid after `start`."""

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self.url = ""
        self._runner: web.AppRunner | None = None
        self._others: dict[str, Platform] = {}
        self._stopping = asyncio.Event()

    @property
    def api(self) -> Api:
        """The main platform account's."""
        return self._main.api

    @property
    def store(self) -> Store:
        return self._main.store

    async def start(self) -> None:
        """Open the data, listen, deliver what is still queued. Raises OSError when the port is taken."""
        listening = socket.create_server((self.config.host, self.config.port))
        host, port = listening.getsockname()[:2]
        self.url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104 - compared, not bound
        self._main = self._open("", self.config.country, self.config.settlement_currencies)
        self._main.seed(accounts.DEMO)
        self.set_webhook(self.config.webhook_url, self.config.webhook_secret)
        app = web.Application(client_max_size=1 << 20)
        app.router.add_route("*", "/{tail:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.SockSite(self._runner, listening).start()
        self._main.start()
        log.info("sandbox_started", url=self.url)

    def add_platform(self, config: PlatformConfig) -> None:
        """One more platform account from now on; call after `start`."""
        platform = self._open(f"-{config.name}", config.country, config.settlement_currencies)
        platform.seed({f"acct_demo_{config.name}": {"country": config.country, "restricted": False}})
        platform.set_webhook(self.config.webhook_url, config.webhook_secret, self.config.webhook_events)
        platform.start()
        self._others[config.api_key] = platform

    def _open(self, name: str, country: str, settlement_currencies: tuple[str, ...]) -> Platform:
        path = self.config.data_dir
        if path is not None:
            path.mkdir(parents=True, exist_ok=True)
        terms = Terms(settlement_currencies, country, base_url=self.config.public_url or self.url)
        platform = Platform(terms, path / f"stripe{name}.sqlite3" if path is not None else None)
        platform.api.limits = Limits(self.config.rate_limit_per_s, self.config.endpoint_rate_limit_per_s)
        return platform

    def set_webhook(self, url: str | None, secret: str) -> None:
        """Deliver the main platform account's events there from now on (None: nowhere)."""
        self._main.set_webhook(url, secret, self.config.webhook_events)

    async def stop(self) -> None:
        """Close; with a data directory, everything is there again at the next start."""
        self._stopping.set()
        platforms = (self._main, *self._others.values())
        await asyncio.gather(*(platform.stop() for platform in platforms))
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            for platform in platforms:
                platform.store.close()

    def _platform(self, http: web.Request) -> Platform:
        """The account that the key opens; any other key is the main one's to judge."""
        key = (_authorization(http) or "").removeprefix("Bearer ").strip()
        return self._others.get(key, self._main)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/sandbox"):
            return await self._private(request)
        if request.path.startswith("/3ds/"):
            return await self._challenge(request)
        if request.path.startswith("/v3/"):
            return elements.answer(request.path)
        return await self._serve(request)

    async def _serve(self, http: web.Request) -> web.StreamResponse:
        request, platform = await _read(http), self._platform(http)
        api = platform.api
        ended = api.admit(request, wall_ms())
        if ended is not None:
            return _response(ended)
        fault = api.faults.take(request.target)
        try:
            await self._before(http, fault)
        except BaseException:
            api.abandon(request)
            raise
        if fault is not None and fault.kind in BEFORE:
            api.abandon(request)
            return web.Response(status=502)
        answer = api.execute(request, wall_ms(), fault)
        platform.changed()
        if fault is not None and fault.kind in AFTER:
            await self._vanish(http, fault)
        return _response(answer)

    async def _before(self, http: web.Request, fault: Fault | None) -> None:
        delay_ms = self.config.latency_ms + (fault.ms if fault is not None and fault.kind == "slow" else 0)
        if delay_ms:
            await asyncio.sleep(delay_ms / 1_000)
        if fault is not None and fault.kind in BEFORE:
            await self._vanish(http, fault)

    async def _vanish(self, http: web.Request, fault: Fault) -> None:
        """No answer: silence for a while (timeouts), then the connection is cut."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(fault.ms / 1_000):
                await self._stopping.wait()
        if http.transport is not None:
            http.transport.abort()

    async def _private(self, http: web.Request) -> web.StreamResponse:
        platform = self._platform(http)
        try:
            body = json.loads(await http.text() or "{}")
            doc = private.handle(platform.api, http.method, http.path, body, dict(http.query), wall_ms())
        except Refusal as refusal:
            return web.json_response(refusal.body(), status=refusal.status)
        except (ValueError, KeyError, TypeError) as error:
            return web.json_response({"error": {"message": f"{type(error).__name__}: {error}"}}, status=400)
        platform.changed()
        return web.json_response(doc)

    async def _challenge(self, http: web.Request) -> web.StreamResponse:
        """The 3DS page: GET shows it, POST decides and sends back."""
        ident = http.path.removeprefix("/3ds/")
        for platform in (self._main, *self._others.values()):
            intent = platform.store.get("payment_intent", ident, None)
            if intent is not None and http.query.get("secret") == intent["client_secret"]:
                return await self._challenged(http, platform, intent)
        return web.Response(status=404, text="Unknown payment")

    async def _challenged(self, http: web.Request, platform: Platform, intent: Doc) -> web.StreamResponse:
        if http.method == "POST" and intent["status"] == "requires_action":
            approved = (await http.post()).get("verdict") == "approve"
            ident = intent["id"]
            intent = platform.api.work(wall_ms(), lambda turn: intents.authenticate(turn, ident, approved=approved))
            platform.changed()
        if intent["status"] == "requires_action":
            return web.Response(text=pages.challenge(intent), content_type="text/html")
        back = pages.way_back(intent)
        if back is not None:
            raise web.HTTPSeeOther(back)
        return web.Response(text=pages.done(intent), content_type="text/html")


async def _read(http: web.Request) -> Request:
    post = http.method == "POST"
    return Request(
        method=http.method,
        path=http.path.rstrip("/"),
        form=await http.text() if post else http.query_string,
        authorization=_authorization(http),
        account=http.headers.get("Stripe-Account", ""),
        key=http.headers.get("Idempotency-Key") if post else None,
        json=post and http.content_type == "application/json",
    )


def _authorization(http: web.Request) -> str | None:
    """Bearer, or the key as the user name of Basic authentication."""
    given = http.headers.get("Authorization")
    if given is None or not given.startswith("Basic "):
        return given
    try:
        return base64.b64decode(given.removeprefix("Basic ")).decode().split(":")[0]
    except ValueError:
        return None


def _response(answer: Answer) -> web.Response:
    return web.Response(
        status=answer.status, body=answer.body, content_type="application/json", charset="utf-8", headers=answer.headers
    )
