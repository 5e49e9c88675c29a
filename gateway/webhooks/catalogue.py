"""The catalogue of events that webhooks carry: each type, when it is sent, and what its `data` looks like.

`docs/webhooks.md` is written from it, and the tests hold it against the code that makes the events.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

SESSION_ID: Final = "ses_06ec5gfc58004nfah5znvbrqwg"
EVENT_ID: Final = "evt_06ec5gfc5c001kq3vdx0y6w7zr"
CREATED: Final = 1_795_275_845_000


@dataclass(frozen=True, slots=True)
class EventType:
    """One type; `data` is an example of its body, `stream` of whose events it is one."""

    name: str
    when: str
    data: Mapping[str, Any] = field(default_factory=dict)
    stream: str = SESSION_ID

    def example(self) -> dict[str, Any]:
        return {
            "id": EVENT_ID,
            "type": self.name,
            "api_version": "2026-11-01",
            "created": CREATED,
            "session": self.stream,
            "sequence": 7,
            "data": dict(self.data),
            "livemode": False,
        }


def _session(status: str, end_reason: str | None = None) -> dict[str, Any]:
    return {
        "reference": "order-123",
        "kind": "metered",
        "status": status,
        "client": "c1",
        "expert": "e1",
        "end_reason": end_reason,
        "end_note": None,
    }


_HEAD: Final = "50d858e0985ecc7f60418aaf0cc5ab587f42c2570a884095a9e8ccacd0f6545c"
_BILL: Final = {
    "intervals": [[CREATED, CREATED + 1_800_000]],
    "union_ms": 1_800_000,
    "free_seconds_used": 300,
    "billable_ms": 1_500_000,
    "billable_seconds": 1500,
    "amount_metered": 7500,
    "amount_total": 7500,
    "amount_waived": 0,
    "waived_reason": None,
    "amount_expert": 6750,
    "amount_platform": 600,
    "amount_ambassador": 150,
    "currency": "usd",
    "started_at": CREATED,
    "ended_at": CREATED + 1_800_000,
    "end_reason": "client_left",
}


def _payment(status: str, **changes: Any) -> dict[str, Any]:
    return {
        "status": status,
        "currency": "usd",
        "amount_held": 25500,
        "amount_captured": 0,
        "amount_refunded": 0,
        "amount_total": None,
        "amount_waived": 0,
        "attempt": 1,
        "payment_intent": "pi_123",
        "card": {"brand": "visa", "last4": "4242", "country": "US"},
        "hold_until": CREATED + 600_000_000,
        "decline_code": None,
    } | changes


def _transfer(status: str, **changes: Any) -> dict[str, Any]:
    return {
        "to": "expert",
        "account": "acct_123",
        "amount": 6750,
        "currency": "usd",
        "amount_share": 6750,
        "status": status,
        "stripe_id": "tr_123",
        "reason": None,
        "amount_offset": 0,
        "amount_reversed": 0,
        "amount_owed": 0,
        "amount_restored": 0,
    } | changes


_ACCOUNT_STREAM: Final = "acct_123.main.live.acc_marketplace"
_ACCOUNT: Final = {"stripe_account": "acct_123", "platform": "main", "experts": ["e1"]}


def _payout(status: str, failure_code: str | None = None) -> dict[str, Any]:
    return {
        **_ACCOUNT, "payout": "po_123", "amount": 81_000, "currency": "usd", "status": status, "automatic": True,
        "arrival_date": CREATED // 1000, "failure_code": failure_code,
    }  # fmt: skip


_CAPTURED: Final = _payment("captured", amount_captured=7500, amount_total=7500)

CATALOGUE: Final = (
    EventType("session.created", "A session was created. Always sequence 1.", _session("created")),
    EventType("session.ready", "The money is held, or none is needed: both may join.", _session("ready")),
    EventType(
        "session.made_free",
        "The expert's account could not receive money any more when the card was to be held, and the order says "
        '`if_not_eligible: "free"`: nothing is held, and the session is free, for at most 15 minutes.',
        {"reason": "transfers_inactive", **_session("created"), "kind": "free"},
    ),
    EventType("session.started", "Both are together for the first time.", _session("live")),
    EventType("session.interrupted", "One side is not heard any more; the meter stands.", _session("interrupted")),
    EventType("session.resumed", "Both are together again.", _session("live")),
    EventType(
        "session.warning",
        "The time, or the free part, will soon be over. `remaining` in seconds.",
        {"reason": "limit_ending", "remaining": 60},
    ),
    EventType("session.ended", "The call is over; why is `end_reason` alone.", _session("ended", "client_left")),
    EventType(
        "session.finalized",
        "Usage and bill are frozen. Exactly one for each session. Keep `ledger_head`: it seals the ledger.",
        {**_session("finalized", "client_left"), **_BILL, "ledger_head": _HEAD},
    ),
    EventType(
        "session.settled",
        "No money step is open any more. Again after each refund or lost dispute that came later.",
        {**_CAPTURED, "transfers": [_transfer("paid")]},
    ),
    EventType(
        "session.rated",
        "One side rated the other; the last word counts.",
        {"by": "client", "stars": 5, "comment": None},
    ),
    EventType(
        "participant.joined", "One side opened the call for the first time.", {"role": "client", **_session("ready")}
    ),
    EventType("payment.held", "The most that the session may cost is held on the card.", _payment("held")),
    EventType(
        "payment.action_required",
        "The client has to confirm the payment with the bank.",
        _payment("action_required", amount_held=0, hold_until=None),
    ),
    EventType(
        "payment.failed",
        "The card was declined; another card may be tried.",
        _payment("failed", amount_held=0, hold_until=None, decline_code="insufficient_funds"),
    ),
    EventType(
        "payment.hold_expiring",
        "Half of the hold's time is over (`hold_until`), and it is neither captured nor released: end the session, or "
        "find out what keeps it.",
        _payment("held"),
    ),
    EventType("payment.captured", "What was used has been charged.", _CAPTURED),
    EventType("payment.released", "Nothing was due; the hold was let go.", _payment("released", amount_total=0)),
    EventType(
        "payment.due",
        "The hold was lost before the bill could be charged. Ask the client to pay with another card.",
        _payment("due", amount_total=7500, decline_code="hold_lost"),
    ),
    EventType(
        "payment.refunded",
        "A refund was made; `amount_refunded` is the sum of all.",
        {
            **_CAPTURED,
            "status": "partially_refunded",
            "amount_refunded": 2500,
            "refund": {
                "number": 1,
                "id": "ref_01k9m0h3f8q2v7x4r6s5t1w2y3",
                "amount": 2500,
                "reason": "The connection was poor",
                "charge_to": "shares",
                "status": "succeeded",
                "stripe_id": "re_123",
                "failure": None,
            },
        },
    ),
    EventType(
        "payment.disputed",
        "The cardholder disputes the charge (`open`), or the case was `won` or `lost`. While it is open nothing is "
        "transferred; a lost one is taken back from the shares like a refund.",
        {
            **_CAPTURED,
            "status": "disputed",
            "dispute": {"id": "du_123", "amount": 7500, "status": "open", "reason": "fraudulent"},
        },
    ),
    EventType(
        "transfer.created",
        "A share was transferred to its account, less what the payee owed from before (`amount_offset`); or what "
        "was taken back of it once more, as the bank returned a refund (`amount_restored`).",
        _transfer("paid"),
    ),
    EventType(
        "transfer.reversed",
        "A part of a share was taken back after a refund or a lost dispute. `amount_owed` is what the payee's balance "
        "did not allow: it is kept back from the next transfers.",
        _transfer("paid", amount_reversed=2250),
    ),
    EventType(
        "transfer.withheld",
        "A share cannot be transferred now; it is kept for the payee.",
        _transfer("withheld", stripe_id=None, reason="no_account"),
    ),
    EventType(
        "booking.paid",
        "All meetings of a booking are paid. `session` is the booking's id; each meeting tells `payment.captured` too.",
        _payment(
            "captured",
            amount_held=0,
            hold_until=None,
            amount_captured=18000,
            amount_total=18000,
            meetings=[SESSION_ID, "ses_06ec5gfc58004nfah5znvbrqwh"],
        ),
    ),
    EventType(
        "booking.canceled",
        "Meetings of a booking were called off, and what is given back of each. `session` is the booking's id.",
        {
            "reference": "order-124",
            "currency": "usd",
            "meetings": [{"session": SESSION_ID, "canceled_by": "client", "amount_refund": 9000}],
        },
    ),
    EventType(
        "receipt.sent",
        "A receipt was handed to the mail server for one side; or its correction after a refund, a lost dispute or a "
        "late payment: then `corrects` is the number of the document whose place it takes.",
        {
            "role": "client",
            "number": "C-2026-000042",
            "issued_at": CREATED + 1_803_000,
            "amount_total": 7500,
            "currency": "usd",
            "corrects": None,
        },
    ),
    EventType(
        "account.updated",
        "What an expert's Stripe account can do has changed, as Stripe itself shows it. Told of accounts that were "
        "asked about, that a paid session was created for, or that a transfer waits for.",
        {
            **_ACCOUNT,
            "exists": True,
            "country": "DE",
            "transfers": "inactive",
            "payouts_enabled": False,
            "disabled_reason": "requirements.past_due",
            "requirements_due": ["external_account"],
            "payout_schedule": {"interval": "weekly", "days": ["friday"], "own": False},
        },
        _ACCOUNT_STREAM,
    ),
    EventType(
        "payout.paid",
        "Stripe paid an expert's earnings out to the bank; `arrival_date` in seconds.",
        _payout("paid"),
        _ACCOUNT_STREAM,
    ),
    EventType(
        "payout.failed",
        "The bank refused a payout, perhaps after it counted as paid. The money is back on the Stripe account.",
        _payout("failed", "account_closed"),
        _ACCOUNT_STREAM,
    ),
)

# Names with a fixed meaning that nothing sends yet.
RESERVED: Final = (
    "session.ringing", "participant.left", "presence.changed", "invite.redeemed",
)  # fmt: skip

EVENT_TYPES: Final = frozenset({one.name for one in CATALOGUE} | set(RESERVED))


def as_markdown() -> str:
    """The catalogue as it stands in `docs/webhooks.md`."""
    parts = [
        f"### `{one.name}`\n\n{one.when}\n\n```json\n{json.dumps(one.example(), indent=2)}\n```" for one in CATALOGUE
    ]
    reserved = ", ".join(f"`{name}`" for name in RESERVED)
    return "\n\n".join([*parts, f"Reserved, not sent yet: {reserved}."])


if __name__ == "__main__":
    print(as_markdown())
