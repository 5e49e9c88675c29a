"""The mailer: drafts, numbers and sends the letters of settled sessions, and serves the receipts' pages.

Order, for each session: the letters' places on its record; then their numbers, on disk before anything is sent; then
the mails, one by one, each result kept. What is to be written follows from the records alone, so a look too many does
nothing twice. A crash between sending and keeping sends a mail twice under the same Message-ID, which is the safer
side: SMTP knows no idempotency.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.headerregistry import Address
from email.utils import format_datetime, parseaddr
from typing import Any, Final

import structlog
from prometheus_client import Counter, Gauge
from redis.exceptions import RedisError

from gateway.clock import Clock
from gateway.errors import NotFound, StoreUnavailable
from gateway.ids import new_secret
from gateway.journal import Claim, Doc, Event, Journal
from gateway.outbox import claims
from gateway.outbox.delivery import Answer
from gateway.receipts import letters, mime, rendering
from gateway.receipts.correction import Facts
from gateway.receipts.mail_desk import QUEUE, MailDesk, mail_id
from gateway.receipts.receipt import Issuer, Receipt, Role, compose, plain, readiness
from gateway.receipts.register import key_of, registers_of
from gateway.receipts.smtp import Post, Refused, Undelivered
from gateway.scripts import checked, piped

MEASURE_S: Final = 5.0
LOOK: Final = 2  # mails to send in one look at a session
LEASE_MS: Final = 90_000  # so many mails at the SMTP time-out, and the wait for a place to send them, with room
PLACE_S: Final = 10.0
AT_ONCE: Final = 256  # sessions; most of them wait for the disk, which comes once a second
WAITAOF_MS: Final = 2_000
WAIT_MS: Final = 5_000  # a session whose payment is still moving is looked at again, though its owner also calls us
DOCS: Final = ("session", "payment", "people", "receipts", "refunds")

_PAGE_SECRET: Final = re.compile(r"(?P<session>[0-9a-z]{1,26})[A-Za-z0-9_-]{32}")
_ADDRESS: Final = re.compile(r"([^\s@,;:<>()\[\]\\\"\x00-\x1f]{1,64})@([^\s@,;:<>()\[\]\\\"\x00-\x1f]{1,255})")

MAILS = Counter("gateway_mail_deliveries_total", "Attempts to hand a receipt to the mail server", ["outcome"])
UNDELIVERED = Gauge("gateway_mail_undeliverable", "Mails that no mail server took, until they are sent again")
log = structlog.get_logger(__name__)

# KEYS: register of one series, all registers; ARGV: who asks (session|role), issue time (wall ms)
# Asking again gives the same number, so a crash before the session's record is written burns none.
ALLOCATE = """
local had = redis.call('HGET', KEYS[1], ARGV[1])
if had then return had end
local row = string.format('%.0f', redis.call('HINCRBY', KEYS[1], 'last', 1)) .. ':' .. ARGV[2]
redis.call('HSET', KEYS[1], ARGV[1], row)
redis.call('SADD', KEYS[2], KEYS[1])
return row
"""


@dataclass(frozen=True, slots=True)
class MailSettings:
    """The mail server, the sender, and who issues the receipts. `starttls`: required when True, never used when False;
    `tls`: TLS from the first byte. `series` names the series of each side's numbers."""

    host: str
    port: int
    sender: str
    issuer: Issuer
    public_url: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    starttls: bool = True
    tls: bool = False
    timeout_s: float = 30.0
    connections: int = 4
    series: Mapping[Role, str] = field(default_factory=lambda: {"client": "C", "expert": "E"})


class Mailer:
    """Shell. `await run()` works until cancelled; `receipt_page` may be used without it."""

    def __init__(
        self,
        journal: Journal,
        settings: MailSettings,
        clock: Clock,
        pay_link: Callable[[str], str | None] | None = None,
    ) -> None:
        """`pay_link` gives the page on which a session's client pays, if there is one."""
        self._journal, self._settings, self._clock, self._pay_link = journal, settings, clock, pay_link
        self._desk = MailDesk(journal)
        self._allocate = journal.redis.register_script(ALLOCATE)
        self._places = asyncio.Semaphore(settings.connections)
        self._post = Post(
            settings.host,
            settings.port,
            sender=parseaddr(settings.sender)[1],
            username=settings.username,
            password=settings.password,
            starttls=settings.starttls,
            tls=settings.tls,
            timeout_s=settings.timeout_s,
            connections=settings.connections,
        )

    async def run(self) -> None:
        """Send letters as they come due, until cancelled."""
        gauge = asyncio.create_task(self._measure())
        try:
            await claims.work(self._journal, QUEUE, self.handle, lease_ms=LEASE_MS, at_once=AT_ONCE)
        finally:
            gauge.cancel()
            await asyncio.gather(gauge, return_exceptions=True)
            await self._post.close()

    async def _measure(self) -> None:
        while True:
            with contextlib.suppress(RedisError):
                UNDELIVERED.set(await self._desk.count_undeliverable())
            await asyncio.sleep(MEASURE_S)

    async def handle(self, claim: Claim) -> None:
        """One look at a claimed session: whatever is due for it is done and kept."""
        docs = await self._journal.read(claim.session, *DOCS)
        session, payment, now = _body(docs["session"]), _body(docs["payment"]), self._clock.wall_ms()
        kept = docs["receipts"] or Doc(0, {letters.SCHEMA: 1})
        orders, payable = _body(docs["refunds"]), self._pay_link is not None
        fresh = letters.drafts(session, payment, kept.body, now, orders=orders, payable=payable)
        if fresh:
            kept = await self._draft(claim.session, kept, fresh, now)
        if session is not None:
            kept = await self._numbered(session, kept)
            kept = await self._send_due(claim.session, docs, kept)
        waits = now + WAIT_MS if readiness(session, payment, now) == "wait" else None
        times = [at for at in (letters.next_at(kept.body), waits) if at is not None]
        await self._journal.done(claim, min(times, default=None))

    async def _draft(self, session: str, kept: Doc, fresh: Mapping[str, Facts], now: int) -> Doc:
        """The letters' places on the record: from here on they will exist, so their numbers leave no gap."""
        made = {
            name: letters.drafted(facts, _page_secret(session), self._message_id(session, name), now)
            for name, facts in fresh.items()
        }
        await self._desk.note_written(session, list(made), now)
        return await self._keep(session, kept, made)

    async def _numbered(self, session: Mapping[str, Any], kept: Doc) -> Doc:
        """Allocate the numbers that are missing and keep them on disk before anything is sent."""
        names = letters.unnumbered(kept.body)
        if not names:
            return kept
        given = zip(names, await self._numbers(session, names), strict=True)
        numbers = {name: {**kept.body[name], "number": number, "issued_at": at} for name, (number, at) in given}
        return await self._keep(session["id"], kept, numbers, durable=True)

    async def _keep(
        self, session: str, kept: Doc, changed: Mapping[str, Any], events: Sequence[Event] = (), durable: bool = False
    ) -> Doc:
        body = {**kept.body, **changed}
        put = {"receipts": (kept.version, body)}
        versions = await self._journal.commit(session, put, events=events, durable=durable)
        return Doc(versions["receipts"], body)

    async def _numbers(self, session: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, int]]:
        """The letters' numbers and issue times: gapless per issuer and series, confirmed on disk.

        The year is that of the session's end, so that asking again in January asks the same series; a correction
        stands in the series of what it corrects."""
        year = datetime.fromtimestamp((session["bill"]["ended_at"] or session["created"]) // 1000, UTC).year
        mode, now = "" if session.get("livemode") else "TEST-", self._clock.wall_ms()
        series = [f"{mode}{self._settings.series[letters.role_of(name)]}-{year}" for name in names]
        # All series of an issuer share a slot: one trip, and one wait for the disk.
        issuer = self._settings.issuer.id
        keys = [[key_of(issuer, each), registers_of(issuer)] for each in series]
        calls = [(each, [f"{session['id']}|{name}", now]) for each, name in zip(keys, names, strict=True)]
        try:
            redis = self._journal.redis
            answers = checked(await piped(redis, self._allocate, calls, ("WAITAOF", 1, 0, WAITAOF_MS)))
            *rows, (local, _replicas) = answers
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error
        if local < 1:
            raise StoreUnavailable("The session store did not confirm the receipt's number on disk.")
        given = [row.decode().split(":") for row in rows]
        return [(f"{each}-{int(count):06d}", int(at)) for each, (count, at) in zip(series, given, strict=True)]

    def _message_id(self, session: str, name: str) -> str:
        """The same for every attempt, so that a mail sent twice is one mail to the reader's program."""
        domain = parseaddr(self._settings.sender)[1].rpartition("@")[2] or "localhost"
        return f"<{mail_id(session, name)}@{domain}>"

    async def _send_due(self, session: str, docs: Mapping[str, Doc | None], kept: Doc) -> Doc:
        """At most LOOK mails, so that the claim outlasts them; the others have their own look at once. So do all when
        the mail server is so slow that many wait for it."""
        due = letters.to_send(kept.body, self._clock.wall_ms())[:LOOK]
        if not due:
            return kept
        try:
            async with asyncio.timeout(PLACE_S):
                await self._places.acquire()
        except TimeoutError:
            return kept
        try:
            return await self._send_these(session, docs, kept, due)
        finally:
            self._places.release()

    async def _send_these(self, session: str, docs: Mapping[str, Doc | None], kept: Doc, due: Sequence[str]) -> Doc:
        for name in due:
            kept = await self._send(session, docs, kept, name)
        return kept

    async def _send(self, session: str, docs: Mapping[str, Doc | None], kept: Doc, name: str) -> Doc:
        held = letters.held_back(name, kept.body[name], _body(docs["payment"]), self._clock.wall_ms())
        if held is not None:
            return await self._keep(session, kept, {name: held})
        receipt, role = self._compose(docs, kept.body, name), letters.role_of(name)
        address = ((_body(docs["people"]) or {}).get(role) or {}).get("email")
        answer, final = await self._attempt(receipt, letters.thread(kept.body, name), address)
        now = self._clock.wall_ms()
        letter = letters.after(kept.body[name], answer, final, now, random.random())
        mail = letter["mail"]
        MAILS.labels(_OUTCOMES[mail["status"]]).inc()
        log.info("receipt.mail", session=session, letter=name, status=mail["status"], error=mail["error"])
        if mail["status"] == "failed":
            await self._desk.note_undeliverable(session, name, now)
        told = [_sent(receipt)] if mail["status"] == "sent" and name != letters.DUE else []
        return await self._keep(session, kept, {name: letter}, told)

    async def _attempt(self, receipt: Receipt, thread: Sequence[str], address: str | None) -> tuple[Answer, bool]:
        """How sending went, and whether trying again is useless. `thread`: the mail's own id last."""
        to = _recipient(receipt.client_name if receipt.role == "client" else receipt.expert_name, address)
        if to is None:
            return Answer(fault="bad_address" if address else "no_address"), True
        try:
            await self._post.send(self._message(receipt, thread, to), to.addr_spec)
        except Refused as refused:
            return Answer(fault=refused.why), True
        except Undelivered as undelivered:
            return Answer(fault=undelivered.why), False
        return Answer(status=250), False

    def _message(self, receipt: Receipt, thread: Sequence[str], to: Address) -> bytes:
        words, support = rendering.mail(receipt), self._settings.issuer.support
        headers: dict[str, str | Address] = {
            "From": self._settings.sender,
            "To": to,
            "Subject": words.subject,
            "Date": format_datetime(datetime.fromtimestamp(self._clock.wall_ms() // 1000, UTC)),
            "Message-ID": thread[-1],
            "Auto-Submitted": "auto-generated",
        }
        if len(thread) > 1:
            headers["References"] = " ".join(thread[:-1])
        if _ADDRESS.fullmatch(support):
            headers["Reply-To"] = support
        return mime.mail(headers, words.text, words.html)

    def _compose(self, docs: Mapping[str, Doc | None], kept: letters.Letters, name: str) -> Receipt:
        session, mine, role = _body(docs["session"]), kept[name], letters.role_of(name)
        assert session is not None
        payment, people = _body(docs["payment"]), _body(docs["people"])
        link, issuer = f"{self._settings.public_url.rstrip('/')}/r/{mine['secret']}", self._settings.issuer
        if name == letters.DUE:
            link = (self._pay_link and self._pay_link(session["id"])) or link
        receipt = compose(session, payment, people, role, mine["number"] or "", issuer, mine["issued_at"], link)
        return letters.written(receipt, name, kept, session, payment)

    async def receipt_page(self, secret: str) -> str:
        """The printable page behind an unguessable link, as HTML; serve it with `rendering.PAGE_HEADERS`.

        Raises NotFound (code `receipt_not_found`), StoreUnavailable."""
        unknown = NotFound("There is no receipt behind this link.", code="receipt_not_found")
        place = _PAGE_SECRET.fullmatch(secret)
        if place is None:
            raise unknown
        docs = await self._journal.read(f"ses_{place['session']}", *DOCS)
        kept = _body(docs["receipts"]) or {}
        name = letters.opened_by(kept, secret)
        if docs["session"] is None or name is None:
            raise unknown
        return rendering.page(self._compose(docs, kept, name))


_OUTCOMES: Final = {"sent": "sent", "pending": "retried", "failed": "failed"}


def _sent(receipt: Receipt) -> Event:
    return Event(
        "receipt.sent",
        {
            "role": receipt.role,
            "number": receipt.number,
            "issued_at": receipt.issued_at,
            "amount_total": receipt.amount_total,
            "currency": receipt.currency,
            "corrects": receipt.corrects or None,
        },
    )


def _recipient(name: str, address: object) -> Address | None:
    """The name and the one address as a header can carry them; None when it is not exactly one address."""
    match = _ADDRESS.fullmatch(str(address or ""))
    return Address(plain(name), username=match[1], domain=match[2]) if match else None


def _page_secret(session: str) -> str:
    """What opens a receipt's page. It names its session, so that it opens also what has gone to the archive; nobody
    guesses the rest, which is 24 random bytes."""
    return f"{session.removeprefix('ses_')}{new_secret(size=24)}"


def _body(doc: Doc | None) -> dict[str, Any] | None:
    return None if doc is None else doc.body
