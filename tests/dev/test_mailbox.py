"""The mailbox takes real mail over SMTP and shows it without trusting it."""

from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import aiohttp
import aiosmtplib
import pytest

from gateway.dev.mailbox import Mailbox, Maildir, parse


def receipt(subject: str = "Your receipt", html: str | None = "<p>Total <b>4.25</b></p>") -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Parley <receipts@example.com>"
    message["To"] = "client@example.com"
    message["Subject"] = subject
    message.set_content("Total 4.25 €")
    if html is not None:
        message.add_alternative(html, subtype="html")
    return message


@pytest.fixture
async def mailbox(tmp_path: Path) -> AsyncIterator[Mailbox]:
    async with Mailbox(tmp_path) as box:
        yield box


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def send(mailbox: Mailbox, message: EmailMessage, **envelope: object) -> None:
    await aiosmtplib.send(message, hostname="127.0.0.1", port=mailbox.smtp_port, start_tls=False, **envelope)


async def mails(mailbox: Mailbox, http: aiohttp.ClientSession) -> list[dict[str, object]]:
    async with http.get(mailbox.url + ".json") as response:
        answer = await response.json()
    return answer["data"]


async def test_a_mail_that_was_accepted_can_be_read_with_both_its_parts(mailbox, http) -> None:
    await send(mailbox, receipt())
    (mail,) = await mails(mailbox, http)
    assert mail["subject"] == "Your receipt"
    assert mail["to"] == "client@example.com"
    assert mail["text"] == "Total 4.25 €\n"
    assert "<b>4.25</b>" in str(mail["html"])


async def test_the_newest_mail_comes_first(mailbox, http) -> None:
    for subject in ("one", "two", "three"):
        await send(mailbox, receipt(subject))
    assert [mail["subject"] for mail in await mails(mailbox, http)] == ["three", "two", "one"]


async def test_mails_are_still_there_after_a_restart(tmp_path: Path) -> None:
    async with Mailbox(tmp_path) as box:
        await send(box, receipt())
    assert [mail.subject for mail in Maildir(tmp_path / "maildir").mails()] == ["Your receipt"]


async def test_a_subject_is_text_wherever_it_is_shown(mailbox, http) -> None:
    await send(mailbox, receipt("<script>alert(1)</script>"))
    (mail,) = await mails(mailbox, http)
    for path in ("/mail", f"/mail/{mail['id']}"):
        async with http.get(mailbox.url.removesuffix("/mail") + path) as response:
            assert "<script>alert" not in await response.text()
            assert "script-src 'self'" in response.headers["Content-Security-Policy"]


async def test_the_html_of_a_mail_is_locked_in_a_sandbox_without_script_or_network(mailbox, http) -> None:
    await send(mailbox, receipt(html="<script>alert(1)</script>"))
    (mail,) = await mails(mailbox, http)
    async with http.get(f"{mailbox.url}/{mail['id']}") as response:
        page = await response.text()
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in page
    async with http.get(f"{mailbox.url}/{mail['id']}/html") as response:
        policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "sandbox" in policy
    assert "allow-scripts" not in policy


@pytest.mark.parametrize("name", ["nope", "..%2f..%2fetc%2fpasswd", "1700000000000-1-1"])
async def test_an_unknown_mail_is_not_found(mailbox, http, name: str) -> None:
    async with http.get(f"{mailbox.url}/{name}") as response:
        assert response.status == 404


async def test_a_recipient_whom_no_header_names_is_kept(mailbox) -> None:
    message = receipt()
    del message["To"]
    await send(mailbox, message, sender="a@example.com", recipients=["hidden@example.com"])
    (mail,) = mailbox.maildir.mails()
    assert mail.to == "hidden@example.com"


def test_text_alone_and_attachments() -> None:
    message = receipt(html=None)
    message.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="receipt.pdf")
    mail = parse("1700000000000-1-1", message.as_bytes())
    assert mail.html is None
    assert mail.text == "Total 4.25 €\n"
    assert mail.attachments == ("receipt.pdf",)
    assert mail.received_ms == 1_700_000_000_000
