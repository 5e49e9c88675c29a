"""Receipts through a real Valkey and a real SMTP conversation: numbered once, sent to both, seen when undeliverable."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from gateway.billing_bridge.mailer import Mailer, MailSettings
from gateway.billing_bridge.receipt import ROLES
from gateway.errors import NotFound
from gateway.journal import NOW, Journal
from tests.billing_bridge.clocks import StandingClock, look
from tests.billing_bridge.receipt_cases import (
    ISSUER,
    SESSION,
    START,
    bill,
    payment,
    people,
    released,
    session,
)

LATER = START + 2_000_000


class Sink:
    """What the mail server does with mails: takes them, or answers as it is told to."""

    port: int

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.refusals: dict[str, str] = {}
        self.data_answer = "250 OK"

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
        return self.data_answer


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    handler = Sink()
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(handler, hostname="127.0.0.1", enable_SMTPUTF8=True), "127.0.0.1", 0
    )
    handler.port = server.sockets[0].getsockname()[1]
    yield handler
    server.close()
    await server.wait_closed()


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock(LATER)


@pytest.fixture
async def mailer(journal: Journal, sink: Sink, clock: StandingClock) -> AsyncIterator[Mailer]:
    made = Mailer(journal, settings_for(sink), clock)
    yield made
    await made._post.close()


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


async def settle(journal: Journal, record: dict[str, Any] | None = None, **docs: Any) -> str:
    """Put a settled session into the store, due for the mailer."""
    body = record or session()
    put = {"session": (0, body), "payment": (0, docs.get("payment", payment()))}
    put["people"] = (0, docs.get("people", people()))
    await journal.commit(body["id"], put, due={"mail": 1})
    return str(body["id"])


async def receipts_of(journal: Journal, session_id: str = SESSION) -> dict[str, Any]:
    doc = (await journal.read(session_id, "receipts"))["receipts"]
    assert doc is not None
    return doc.body


async def test_r07_client_and_expert_each_get_one_mail_with_the_total(
    journal: Journal, mailer: Mailer, sink: Sink
) -> None:
    await settle(journal)
    assert await look(journal, "mail", mailer.handle, LATER) == 1
    assert sink.recipients == ["client@example.com", "expert@example.com"]
    for mail, total in zip(sink.mails, ("$75.00 USD", "75,00 $ USD"), strict=True):
        text, html = mail.get_body(("plain",)), mail.get_body(("html",))
        assert text is not None
        assert html is not None
        assert total in text.get_content()
        assert total.split(" ")[0] in html.get_content()
    assert await look(journal, "mail", mailer.handle, LATER * 2) == 0


async def test_receipts_are_numbered_kept_and_told(journal: Journal, mailer: Mailer, sink: Sink) -> None:
    await settle(journal)
    await look(journal, "mail", mailer.handle, LATER)
    body = await receipts_of(journal)
    assert (body["client"]["number"], body["expert"]["number"]) == ("C-2026-000001", "E-2026-000001")
    assert {body[role]["mail"]["status"] for role in ROLES} == {"sent"}
    events = await journal.events(SESSION)
    assert [(e["type"], e["data"]["role"], e["data"]["amount_total"]) for e in events] == [
        ("receipt.sent", "client", 7500),
        ("receipt.sent", "expert", 7500),
    ]
    assert "example.com" not in str(events)


async def test_numbers_have_no_gap_when_many_sessions_end_at_once(journal: Journal, mailer: Mailer) -> None:
    ids = [f"ses_{n:026d}" for n in range(30)]
    for one in ids:
        await settle(journal, session(id=one))
    assert await look(journal, "mail", mailer.handle, LATER) == 30
    numbers = sorted([(await receipts_of(journal, one))["client"]["number"] for one in ids])
    assert numbers == [f"C-2026-{n:06d}" for n in range(1, 31)]


async def test_a_crash_between_number_and_record_burns_no_number(
    journal: Journal, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await settle(journal)
    with monkeypatch.context() as patch:
        patch.setattr(journal, "commit", _crash)
        with pytest.raises(ConnectionResetError):
            await look(journal, "mail", mailer.handle, LATER)
    await settle(journal, session(id="ses_other"))
    await look(journal, "mail", mailer.handle, LATER + 61_000)
    assert (await receipts_of(journal))["client"]["number"] == "C-2026-000001"
    assert (await receipts_of(journal, "ses_other"))["client"]["number"] == "C-2026-000002"


async def _crash(*_: Any, **__: Any) -> None:
    raise ConnectionResetError


async def test_two_mailers_at_once_give_one_number(journal: Journal, sink: Sink, clock: StandingClock) -> None:
    first, second = (Mailer(journal, settings_for(sink), clock) for _ in range(2))
    await settle(journal)
    (claim,) = await journal.due("mail", lease_ms=60_000, now=LATER)
    await asyncio.gather(first.handle(claim), second.handle(claim), return_exceptions=True)
    await asyncio.gather(first._post.close(), second._post.close())
    assert (await receipts_of(journal))["client"]["number"] == "C-2026-000001"
    assert await journal.redis.hget("{receipts:default}:C-2026", "last") == b"1"
    assert len({mail["Message-ID"] for mail in sink.mails}) == 2


async def test_test_mode_has_a_series_of_its_own(journal: Journal, mailer: Mailer) -> None:
    await settle(journal, session(livemode=False))
    await look(journal, "mail", mailer.handle, LATER)
    assert (await receipts_of(journal))["client"]["number"] == "TEST-C-2026-000001"


async def test_a_mail_sent_again_has_the_same_message_id(journal: Journal, mailer: Mailer, sink: Sink) -> None:
    await settle(journal)
    await look(journal, "mail", mailer.handle, LATER)
    await mailer.resend(SESSION, "client")
    await look(journal, "mail", mailer.handle, LATER * 2)
    assert [mail["Message-ID"] for mail in sink.mails] == [
        f"<receipt.{SESSION}.{role}@parley.example>" for role in ("client", "expert", "client")
    ]


async def test_a_busy_server_is_tried_again_and_the_other_side_is_not_kept_waiting(
    journal: Journal, mailer: Mailer, sink: Sink, clock: StandingClock
) -> None:
    sink.refusals["client@example.com"] = "451 try later"
    await settle(journal)
    await look(journal, "mail", mailer.handle, LATER)
    mail = (await receipts_of(journal))["client"]["mail"]
    assert (mail["status"], mail["tries"], mail["error"]) == ("pending", 1, "smtp_451")
    assert sink.recipients == ["expert@example.com"]
    sink.refusals.clear()
    assert await look(journal, "mail", mailer.handle, LATER + 29_000) == 0
    clock.now = LATER + 60_000
    assert await look(journal, "mail", mailer.handle, clock.now) == 1
    assert sink.recipients == ["expert@example.com", "client@example.com"]


async def test_a_mail_server_that_is_away_loses_nothing(
    journal: Journal, mailer: Mailer, sink: Sink, clock: StandingClock
) -> None:
    away = Mailer(journal, settings_for(sink, port=1), clock)
    await settle(journal)
    await look(journal, "mail", away.handle, LATER)
    assert (await receipts_of(journal))["expert"]["mail"]["error"] == "connection"
    clock.now = LATER + 60_000
    await look(journal, "mail", mailer.handle, clock.now)
    assert len(sink.mails) == 2


async def test_an_address_refused_for_good_is_seen_and_can_be_sent_again(
    journal: Journal, mailer: Mailer, sink: Sink
) -> None:
    sink.refusals["expert@example.com"] = "550 no such user expert@example.com"
    await settle(journal)
    await look(journal, "mail", mailer.handle, LATER)
    (undelivered,) = await mailer.undeliverable()
    assert (undelivered["session"], undelivered["role"], undelivered["error"]) == (SESSION, "expert", "smtp_550")
    assert "example.com" not in str(await receipts_of(journal))
    sink.refusals.clear()
    await mailer.resend(SESSION, "expert")
    await look(journal, "mail", mailer.handle, LATER * 2)
    assert await mailer.undeliverable() == []
    assert sink.recipients[-1] == "expert@example.com"


@pytest.mark.parametrize("address", [None, "", "no address", "two@a.example, three@b.example", "x\r\nBcc: y@z.example"])
async def test_an_address_that_is_none_fails_visibly_and_sends_nothing(
    journal: Journal, mailer: Mailer, sink: Sink, address: str | None
) -> None:
    await settle(journal, people=people(client={"email": address}))
    await look(journal, "mail", mailer.handle, LATER)
    assert (await receipts_of(journal))["client"]["mail"]["status"] == "failed"
    assert sink.recipients == ["expert@example.com"]


async def test_an_address_beyond_ascii_is_sent_to_a_server_that_can(
    journal: Journal, mailer: Mailer, sink: Sink
) -> None:
    await settle(journal, people=people(client={"email": "müller@example.com", "name": "Zoë"}))
    await look(journal, "mail", mailer.handle, LATER)
    assert sink.recipients[0] == "müller@example.com"


async def test_names_cannot_add_headers_or_recipients(journal: Journal, mailer: Mailer, sink: Sink) -> None:
    evil = 'Eve" <eve@evil.example>\r\nBcc: all@evil.example, "'
    await settle(journal, people=people(client={"name": evil}, expert={"name": evil}))
    await look(journal, "mail", mailer.handle, LATER)
    assert sink.recipients == ["client@example.com", "expert@example.com"]
    assert all(mail["Bcc"] is None for mail in sink.mails)
    assert [mail["To"].addresses[0].addr_spec for mail in sink.mails] == sink.recipients


async def test_nothing_is_sent_while_money_moves(journal: Journal, mailer: Mailer, sink: Sink) -> None:
    await settle(journal, payment=payment(status="capturing"))
    await look(journal, "mail", mailer.handle, LATER)
    assert (await journal.read(SESSION, "receipts"))["receipts"] is None
    held = (await journal.read(SESSION, "payment"))["payment"]
    assert held is not None
    await journal.commit(SESSION, {"payment": (held.version, payment())}, due={"mail": NOW})
    await look(journal, "mail", mailer.handle, LATER * 2)
    assert len(sink.mails) == 2


async def test_a_session_that_nobody_met_in_sends_nothing(journal: Journal, mailer: Mailer, sink: Sink) -> None:
    await settle(journal, session(bill((), started_at=None), started_at=None), payment=released())
    await look(journal, "mail", mailer.handle, LATER)
    assert sink.mails == []
    assert await look(journal, "mail", mailer.handle, LATER * 2) == 0


async def test_the_receipt_page_opens_by_its_secret_alone(journal: Journal, mailer: Mailer, sink: Sink) -> None:
    await settle(journal)
    await look(journal, "mail", mailer.handle, LATER)
    secret = (await receipts_of(journal))["client"]["secret"]
    text = sink.mails[0].get_body(("plain",))
    assert text is not None
    assert f"https://calls.example.com/r/{secret}" in text.get_content()
    page = await mailer.receipt_page(secret)
    assert "C-2026-000001" in page
    assert "expert@example.com" not in page
    for wrong in ("", "x" * 32, secret[:-1] + "_", SESSION, "é" * 20):
        with pytest.raises(NotFound):
            await mailer.receipt_page(wrong)


async def test_run_works_until_it_is_cancelled(journal: Journal, mailer: Mailer, sink: Sink) -> None:
    running = asyncio.create_task(mailer.run())
    await settle(journal)
    async with asyncio.timeout(10):
        while len(sink.mails) < 2:
            await asyncio.sleep(0.02)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
