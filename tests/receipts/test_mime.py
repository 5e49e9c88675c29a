"""A mail's bytes, read back by the standard library's parser."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.headerregistry import Address
from email.message import EmailMessage, Message
from email.utils import parseaddr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.receipts.mime import mail

TO = Address("Zoë", "client", "example.com")
LINES = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=200)
TEXTS = st.lists(LINES, max_size=6).map("\n".join)


def headers(**more: str) -> dict[str, str | Address]:
    return {"From": "Parley <a@example.com>", "To": TO, "Subject": "Your receipt: 49.55 €", **more}


@given(TEXTS, TEXTS)
def test_both_parts_come_out_as_they_went_in(text: str, html: str) -> None:
    raw = mail(headers(), text, html)
    assert max(map(len, raw.split(b"\r\n"))) <= 998, "RFC 5322, section 2.1.1"
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert b"\r" not in raw.replace(b"\r\n", b"")
    read = message_from_bytes(raw, policy=policy.default)
    assert read.get_content_type() == "multipart/alternative"
    parts = [part.get_payload(decode=True).decode().replace("\r\n", "\n") for part in read.iter_parts()]  # type: ignore[union-attr,attr-defined]
    assert [part.rstrip("\n") for part in parts] == [text.rstrip("\n"), html.rstrip("\n")]
    assert (read["To"].addresses[0].display_name, read["Subject"]) == ("Zoë", "Your receipt: 49.55 €")


def test_a_header_with_a_line_break_is_refused() -> None:
    with pytest.raises(ValueError, match="linefeed"):
        mail(headers(Subject="a\r\nBcc: x@example.com"), "t", "h")


WORDS = st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=70), max_size=30)
ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
NAMES = ASCII.map(lambda name: " ".join(name.split()))


@given(WORDS.map(" ".join), NAMES)
def test_headers_are_read_back_as_they_were_however_long_or_odd(subject: str, name: str) -> None:
    raw = mail(headers(To=Address(name, "client", "example.com"), Subject=subject), "t", "h")
    head = raw.partition(b"\r\n\r\n")[0]
    assert max(map(len, head.split(b"\r\n"))) <= 998
    read = message_from_bytes(raw, policy=policy.default)
    assert (read["Subject"], read["To"].addresses[0].addr_spec) == (subject, "client@example.com")
    assert read["To"].addresses[0].display_name == name


def read_back(message: Message, name: str) -> str:
    """By RFC 2047. The parser of `policy.default` keeps the space between two encoded words of a name."""
    return str(make_header(decode_header(message[name])))


ANY = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=40)
ANYBODY = st.one_of(
    ANY, st.lists(st.sampled_from(["Zoé", "Lefèvre-Straße", "von", "=?", "B.", "李", '"'])).map(" ".join)
)


@settings(max_examples=50, deadline=None)
@given(ANYBODY.map(lambda name: " ".join(name.split())), ANYBODY.map(lambda name: " ".join(name.split())))
def test_words_of_any_script_are_read_back_with_the_spaces_that_they_had(peer: str, name: str) -> None:
    subject = f"Su recibo C-1: 2,90 USD,  sesión con {peer}"
    sender = f"=?utf-8?q?Zo=C3=AB?= <{TO.addr_spec}>"
    raw = mail({"From": sender, "To": Address(name, "client", "example.com"), "Subject": subject}, "t", "h")
    head = raw.partition(b"MIME-Version")[0]
    assert head.isascii()
    assert max(map(len, head.split(b"\r\n"))) <= 78 + 60
    read = message_from_bytes(raw)
    assert read_back(read, "Subject") == subject
    spelled, address = parseaddr(read["To"])
    assert (str(make_header(decode_header(spelled))) if spelled else "", address) == (name, "client@example.com")
    assert parseaddr(read_back(read, "From")) == ("Zoë", TO.addr_spec)


def test_neighbours_outside_of_ascii_keep_their_space() -> None:
    subject = "Su recibo TEST-C-2026-000010: 2,90 USD, sesión con Zoé Lefèvre-Straße"
    read = message_from_bytes(mail(headers(Subject=subject), "t", "h"), policy=policy.default)
    assert read["Subject"] == subject


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("From", "Parley Gateway <receipts@example.com>"),
        ("From", '"Parley, Inc." <receipts@example.com>'),
        ("From", "receipts@example.com"),
        ("Subject", "Your receipt C-2026-000123: $75.00 USD, session with Expert"),
        ("Subject", f"[Test mode] Your receipt TEST-C-2026-000123: $75.00 USD, session with {'Expert ' * 3}".strip()),
        ("Date", "Sun, 22 Nov 2026 03:32:17 +0000"),
        ("Message-ID", "<receipt.ses_01kt0q8m3fe9w7r2c5x6y8z0ab.client@calls.example.com>"),
        ("References", " ".join(f"<receipt.ses_01kt0q8m3fe9w7r2c5x6y8z0ab.client.{n}@example.com>" for n in range(3))),
    ],
)
def test_a_header_is_as_the_standard_library_writes_it(name: str, value: str) -> None:
    message = EmailMessage(policy=policy.SMTP)
    message[name] = value
    raw = mail({"To": "a@example.com", name: value}, "t", "h")
    assert raw.partition(b"MIME-Version")[0].removeprefix(b"To: a@example.com\r\n") == message.as_bytes()[:-2]
