"""The receipt of one side of a session: when it is due, and every figure that it states.

Pure: takes the frozen bill, the payment and people, and gives figures; words and formats are `rendering`'s.
Contents: R7, 5-money (The bill, People and cards). Money in minor units, times in wall ms, durations in ms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal

from gateway.errors import Bug
from gateway.money import minor_units, settled_share, split

Role = Literal["client", "expert"]
ROLES: Final[tuple[Role, Role]] = ("client", "expert")

# `payment`: a bill that was due has been paid; `due`: the call to pay it, which has no number.
Kind = Literal["receipt", "correction", "payment", "due"]
Readiness = Literal["send", "wait", "never"]
Outcome = Literal[
    "paid", "due", "partly_refunded", "refunded", "disputed", "waived", "below_minimum", "within_free", "free"
]
LineKind = Literal[
    "together", "free", "billable", "booked", "waived", "given_back", "total", "commission", "net",
    "charged", "refunded", "paid", "remaining", "stated", "difference",
]  # fmt: skip
SpanKind = Literal["free", "billed", "interrupted"]

# A payment in one of these may still change what the receipt would say.
_OPEN_PAYMENTS: Final = frozenset({"awaiting_join", "pending", "action_required", "held", "capturing"})
_OPEN_STEPS: Final = frozenset({"intent", "sent", "unknown"})
# Transfers are not waited for: one may be withheld for weeks, and the receipt is about the session.
_AWAITED_STEPS: Final = frozenset({"hold", "capture", "release"})
# The expert's receipt states what Stripe settled; it is known moments after the capture, and not worth more waiting.
_PATIENCE_MS: Final = 10 * 60_000

_REFUNDED: Final[Mapping[str, Outcome]] = {
    "partially_refunded": "partly_refunded",
    "refunded": "refunded",
    "disputed": "disputed",
    "due": "due",
    "failed": "due",
}
# Control characters would break headers and text mails; directional overrides would let a name rewrite its line.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")
_NAME_LENGTH: Final = 80


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who issues the receipts. `id` names the issuer in the series of numbers and must not change with the name."""

    name: str
    id: str = "default"
    address: tuple[str, ...] = ()
    tax_id: str = ""
    support: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the arithmetic; `amount` is signed, None where the line is about time alone. `why` and `at`
    (wall ms, where it is known): of a refund."""

    kind: LineKind
    amount: int | None
    seconds: int | None = None
    unit_amount: int | None = None
    bps: int | None = None
    why: str = ""
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the session: connected (within the free part, or billed) or interrupted."""

    kind: SpanKind
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Card:
    brand: str
    last4: str


@dataclass(frozen=True, slots=True)
class CardMoney:
    """The client's side of the money: held on the card, charged, given back."""

    card: Card | None
    held: int
    charged: int
    released: int
    refunded: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """The expert's share in the currency in which Stripe transfers it; `rate` = that currency per session currency."""

    currency: str
    amount: int
    rate: Decimal


@dataclass(frozen=True, slots=True)
class Week:
    """An ISO week, Monday to Sunday, UTC."""

    year: int
    number: int
    first: date
    last: date


@dataclass(frozen=True, slots=True)
class Unheld:
    """A booked meeting that never began: for when it was appointed, when and why it was over (`reason` is the session's
    end reason) and who called it off. Of its `fee` the terms of the booking give `back` so much; None where something
    else decided."""

    appointed: int | None
    over_at: int
    reason: str
    by: str | None
    fee: int
    back: int | None


@dataclass(frozen=True, slots=True)
class Earnings:
    """The expert's side of the money. `transfer` is the transfer's status, None while there is none. In the settlement
    currency, `taken_back` of it was reversed since and `kept_back` is taken from the next transfers."""

    transfer: str | None
    settlement: Settlement | None
    payout: Week | None
    currency: str = ""
    taken_back: int = 0
    kept_back: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """All that one side's receipt states. It never holds the other side's e-mail, address or account (law 7).

    `corrects` is the number of the document that this one takes the place of, `corrected_by` those that came after;
    `latest` opens the page of the last of these."""

    role: Role
    number: str
    issued_at: int
    issuer: Issuer
    link: str
    livemode: bool
    locale: str
    timezone: str | None
    client_name: str
    expert_name: str
    session: str
    reference: str | None
    media: str
    started_at: int
    ended_at: int
    duration_ms: int
    free_seconds: int
    billable_seconds: int
    unit_amount: int
    currency: str
    outcome: Outcome
    amount_total: int
    amount_waived: int
    lines: tuple[Line, ...]
    timeline: tuple[Span, ...]
    payment: CardMoney | None
    earnings: Earnings | None
    kind: Kind = "receipt"
    corrects: str = ""
    corrected_by: tuple[str, ...] = ()
    latest: str = ""
    unheld: Unheld | None = None

    @property
    def interruptions(self) -> int:
        return sum(1 for span in self.timeline if span.kind == "interrupted")

    @property
    def peer_name(self) -> str:
        return self.expert_name if self.role == "client" else self.client_name


def readiness(session: Mapping[str, Any] | None, payment: Mapping[str, Any] | None, now: int) -> Readiness:
    """Whether receipts go out now, later or not at all: none for a session that nobody met in and nobody paid for."""
    if session is None:
        return "never"
    if session["status"] != "finalized" or session.get("bill") is None:
        return "wait"
    money = payment or {"status": "none"}
    if money["status"] in _OPEN_PAYMENTS or _steps_open(money.get("steps", ())):
        return "wait"
    if money["status"] == "captured" and money.get("settlement") is None and now < _ended(session) + _PATIENCE_MS:
        return "wait"
    if _to_go_back(session, money) and now < _ended(session) + _PATIENCE_MS:
        return "wait"
    met = session.get("started_at") is not None or session["bill"]["started_at"] is not None
    return "send" if met or money.get("amount_captured", 0) > 0 else "never"


def _to_go_back(session: Mapping[str, Any], payment: Mapping[str, Any]) -> bool:
    """Whether a refund by the terms of a booking is on its way: the receipt is to state it."""
    if not session.get("meeting") or any(refund["status"] == "failed" for refund in payment.get("refunds", ())):
        return False
    left = payment.get("amount_captured", 0) - payment.get("amount_refunded", 0)
    return bool(left > session["bill"]["amount_total"])


def _ended(session: Mapping[str, Any]) -> int:
    return int(session["bill"]["ended_at"] or session.get("ended_at") or session["created"])


def _steps_open(steps: Sequence[Mapping[str, Any]]) -> bool:
    return any(step["step"] in _AWAITED_STEPS and step["state"] in _OPEN_STEPS for step in steps)


def compose(
    session: Mapping[str, Any],
    payment: Mapping[str, Any] | None,
    people: Mapping[str, Any] | None,
    role: Role,
    number: str,
    issuer: Issuer,
    issued_at: int,
    link: str,
) -> Receipt:
    """The receipt of `role` from the docs of a finalized session. Raises Bug when there is no bill yet."""
    if session.get("bill") is None:
        raise Bug("a receipt needs the frozen bill")
    money = payment or {"status": "none"}
    bill = charged(session["bill"], money, session["commission_bps"])
    started_at, ended_at = _bounds(session, bill)
    outcome = _outcome(session, bill, money)
    reader = (people or {}).get(role) or {}
    return Receipt(
        role=role,
        number=number,
        issued_at=issued_at,
        issuer=issuer,
        link=link,
        livemode=bool(session.get("livemode", False)),
        locale=reader.get("locale") or "en",
        timezone=reader.get("timezone"),
        client_name=display_name(people, "client"),
        expert_name=display_name(people, "expert"),
        session=session["id"],
        reference=plain(session.get("reference")) or None,
        media=session.get("media", "video"),
        started_at=started_at,
        ended_at=ended_at,
        duration_ms=bill["union_ms"],
        free_seconds=bill["free_seconds_used"],
        billable_seconds=bill["billable_seconds"],
        unit_amount=session["unit_amount"],
        currency=bill["currency"],
        outcome=outcome,
        amount_total=bill["amount_total"],
        amount_waived=bill["amount_waived"],
        lines=_lines(session, bill, role),
        timeline=timeline(bill["intervals"], ended_at, session["free_ms"], bill["amount_total"] > 0),
        payment=_card_money(money) if role == "client" else None,
        earnings=_earnings(bill, money, _ended(session), outcome) if role == "expert" else None,
        unheld=_unheld(session, bill),
    )


def display_name(people: Mapping[str, Any] | None, role: Role) -> str:
    """The name as it may be shown to the other side; empty when that person's record was erased (R22)."""
    return plain(((people or {}).get(role) or {}).get("name"))


def plain(text: object) -> str:
    """One printable line out of text that a stranger chose."""
    return " ".join(_UNPRINTABLE.sub(" ", str(text or "")).split())[:_NAME_LENGTH]


def _bounds(session: Mapping[str, Any], bill: Mapping[str, Any]) -> tuple[int, int]:
    """Start and end; of a meeting that was not held, its appointment."""
    ended_at, appointed = _ended(session), (session.get("meeting") or {}).get("starts_at")
    if appointed is not None and session.get("started_at") is None:
        return appointed, appointed
    return bill["started_at"] or session.get("started_at") or ended_at, ended_at


def _unheld(session: Mapping[str, Any], bill: Mapping[str, Any]) -> Unheld | None:
    meeting, let_off = session.get("meeting"), bill["amount_waived"]
    if not meeting or session.get("started_at") is not None or bill["started_at"] is not None:
        return None
    by_terms = not let_off or bill.get("waived_reason") == "policy"
    return Unheld(
        appointed=meeting.get("starts_at"),
        over_at=session.get("ended_at") or _ended(session),
        reason=session.get("end_reason") or "",
        by=meeting.get("canceled_by"),
        fee=bill["amount_metered"],
        back=let_off if by_terms else None,
    )


def charged(bill: Mapping[str, Any], payment: Mapping[str, Any], commission_bps: int) -> Mapping[str, Any]:
    """The bill as it was charged: the frozen one, unless the bridge had to let something off afterwards (waived before
    the capture was sent, refused by Stripe as too small, or beyond what was held)."""
    total = payment.get("amount_total")
    if total is None or total >= bill["amount_total"]:
        return bill
    waived = bill["amount_metered"] - total
    return {
        **bill,
        "amount_total": total,
        "amount_waived": waived,
        "amount_expert": split(total, commission_bps).expert,
    }


def _outcome(session: Mapping[str, Any], bill: Mapping[str, Any], payment: Mapping[str, Any]) -> Outcome:
    if bill["amount_total"] > 0:
        return _REFUNDED.get(payment["status"], "paid")
    if session.get("meeting") and payment.get("amount_captured"):
        return "refunded"
    if bill.get("waived_reason") == "below_minimum":
        return "below_minimum"
    let_off = session.get("waived") or session.get("waived_after") or session.get("kind") == "pro_bono"
    if bill.get("waived_reason") == "waived" or let_off:
        return "waived"
    if bill["amount_waived"]:
        return "below_minimum"
    if session.get("kind") == "free" or session["unit_amount"] == 0:
        return "free"
    return "within_free"


def _lines(session: Mapping[str, Any], bill: Mapping[str, Any], role: Role) -> tuple[Line, ...]:
    """The arithmetic from time to money: what a reader can recompute with a pencil."""
    lines = [] if _unheld(session, bill) else [Line("together", None, seconds=bill["union_ms"] // 1000)]
    if session.get("kind") == "booked":
        lines.append(Line("booked", bill["amount_metered"], session["limit_ms"] // 1000, session["unit_amount"]))
    else:
        if bill["free_seconds_used"] and bill["amount_metered"]:
            lines.append(Line("free", None, seconds=bill["free_seconds_used"]))
        if session["unit_amount"] and session.get("kind") not in ("pro_bono", "free"):
            lines.append(Line("billable", bill["amount_metered"], bill["billable_seconds"], session["unit_amount"]))
    if bill["amount_waived"]:
        kind: LineKind = "given_back" if bill.get("waived_reason") == "policy" else "waived"
        lines.append(Line(kind, -bill["amount_waived"]))
    lines.append(Line("total", bill["amount_total"]))
    if role == "expert" and bill["amount_total"]:
        # The ambassador's part comes out of the commission and is no business of the expert's.
        commission = bill["amount_total"] - bill["amount_expert"]
        lines.append(Line("commission", -commission, bps=session["commission_bps"]))
        lines.append(Line("net", bill["amount_expert"]))
    return tuple(lines)


def timeline(intervals: Sequence[Sequence[int]], ended_at: int, free_ms: int, charged: bool) -> tuple[Span, ...]:
    """Connected and interrupted spans in order; connected ones are cut where the free part ends, which is the first
    `free_ms` of the time together. Of a session that costs nothing every connected span is free."""
    spans: list[Span] = []
    left = free_ms if charged else 1 << 62
    for start, end in intervals:
        if spans and start > spans[-1].end:
            spans.append(Span("interrupted", spans[-1].end, start))
        cut = min(end, start + left)
        left -= cut - start
        spans += [Span("free", start, cut)] if cut > start else []
        spans += [Span("billed", cut, end)] if end > cut else []
    if spans and ended_at > spans[-1].end:
        spans.append(Span("interrupted", spans[-1].end, ended_at))
    return tuple(spans)


def _card_money(payment: Mapping[str, Any]) -> CardMoney | None:
    held, charged = payment.get("amount_held") or 0, payment.get("amount_captured") or 0
    card = payment.get("card")
    if not held and not charged:
        return None
    return CardMoney(
        card=Card(str(card["brand"]), str(card["last4"])) if card else None,
        held=held,
        charged=charged,
        released=max(0, held - charged),
        refunded=payment.get("amount_refunded") or 0,
    )


def _earnings(bill: Mapping[str, Any], payment: Mapping[str, Any], ended_at: int, outcome: Outcome) -> Earnings | None:
    if bill["amount_expert"] <= 0:
        return None
    transfer = next((t for t in payment.get("transfers") or () if t["to"] == "expert"), None)
    return Earnings(
        transfer=transfer["status"] if transfer else None,
        settlement=_settlement(bill, payment, transfer),
        payout=iso_week(ended_at) if outcome in ("paid", "partly_refunded") else None,
        currency=transfer["currency"] if transfer else bill["currency"],
    )


def _settlement(
    bill: Mapping[str, Any], payment: Mapping[str, Any], transfer: Mapping[str, Any] | None
) -> Settlement | None:
    found = foreign(bill["currency"], bill["amount_expert"], bill["amount_total"], payment.get("settlement"))
    if found and transfer and transfer["currency"] == found.currency:
        return replace(found, amount=transfer["amount"])
    return found


def foreign(currency: str, share: int, total: int, settled: Mapping[str, Any] | None) -> Settlement | None:
    """A share of a total with the rate, when Stripe settled in another currency than the session's (5-money)."""
    if not settled or settled["currency"] == currency or total <= 0:
        return None
    units = Decimal(minor_units(currency)) / minor_units(settled["currency"])
    rate = settled.get("exchange_rate") or Decimal(settled["amount"]) / Decimal(total) * units
    return Settlement(settled["currency"], settled_share(settled["amount"], share, total), Decimal(str(rate)))


def iso_week(wall_ms: int) -> Week:
    """The week (Monday to Sunday, UTC) in whose payout a session ended at `wall_ms` is counted (R18)."""
    day = datetime.fromtimestamp(wall_ms // 1000, UTC).date()
    year, number, weekday = day.isocalendar()
    first = day - timedelta(days=weekday - 1)
    return Week(year, number, first, first + timedelta(days=6))
