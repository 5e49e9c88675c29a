"""A real SMTP server that does with mails what a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

from gateway.receipts.mailer import MailSettings
from tests.receipts.receipt_cases import ISSUER


class Sink:
    """What the mail server does with mails: takes them, or answers as it is told to, and when."""

    port: int

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.refusals: dict[str, str] = {}
        self.data_answer = "250 OK"
        self.hold: asyncio.Event | None = None

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refusals:
            return self.refusals[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.data_answer.startswith("250"):
            content = envelope.content
            assert isinstance(content, bytes)
            mail = message_from_bytes(content, policy=policy.default)
            assert isinstance(mail, EmailMessage)
            self.mails.append(mail)
            self.recipients += envelope.rcpt_tos
        if self.hold is not None:
            await self.hold.wait()
        return self.data_answer


@asynccontextmanager
async def sunk() -> AsyncIterator[Sink]:
    """A mail server that listens."""
    handler = Sink()
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(handler, hostname="127.0.0.1", enable_SMTPUTF8=True), "127.0.0.1", 0
    )
    handler.port = server.sockets[0].getsockname()[1]
    yield handler
    server.close()
    await server.wait_closed()


def settings_for(sink: Sink, **changes: Any) -> MailSettings:
    values = {
        "host": "127.0.0.1",
        "port": sink.port,
        "sender": "Parley <receipts@parley.example>",
        "issuer": ISSUER,
        "public_url": "https://calls.example.com",
        "starttls": False,
        "timeout_s": 5.0,
    }
    return MailSettings(**{**values, **changes})
