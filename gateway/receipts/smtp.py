"""Connections to the mail server, kept open for a moment and shared, and what its answers mean for a mail."""

from __future__ import annotations

import asyncio
import contextlib

import aiosmtplib

IDLE_S = 20.0  # servers hang up on idle clients after a while, and a stale connection costs an attempt


class Undelivered(Exception):
    """The server could not take the mail now; try again. `why` is short and holds no address."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Refused(Undelivered):
    """The server will never take this mail: the recipient or the message itself is refused for good (RFC 5321, 5yz)."""


class Post:
    """At most `connections` at a time; an idle one is used again within IDLE_S."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        sender: str,
        username: str | None = None,
        password: str | None = None,
        starttls: bool = True,
        tls: bool = False,
        timeout_s: float = 30.0,
        connections: int = 4,
    ) -> None:
        self._options = {
            "hostname": host,
            "port": port,
            "username": username,
            "password": password,
            "use_tls": tls,
            "start_tls": starttls and not tls,
            "timeout": timeout_s,
        }
        self._sender = sender
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[tuple[float, aiosmtplib.SMTP]] = []

    async def send(self, message: bytes, recipient: str) -> None:
        """Hand the mail to the server, for that one address whatever its headers say.

        Raises Undelivered, or Refused where trying again is useless."""
        async with self._slots:
            try:
                client = await self._connection()
                await self._deliver(client, message, recipient)
            except (aiosmtplib.SMTPException, OSError, ValueError) as error:
                raise _meaning(error) from error

    async def _deliver(self, client: aiosmtplib.SMTP, message: bytes, recipient: str) -> None:
        options = [] if recipient.isascii() else ["SMTPUTF8", "BODY=8BITMIME"]
        try:
            if options and client.is_ehlo_or_helo_needed:
                await client.ehlo()
            if options and not client.supports_extension("smtputf8"):
                raise aiosmtplib.SMTPNotSupported("an address outside of ASCII needs SMTPUTF8 (RFC 6531)")
            await client.sendmail(self._sender, [recipient], message, mail_options=options)
        except BaseException:
            client.close()
            raise
        self._idle.append((asyncio.get_running_loop().time(), client))

    async def _connection(self) -> aiosmtplib.SMTP:
        now = asyncio.get_running_loop().time()
        while self._idle:
            since, client = self._idle.pop()
            if client.is_connected and now - since < IDLE_S:
                return client
            client.close()
        client = aiosmtplib.SMTP(**self._options)  # type: ignore[arg-type]
        await client.connect()
        return client

    async def close(self) -> None:
        """Say goodbye on all idle connections."""
        while self._idle:
            _, client = self._idle.pop()
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await client.quit()
            client.close()


def _meaning(error: Exception) -> Undelivered:
    """Only the recipient and the content can be refused for good; everything else is between the server and us."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        worst = max((one.code for one in error.recipients), default=0)
        return Refused(f"smtp_{worst}") if worst >= 500 else Undelivered(f"smtp_{worst}")
    if isinstance(error, aiosmtplib.SMTPDataError) and error.code >= 500:
        return Refused(f"smtp_{error.code}")
    if isinstance(error, aiosmtplib.SMTPNotSupported | ValueError):
        return Refused("bad_address")
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return Undelivered(f"smtp_{error.code}")
    if isinstance(error, aiosmtplib.SMTPTimeoutError | TimeoutError):
        return Undelivered("timeout")
    return Undelivered("connection")
