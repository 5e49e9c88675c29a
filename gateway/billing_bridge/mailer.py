"""The mailer: numbers the receipts of settled sessions, keeps them, sends both mails, and serves the receipt page.

Order, for each session: number and secret of both receipts are allocated and on disk before anything is sent; then the
mails, one by one, each result kept. A crash between sending and keeping sends a mail twice under the same Message-ID,
which is the safer side: SMTP knows no idempotency.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime, parseaddr
from typing import Any, Final, cast

import structlog
from prometheus_client import Counter
from redis.exceptions import RedisError

from gateway.billing_bridge import claims, rendering
from gateway.billing_bridge.delivery import MAIL_SCHEDULE_MS, Answer, Delivery, attempted
from gateway.billing_bridge.receipt import ROLES, Issuer, Receipt, Role, compose, plain, readiness
from gateway.billing_bridge.smtp import Post, Refused, Undelivered
from gateway.clock import Clock
from gateway.errors import NotFound, StoreUnavailable
from gateway.ids import new_secret
from gateway.journal import NOW, Claim, Doc, Event, Journal

QUEUE: Final = "mail"
LEASE_MS: Final = 90_000  # two mails at the SMTP time-out, with room
WAIT_MS: Final = 5_000  # a session whose payment is still moving is looked at again, though its owner also calls us
DOCS: Final = ("session", "payment", "people", "receipts")
UNDELIVERABLE: Final = "receipts:undeliverable"

_ADDRESS: Final = re.compile(r"([^\s@,;:<>()\[\]\\\"\x00-\x1f]{1,64})@([^\s@,;:<>()\[\]\\\"\x00-\x1f]{1,255})")

MAILS = Counter("gateway_mail_deliveries_total", "Attempts to hand a receipt to the mail server", ["outcome"])
log = structlog.get_logger(__name__)

# KEYS: register of one series; ARGV: who asks (session|role), issue time (wall ms)
# Asking again gives the same number, so a crash before the session's record is written burns none.
ALLOCATE = """
local had = redis.call('HGET', KEYS[1], ARGV[1])
if had then return had end
local row = string.format('%.0f', redis.call('HINCRBY', KEYS[1], 'last', 1)) .. ':' .. ARGV[2]
redis.call('HSET', KEYS[1], ARGV[1], row)
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

    def __init__(self, journal: Journal, settings: MailSettings, clock: Clock) -> None:
        self._journal, self._settings, self._clock = journal, settings, clock
        self._allocate = journal.redis.register_script(ALLOCATE)
        self._post = Post(
            settings.host,
            settings.port,
            username=settings.username,
            password=settings.password,
            starttls=settings.starttls,
            tls=settings.tls,
            timeout_s=settings.timeout_s,
            connections=settings.connections,
        )

    async def run(self) -> None:
        """Send receipts as they come due, until cancelled."""
        try:
            await claims.work(self._journal, QUEUE, self.handle, lease_ms=LEASE_MS, at_once=16)
        finally:
            await self._post.close()

    async def handle(self, claim: Claim) -> None:
        """One look at a claimed session: whatever is due for it is done and kept."""
        docs = await self._journal.read(claim.session, *DOCS)
        session, payment = _body(docs["session"]), _body(docs["payment"])
        match readiness(session, payment, self._clock.wall_ms()):
            case "never":
                await self._journal.done(claim)
            case "wait":
                await self._journal.done(claim, self._clock.wall_ms() + WAIT_MS)
            case "send":
                assert session is not None
                receipts = docs["receipts"] or await self._issue(session)
                receipts = await self._send_due(claim.session, docs, receipts)
                await self._journal.done(claim, _next(receipts.body))

    async def _issue(self, session: Mapping[str, Any]) -> Doc:
        """Allocate numbers and secrets of both receipts and keep them on disk."""
        now = self._clock.wall_ms()
        body: dict[str, Any] = {"schema": 1}
        for role in ROLES:
            number, issued_at = await self._number(session, role, now)
            mail = {
                "status": "pending",
                "message_id": self._message_id(session["id"], role),
                "tries": 0,
                "sent_at": None,
                "error": None,
                "next_at": now,
            }
            body[role] = {"number": number, "secret": new_secret(size=24), "issued_at": issued_at, "mail": mail}
        versions = await self._journal.commit(session["id"], {"receipts": (0, body)}, durable=True)
        return Doc(versions["receipts"], body)

    async def _number(self, session: Mapping[str, Any], role: Role, now: int) -> tuple[str, int]:
        """The receipt's number and issue time: gapless per issuer and series, confirmed on disk.

        The year is that of the session's end, so that asking again in January asks the same series."""
        year = datetime.fromtimestamp((session["bill"]["ended_at"] or session["created"]) // 1000, UTC).year
        mode = "" if session.get("livemode") else "TEST-"
        series = f"{mode}{self._settings.series[role]}-{year}"
        key = f"{{receipts:{self._settings.issuer.id}}}:{series}"
        try:
            pipe = self._journal.redis.pipeline(transaction=False)
            await self._allocate(keys=[key], args=[f"{session['id']}|{role}", now], client=pipe)
            pipe.execute_command("WAITAOF", 1, 0, 1000)
            row, (local, _replicas) = await pipe.execute()
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error
        if local < 1:
            raise StoreUnavailable("The session store did not confirm the receipt's number on disk.")
        count, issued_at = row.decode().split(":")
        return f"{series}-{int(count):06d}", int(issued_at)

    def _message_id(self, session: str, role: Role) -> str:
        """The same for every attempt, so that a mail sent twice is one mail to the reader's program."""
        domain = parseaddr(self._settings.sender)[1].rpartition("@")[2] or "localhost"
        return f"<receipt.{session}.{role}@{domain}>"

    async def _send_due(self, session: str, docs: Mapping[str, Doc | None], receipts: Doc) -> Doc:
        for role in ROLES:
            await self._journal.redis.set(_page_key(receipts.body[role]["secret"]), f"{session}:{role}")
        for role in ROLES:
            mail = receipts.body[role]["mail"]
            if mail["status"] == "pending" and mail["next_at"] <= self._clock.wall_ms():
                receipts = await self._send(session, docs, receipts, role)
        return receipts

    async def _send(self, session: str, docs: Mapping[str, Doc | None], receipts: Doc, role: Role) -> Doc:
        receipt = self._compose(docs, receipts.body, role)
        address = ((_body(docs["people"]) or {}).get(role) or {}).get("email")
        answer, final = await self._attempt(receipt, receipts.body[role]["mail"]["message_id"], address)
        mail = _after(receipts.body[role]["mail"], answer, final, self._clock.wall_ms())
        MAILS.labels(_OUTCOMES[mail["status"]]).inc()
        log.info("receipt.mail", session=session, role=role, status=mail["status"], error=mail["error"])
        if mail["status"] == "failed":
            await self._journal.redis.zadd(UNDELIVERABLE, {f"{session}|{role}": self._clock.wall_ms()})
        body = {**receipts.body, role: {**receipts.body[role], "mail": mail}}
        events = [_sent(receipt)] if mail["status"] == "sent" else []
        versions = await self._journal.commit(session, {"receipts": (receipts.version, body)}, events=events)
        return Doc(versions["receipts"], body)

    async def _attempt(self, receipt: Receipt, message_id: str, address: str | None) -> tuple[Answer, bool]:
        """How sending went, and whether trying again is useless."""
        to = _recipient(receipt.client_name if receipt.role == "client" else receipt.expert_name, address)
        if to is None:
            return Answer(fault="bad_address" if address else "no_address"), True
        try:
            await self._post.send(self._message(receipt, message_id, to), to.addr_spec)
        except Refused as refused:
            return Answer(fault=refused.why), True
        except Undelivered as undelivered:
            return Answer(fault=undelivered.why), False
        return Answer(status=250), False

    def _message(self, receipt: Receipt, message_id: str, to: Address) -> EmailMessage:
        words = rendering.mail(receipt)
        message = EmailMessage(policy=SMTP_POLICY)
        message["From"] = self._settings.sender
        message["To"] = to
        message["Subject"] = words.subject
        message["Date"] = format_datetime(datetime.fromtimestamp(self._clock.wall_ms() // 1000, UTC))
        message["Message-ID"] = message_id
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(words.text)
        message.add_alternative(words.html, subtype="html")
        return message

    def _compose(self, docs: Mapping[str, Doc | None], receipts: Mapping[str, Any], role: Role) -> Receipt:
        session, mine = _body(docs["session"]), receipts[role]
        assert session is not None
        link = f"{self._settings.public_url.rstrip('/')}/r/{mine['secret']}"
        payment, people = _body(docs["payment"]), _body(docs["people"])
        return compose(session, payment, people, role, mine["number"], self._settings.issuer, mine["issued_at"], link)

    async def receipt_page(self, secret: str) -> str:
        """The printable page behind an unguessable link, as HTML; serve it with `rendering.PAGE_HEADERS`.

        Raises NotFound (code `receipt_not_found`), StoreUnavailable."""
        unknown = NotFound("There is no receipt behind this link.", code="receipt_not_found")
        if not 16 <= len(secret) <= 64 or not secret.isascii():
            raise unknown
        try:
            place = cast(bytes | None, await self._journal.redis.get(_page_key(secret)))
        except RedisError as error:
            raise StoreUnavailable("The session store is away; try again.") from error
        if place is None:
            raise unknown
        session, _, role = place.decode().rpartition(":")
        docs = await self._journal.read(session, *DOCS)
        receipts = _body(docs["receipts"])
        if docs["session"] is None or receipts is None or receipts[role]["secret"] != secret:
            raise unknown
        return rendering.page(self._compose(docs, receipts, cast(Role, role)))

    async def undeliverable(self, limit: int = 100) -> list[dict[str, Any]]:
        """The receipts that no mail server took, latest first."""
        return await undeliverable(self._journal, limit)

    async def resend(self, session: str, role: Role) -> None:
        """Start the attempts of one mail anew (a corrected address, say). Raises NotFound, Conflict."""
        receipts = (await self._journal.read(session, "receipts"))["receipts"]
        if receipts is None:
            raise NotFound("This session has no receipts.", code="receipt_not_found")
        mail = receipts.body[role]["mail"] | {"status": "pending", "tries": 0, "next_at": 0, "error": None}
        body = {**receipts.body, role: {**receipts.body[role], "mail": mail}}
        await self._journal.commit(session, {"receipts": (receipts.version, body)}, due={QUEUE: NOW})
        await self._journal.redis.zrem(UNDELIVERABLE, f"{session}|{role}")


async def undeliverable(journal: Journal, limit: int = 100) -> list[dict[str, Any]]:
    """The receipts that no mail server took, latest first: session, role, number, error, tries, failed_at."""
    newest = await journal.redis.zrevrange(UNDELIVERABLE, 0, limit - 1, withscores=True)
    found = []
    for member, failed_at in cast(list[tuple[bytes, float]], newest):
        session, _, role = member.decode().partition("|")
        receipts = _body((await journal.read(session, "receipts"))["receipts"])
        if receipts:
            mail = receipts[role]["mail"]
            found.append(
                {
                    "session": session,
                    "role": role,
                    "number": receipts[role]["number"],
                    "error": mail["error"],
                    "tries": mail["tries"],
                    "failed_at": int(failed_at),
                }
            )
    return found


_OUTCOMES: Final = {"sent": "sent", "pending": "retried", "failed": "failed"}


def _after(mail: Mapping[str, Any], answer: Answer, final: bool, now: int) -> dict[str, Any]:
    """The mail's state after an attempt."""
    tried = attempted(Delivery(mail["tries"]), answer, now, random.random(), MAIL_SCHEDULE_MS)
    if tried.state == "delivered":
        return {**mail, "status": "sent", "tries": tried.attempts, "sent_at": now, "error": None, "next_at": None}
    failed = final or tried.state == "dead"
    return {
        **mail,
        "status": "failed" if failed else "pending",
        "tries": tried.attempts,
        "error": tried.why,
        "next_at": None if failed else tried.next_at,
    }


def _next(receipts: Mapping[str, Any]) -> int | None:
    times = [receipts[role]["mail"]["next_at"] for role in ROLES if receipts[role]["mail"]["status"] == "pending"]
    return min(times, default=None)


def _sent(receipt: Receipt) -> Event:
    return Event(
        "receipt.sent",
        {
            "role": receipt.role,
            "number": receipt.number,
            "issued_at": receipt.issued_at,
            "amount_total": receipt.amount_total,
            "currency": receipt.currency,
        },
    )


def _recipient(name: str, address: object) -> Address | None:
    """The name and the one address as a header can carry them; None when it is not exactly one address."""
    match = _ADDRESS.fullmatch(str(address or ""))
    return Address(plain(name), username=match[1], domain=match[2]) if match else None


def _page_key(secret: str) -> str:
    return f"receipt:{secret}"


def _body(doc: Doc | None) -> dict[str, Any] | None:
    return None if doc is None else doc.body
