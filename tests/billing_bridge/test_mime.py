"""A mail's bytes, read back by the standard library's parser."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.headerregistry import Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing_bridge.mime import mail

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
