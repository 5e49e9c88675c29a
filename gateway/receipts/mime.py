"""A mail as the bytes that are sent, made by hand. The standard library's generator goes through every line, its parser
takes every header apart, which costs more than the receipt in the mail; and its folding of encoded headers loses spaces
where two words outside of ASCII are neighbours."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Mapping
from email.headerregistry import Address
from email.policy import SMTP
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
# Words of visible ASCII, one space apart; those of a name have nothing to quote (RFC 5322, section 3.2.3).
_PLAIN_WORDS: Final = re.compile(r"[!-~]{1,60}(?: [!-~]{1,60})*")
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9]{1,60}(?: [A-Za-z0-9]{1,60})*")
_QUOTABLE: Final = re.compile(r"[ -~]{1,60}")
_ADDRESSES: Final = frozenset({"From", "To", "Reply-To"})
_LINE: Final = 78  # RFC 5322, section 2.1.1
# An encoded word is 75 characters at most and its line 76, the header's name included (RFC 2047, section 2).
_ENCODED_WORD: Final = "=?utf-8?b?%s?="
_ENCODED_BYTES: Final = 39


def mail(headers: Mapping[str, str | Address], text: str, html: str) -> bytes:
    """A multipart/alternative of both (RFC 2046, section 5.1.4); an address outside of ASCII needs SMTPUTF8 (RFC 6532).

    Raises ValueError for a header with a line break."""
    head = [_header(name, value) for name, value in headers.items()]
    parts = [_lines(BODY), _lines(PART % "plain"), _quoted(text), _lines(PART % "html"), _quoted(html), _lines(END)]
    return b"".join([*head, *parts])


def _header(name: str, value: str | Address) -> bytes:
    words = str(value)
    if "\r" in words or "\n" in words:
        raise ValueError(f"{name} holds a linefeed.")
    if name in _ADDRESSES:
        return _folded(f"{name}:", *_mailboxes(value))
    if name == "Subject" and not _plain(_PLAIN_WORDS, words):
        return _folded(f"{name}:", *_encoded(words))
    return _folded(f"{name}:", *words.split(" "))


def _mailboxes(value: str | Address) -> Iterator[str]:
    """The words of an address, or of a list of them: its name as it may be written, its address in brackets."""
    addresses = [value] if isinstance(value, Address) else SMTP.header_store_parse("To", value)[1].addresses
    for place, address in enumerate(addresses, 1):
        comma = "," if place < len(addresses) else ""
        yield from _name(address.display_name)
        yield (f"<{address.addr_spec}>" if address.display_name else address.addr_spec) + comma


def _name(words: str) -> list[str]:
    if not words or _plain(_PLAIN_NAME, words):
        return words.split()
    if _plain(_QUOTABLE, words):
        return ['"' + re.sub(r'(["\\])', r"\\\1", words) + '"']
    return _encoded(words)


def _plain(pattern: re.Pattern[str], words: str) -> bool:
    return pattern.fullmatch(words) is not None and "=?" not in words


def _encoded(words: str) -> list[str]:
    """All of it, its spaces too, in encoded words (RFC 2047): a reader drops the space between two of them, and keeps
    one between an encoded word and a bare one, so that no mixture of both says where spaces are. No character is cut
    in two."""
    pieces = [b""]
    for character in words:
        written = character.encode(errors="replace")
        if len(pieces[-1]) + len(written) > _ENCODED_BYTES:
            pieces.append(b"")
        pieces[-1] += written
    return [_ENCODED_WORD % binascii.b2a_base64(piece, newline=False).decode() for piece in pieces]


def _folded(first: str, *words: str) -> bytes:
    """At the last space that leaves no line too long (RFC 5322, section 2.2.3)."""
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
