"""Examples for the documentation, made by the same code that serves: they cannot drift from what is answered."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from gateway import session as core
from gateway.api import bookings, people_routes, terms, views
from gateway.api.schemas import CreateSession, parse
from gateway.archive.people import kept_of
from gateway.archive.snapshot import Snapshot
from gateway.bookings import booking
from gateway.bookings.booking import BookingRecord, Status
from gateway.payees import routes as payees
from gateway.payees.earned import Earned, totals
from gateway.sessions import shown

NOW: Final = 1_795_291_200_000  # 2026-11-21T20:00:00.000Z
ID: Final = "ses_01k9m0h3f8q2v7x4r6s5t1w2y3"
BOOKING_ID: Final = "bkg_01k9m0h3f8q2v7x4r6s5t1w2y3"

CREATE: Final[dict[str, Any]] = {
    "reference": "order-123",
    "kind": "metered",
    "media": "video",
    "client": {
        "id": "c1",
        "name": "Client",
        "email": "client@example.com",
        "locale": "en",
        "stripe_customer": "cus_4f2k",
        "payment_method": "pm_card_visa",
    },
    "expert": {
        "id": "e1",
        "name": "Expert",
        "email": "expert@example.com",
        "locale": "de",
        "stripe_account": "acct_demo",
        "country": "DE",
        "rating": 4.6,
    },
    "ambassador": {"stripe_account": "acct_demo_ambassador", "share_bps": 2000},
    "rate": {"unit_amount": 300, "currency": "usd"},
    "free_minutes": 5,
    "max_minutes": 90,
    "ring": False,
}


@dataclass(frozen=True, slots=True)
class Records:
    """A session's records, as `context.Docs` wants them."""

    session: dict[str, Any]
    payment: dict[str, Any]
    people: dict[str, Any]
    receipts: dict[str, Any] | None = None
    pay_url: str | None = None


@dataclass(frozen=True, slots=True)
class Way:
    token: str
    url: str


def opened(*, now: int = NOW, order: dict[str, Any] = CREATE, id: str = ID, account: str = "acc_dev") -> Records:
    """The records right after creation, with the card held."""
    new = terms.order(parse(CreateSession, order), terms.Limits(), now=now)
    step = core.opened(
        new, id=id, account=account, livemode=False, now=now, cap_ms=5_400_000, expires_ms=24 * 3_600_000
    )
    people: dict[str, Any] = {
        role: {name: order[role].get(name) for name in ("name", "email", "locale", "timezone")} for role in core.ROLES
    }
    return Records(core.funded(step.record).record.to_dict(), _payment(step.record, now), people)


def _payment(record: core.SessionRecord, now: int) -> dict[str, Any]:
    return {
        "status": "held" if record.amount_max else "none",
        "currency": record.currency,
        "amount_held": record.amount_max,
        "amount_captured": 0,
        "amount_refunded": 0,
        "attempt": 1,
        "card": {"brand": "visa", "last4": "4242", "country": "US"},
        "hold_until": now + 6 * 24 * 3_600_000,
        "transfers": [],
        "settled": False,
    }


def finalized() -> Records:
    """The same after 30 minutes together, 5 of them free: 25 minutes at 3.00 are 75.00."""
    records = opened()
    start, finish = NOW + 60_000, NOW + 60_000 + 1_800_000
    bill = {
        "intervals": [[start, finish]],
        "union_ms": 1_800_000,
        "free_seconds_used": 300,
        "billable_ms": 1_500_000,
        "billable_seconds": 1500,
        "amount_metered": 7500,
        "amount_waived": 0,
        "waived_reason": None,
        "amount_total": 7500,
        "amount_expert": 6750,
        "amount_platform": 600,
        "amount_ambassador": 150,
        "currency": "usd",
    }
    record = core.SessionRecord.from_dict(records.session)
    record = replace(record, status="finalized", end_reason="client_left", started_at=start, ended_at=finish, bill=bill)
    payment = records.payment | {"status": "captured", "amount_captured": 7500, "settled": True}
    payment["transfers"] = [
        {"to": "expert", "account": "acct_demo", "amount": 6750, "currency": "usd", "status": "paid"},
        {"to": "ambassador", "account": "acct_demo_ambassador", "amount": 150, "currency": "usd", "status": "paid"},
    ]
    return replace(records, session=asdict(record), payment=payment)


def _created() -> dict[str, Any]:
    ways = {
        role: Way(f"eyJhbGciOiJIUzI1NiJ9.{role}.…", f"https://gateway.example/call#eyJ…{role}") for role in core.ROLES
    }
    return views.session(opened(), ways).model_dump(mode="json")


def _finalized() -> dict[str, Any]:
    return views.session(finalized()).model_dump(mode="json")


def _usage() -> dict[str, Any]:
    records = finalized()
    bill = records.session["bill"]
    (start, end), *_ = bill["intervals"]
    measured = {
        "rows": [{"epoch": 1, "number": 1, "start": start, "end": end}],
        "bill": bill,
        "arithmetic": "⌊max(0, 1800000 ms − 300000 ms free) ÷ 1000⌋ = 1500 s; round(300 × 1500 ÷ 60) = 7500; waived 0; "
        "total 7500 = expert 6750 + platform 600 + ambassador 150 usd",
    }
    return views.usage(records, measured).model_dump(mode="json")


def _event() -> dict[str, Any]:
    return {
        "id": "evt_01k9m0h3f9a8b7c6d5e4f3g2h1",
        "type": "session.created",
        "api_version": "2026-11-01",
        "created": NOW,
        "session": ID,
        "sequence": 1,
        "data": core.summary(core.SessionRecord.from_dict(opened().session)),
        "livemode": False,
    }


def _endpoint(secret: str | None = None) -> dict[str, Any]:
    return {
        "id": "whe_01k9m0h3f9a8b7c6d5e4f3g2h1",
        "object": "webhook_endpoint",
        "url": "https://marketplace.example/parley",
        "types": [],
        "enabled": True,
        "disabled_reason": None,
        "configured": False,
        "secret": secret,
    }


def _receipt(number: str) -> dict[str, Any]:
    issued = NOW + 1_890_000
    mail = {"status": "sent", "tries": 1, "sent_at": issued + 800, "error": None}
    return {"number": number, "secret": f"{number[0].lower()}9f3…", "issued_at": issued, "mail": mail}


def _entrance() -> dict[str, Any]:
    records = opened()
    record = core.SessionRecord.from_dict(records.session)
    return {
        "session": ID,
        "role": "client",
        "token": "eyJhbGciOiJIUzI1NiJ9.client.…",
        "signal": "wss://gateway.example/v1/signal",
        "status": "ready",
        "media": "video",
        "locale": "en",
        "you": {"name": "Client"},
        "peer": {"name": "Expert"},
        "pricing": shown.pricing(record, "client"),
        "payment": shown.payment_for(records.payment, "client"),
        "terms": shown.terms(record, records.payment, "client"),
        "expires_at": record.expires_at,
        "end": None,
    }


def _payability() -> dict[str, Any]:
    platform = payees.Platform(payees.MAIN, "US", "usd")
    weekly = payees.Schedule("weekly", ("friday",))
    account = payees.Account("acct_demo", True, NOW, "DE", "active", True, schedule=weekly)
    found = payees.answer(payees.route("DE", [platform]), "usd", account)
    return views.payability("e1", "DE", "usd", found, True, None).model_dump(mode="json")


def _earnings() -> dict[str, Any]:
    row = Earned(
        session=ID, reference="order-123", ended_at=NOW + 1_800_000, week="2026-W47", currency="usd",
        amount_share=6750, settlement_currency="usd", amount=6750, amount_offset=0, amount_reversed=0, amount_owed=0,
        amount_restored=0, status="paid", reason=None, stripe_id="tr_123", stripe_account="acct_demo", platform="main",
    )  # fmt: skip
    return views.earnings("e1", [row], False, totals([row])).model_dump(mode="json")


def _page(*items: dict[str, Any]) -> dict[str, Any]:
    return {"object": "list", "data": list(items), "has_more": False}


def _whole(*items: dict[str, Any]) -> dict[str, Any]:
    return {**_page(*items), "complete_since": None}


def _reaching(*items: dict[str, Any]) -> dict[str, Any]:
    return {**_page(*items), "complete_since": "2026-10-22T20:00:00.000Z"}


BOOK: Final[dict[str, Any]] = {
    "reference": "order-124",
    "client": CREATE["client"],
    "expert": CREATE["expert"],
    "rate": {"unit_amount": 300, "currency": "usd"},
    "minutes": 30,
    "meetings": [{"starts_at": "2026-11-28T15:00:00Z"}, {"starts_at": "2026-12-05T15:00:00Z"}],
}


@dataclass(frozen=True, slots=True)
class Booked:
    """A booking's records, as `context.Booked` wants them."""

    booking: BookingRecord
    payment: dict[str, Any]
    meetings: tuple[Records, ...]
    ways: dict[str, dict[core.Role, Way]]
    status: Status = "paid"
    pay_url: str | None = None


def booked(*, now: int = NOW, order: dict[str, Any] = BOOK, id: str = BOOKING_ID, account: str = "acc_dev") -> Booked:
    """The records right after the card was charged."""
    new = bookings.order(parse(bookings.CreateBooking, order), terms.Limits(), now=now)
    record, steps = booking.booked(new, id=id, account=account, livemode=False, now=now, cap_ms=5_400_000)
    payment = {"status": "captured", "currency": "usd", "amount_captured": record.fee, "amount_refunded": 0}
    card = {"attempt": 1, "card": {"brand": "visa", "last4": "4242", "country": "US"}}
    people: dict[str, Any] = {role: {"name": order[role]["name"], "email": order[role]["email"]} for role in core.ROLES}
    meetings = tuple(Records(core.funded(step.record).record.to_dict(), payment | card, people) for step in steps)
    ways: dict[str, dict[core.Role, Way]] = {
        step.record.id: {role: Way("", f"https://gateway.example/call#eyJ…{role}") for role in core.ROLES}
        for step in steps
    }
    total = record.fee * len(steps)
    return Booked(record, payment | card | {"amount_captured": total, "settled": True}, meetings, ways)


REQUESTS: Final[dict[str, dict[str, Any]]] = {
    "createBooking": BOOK,
    "payBookingWithAnotherCard": {"payment_method": "pm_card_mastercard"},
    "cancelBooking": {"meeting": 2, "by": "client"},
    "createSession": CREATE,
    "endSession": {"reason": "support request 42"},
    "createToken": {"role": "client"},
    "payWithAnotherCard": {"payment_method": "pm_card_mastercard"},
    "createRefund": {"amount": 2500, "reason": "The connection was poor", "charge_to": "shares"},
    "waiveFee": {},
    "resendEvent": {"endpoint": "whe_01k9m0h3f9a8b7c6d5e4f3g2h1"},
    "resendEventsSince": {"since": "2026-11-21T20:00:00Z"},
    "createWebhookEndpoint": {"url": "https://marketplace.example/parley", "types": []},
    "rotateWebhookSecret": {},
    "enableWebhookEndpoint": {},
    "enter": {"secret": "eyJhbGciOiJIUzI1NiJ9.entry.signature"},
}


_REFUND: Final[dict[str, Any]] = {
    "id": "ref_01k9m0h3f8q2v7x4r6s5t1w2y3", "amount": 2500, "reason": "The connection was poor", "charge_to": "shares",
}  # fmt: skip


def _export() -> dict[str, Any]:
    docs = finalized()
    records = {"session": (1, docs.session), "payment": (1, docs.payment), "people": (1, docs.people)}
    mine = people_routes.kept(kept_of(Snapshot(ID, records, (), {}, {}, {}), "client"))
    return {"id": "c1", "data": [mine.model_dump(mode="json")], "has_more": False}


def answers() -> dict[str, Any]:
    """By the name of the endpoint."""
    issued = {role: _receipt(number) for role, number in (("client", "C-2026-000042"), ("expert", "E-2026-000042"))}
    receipts = views.receipts(replace(finalized(), receipts=issued), "https://gateway.example")
    reserved = booked()
    told = bookings.booking(reserved).model_dump(mode="json")
    refunds = {reserved.booking.meetings[1]: reserved.booking.fee}
    return {
        "createBooking": told,
        "listBookings": _reaching(told),
        "getBooking": told,
        "payBookingWithAnotherCard": told,
        "cancelBooking": bookings.cancellation(reserved, refunds, "client", preview=True).model_dump(mode="json"),
        "deleteBooking": bookings.cancellation(reserved, refunds, "platform", preview=False).model_dump(mode="json"),
        "exportPerson": _export(),
        "erasePerson": {"id": "c1", "erased": True, "sessions": 12},
        "createSession": _created(),
        "listSessions": _reaching(_finalized()),
        "getSession": _finalized(),
        "endSession": _finalized(),
        "createToken": {
            "session": ID,
            "role": "client",
            "token": "eyJhbGciOiJIUzI1NiJ9.client.…",
            "url": "https://gateway.example/call#eyJ…client",
        },
        "getUsage": _usage(),
        "listReceipts": receipts.model_dump(mode="json"),
        "payWithAnotherCard": views.session(opened()).model_dump(mode="json"),
        "createRefund": views.refund(finalized(), _REFUND).model_dump(mode="json"),
        "waiveFee": views.session(opened()).model_dump(mode="json") | {"waived": True, "limit_seconds": 900},
        "getPayability": _payability(),
        "listEarnings": _earnings(),
        "listSessionEvents": _whole(_event()),
        "listEvents": _reaching(_event()),
        "resendEvent": {"deliveries": 1},
        "resendEventsSince": {"deliveries": 240},
        "listWebhookEndpoints": _page(_endpoint()),
        "createWebhookEndpoint": _endpoint("whsec_…"),
        "rotateWebhookSecret": _endpoint("whsec_…"),
        "enableWebhookEndpoint": _endpoint(),
        "deleteWebhookEndpoint": {"id": "whe_01k9m0h3f9a8b7c6d5e4f3g2h1", "deleted": True},
        "enter": _entrance(),
        "receiveStripeEvent": {"received": True},
    }
