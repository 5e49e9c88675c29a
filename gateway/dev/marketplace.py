"""The demo marketplace: an honest client of our REST API and a verifying receiver of our webhooks, with a page.

It knows nothing that a marketplace's own backend would not know: its API key, its webhook secret, its Stripe key, and
the addresses of the gateway, of Stripe and of the mailbox. What it was told it keeps in one append-only file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import aiohttp
import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from gateway.dev.pages import asset, page

log = structlog.get_logger(__name__)

PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
CARDS = {
    "good": "pm_card_visa",
    "declined": "pm_card_chargeDeclined",
    "authentication": "pm_card_authenticationRequired",
}
# How old the page's figures may become; events wake it at once.
REFRESH_SECONDS = 1.0
TIMEOUT = aiohttp.ClientTimeout(total=30)


@dataclass(frozen=True, slots=True)
class MarketplaceConfig:
    """Where everything is. URLs without a trailing slash; `mail_url` is the inbox page."""

    gateway_url: str
    api_key: str
    webhook_secret: str
    stripe_url: str
    stripe_api_key: str
    mail_url: str
    data_dir: Path


class Wish(BaseModel):
    """What the page's form sends. `unit_amount` is minor units a minute."""

    model_config = ConfigDict(extra="forbid")

    unit_amount: Annotated[int, Field(gt=0)] = 300
    currency: Literal["usd", "gbp", "eur", "cad", "chf"] = "usd"
    free_minutes: Annotated[int, Field(ge=0, le=90)] = 0
    max_minutes: Annotated[int, Field(ge=1, le=90)] = 30
    media: Literal["voice", "video"] = "video"
    card: Literal["good", "declined", "authentication"] = "good"


class Refused(Exception):
    """The gateway or Stripe said no; `body` is their answer, to be shown as it is."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(str(body.get("detail") or body.get("title") or body))
        self.status = status
        self.body = body


@dataclass(slots=True)
class Book:
    """Sessions that we started and events that we were told; each line is on disk before we acknowledge."""

    path: Path
    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Book:
        path.parent.mkdir(parents=True, exist_ok=True)
        book = cls(path)
        raw = path.read_bytes() if path.exists() else b""
        if raw and not raw.endswith(b"\n"):
            path.write_bytes(raw + b"\n")
        for line in raw.splitlines():
            try:
                book._take(json.loads(line))
            except ValueError:
                continue  # a kill in the middle of a line: it was never acknowledged, and comes again
        return book

    def write(self, line: dict[str, Any]) -> None:
        with self.path.open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(line)

    def knows(self, event: Mapping[str, Any]) -> bool:
        return event["sequence"] in self.events.get(event["session"], {})

    def told(self, session: str) -> list[dict[str, Any]]:
        return [event for _, event in sorted(self.events.get(session, {}).items())]

    def _take(self, line: dict[str, Any]) -> None:
        if "event" in line:
            event = line["event"]
            self.events.setdefault(event["session"], {})[event["sequence"]] = event
        else:
            self.sessions[line["session"]["id"]] = line["session"]


class Marketplace:
    """`routes()` go on the gateway's public port; `start()` before and `stop()` after it serves."""

    def __init__(self, config: MarketplaceConfig) -> None:
        self.config = config
        self.book = Book.open(config.data_dir / "marketplace.jsonl")
        self._http: aiohttp.ClientSession | None = None
        self._news = asyncio.Condition()
        self._closing = False

    async def start(self) -> None:
        self._http = aiohttp.ClientSession(timeout=TIMEOUT)

    async def stop(self) -> None:
        """Ends the pages' streams first: a server that waits for its open responses would wait for ever."""
        self._closing = True
        await self._wake()
        if self._http is not None:
            await self._http.close()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self._page),
            web.get("/demo/assets/{name}", asset),
            web.post("/demo/sessions", self._start),
            web.get("/demo/state", self._state),
            web.get("/demo/stream", self._stream),
            web.post("/demo/webhooks", self._webhook),
        ]

    async def order(self, wish: Wish) -> dict[str, Any]:
        """Create a Stripe customer and a session on it. Returns what the page needs; raises Refused."""
        reference = f"demo-{secrets.token_hex(4)}"
        people = {role: f"{role}+{reference}@example.com" for role in ("client", "expert")}
        customer = await self._stripe(
            "/v1/customers", {"name": "Demo client", "email": people["client"]}, f"{reference}-customer"
        )
        created = await self._gateway("POST", "/v1/sessions", body=_order(wish, reference, people, customer["id"]))
        session = {
            "id": created["id"],
            "created_ms": created.get("created"),
            "mail": people,
            "links": {role: created["participants"][role]["url"] for role in ("client", "expert")},
        }
        await asyncio.to_thread(self.book.write, {"session": session})
        return session

    async def snapshot(self, session_id: str) -> dict[str, Any]:
        """Everything the page shows of one session; parts that cannot be had just now are null."""
        known = self.book.sessions[session_id]
        session, mails, stripe = await asyncio.gather(
            self._tolerant(self._gateway("GET", f"/v1/sessions/{session_id}")),
            self._tolerant(self._read(self.config.mail_url + ".json")),
            self._tolerant(self._read(f"{self.config.stripe_url}/sandbox/state?transfer_group={session_id}")),
        )
        return {
            "id": session_id,
            "links": known["links"],
            "session": None if session is None else _without_secrets(session),
            "events": self.book.told(session_id),
            "mails": None if mails is None else [*self._mails(mails["data"], known["mail"])],
            "stripe": None if stripe is None else _movements(stripe, session_id),
        }

    def _mails(self, mails: list[dict[str, Any]], people: Mapping[str, str]) -> list[dict[str, Any]]:
        return [
            {"id": mail["id"], "url": f"{self.config.mail_url}/{mail['id']}", "role": role, "subject": mail["subject"]}
            | {"received_ms": mail["received_ms"]}
            for mail in mails
            for role, address in people.items()
            if address in mail["to"]
        ]

    async def _page(self, request: web.Request) -> web.Response:
        return page("demo.html", PAGE_POLICY, mail_url=self.config.mail_url)

    async def _start(self, request: web.Request) -> web.Response:
        # A form of another site could send text/plain without asking; JSON makes the browser ask first.
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType
        try:
            session = await self.order(Wish.model_validate_json(await request.read()))
        except ValidationError as fault:
            return web.json_response({"detail": str(fault.errors()[0]["msg"])}, status=400)
        except Refused as fault:
            return web.json_response(dict(fault.body), status=fault.status)
        except (aiohttp.ClientError, TimeoutError) as fault:
            return web.json_response({"detail": f"The gateway or Stripe does not answer: {fault}"}, status=502)
        return web.json_response({"id": session["id"], "links": session["links"]}, status=201)

    async def _state(self, request: web.Request) -> web.Response:
        return web.json_response(await self.snapshot(self._asked_for(request)), headers={"Cache-Control": "no-store"})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        session_id = self._asked_for(request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):  # the page was closed
            await self._tell(response, session_id)
        return response

    async def _tell(self, response: web.StreamResponse, session_id: str) -> None:
        last = ""
        while not self._closing:
            now = json.dumps(await self.snapshot(session_id))
            await response.write(b": still here\n\n" if now == last else f"event: state\ndata: {now}\n\n".encode())
            last = now
            await self._change()

    async def _webhook(self, request: web.Request) -> web.Response:
        body = await request.read()
        try:
            event = Webhook(self.config.webhook_secret).verify(body, dict(request.headers))
        except WebhookVerificationError:
            log.warning("webhook_refused")
            raise web.HTTPUnauthorized from None
        if not self.book.knows(event):
            await asyncio.to_thread(self.book.write, {"event": event})
            await self._wake()
        return web.Response(status=204)

    def _asked_for(self, request: web.Request) -> str:
        session_id = request.query.get("session", "")
        if session_id not in self.book.sessions:
            raise web.HTTPNotFound
        return session_id

    async def _wake(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def _change(self) -> None:
        try:
            async with asyncio.timeout(REFRESH_SECONDS), self._news:
                await self._news.wait()
        except TimeoutError:
            pass

    async def _tolerant(self, answer: Any) -> Any:
        try:
            return await answer
        except (Refused, aiohttp.ClientError, TimeoutError, ValueError):
            return None

    async def _gateway(self, method: str, path: str, *, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.config.api_key}"}
        if body is not None:
            headers["Idempotency-Key"] = f"{body['reference']}-create"
        return await self._call(method, self.config.gateway_url + path, headers=headers, json=body)

    async def _stripe(self, path: str, form: Mapping[str, str], key: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.config.stripe_api_key}", "Idempotency-Key": key}
        return await self._call("POST", self.config.stripe_url + path, headers=headers, data=form)

    async def _read(self, url: str) -> dict[str, Any]:
        return await self._call("GET", url)

    async def _call(self, method: str, url: str, **request: Any) -> dict[str, Any]:
        assert self._http is not None
        async with self._http.request(method, url, **request) as response:
            text = await response.text()
            if response.status >= 400:
                raise Refused(response.status, _said(text))
            answer: dict[str, Any] = json.loads(text)
            return answer


def _said(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    return body if isinstance(body, dict) else {"detail": text[:200]}


def _order(wish: Wish, reference: str, people: Mapping[str, str], customer: str) -> dict[str, Any]:
    return {
        "reference": reference,
        "kind": "metered",
        "media": wish.media,
        "client": {
            # A new client each time: the free part counts once per client and expert.
            "id": f"client-{reference}",
            "name": "Client",
            "email": people["client"],
            "locale": "en",
            "stripe_customer": customer,
            "payment_method": CARDS[wish.card],
        },
        "expert": {
            "id": "expert-demo",
            "name": "Expert",
            "email": people["expert"],
            "locale": "en",
            "stripe_account": "acct_demo",
            "country": "US",
            "rating": 4.6,
        },
        "ambassador": {"stripe_account": "acct_demo_ambassador", "share_bps": 2000},
        "rate": {"unit_amount": wish.unit_amount, "currency": wish.currency},
        "free_minutes": wish.free_minutes,
        "max_minutes": wish.max_minutes,
        "ring": False,
    }


def _without_secrets(session: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in session.items() if name != "participants"}


def _movements(state: Mapping[str, Any], session_id: str) -> dict[str, list[dict[str, Any]]]:
    """The Stripe objects of one session: they carry its id as metadata and as transfer group."""
    return {
        name: [item for item in _items(state.get(name)) if _belongs(item, session_id)]
        for name in ("payment_intents", "transfers", "refunds")
    }


def _items(listed: Any) -> list[dict[str, Any]]:
    if isinstance(listed, Mapping):
        listed = listed.get("data", list(listed.values()))
    return list(listed or ())


def _belongs(item: Mapping[str, Any], session_id: str) -> bool:
    return session_id in (item.get("transfer_group"), (item.get("metadata") or {}).get("session"))
