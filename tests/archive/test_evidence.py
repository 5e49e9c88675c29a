"""Evidence for a dispute: what a bank needs is in it, what opens something is not."""

from __future__ import annotations

import json
from dataclasses import replace

from gateway.archive import evidence as core
from gateway.archive.archive import Retention
from gateway.archive.snapshot import BLANK_PERSON
from gateway.meter.chain import sealed
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
