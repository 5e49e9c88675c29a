"""A mail as the bytes that are sent: headers by the standard library, which knows how to fold and encode them; the body
by hand, since a generator that goes through every line costs more than the receipt in it."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from typing import Final

# "=_" cannot occur in quoted-printable text (RFC 2045, section 6.7).
BOUNDARY: Final = "=_parley"
BODY: Final = f"""\
MIME-Version: 1.0
Content-Type: multipart/alternative; boundary="{BOUNDARY}"

"""
PART: Final = f"""\
--{BOUNDARY}
Content-Type: text/%s; charset="utf-8"
Content-Transfer-Encoding: quoted-printable

"""
END: Final = f"--{BOUNDARY}--\n"


def mail(headers: Mapping[str, str | Address], text: str, html: str) -> bytes:
    """A multipart/alternative of both (RFC 2046, section 5.1.4); an address outside of ASCII needs SMTPUTF8 (RFC 6532).

    Raises ValueError for a header with a line break."""
    to = headers["To"]
    head = EmailMessage(policy=SMTP if isinstance(to, str) or to.addr_spec.isascii() else SMTPUTF8)
    for name, value in headers.items():
        head[name] = value
    parts = [_lines(BODY), _lines(PART % "plain"), _quoted(text), _lines(PART % "html"), _quoted(html), _lines(END)]
    return head.as_bytes().rstrip(b"\r\n") + b"\r\n" + b"".join(parts)


def _quoted(text: str) -> bytes:
    return binascii.b2a_qp(_lines(text if text.endswith("\n") else text + "\n"), istext=True)


def _lines(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()
