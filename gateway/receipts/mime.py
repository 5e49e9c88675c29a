"""A mail as the bytes that are sent. Headers are folded and encoded by the standard library, which knows how, unless
they are so plain that there is nothing to know; the body is made by hand. Its generator, which goes through every line,
and its parser, which takes every header apart, cost more than the receipt in the mail."""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from email.headerregistry import Address
from email.policy import SMTP, SMTPUTF8, EmailPolicy
from typing import Any, Final

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
# Words of visible ASCII, one space apart; no address with anything to quote or to comment.
_PLAIN_WORDS: Final = re.compile(r"[!-~]{1,60}(?: [!-~]{1,60})*")
_PLAIN_ADDRESS: Final = re.compile(r"(?:[A-Za-z0-9]+ )*<[A-Za-z0-9+_-]+(?:\.[A-Za-z0-9+_-]+)*@[A-Za-z0-9.-]+>")
_ADDRESSES: Final = frozenset({"From", "To", "Reply-To"})
_LINE: Final = 78  # RFC 5322, section 2.1.1


def mail(headers: Mapping[str, str | Address], text: str, html: str) -> bytes:
    """A multipart/alternative of both (RFC 2046, section 5.1.4); an address outside of ASCII needs SMTPUTF8 (RFC 6532).

    Raises ValueError for a header with a line break."""
    to = headers["To"]
    policy = SMTP if isinstance(to, str) or to.addr_spec.isascii() else SMTPUTF8
    head = [_header(name, value, policy) for name, value in headers.items()]
    parts = [_lines(BODY), _lines(PART % "plain"), _quoted(text), _lines(PART % "html"), _quoted(html), _lines(END)]
    return b"".join([*head, *parts])


def _header(name: str, value: str | Address, policy: EmailPolicy[Any]) -> bytes:
    words = str(value)
    plain = (_PLAIN_ADDRESS if name in _ADDRESSES else _PLAIN_WORDS).fullmatch(words) and "=?" not in words
    line = f"{name}: {words}"
    if plain and len(line) <= _LINE:
        return line.encode() + b"\r\n"
    if plain and name == "Subject":
        return _folded(line)
    return policy.fold_binary(name, policy.header_store_parse(name, value)[1])


def _folded(line: str) -> bytes:
    """At the last space that leaves no line too long (RFC 5322, section 2.2.3)."""
    first, *words = line.split(" ")
    lines = [first]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > _LINE:
            lines.append("")
        lines[-1] += f" {word}"
    return "".join(f"{each}\r\n" for each in lines).encode()


def _quoted(text: str) -> bytes:
    return binascii.b2a_qp(_lines(text if text.endswith("\n") else text + "\n"), istext=True)


def _lines(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()
