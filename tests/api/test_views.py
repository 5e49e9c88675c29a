from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.api import examples, views

FIGURES = (
    "billable_seconds", "free_seconds_used", "amount_total", "amount_expert", "amount_platform", "amount_ambassador",
    "amount_metered", "amount_waived",
)  # fmt: skip


@given(st.integers(0, 4_000_000_000_000))
def test_times_are_rfc_3339_in_utc_to_the_millisecond(ms: int) -> None:
    from datetime import datetime

    text = views.stamp(ms)
    assert len(text) == 24
    assert text.endswith("Z")
    assert round(datetime.fromisoformat(text).timestamp() * 1000) == ms


def test_no_time_is_null() -> None:
    assert views.time(None) is None
    assert views.time(0) == "1970-01-01T00:00:00.000Z"


def test_the_figures_are_null_until_finalized() -> None:
    body = views.session(examples.opened()).model_dump()
    assert {body[name] for name in FIGURES} == {None}
    assert (body["amount_captured"], body["amount_refunded"], body["started_at"], body["ended_at"]) == (
        0,
        0,
        None,
        None,
    )


def test_finalized_adds_the_bill() -> None:
    body = views.session(examples.finalized()).model_dump()
    assert [body[name] for name in FIGURES] == [1500, 300, 7500, 6750, 600, 150, 7500, 0]
    assert (body["currency"], body["end_reason"], body["amount_captured"]) == ("usd", "client_left", 7500)
    assert (body["started_at"], body["ended_at"]) == ("2026-11-21T20:01:00.000Z", "2026-11-21T20:31:00.000Z")
    assert [(part["to"], part["amount"], part["status"]) for part in body["transfers"]] == [
        ("expert", 6750, "paid"),
        ("ambassador", 150, "paid"),
    ]


def test_law6_the_documented_example_adds_up() -> None:
    body = views.session(examples.finalized())
    assert (
        body.amount_total
        == 7500
        == (body.amount_expert or 0) + (body.amount_platform or 0) + (body.amount_ambassador or 0)
    )


def test_r22_an_erased_person_leaves_ids_only() -> None:
    body = views.session(replace(examples.opened(), people={"schema": 1, "client": None}))
    assert (body.client.id, body.client.name, body.client.email) == ("c1", None, None)
    assert (body.expert.id, body.expert.rating) == ("e1", 4.6)


def test_a_field_of_a_record_stays_inside_until_it_is_named() -> None:
    records = examples.opened()
    records.session["internal"] = records.payment["steps"] = records.people["note"] = "inside"
    assert "inside" not in views.session(records).model_dump_json()


def test_receipts_carry_number_link_and_how_far_the_mail_is() -> None:
    mail = {"status": "pending", "tries": 1, "sent_at": None, "error": "450 try again", "message_id": "<x>"}
    issued = {"client": {"number": "C-1", "secret": "s1", "issued_at": 0, "mail": mail}}
    (receipt,) = views.receipts(replace(examples.opened(), receipts=issued), "https://g.example").data
    assert (receipt.role, receipt.number, receipt.url) == ("client", "C-1", "https://g.example/r/s1")
    assert (receipt.mail.status, receipt.mail.tries, receipt.mail.error) == ("pending", 1, "450 try again")
