"""`gateway replay`, `evidence` and `deliveries`."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.cli import main
from gateway.clock import SystemClock
from gateway.dev.valkey import EmbeddedValkey
from gateway.journal import Event, Journal
from gateway.meter.ledger import Ledger
from gateway.receipts.mail_desk import MailDesk
from gateway.webhooks.endpoints import Endpoints
from tests.archive.test_evidence import docs
from tests.cli.ended import ended, keep
from tests.orders import NOW


@pytest.mark.parametrize("running", [True, False])
async def test_replay_reads_a_data_directory_whether_its_gateway_runs_or_not(running: bool, tmp_path, capsys) -> None:
    async with EmbeddedValkey(tmp_path / "valkey") as valkey:
        await keep(valkey.url)
        if running:
            assert await asyncio.to_thread(ended, ["replay", "ses_1", "--data", str(tmp_path), "--json"]) == 0
    if not running:
        assert await asyncio.to_thread(ended, ["replay", "ses_1", "--data", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bill"]["amount_total"] == 0
    assert told["differences"] == {}


async def test_replay_of_an_unknown_session_fails(tmp_path: Path, capsys) -> None:
    async with EmbeddedValkey(tmp_path / "valkey"):
        assert await asyncio.to_thread(ended, ["replay", "ses_2", "--data", str(tmp_path)]) == 1
    assert "There is no session ses_2" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["html", "json"])
def test_the_command_writes_the_file(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    async def prepare() -> list[str]:
        async with EmbeddedValkey(tmp_path / "valkey") as valkey, Redis.from_url(valkey.url) as redis:
            journal = Journal(redis)
            lease = await Ledger(redis, journal.keys).acquire("ses_1", "a")
            assert lease.epoch == 1
            put = {name: (0, body) for name, body in docs().items() if body is not None}
            events = [Event("session.started", {}), Event("session.ended", {})]
            await journal.commit("ses_1", put, events=events)
            await Endpoints(redis, SystemClock()).add("https://marketplace.example/hook", account="acc_test")
            return [event.id for event in events]

    ids = asyncio.run(prepare())
    out = tmp_path / f"evidence.{suffix}"
    out.touch(0o644)
    assert main(["evidence", "ses_1", "--data", str(tmp_path), "--out", str(out)]) == 0
    text = out.read_text()
    assert stat.S_IMODE(out.stat().st_mode) == 0o600, "names and addresses are in it"
    assert "ses_1" in text
    assert "row 1:a:1 is missing" in text
    assert main(["deliveries", "--data", str(tmp_path), "--resend", ids[0]]) == 0
    assert json.loads(capsys.readouterr().out) == {"event": ids[0], "deliveries": 1}


def test_a_file_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "evidence.pdf"
    assert ended(["evidence", "ses_1", "--data", str(tmp_path), "--out", str(out)]) == 2
    assert "print the HTML page" in capsys.readouterr().err
    assert not out.exists()


def test_the_command_lists_mails_beside_events_and_sends_them_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mail = {"status": "failed", "message_id": "<x>", "tries": 9, "sent_at": None, "error": "smtp_550", "next_at": None}
    receipts = {"schema": 1, "client": {"number": "C-1", "secret": "s", "issued_at": NOW, "mail": mail}}

    async def prepare() -> None:
        async with EmbeddedValkey(tmp_path / "valkey") as valkey, Redis.from_url(valkey.url) as redis:
            journal = Journal(redis)
            await journal.commit("ses_1", {"session": (0, docs()["session"] or {}), "receipts": (0, receipts)})
            await MailDesk(journal).note_written("ses_1", ["client"], SystemClock().wall_ms())
            await MailDesk(journal).note_undeliverable("ses_1", "client", NOW)

    def said(*arguments: str) -> list[dict[str, Any]]:
        assert main(["deliveries", "--data", str(tmp_path), *arguments]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    asyncio.run(prepare())
    (listed,) = said()
    assert (listed["kind"], listed["mail"], listed["error"]) == ("mail", "receipt.ses_1.client", "smtp_550")
    assert said("--mails", "--since", "60") == [{"mails": 1}]
    assert said() == []
    assert said("--resend", "receipt.ses_1.client") == [{"mail": "receipt.ses_1.client", "mails": 1}]
    (standing,) = said("ses_1")
    assert (standing["status"], standing["tries"]) == ("pending", 0)
    assert main(["deliveries", "--data", str(tmp_path), "--resend", "receipt.ses_1.expert"]) == 1


async def test_deliveries_of_an_unknown_session_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with EmbeddedValkey(tmp_path / "valkey"):
        assert await asyncio.to_thread(ended, ["deliveries", "ses_nope", "--data", str(tmp_path)]) == 1
    assert "There is no session ses_nope" in capsys.readouterr().err


def test_only_one_thing_at_a_time_is_asked_of_deliveries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["deliveries", "--data", str(tmp_path), "--since", "60", "--resend", "evt_x"])
    assert refused.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_the_command_enables_an_endpoint_that_answered_410(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = "https://marketplace.example/hook"

    async def disabled() -> str:
        async with EmbeddedValkey(tmp_path / "valkey") as valkey, Redis.from_url(valkey.url) as redis:
            known = Endpoints(redis, SystemClock())
            endpoint = (await known.add(url)).id
            await known.disable(endpoint, "gone")
            return endpoint

    async def stands(endpoint: str) -> bool:
        async with EmbeddedValkey(tmp_path / "valkey") as valkey, Redis.from_url(valkey.url) as redis:
            return (await Endpoints(redis, SystemClock()).get(endpoint)).enabled

    endpoint = asyncio.run(disabled())
    assert main(["deliveries", "--data", str(tmp_path), "--enable", endpoint]) == 0
    assert json.loads(capsys.readouterr().out) == {"endpoint": endpoint, "url": url, "enabled": True}
    assert asyncio.run(stands(endpoint))
    assert main(["deliveries", "--data", str(tmp_path), "--enable", "whe_unknown"]) == 1
