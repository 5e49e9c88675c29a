"""A real SMTP server that keeps every mail in a maildir, with an inbox to read them in.

`GET /mail` is the inbox, `GET /mail/{id}` one mail (its HTML in a sandboxed frame, its text beside it),
`GET /mail.json` everything for programs. It listens on an origin of its own, so that no mail's markup ever shares one
with the gateway.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from aiohttp import web
from aiosmtpd.smtp import SMTP, Envelope
from aiosmtpd.smtp import Session as SmtpSession

from gateway.dev.pages import asset, page

log = structlog.get_logger(__name__)

MAX_MAIL_BYTES = 10 * 1024 * 1024
MAIL_ID = re.compile(r"\d{13}-\d+-\d+")
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; frame-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A mail may bring its own styles and inlined pictures, but no script, and nothing is fetched from anywhere.
PART_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; "
    "sandbox allow-popups allow-popups-to-escape-sandbox"
)
# Links of a mail open in a window of their own: inside the sandbox they would be powerless.
OPEN_OUTSIDE = '<base target="_blank">'


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail as received. `received_ms` is wall time; `html` is None when the mail has no such part."""

    id: str
    received_ms: int
    sender: str
    to: str
    subject: str
    text: str
    html: str | None
    attachments: tuple[str, ...]

    @property
    def received(self) -> datetime:
        return datetime.fromtimestamp(self.received_ms / 1000, UTC)


class Maildir:
    """The mails on disk, one file each, in the layout that mail programs read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._numbers = itertools.count(1)
        for folder in ("tmp", "new", "cur"):
            (path / folder).mkdir(parents=True, exist_ok=True, mode=0o700)

    def add(self, raw: bytes) -> str:
        """Returns the mail's id when it is on disk: accepting it makes us responsible (RFC 5321, section 6.1)."""
        name = f"{time.time_ns() // 1_000_000}-{os.getpid()}-{next(self._numbers)}"
        with (self.path / "tmp" / name).open("xb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        (self.path / "tmp" / name).rename(self.path / "new" / name)
        return name

    def mails(self) -> list[Mail]:
        """All mails, the newest first."""
        found = (mail for path in (self.path / "new").iterdir() if (mail := self.mail(path.name)))
        return sorted(found, key=lambda mail: (mail.received_ms, mail.id), reverse=True)

    def mail(self, mail_id: str) -> Mail | None:
        path = self.path / "new" / mail_id
        if not MAIL_ID.fullmatch(mail_id) or not path.is_file():
            return None
        return parse(mail_id, path.read_bytes())


def parse(mail_id: str, raw: bytes) -> Mail:
    message = message_from_bytes(raw, policy=policy.default)
    text, html = _part(message, "plain"), _part(message, "html")
    return Mail(
        id=mail_id,
        received_ms=int(mail_id.partition("-")[0]),
        sender=str(message.get("From", "")),
        to=str(message.get("To", message.get("Delivered-To", ""))),
        subject=str(message.get("Subject", "")),
        text=text or "",
        html=html,
        attachments=tuple(part.get_filename() or "unnamed" for part in message.iter_attachments()),
    )


def _part(message: EmailMessage, kind: str) -> str | None:
    body = message.get_body(preferencelist=(kind,))
    # Lines end in CRLF on the wire (RFC 5321, section 2.3.8); here they are text again.
    return None if body is None else str(body.get_content()).replace("\r\n", "\n")


class Mailbox:
    """SMTP on `smtp_port`, the inbox on `url`, both on `host`, which browsers call `name`; port 0 takes a free one."""

    def __init__(
        self,
        data_dir: Path,
        *,
        host: str = "127.0.0.1",
        name: str = "localhost",
        smtp_port: int = 0,
        http_port: int = 0,
    ) -> None:
        self.maildir = Maildir(data_dir / "maildir")
        self.host, self.name = host, name
        self.smtp_port = smtp_port
        self.http_port = http_port
        self._smtp: asyncio.Server | None = None
        self._web: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{self.name}:{self.http_port}/mail"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Returns when both listen. Raises OSError when a port is taken."""
        self._web = web.AppRunner(self._app(), access_log=None)
        await self._web.setup()
        await web.TCPSite(self._web, self.host, self.http_port).start()
        self.http_port = self._web.addresses[0][1]
        self._smtp = await asyncio.get_running_loop().create_server(self._session, self.host, self.smtp_port)
        self.smtp_port = self._smtp.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._smtp is not None:
            self._smtp.close()
        if self._web is not None:
            await self._web.cleanup()

    def _session(self) -> SMTP:
        return SMTP(
            self, hostname="localhost", data_size_limit=MAX_MAIL_BYTES, enable_SMTPUTF8=True, ident="Parley mailbox"
        )

    async def handle_DATA(self, server: SMTP, session: SmtpSession, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content if isinstance(envelope.content, bytes) else str(envelope.content).encode()
        # What final delivery adds, RFC 5321, section 4.4; Delivered-To keeps recipients that no header names.
        trace = f"Return-Path: <{envelope.mail_from or ''}>\r\nDelivered-To: {', '.join(envelope.rcpt_tos)}\r\n"
        mail_id = await asyncio.to_thread(self.maildir.add, trace.encode() + content)
        log.info("mail_received", mail=mail_id)
        return f"250 OK {mail_id}"

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/", self._home)
        app.router.add_get("/mail", self._inbox)
        app.router.add_get("/mail.json", self._json)
        app.router.add_get("/mail/{id}", self._one)
        app.router.add_get("/mail/{id}/html", self._html)
        app.router.add_get("/assets/{name}", asset)
        return app

    async def _home(self, request: web.Request) -> web.Response:
        raise web.HTTPFound("/mail")

    async def _inbox(self, request: web.Request) -> web.Response:
        mails = await asyncio.to_thread(self.maildir.mails)
        return page("mail.html", PAGE_POLICY, mails=mails, opened=None)

    async def _one(self, request: web.Request) -> web.Response:
        opened = await self._asked_for(request)
        mails = await asyncio.to_thread(self.maildir.mails)
        return page("mail.html", PAGE_POLICY, mails=mails, opened=opened)

    async def _html(self, request: web.Request) -> web.Response:
        mail = await self._asked_for(request)
        if mail.html is None:
            raise web.HTTPNotFound
        return web.Response(
            text=OPEN_OUTSIDE + mail.html,
            content_type="text/html",
            charset="utf-8",
            headers={"Content-Security-Policy": PART_POLICY, "Referrer-Policy": "no-referrer"},
        )

    async def _json(self, request: web.Request) -> web.Response:
        mails = await asyncio.to_thread(self.maildir.mails)
        return web.json_response({"data": [asdict(mail) for mail in mails]}, headers={"Cache-Control": "no-store"})

    async def _asked_for(self, request: web.Request) -> Mail:
        mail = await asyncio.to_thread(self.maildir.mail, request.match_info["id"])
        if mail is None:
            raise web.HTTPNotFound
        return mail
