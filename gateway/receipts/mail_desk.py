"""What an operator may do with mails: see how a session's stand and which no server took, and send them again.

A mail is known by its id, the local part of its Message-ID: `receipt.SESSION.LETTER`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast

from gateway.errors import Conflict, NotFound
from gateway.journal import NOW, Journal
from gateway.receipts import letters

QUEUE: Final = "mail"
# Sorted sets of SESSION|LETTER: those given up, by when; and all, by when they were written.
UNDELIVERABLE: Final = "receipts:undeliverable"
WRITTEN: Final = "receipts:written"
KEEP_MS: Final = 90 * 86_400_000  # how far back mails can be sent again since a time
# A mailer that writes its result at the same moment; each try reads the record again.
ATTEMPTS: Final = 20

_MAIL: Final = re.compile(r"receipt\.(?P<session>ses_[0-9a-z]{1,40})\.(?P<letter>[a-z0-9.]{1,40})")


class MailDesk:
    """Shell. Each raises StoreUnavailable."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def note_written(self, session: str, names: list[str], now: int) -> None:
        """Letters that are about to be written: an entry too many does no harm."""
        written = [("ZADD", WRITTEN, now, _member(session, name)) for name in names]
        await self._journal.trips.ask(*written, ("ZREMRANGEBYSCORE", WRITTEN, "-inf", now - KEEP_MS))

    async def note_undeliverable(self, session: str, name: str, now: int) -> None:
        await self._journal.redis.zadd(UNDELIVERABLE, {_member(session, name): now})

    async def count_undeliverable(self) -> int:
        return int(await self._journal.redis.zcard(UNDELIVERABLE))

    async def undeliverable(self, limit: int = 100) -> list[dict[str, Any]]:
        """The letters that no mail server took, latest first, with `failed_at` (wall ms)."""
        newest = await self._journal.redis.zrevrange(UNDELIVERABLE, 0, limit - 1, withscores=True)
        found = []
        for member, failed_at in cast(list[tuple[bytes, float]], newest):
            session, _, name = member.decode().partition("|")
            kept = await self._letters(session)
            if name in kept:
                found.append({**_shown(session, name, kept[name]), "failed_at": int(failed_at)})
        return found

    async def of(self, session: str) -> list[dict[str, Any]]:
        """How the mails of a session stand, in the order in which they were written."""
        kept = await self._letters(session)
        return [_shown(session, name, kept[name]) for name in letters.names(kept)]

    async def resend(self, mail: str) -> None:
        """Start the attempts of one mail anew (a corrected address, say). Raises NotFound `mail_not_found`."""
        place = _MAIL.fullmatch(mail)
        if place is None or not await self._again(place["session"], place["letter"]):
            raise NotFound(f"There is no mail {mail}.", code="mail_not_found")

    async def resend_since(self, at: int) -> int:
        """All mails written at `at` (wall ms) or later once more, under the Message-IDs that they had: for a server
        that took them and lost them. Returns how many; those that are still on their way are left to it."""
        started = 0
        for member in cast(list[bytes], await self._journal.redis.zrangebyscore(WRITTEN, at, "+inf")):
            session, _, name = member.decode().partition("|")
            started += await self._again(session, name, only=("sent", "failed"))
        return started

    async def _again(self, session: str, name: str, only: tuple[str, ...] = ()) -> bool:
        for _ in range(ATTEMPTS):
            kept = (await self._journal.read(session, "receipts"))["receipts"]
            if kept is None or name not in letters.names(kept.body):
                return False
            if only and kept.body[name]["mail"]["status"] not in only:
                return False
            put = {"receipts": (kept.version, {**kept.body, name: letters.anew(kept.body[name])})}
            try:
                await self._journal.commit(session, put, due={QUEUE: NOW})
            except Conflict:
                continue
            await self._journal.redis.zrem(UNDELIVERABLE, _member(session, name))
            return True
        raise Conflict(f"The mails of {session} change faster than one can be sent again.", code="version_conflict")

    async def _letters(self, session: str) -> letters.Letters:
        doc = (await self._journal.read(session, "receipts"))["receipts"]
        return doc.body if doc else {}


def mail_id(session: str, name: str) -> str:
    return f"receipt.{session}.{name}"


def _member(session: str, name: str) -> str:
    return f"{session}|{name}"


def _shown(session: str, name: str, letter: Mapping[str, Any]) -> dict[str, Any]:
    mail = letter["mail"]
    return {
        "mail": mail_id(session, name),
        "session": session,
        "letter": name,
        "role": letters.role_of(name),
        "number": letter["number"],
        **{field: mail[field] for field in ("status", "tries", "error", "sent_at", "next_at")},
    }
