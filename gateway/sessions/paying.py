"""The client's pay page: what it shows of a session, and a card tried for it. The card itself never comes here: the
page sends the id under which Stripe keeps it (5-money, People and cards; SAQ A)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from gateway.errors import Conflict, InvalidRequest
from gateway.sessions.sessions import PAID, Sessions
from gateway.sessions.shown import Docs

# Someone with a link could try out stolen cards with it; nobody honest has so many.
MOST_CARDS: Final = 20
LOST: Final = frozenset({None, "hold_lost", "superseded"})

State = Literal["due", "hold", "working", "confirm", "paid", "held", "nothing"]


class PayDesk:
    """Shell over the sessions. Each raises Unauthorized `link_invalid` or `link_expired`."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def open(self, secret: str) -> dict[str, Any]:
        """What the page shows now."""
        return asked(await self._sessions.read(self._sessions.doors.payer(secret)))

    async def pay(self, secret: str, payment_method: str, attempt: int) -> dict[str, Any]:
        """Try a card, unless another was tried after `attempt`; waits for its first word.

        Raises Conflict `payment_state`, `session_state`, `too_many_cards`, InvalidRequest `expert_not_payable`,
        StripeUnavailable."""
        docs = await self._sessions.read(self._sessions.doors.payer(secret))
        if attempt >= MOST_CARDS:
            raise Conflict("Too many cards were tried for this session.", code="too_many_cards")
        try:
            docs = await self._sessions.pay(docs.record.account, docs.record.id, payment_method, after=attempt)
        except InvalidRequest as error:  # why is the expert's own business
            raise InvalidRequest("The expert cannot be paid now; the card was not asked.", code=error.code) from error
        return asked(docs)


def asked(docs: Docs) -> dict[str, Any]:
    """What is asked of the client and how far it is; amounts in minor units. Nothing of the expert's but the name."""
    record, payment = docs.record, docs.payment
    bill = record.bill or {}
    over = not record.open
    receipt = (docs.receipts or {}).get("client")
    declined = payment.get("decline_code")
    return {
        "state": state_of(record.status, payment),
        "over": over,
        "amount": bill.get("amount_total", 0) if over else record.amount_max,
        "currency": record.currency,
        "platform": record.platform,
        "attempt": record.funding.attempt if record.funding else 0,
        "card": payment.get("card"),
        "decline_code": None if declined in LOST else declined,
        "action_url": payment.get("action_url"),
        "expert": docs.people["expert"]["name"] if docs.people.get("expert") else "",
        "media": record.media,
        "started_at": record.started_at,
        "locale": (docs.people.get("client") or {}).get("locale") or "en",
        "livemode": record.livemode,
        "receipt": f"/r/{receipt['secret']}" if receipt and receipt["number"] else None,
    }


def state_of(status: str, payment: Mapping[str, Any]) -> State:
    """Before the call a hold is asked for, after it a bill is. A bill that was declined is due again in a moment."""
    money, over = payment["status"], status in ("ended", "finalized")
    if money in PAID:
        return "paid"
    if money in ("action_required", "due"):
        return "confirm" if money == "action_required" else "due"
    if money == "held" and not over:
        return "held"
    if money in ("pending", "capturing", "held") or (money == "failed" and status == "finalized"):
        return "working"
    return "hold" if money == "failed" and not over else "nothing"
