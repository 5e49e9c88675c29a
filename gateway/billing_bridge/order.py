"""What a session's record says about money, read once and typed: the order that the bridge carries out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gateway.money import Shares, split
from gateway.payees.routes import MAIN


@dataclass(frozen=True, slots=True)
class Billed:
    """The frozen bill's money: what is charged, how it is shared, and what was let off."""

    shares: Shares
    waived: int

    @property
    def total(self) -> int:
        return self.shares.total


@dataclass(frozen=True, slots=True)
class RefundOrder:
    """One refund as it was ordered; `number` counts them from 1, `amount` is in the session's currency."""

    number: int
    id: str
    amount: int
    reason: str
    charge_to: Literal["shares", "platform"]


@dataclass(frozen=True, slots=True)
class News:
    """How many events of Stripe told of disputes, refunds and the payees' accounts: counts, for they only nudge.
    `lost`: how often the session came back as an older record, so that Stripe may know of steps that we have not."""

    disputes: int = 0
    refunds: int = 0
    accounts: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Order:
    """Amounts in minor units of `currency`. `attempt` 0 means that there is no money to hold at all."""

    session: str
    currency: str
    status: str
    waived: bool
    wanted_now: bool
    attempt: int
    amount: int
    payment_method: str | None
    recharge: bool
    customer: str | None
    commission_bps: int
    expert_account: str | None
    ambassador_account: str | None
    ambassador_bps: int
    bill: Billed | None
    refunds: tuple[RefundOrder, ...]
    news: News
    debts: Mapping[str, int]
    # A booking: one charge for all of its meetings, taken at once; and one of its meetings, paid by a part of that.
    booking: bool = False
    booked: bool = False
    group: str = ""
    meetings: tuple[str, ...] = ()
    platform: str = MAIN

    @property
    def over(self) -> bool:
        return self.status in ("ended", "finalized")

    @property
    def finalized(self) -> bool:
        return self.status == "finalized" and self.bill is not None

    @property
    def priced(self) -> bool:
        return self.attempt > 0 and self.amount > 0

    @property
    def unpaid(self) -> bool:
        """There is no price, or no longer one."""
        return self.attempt == 0 and not self.booked

    @property
    def can_hold(self) -> bool:
        """A card is named and its time has come: at once, or with `hold: "join"` when the client has joined and
        agreed to the price."""
        if self.recharged:
            return not self.waived
        return self.priced and self.payment_method is not None and self.wanted_now and not self.over and not self.waived

    @property
    def recharged(self) -> bool:
        """The bill is due, and its client named a card to pay it with: charged at once, not held."""
        return self.finalized and self.recharge and self.payment_method is not None

    def shares_of(self, total: int) -> Shares:
        """The parts of what was really captured, or is left of it: the bill's own, unless it is another amount."""
        if self.bill is not None and self.bill.total == total:
            return self.bill.shares
        return split(total, self.commission_bps, self.ambassador_bps)


def order_of(session: Mapping[str, Any]) -> Order:
    """Read the `session` document, and what the bridge lays beside it: `refunds` (the orders), `news`, and `debts`
    (what each payee's account owes, in the currency in which the charge was settled). A booking's is read as a bill
    that is due at once."""
    booking, meeting = session["kind"] == "booking", session.get("meeting") or {}
    funding = session.get("funding") or {}
    ambassador = session.get("ambassador") or {}
    return Order(
        session=session["id"],
        currency=session["currency"],
        status="finalized" if booking else session["status"],
        waived=bool(session.get("waived") or session.get("waived_after") or session.get("canceled")),
        wanted_now=session.get("hold", "now") == "now" or session.get("consent") is not None,
        attempt=int(funding.get("attempt") or 0),
        amount=int(funding.get("amount") or 0),
        payment_method=funding.get("payment_method"),
        recharge=bool(funding.get("recharge")),
        customer=session["client"].get("stripe_customer"),
        commission_bps=int(session["commission_bps"]),
        expert_account=session["expert"].get("stripe_account"),
        ambassador_account=ambassador.get("stripe_account"),
        ambassador_bps=int(ambassador.get("share_bps") or 0),
        bill=_fee(session) if booking else _billed(session.get("bill")),
        refunds=tuple(_refund(order) for order in session.get("refunds") or ()),
        news=News(**(session.get("news") or {})),
        debts=session.get("debts") or {},
        booking=booking,
        booked=bool(meeting),
        group=meeting.get("booking") or session["id"],
        meetings=tuple(session["meetings"]) if booking else (),
        platform=session.get("platform") or MAIN,
    )


def _refund(order: Mapping[str, Any]) -> RefundOrder:
    return RefundOrder(order["number"], order["id"], order["amount"], order["reason"], order["charge_to"])


def _fee(booking: Mapping[str, Any]) -> Billed:
    """The whole charge; who gets what of it is each meeting's own matter."""
    total = int(booking["funding"]["amount"])
    return Billed(Shares(total, 0, total, 0), 0)


def _billed(bill: Mapping[str, Any] | None) -> Billed | None:
    if bill is None:
        return None
    parts = (bill["amount_expert"], bill["amount_platform"], bill["amount_ambassador"])
    return Billed(Shares(bill["amount_total"], *parts), bill["amount_waived"])
