"""The catalogue of events and docs/webhooks.md are what the code sends."""

from __future__ import annotations

import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from gateway.billing_bridge.account_steps import applied
from gateway.billing_bridge.calls import Call
from gateway.billing_bridge.outcome import Done
from gateway.billing_bridge.record import Payment, Transfer, public
from gateway.meter.record import Bill
from gateway.money import Shares
from gateway.outbox.delivery import WEBHOOK_SCHEDULE_MS
from gateway.payees.accounts import Connected, shown
from gateway.payees.routes import Account, Schedule
from gateway.receipts.mailer import _sent
from gateway.receipts.receipt import compose
from gateway.session import TRANSITIONS, NewClient, NewExpert, NewSession, opened, summary
from gateway.webhooks.catalogue import CATALOGUE, EVENT_TYPES, RESERVED, EventType, as_markdown
from tests.receipts.receipt_cases import ISSUER, LINK, START, payment, people, session

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs/webhooks.md").read_text("utf-8")


def data_of(name: str) -> dict[str, Any]:
    return dict(next(one.data for one in CATALOGUE if one.name == name))


def test_the_document_holds_the_catalogue_as_the_code_has_it() -> None:
    assert DOC.endswith(as_markdown() + "\n")


def test_no_type_is_listed_twice_or_both_sent_and_reserved() -> None:
    names = [one.name for one in CATALOGUE] + list(RESERVED)
    assert len(names) == len(set(names)) == len(EVENT_TYPES)


def test_every_type_that_the_source_names_is_in_the_catalogue() -> None:
    emitted = re.compile(r'(?:Event\(\s*|Notice\(\s*|\(\()"([a-z]+\.[a-z_]+)"')
    sources = [path.read_text("utf-8") for path in (ROOT / "gateway").rglob("*.py")]
    found = {name for source in sources for name in emitted.findall(source)}
    assert "receipt.sent" in found
    assert found <= {one.name for one in CATALOGUE}


def test_every_status_of_a_session_has_its_type() -> None:
    statuses = {f"session.{target}" for target in TRANSITIONS.values()} - {"session.live"}
    assert statuses <= EVENT_TYPES


def test_the_examples_have_the_fields_that_the_code_sends() -> None:
    new = NewSession(NewClient("c1"), NewExpert("e1"), 300, "usd")
    record = opened(new, id="ses_1", account="acc_1", livemode=False, now=START, cap_ms=1, expires_ms=1).record
    bill = Bill((), 0, 0, 0, 0, 0, 0, None, Shares(0, 0, 0, 0), "usd", None, None, None)
    assert set(data_of("session.created")) == set(summary(record))
    assert set(data_of("session.finalized")) == set(summary(record)) | set(bill.to_dict()) | {"ledger_head"}
    assert set(data_of("payment.held")) == set(public(Payment("held", "usd")))
    assert set(data_of("transfer.created")) == {field.name for field in fields(Transfer)}
    receipt = compose(session(), payment(), people(), "client", "C-1", ISSUER, START, LINK)
    assert set(data_of("receipt.sent")) == set(_sent(receipt).data)
    weekly = Account("acct_1", True, 0, schedule=Schedule("weekly"))
    connected = Connected("acct_1", "acc_1", False, seen=weekly)
    assert set(data_of("account.updated")) == set(shown(connected))
    assert set(data_of("account.updated")["payout_schedule"]) == set(shown(connected)["payout_schedule"])
    asked = Connected("acct_1", "acc_1", False, answered=1, seen=connected.seen, open=("po_1",))
    paid = Done({"id": "po_1", "status": "paid", "amount": 1, "currency": "usd"})
    [told] = applied(asked, Call("payouts.retrieve", {}), paid, 0)[1]
    assert set(data_of("payout.paid")) == set(told.data)
    assert "client_secret" not in str([asdict(one) for one in CATALOGUE])


@pytest.mark.parametrize("one", CATALOGUE, ids=lambda one: str(one.name))
def test_every_example_is_a_whole_event(one: EventType) -> None:
    assert set(one.example()) == {"id", "type", "api_version", "created", "session", "sequence", "data", "livemode"}


def test_the_document_states_the_schedule_that_the_code_has() -> None:
    words = {0: "0", 5: "5 s", 300: "5 min", 1800: "30 min"}
    schedule = [words.get(ms // 1000) or f"{ms // 3_600_000} h" for ms in WEBHOOK_SCHEDULE_MS]
    text = " ".join(DOC.split())
    assert f"{', '.join(schedule[:-1])} and {schedule[-1]}" in text
