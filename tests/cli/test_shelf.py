"""`gateway archive` and `gateway restore`, and the commands that read from the archive."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from gateway.cli import main
from gateway.dev.valkey import EmbeddedValkey
from gateway.journal import Journal
from tests.cli.ended import GOOD
from tests.s3 import SECRET, S3Service
from tests.settled import settled


async def test_by_hand_into_the_archive_and_back(tmp_path: Path, capsys: Any) -> None:
    async def ended(*arguments: str) -> tuple[int, str]:
        code = await asyncio.to_thread(main, [*arguments, "--data", str(tmp_path)])
        return code, capsys.readouterr().out

    async with EmbeddedValkey(tmp_path / "valkey") as valkey, Redis.from_url(valkey.url) as redis:
        journal = Journal(redis)
        assert await ended("restore", "--all") == (0, "the archive has no sessions: there is nothing to bring back\n")
        session, other = await settled(journal), await settled(journal)
        assert await ended("archive", session) == (0, f"{session} archived\n1 of 1 sessions archived\n")
        assert (await journal.read(session, "session"))["session"] is None
        assert (await ended("archive", "ses_1"))[0] == 1
        code, told = await ended("replay", session, "--json")
        assert (code, json.loads(told)["differences"]) == (0, {})
        code, told = await ended("evidence", session)
        assert (code, json.loads(told)["ledger"]["intact"]) == (0, True)
        assert await ended("archive", "--check") == (0, "1 sessions, 0 faults\n")
        code, told = await ended("archive")
        assert (code, told.count("0 of 1 sessions archived (1 not at rest for [archive] after_days yet")) == (0, 1)
        assert await ended("archive", other) == (0, f"{other} archived\n1 of 1 sessions archived\n")
        segment = next((tmp_path / "archive" / "money").rglob("*.jsonl"))
        text = segment.read_text()
        segment.write_text(text.replace('"amount_total":450', '"amount_total":451'))
        assert (await ended("archive", "--check"))[0] == 1
        segment.write_text(text)
        assert await ended("restore", session) == (0, f"{session} is back in Redis\n")
        assert await ended("restore", "ses_1") == (1, "ses_1 is not in the archive\n")
        code, told = await ended("restore", "--all")
        assert (code, told.count("newer in Redis"), told.count("is back")) == (0, 1, 1)
        assert (await journal.read(other, "session"))["session"] is not None


async def test_in_a_bucket_with_the_credentials_of_the_environment(
    redis: Redis, valkey_url: str, config: Path, s3_service: S3Service, capsys: Any
) -> None:
    place = s3_service.place()
    archive = f'[archive]\nlocation = "s3://{place.bucket}/{place.prefix}"\nendpoint = "{place.endpoint}"\n'
    config.write_text(f'{GOOD}[redis]\nurl = "{valkey_url}"\n{archive}')

    async def told(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main, [*arguments, "--config", str(config)])
        return code, *capsys.readouterr()

    session = await settled(Journal(redis))
    with s3_service.guarded():
        code, out, err = await told("archive", session)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "does not accept our credentials (InvalidAccessKeyId): set AWS_ACCESS_KEY_ID" in err
    assert (await told("archive", session))[0] == 0
    assert await told("archive", "--check") == (0, "1 sessions, 0 faults\n", "")
    assert json.loads((await told("evidence", session))[1])["ledger"]["intact"]
    await redis.flushall()
    assert await told("restore", "--all") == (0, f"{session} is back in Redis\n", "")
    shown = (await told("check-config"))[1]
    assert json.loads(shown)["archive"]["endpoint"] == place.endpoint
    assert SECRET not in shown
