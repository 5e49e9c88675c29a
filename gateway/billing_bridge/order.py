"""What a session's record says about money, read once and typed: the order that the bridge carries out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.money import Shares, split


@dataclass(frozen=True, slots=True)
class Billed:
    """The frozen bill's money: what is charged, how it is shared, and what was let off."""

    shares: Shares
    waived: int

    @property
    def total(self) -> int:
        return self.shares.total


@dataclass(frozen=True, slots=True)
class Order:
    """Amounts in minor units of `currency`. `attempt` 0 means that there is no money to hold at all."""

    session: str
    currency: str
    status: str
    started: bool
    waived: bool
    wanted_now: bool
    attempt: int
    amount: int
    payment_method: str | None
    customer: str | None
    commission_bps: int
    expert_account: str | None
    ambassador_account: str | None
    ambassador_bps: int
    bill: Billed | None

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
    def can_hold(self) -> bool:
        """A card is named and its time has come: at once, or with `hold: "join"` when the client has joined."""
        return self.priced and self.payment_method is not None and self.wanted_now and not self.over and not self.waived

    def shares_of(self, captured: int) -> Shares:
        """The parts of what was really captured: the bill's own, unless Stripe took another amount."""
        if self.bill is not None and self.bill.total == captured:
            return self.bill.shares
        return split(captured, self.commission_bps, self.ambassador_bps)


def order_of(session: Mapping[str, Any]) -> Order:
    """Read the `session` document."""
    funding = session.get("funding") or {}
    ambassador = session.get("ambassador") or {}
    joined = session.get("joined") or {}
    return Order(
        session=session["id"],
        currency=session["currency"],
        status=session["status"],
        started=session.get("started_at") is not None,
        waived=bool(session.get("waived")),
        wanted_now=session.get("hold", "now") == "now" or joined.get("client") is not None,
        attempt=int(funding.get("attempt") or 0),
        amount=int(funding.get("amount") or 0),
        payment_method=funding.get("payment_method"),
        customer=session["client"].get("stripe_customer"),
        commission_bps=int(session["commission_bps"]),
        expert_account=session["expert"].get("stripe_account"),
        ambassador_account=ambassador.get("stripe_account"),
        ambassador_bps=int(ambassador.get("share_bps") or 0),
        bill=_billed(session.get("bill")),
    )


def _billed(bill: Mapping[str, Any] | None) -> Billed | None:
    if bill is None:
        return None
    parts = (bill["amount_expert"], bill["amount_platform"], bill["amount_ambassador"])
    return Billed(Shares(bill["amount_total"], *parts), bill["amount_waived"])
