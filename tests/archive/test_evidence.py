"""Evidence for a dispute: what a bank needs is in it, what opens something is not."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.archive import evidence as core
from gateway.archive.archive import Retention
from gateway.archive.snapshot import BLANK_PERSON
from gateway.billing_bridge.endpoints import Endpoints
from gateway.billing_bridge.mail_desk import MailDesk
from gateway.cli import main
from gateway.clock import SystemClock
from gateway.dev.valkey import EmbeddedValkey
from gateway.journal import Event, Journal
from gateway.meter.chain import sealed
from gateway.meter.ledger import Ledger
from gateway.meter.record import bill
from gateway.session import Consent
from tests.orders import NOW, record

EVENTS = [{"id": "evt_1", "type": "session.started", "created": NOW, "sequence": 1}]


def docs() -> dict[str, dict[str, object] | None]:
    session = replace(
        record(), started_at=NOW, ended_at=NOW + 60_000, status="finalized", consent=Consent(NOW, "1", "en", 9000)
    )
    final = bill(session, [(NOW, NOW + 60_000)]).to_dict()
    body = replace(session, bill=final, chain=sealed(session, [(1, "a", 1, NOW, NOW + 60_000)], final)).to_dict()
    return {
        "session": body,
        "payment": {"payment_intent": "pi_1", "charge": "ch_1", "client_secret": "pi_1_secret_x", "transfers": []},
        "people": {"client": {"name": "<b>Client</b>", "email": "client@example.com"}, "expert": {"name": "Expert"}},
        "receipts": {"client": {"number": "C-1", "secret": "opens-it", "issued_at": NOW}},
    }


ROWS = [{"epoch": 1, "number": 1, "start": NOW, "end": NOW + 60_000}]


def test_consent_timeline_usage_bill_and_stripes_ids_are_there() -> None:
    made = core.evidence(docs(), EVENTS, ROWS, [], made_at=NOW)
    assert made["consent"]["amount_max"] == 9000
    assert made["timeline"][0]["what"] == "session.started"
    assert made["connected"] == [
        {"from": "2023-11-14T22:13:20.000Z", "to": "2023-11-14T22:14:20.000Z", "seconds": 60.0}
    ]
    assert (made["bill"]["amount_total"], made["payment"]["payment_intent"]) == (300, "pi_1")
    assert made["ledger"]["intact"] is True


def test_law7_nothing_in_it_opens_anything() -> None:
    made = core.evidence(docs(), EVENTS, ROWS, [], made_at=NOW)
    for text in (json.dumps(made), core.page(made)):
        assert "opens-it" not in text
        assert "pi_1_secret_x" not in text


def test_the_page_escapes_what_callers_wrote_and_runs_no_script() -> None:
    page = core.page(core.evidence(docs(), EVENTS, ROWS, [], made_at=NOW))
    assert "&lt;b&gt;Client&lt;/b&gt;" in page
    assert "<b>Client" not in page
    assert "<script" not in page


def test_a_ledger_that_was_changed_is_not_called_intact() -> None:
    made = core.evidence(docs(), EVENTS, ROWS, ["row 1:a:1 was changed"], made_at=NOW)
    assert (made["ledger"]["intact"], made["ledger"]["broken"]) == (False, ["row 1:a:1 was changed"])


def test_rows_whose_time_is_over_are_said_to_be_gone_and_since_when() -> None:
    day = 86_400_000
    made = core.evidence(docs(), EVENTS, [], [], made_at=NOW + 91 * day, rows_dropped=True, kept=Retention(ticks=90))
    (gone,) = made["no_longer_kept"]
    assert (gone["class"], gone["since"]) == ("ticks", "2024-02-13T00:00:00.000Z")
    assert (made["ledger"]["checked"], made["ledger"]["rows_dropped"]) == (["terms", "bill"], gone)
    page = core.page(made)
    assert page.count("kept for 90 days after the session was created") == 2, "at the top, and where the rows would be"
    early = core.evidence(docs(), EVENTS, [], [], made_at=NOW + 90 * day, rows_dropped=True, kept=Retention(ticks=90))
    assert early["no_longer_kept"][0]["since"] is None, "nobody knows, and nothing is made up"


def test_r22_a_person_who_was_erased_is_said_to_be() -> None:
    blank = {**docs(), "people": {"client": dict(BLANK_PERSON), "expert": {"name": "Expert"}}}
    (gone,) = core.evidence(blank, EVENTS, ROWS, [], made_at=NOW)["no_longer_kept"]
    assert (gone["class"], gone["why"], gone["since"]) == ("people", "erased on request", None)
    (later,) = core.evidence(blank, EVENTS, ROWS, [], made_at=2 * NOW)["no_longer_kept"]
    assert later["why"] == "kept for 3653 days after the session was created"
    assert core.evidence(docs(), EVENTS, ROWS, [], made_at=NOW)["no_longer_kept"] == []


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
    assert main(["evidence", "ses_1", "--data", str(tmp_path), "--out", str(out)]) == 0
    text = out.read_text()
    assert "ses_1" in text
    assert "row 1:a:1 is missing" in text
    assert main(["deliveries", "--data", str(tmp_path), "--resend", ids[0]]) == 0
    assert json.loads(capsys.readouterr().out) == {"event": ids[0], "deliveries": 1}


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
