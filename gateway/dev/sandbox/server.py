"""The sandbox as an HTTP server: `Sandbox(SandboxConfig(...))`, `await start()`, `url`, `await stop()`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiohttp import web

from gateway.dev.sandbox import accounts, endpoints, intents, pages, private
from gateway.dev.sandbox.api import Answer, Api, Request
from gateway.dev.sandbox.courier import Courier
from gateway.dev.sandbox.faults import AFTER, BEFORE, Fault
from gateway.dev.sandbox.limits import Limits
from gateway.dev.sandbox.refusals import Refusal
from gateway.dev.sandbox.store import Doc, Store
from gateway.dev.sandbox.turn import Terms, Turn

log = structlog.get_logger(__name__)

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def stripe_id(prefix: str) -> str:
    """`prefix_` and 24 random characters, as Stripe's ids look."""
    number = int.from_bytes(os.urandom(18), "big")
    letters = []
    for _ in range(24):
        number, place = divmod(number, 62)
        letters.append(_ALPHABET[place])
    return f"{prefix}_{''.join(letters)}"


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


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
        self._tasks: list[asyncio.Task[None]] = []
        self._timer_wake = asyncio.Event()
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Open the data, listen, deliver what is still queued. Raises OSError when the port is taken."""
        listening = socket.create_server((self.config.host, self.config.port))
        host, port = listening.getsockname()[:2]
        self.url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104 - compared, not bound
        self._open()
        app = web.Application(client_max_size=1 << 20)
        app.router.add_route("*", "/{tail:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.SockSite(self._runner, listening).start()
        self._tasks = [asyncio.create_task(self.courier.run()), asyncio.create_task(self._run_timer())]
        log.info("sandbox_started", url=self.url)

    def _open(self) -> None:
        path = self.config.data_dir
        if path is not None:
            path.mkdir(parents=True, exist_ok=True)
        self.store = Store(path / "stripe.sqlite3" if path is not None else None)
        base_url = self.config.public_url or self.url
        terms = Terms(self.config.settlement_currencies, self.config.country, base_url=base_url)
        self.api = Api(self.store, terms, stripe_id)
        self.api.limits = Limits(self.config.rate_limit_per_s, self.config.endpoint_rate_limit_per_s)
        self.courier = Courier(self.store, _wall_ms)
        self.store.prune(_wall_ms() // 1_000)
        self._change(accounts.seed)
        self.set_webhook(self.config.webhook_url, self.config.webhook_secret)

    def _change(self, job: Callable[[Turn], None]) -> None:
        def work(turn: Turn) -> Doc:
            job(turn)
            return {}

        self.api.work(_wall_ms(), work)

    def set_webhook(self, url: str | None, secret: str) -> None:
        """Deliver events there from now on (None: nowhere), besides the endpoints made over the API."""
        events = self.config.webhook_events
        self._change(lambda turn: endpoints.configure(turn, url, secret, events))
        self.courier.wake.set()

    async def stop(self) -> None:
        """Close; with a data directory, everything is there again at the next start."""
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
            self.store.close()

    async def _run_timer(self) -> None:
        while True:
            self._timer_wake.clear()
            self.api.handle_due(_wall_ms())
            self.courier.wake.set()
            at = self.api.next_due_ms()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if at is None else max(1, at - _wall_ms()) / 1_000):
                    await self._timer_wake.wait()

    def _changed(self) -> None:
        self.courier.wake.set()
        self._timer_wake.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/sandbox"):
            return await self._private(request)
        if request.path.startswith("/3ds/"):
            return await self._challenge(request)
        return await self._serve(request)

    async def _serve(self, http: web.Request) -> web.StreamResponse:
        request = await _read(http)
        ended = self.api.admit(request, _wall_ms())
        if ended is not None:
            return _response(ended)
        fault = self.api.faults.take(request.target)
        try:
            await self._before(http, fault)
        except BaseException:
            self.api.abandon(request)
            raise
        if fault is not None and fault.kind in BEFORE:
            self.api.abandon(request)
            return web.Response(status=502)
        answer = self.api.execute(request, _wall_ms(), fault)
        self._changed()
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
        try:
            body = json.loads(await http.text() or "{}")
            doc = private.handle(self.api, http.method, http.path, body, dict(http.query), _wall_ms())
        except Refusal as refusal:
            return web.json_response(refusal.body(), status=refusal.status)
        except (ValueError, KeyError, TypeError) as error:
            return web.json_response({"error": {"message": f"{type(error).__name__}: {error}"}}, status=400)
        self._changed()
        return web.json_response(doc)

    async def _challenge(self, http: web.Request) -> web.StreamResponse:
        """The 3DS page: GET shows it, POST decides and sends back."""
        intent = self.store.get("payment_intent", http.path.removeprefix("/3ds/"), None)
        if intent is None or http.query.get("secret") != intent["client_secret"]:
            return web.Response(status=404, text="Unknown payment")
        if http.method == "POST" and intent["status"] == "requires_action":
            approved = (await http.post()).get("verdict") == "approve"
            ident = intent["id"]
            intent = self.api.work(_wall_ms(), lambda turn: intents.authenticate(turn, ident, approved=approved))
            self._changed()
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
