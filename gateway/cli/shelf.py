"""`gateway archive` and `gateway restore`: sessions between Redis and the archive, by hand, and the archive checked."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.cli.commands import FAILED, OK, Commands
from gateway.cli.place import opened, where
from gateway.cli.process import once
from gateway.errors import GatewayError, NotFound
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.archive.archive import Archive
    from gateway.archive.hot import Put
    from gateway.billing_bridge.archiver import Archiver
    from gateway.journal import Journal


def add(commands: Commands) -> None:
    about = "move settled sessions from Redis to the archive, or check it (exit code 1: faults)"
    archive = commands.add("archive", lambda args: _told(*once(_archived(args))), about)
    archive.add_argument(
        "session", metavar="SESSION", nargs="*", help="these now, without the days of waiting (default: all that wait)"
    )
    where(archive)
    archive.add_argument("--check", action="store_true", help="move nothing; check every chain of the archive")
    restore = commands.add(
        "restore", lambda args: _told(*once(_restored(args))), "bring sessions back from the archive into Redis"
    )
    restore.add_argument("session", metavar="SESSION", nargs="*")
    where(restore)
    restore.add_argument("--all", action="store_true", help="all sessions of the archive, after Redis was lost")


def _told(lines: list[str], good: bool) -> int:
    print(*lines, sep="\n")
    return OK if good else FAILED


async def _archived(args: argparse.Namespace) -> tuple[list[str], bool]:
    """A line for each session or fault, and whether all is well."""
    from gateway.billing_bridge.archiver import TOGETHER

    async with _archiver(args) as (journal, archive, archiver):
        if args.check:
            faults = await archive.faults()
            return [*faults, f"{len(await archive.sessions())} sessions, {len(faults)} faults"], not faults
        sessions = args.session or await _settled(journal)
        lines, moved, later = [], 0, list[int]()
        for some in _by(sessions, TOGETHER):
            for session, again in (await archiver.archive(some, 0 if args.session else None)).items():
                here = (await archive.find(session)) is not None and again is None
                moved += here
                later += [again] if again is not None else []
                lines += [f"{session} {'archived' if here else _why(again)}"] if args.session or here else []
    summary = f"{moved} of {len(sessions)} sessions archived{_left(len(sessions) - moved - len(later), later)}"
    return [*lines, summary], moved == len(sessions) or not args.session


def _left(unsettled: int, later: list[int]) -> str:
    """Why those that are left stay in Redis; `later`: from when on (wall ms) each may be looked at again."""
    why = []
    if later:
        why.append(f"{len(later)} not at rest for [archive] after_days yet, the first until {_utc(min(later))}")
    if unsettled:
        why.append(f"{unsettled} without settled money, or not there")
    return f" ({'; '.join(why)})" if why else ""


async def _restored(args: argparse.Namespace) -> tuple[list[str], bool]:
    """A line for each session, and whether all are back (or something newer is there)."""
    if bool(args.session) == args.all:
        raise GatewayError("name sessions, or --all")
    lines, good = [], True
    async with _archiver(args) as (_, archive, archiver):
        await archiver.go_on()
        for some in _by(args.session or await archive.sessions(), AT_ONCE):
            for session, word in zip(some, await asyncio.gather(*(_back(archiver, one) for one in some)), strict=True):
                good &= word not in (None, "conflict")
                lines.append(f"{session} {WORDS[word]}")
    return lines or ["the archive has no sessions: there is nothing to bring back"], good


async def _back(archiver: Archiver, session: str) -> Put | None:
    try:
        return await archiver.restore(session)
    except NotFound:
        return None


# Each waits for the disk of Redis, and for the archive.
AT_ONCE = 64
WORDS = {
    None: "is not in the archive",
    "put": "is back in Redis",
    "same": "was in Redis already",
    "newer": "is newer in Redis, and stays as it is there",
    "replaced": "was older in Redis, and is now as in the archive",
    "conflict": "is partly newer and partly older in Redis: left alone, see docs/operations.md",
}


def _why(again: int | None) -> str:
    if again is None:
        return "is not there, or its money is not settled"
    return f"is not at rest; look again after {_utc(again)}"


def _utc(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"


async def _settled(journal: Journal) -> list[str]:
    """All sessions in Redis that may be settled: those from before there was an archive were never announced to it."""
    found = [key.decode().split(":")[2] async for key in journal.redis.scan_iter("*:ses:*:payment", count=1000)]
    return sorted(found)


def _by(sessions: list[str], size: int) -> Iterable[list[str]]:
    return (sessions[at : at + size] for at in range(0, len(sessions), size))


@asynccontextmanager
async def _archiver(args: argparse.Namespace) -> AsyncIterator[tuple[Journal, Archive, Archiver]]:
    from gateway.app import archiver_settings
    from gateway.billing_bridge.archiver import Archiver, ArchiverSettings
    from gateway.clock import SystemClock

    settings = archiver_settings(Settings.load(args.config)) if args.config else ArchiverSettings()
    async with opened(args) as journal:
        if journal.archive is None:
            raise GatewayError("archive.location is not set in the configuration")
        yield journal, journal.archive, Archiver(journal, journal.archive, settings, SystemClock())
