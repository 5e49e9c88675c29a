"""Evidence for a dispute: what a bank needs is in it, what opens something is not."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from gateway.archive import evidence as core
from gateway.archive.archive import Retention
from gateway.archive.consent import WORDS
from gateway.archive.evidence_page import page
from gateway.archive.happened import ENDS, SAID, said
from gateway.archive.snapshot import BLANK_PERSON
from gateway.meter.chain import sealed
from gateway.meter.record import bill
from gateway.session import Consent, EndReason
from gateway.sessions.shown import TERMS_VERSION
from gateway.webhooks.catalogue import CATALOGUE
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
    for text in (json.dumps(made), page(made)):
        assert "opens-it" not in text
        assert "pi_1_secret_x" not in text


def test_the_page_escapes_what_callers_wrote_and_runs_no_script() -> None:
    told = page(core.evidence(docs(), EVENTS, ROWS, [], made_at=NOW))
    assert "&lt;b&gt;Client&lt;/b&gt;" in told
    assert "<b>Client" not in told
    assert "<script" not in told


def test_a_ledger_that_was_changed_is_not_called_intact() -> None:
    made = core.evidence(docs(), EVENTS, ROWS, ["row 1:a:1 was changed"], made_at=NOW)
    assert (made["ledger"]["intact"], made["ledger"]["broken"]) == (False, ["row 1:a:1 was changed"])


def test_rows_whose_time_is_over_are_said_to_be_gone_and_since_when() -> None:
    day = 86_400_000
    made = core.evidence(docs(), EVENTS, [], [], made_at=NOW + 91 * day, rows_dropped=True, kept=Retention(ticks=90))
    (gone,) = made["no_longer_kept"]
    assert (gone["class"], gone["since"]) == ("ticks", "2024-02-13T00:00:00.000Z")
    assert (made["ledger"]["checked"], made["ledger"]["rows_dropped"]) == (["terms", "bill"], gone)
    told = page(made)
    assert "No longer kept" in told
    assert "kept for 90 days after the session was created, since 2024-02-13 00:00:00" in told
    early = core.evidence(docs(), EVENTS, [], [], made_at=NOW + 90 * day, rows_dropped=True, kept=Retention(ticks=90))
    assert early["no_longer_kept"][0]["since"] is None, "nobody knows, and nothing is made up"


def test_r22_a_person_who_was_erased_is_said_to_be() -> None:
    blank = {**docs(), "people": {"client": dict(BLANK_PERSON), "expert": {"name": "Expert"}}}
    (gone,) = core.evidence(blank, EVENTS, ROWS, [], made_at=NOW)["no_longer_kept"]
    assert (gone["class"], gone["why"], gone["since"]) == ("people", "erased on request", None)
    (later,) = core.evidence(blank, EVENTS, ROWS, [], made_at=2 * NOW)["no_longer_kept"]
    assert later["why"] == "kept for 3653 days after the session was created"
    assert core.evidence(docs(), EVENTS, ROWS, [], made_at=NOW)["no_longer_kept"] == []


def test_the_words_of_a_consent_are_those_of_the_page() -> None:
    script = (Path(core.__file__).parents[1] / "web" / "strings.js").read_text()
    for language, words in WORDS[TERMS_VERSION].items():
        block = script[script.index(f"const {language} = ") :]
        shown = {key: re.search(rf'  terms_{key}: "(.*)",', block) for key in words}
        assert {key: found and found[1] for key, found in shown.items()} == words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {},
            "pay 3.00 USD a minute while you are both connected, counted by the second, and 90.00 USD at most. Interru",
        ),
        ({"free_ms": 300_000}, "90.00 USD at most. The start is free: 5 min. Interruptions are not charged."),
        ({"kind": "booked"}, "This meeting is paid."),
        ({"kind": "free"}, "costs neither of you anything."),
        ({"waived": True}, "pay 3.00 USD a minute"),
        ({"consent": {"at": NOW, "text_version": "1", "locale": "de-CH", "amount_max": 9000}}, "höchstens 90.00 USD"),
    ],
)
def test_the_page_quotes_what_the_client_agreed_to(changes: dict[str, object], words: str) -> None:
    known = docs()
    made = core.evidence({**known, "session": {**(known["session"] or {}), **changes}}, EVENTS, ROWS, [], made_at=NOW)
    assert words in made["consent"]["text"]
    assert words in page(made)


def test_words_that_are_not_ours_are_not_made_up() -> None:
    known = docs()
    session = {**(known["session"] or {}), "consent": {"at": NOW, "text_version": "x", "locale": "en", "amount_max": 1}}
    made = core.evidence({**known, "session": session}, EVENTS, ROWS, [], made_at=NOW)
    assert made["consent"]["text"] is None
    assert "not the call page’s own" in page(made)


def test_every_event_and_every_end_of_a_session_has_words() -> None:
    told = {event.name: said({"type": event.name, "data": event.data}) for event in CATALOGUE}
    own = {name for name in told if name.split(".")[0] in ("session", "participant", "payment", "transfer", "receipt")}
    assert own - SAID.keys() == {"session.rated", "payment.hold_expiring"}
    assert told["payment.refunded"] == "A refund was made: 25.00 USD."
    assert told["session.ended"] == "The call was over: the client hung up."
    assert [text for text in told.values() if "{" in text] == []
    assert set(get_args(EndReason)) - ENDS.keys() == {"declined", "missed"}


def test_amounts_times_and_the_arithmetic_are_for_people() -> None:
    payment = {
        "status": "partially_refunded", "currency": "usd", "amount_held": 9000, "amount_captured": 300,
        "amount_refunded": 100, "payment_intent": "pi_1", "charge": "ch_1", "steps": [{"key": "of-a-step"}],
        "card": {"brand": "visa", "last4": "4242", "country": "US"},
        "refunds": [{"number": 1, "amount": 100, "reason": "<i>bad</i>", "status": "succeeded", "stripe_id": "re_1"}],
    }  # fmt: skip
    mail = {"status": "sent", "sent_at": NOW}
    receipts = {"schema": 1, "client": {"number": "C-1", "mail": mail}, "client.2": {"number": "C-2", "mail": {}}}
    made = core.evidence({**docs(), "payment": payment, "receipts": receipts}, EVENTS, ROWS, [], made_at=NOW)
    told = page(made)
    for text in (
        "<b>3.00 USD</b> was charged to Visa ending in 4242, issued in US. Of that 1.00 USD was refunded.",
        "together for 1 min 00 s", "60 s × 3.00 USD a minute ÷ 60", "1.00 USD, succeeded, re_1: &lt;i&gt;bad", "pi_1",
        "ch_1", "2023-11-14 22:13:20", "Correction to the client", "client@example.com",
    ):  # fmt: skip
        assert text in told
    assert "of-a-step" not in told


def test_an_unfinished_session_without_payment_has_a_page_too() -> None:
    session = record().to_dict()
    made = core.evidence({"session": session, "payment": None, "people": None}, [], [], [], made_at=NOW)
    assert "Nothing has been charged." in page(made)
