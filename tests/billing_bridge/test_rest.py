"""When a session may leave Redis: never while money, mail or an event may still move."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.archive.snapshot import Snapshot
from gateway.billing_bridge.rest import BUSY_MS, WAITING_MS, rests_from

NOW = 1_700_000_000_000
QUIET = 30 * 86_400_000
PAYMENT = {"settled": True, "transfers": [{"status": "paid"}], "dispute": None}


def snapshot(status: str = "finalized", payment: dict[str, Any] | None = None, **changes: Any) -> Snapshot:
    docs = {"session": (1, {"status": status}), "payment": (1, PAYMENT | (payment or {}))}
    if mail := changes.pop("mail", None):
        docs["receipts"] = (1, {"client": {"mail": {"status": mail}}})
    events = ({"created": NOW - QUIET}, {"created": NOW - QUIET + 5})
    return Snapshot("ses_1", docs, events, {}, {}, changes.pop("deliveries", {}))


def test_a_settled_session_rests_when_it_was_quiet_for_long_enough() -> None:
    assert rests_from(snapshot(mail="sent"), (), NOW, QUIET) == NOW + 5
    assert rests_from(snapshot("booked"), (), NOW, QUIET) == NOW + 5, "a booking whose meetings have their parts"
    assert rests_from(snapshot(mail="failed"), (), NOW, 0) == NOW - QUIET + 5


@pytest.mark.parametrize(
    ("found", "queues", "at"),
    [
        (snapshot("ended"), (), None),
        (snapshot(payment={"settled": False}), (), None),
        (snapshot(payment={"transfers": [{"status": "withheld"}]}), (), NOW + WAITING_MS),
        (snapshot(payment={"dispute": {"status": "open"}}), (), NOW + WAITING_MS),
        (snapshot(mail="pending"), (), NOW + BUSY_MS),
        (snapshot(), {"money"}, NOW + BUSY_MS),
        (snapshot(deliveries={"o:whe_1:3": "1:5:x"}), (), NOW + BUSY_MS),
        (snapshot(deliveries={"l:whe_1": "9:x"}), (), NOW + BUSY_MS),
    ],
    ids=["no bill", "money open", "withheld", "disputed", "mail", "queued", "retried", "being delivered"],
)
def test_law5_law8_nothing_leaves_while_something_is_open(found: Snapshot, queues: Any, at: int | None) -> None:
    assert rests_from(found, queues, NOW, 0) == at


def test_what_was_lost_or_won_or_given_up_does_not_wait() -> None:
    found = snapshot(payment={"dispute": {"status": "lost"}}, deliveries={"c:whe_1": "2", "d:whe_1:1": "9:5:x"})
    assert rests_from(found, (), NOW, 0) == NOW - QUIET + 5
