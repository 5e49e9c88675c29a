"""The payment record of a session, and the two tables of what may follow what: payments, and steps toward Stripe.

    none   awaiting_join ─► pending ─► action_required ─► held ─► capturing ─► captured ⇄ partially, all refunded
                               │            │              │          │
                               └─► failed ◄─┴──────────────┤          ├─► due ─► pending   (another card is charged)
                                     │                     ▼          ▼
                                     └─► pending        released ◄─ held           (too small to charge)

    captured, partially_refunded, refunded ─► disputed ─► captured, partially_refunded, refunded   (won, or lost)

    step:  intent ─► sent ─► done | failed | unknown        unknown ─► done | failed | intent, after asking Stripe
           intent ─► unknown, when its key at Stripe has run out since it was sent

A step is persisted before its call goes out, with its idempotency key and exact parameters; what cannot be known is
`unknown` until Stripe was asked (2-architecture, Intent before action). Amounts are minor units, times wall ms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal

Status = Literal[
    "none", "awaiting_join", "pending", "action_required", "held", "failed", "capturing", "captured", "released", "due",
    "refunded", "partially_refunded", "disputed",
]  # fmt: skip
StepName = Literal[
    "hold", "release", "capture", "refund", "transfer_expert", "transfer_ambassador", "reversal_expert",
    "reversal_ambassador", "restore_expert", "restore_ambassador", "owe_expert", "owe_ambassador", "offset_expert",
    "offset_ambassador", "forgive_expert", "forgive_ambassador",
    "card", "check", "settlement", "disputes", "refunds", "lost", "share_out",
]  # fmt: skip
StepState = Literal["intent", "sent", "done", "failed", "unknown"]
TransferStatus = Literal["pending", "paid", "withheld", "reversed", "owed"]
Payee = Literal["expert", "ambassador"]
RefundStatus = Literal["ordered", "pending", "succeeded", "failed"]
ChargeTo = Literal["shares", "platform"]
DisputeStatus = Literal["open", "won", "lost"]

TRANSITIONS: Final[Mapping[Status, frozenset[Status]]] = MappingProxyType(
    {
        "none": frozenset({"captured"}),  # the charge of a booking whose meeting was over by then; it goes back
        "awaiting_join": frozenset({"pending", "none"}),
        "pending": frozenset({"held", "action_required", "failed", "none", "released", "captured", "due"}),
        "action_required": frozenset({"held", "failed", "pending", "released", "captured"}),
        "held": frozenset({"capturing", "released", "pending", "failed", "captured"}),
        "failed": frozenset({"pending", "held", "action_required", "due", "captured"}),
        "capturing": frozenset({"captured", "held", "due"}),
        "captured": frozenset({"refunded", "partially_refunded", "disputed"}),
        "released": frozenset(),
        "due": frozenset({"pending", "released"}),  # released: waived after all
        "partially_refunded": frozenset({"captured", "refunded", "disputed"}),  # back: the bank returned a refund
        "refunded": frozenset({"captured", "partially_refunded", "disputed"}),
        "disputed": frozenset({"captured", "partially_refunded", "refunded"}),
    }
)
# The charge was made, whatever came of it later.
PAID: Final[frozenset[Status]] = frozenset({"captured", "partially_refunded", "refunded", "disputed"})
FINAL: Final[frozenset[Status]] = PAID | {"none", "failed", "released", "due"}

STEP_TRANSITIONS: Final[Mapping[StepState, frozenset[StepState]]] = MappingProxyType(
    {
        "intent": frozenset({"sent", "failed", "unknown"}),
        "sent": frozenset({"done", "failed", "intent", "unknown"}),
        "unknown": frozenset({"done", "failed", "intent", "unknown"}),
        "done": frozenset(),
        "failed": frozenset(),
    }
)
READS: Final[frozenset[StepName]] = frozenset({"card", "check", "settlement", "disputes", "refunds", "lost"})
# Steps about the hold and the charge go one after the other; those about one payee keep apart by themselves.
SERIAL: Final[frozenset[StepName]] = frozenset({"hold", "release", "capture", "refund"})
OPEN_STEP: Final[frozenset[StepState]] = frozenset({"intent", "sent", "unknown"})
# A PaymentIntent in one of these holds no money and can come to hold none.
CLOSED_INTENT: Final = frozenset({"canceled", "succeeded", "missing"})


@dataclass(frozen=True, slots=True)
class Step:
    """One step toward Stripe. `params` are exactly what is sent; `at` is when it was first sent; `why` is ours."""

    step: StepName
    attempt: int
    key: str
    params: Mapping[str, Any]
    state: StepState = "intent"
    result: Mapping[str, Any] | None = None
    at: int = 0
    tries: int = 0
    not_before: int = 0
    why: str = ""

    @property
    def open(self) -> bool:
        return self.state in OPEN_STEP

    @property
    def spent(self) -> bool:
        """Whether its key can do no more at Stripe, so that it may have a successor with a new one."""
        return bool(self.result and self.result.get("spent"))

    def rests(self, now: int) -> bool:
        """Whether Stripe refused it, and its successor's time has not come yet."""
        return self.state == "failed" and self.not_before > now

    @property
    def reads(self) -> bool:
        """Whether it only asks; such a step moves no money and is not kept."""
        return self.step in READS

    def to(self, state: StepState, **changes: Any) -> Step:
        assert state in STEP_TRANSITIONS[self.state], f"step {self.step}: {self.state} to {state}"
        return replace(self, state=state, **changes)


@dataclass(frozen=True, slots=True)
class Transfer:
    """A payee's part: `amount` in the settlement `currency`, `amount_share` in the session's. Of it `amount_offset`
    was kept back for what the payee owed from before, `amount_reversed` was taken back after a refund or a lost
    dispute, and `amount_owed` should have been, but for want of balance; `amount_restored` was given later, when the
    bank returned such a refund."""

    to: Payee
    account: str | None
    amount: int
    currency: str
    amount_share: int
    status: TransferStatus = "pending"
    stripe_id: str | None = None
    reason: str | None = None
    amount_offset: int = 0
    amount_reversed: int = 0
    amount_owed: int = 0
    amount_restored: int = 0

    @property
    def kept(self) -> int:
        """What the payee has of it, or is going to have."""
        return self.amount - self.amount_reversed - self.amount_owed + self.amount_restored

    @property
    def given(self) -> bool:
        """Whether the payee has got it, whatever became of it later."""
        changed = self.amount_reversed or self.amount_owed or self.amount_restored
        return self.status in ("paid", "reversed", "owed") or bool(self.stripe_id or changed)


@dataclass(frozen=True, slots=True)
class Refund:
    """One refund of the charge, in the session's currency. `number` is its order's; 0 is a lost dispute, which takes
    the money back in the same way; -1 is what the terms of a booking give back; -2 was made at Stripe itself; -3 is of
    an order that was lost with Redis. `ordered` is not at Stripe yet, `pending` is Stripe's own word."""

    number: int
    id: str
    amount: int
    reason: str | None = None
    charge_to: ChargeTo = "shares"
    status: RefundStatus = "ordered"
    stripe_id: str | None = None
    failure: str | None = None

    @property
    def counts(self) -> bool:
        return self.status in ("pending", "succeeded")


@dataclass(frozen=True, slots=True)
class Dispute:
    """The latest case of the cardholder against the charge."""

    id: str
    amount: int
    status: DisputeStatus
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """What Stripe credited for the charge: gross and fee in the settlement currency; the rate as Stripe wrote it."""

    currency: str
    amount: int
    fee: int
    exchange_rate: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a booking's charge this is: the `number`th of `count` equal ones."""

    number: int
    count: int

    def of(self, amount: int) -> int:
        """Its part of what is not divisible by itself; all parts of an amount sum to it."""
        return amount * self.number // self.count - amount * (self.number - 1) // self.count


@dataclass(frozen=True, slots=True)
class Reads:
    """When Stripe was last asked about this payment without need of a step, and which nudge that answered; of those
    about disputes, refunds, the payees' accounts and lost steps, how many were answered."""

    seen: int = 0
    disputes: int = 0
    refunds: int = 0
    accounts: int = 0
    lost: int = 0
    tries: int = 0
    not_before: int = 0


@dataclass(frozen=True, slots=True)
class Payment:
    """The `payment` document. `amount_held` stays as the figure of the last hold after it is used or released;
    `client_secret` is for the client's role only."""

    status: Status
    currency: str
    amount_held: int = 0
    amount_captured: int = 0
    amount_refunded: int = 0
    amount_total: int | None = None
    amount_waived: int = 0
    attempt: int = 0
    payment_intent: str | None = None
    charge: str | None = None
    card: Mapping[str, Any] | None = None
    hold_until: int | None = None
    alarmed: int = 0
    client_secret: str | None = None
    action_url: str | None = None
    decline_code: str | None = None
    transfers: tuple[Transfer, ...] = ()
    refunds: tuple[Refund, ...] = ()
    dispute: Dispute | None = None
    settlement: Settlement | None = None
    settled: bool = False
    steps: tuple[Step, ...] = ()
    reads: Reads = field(default_factory=Reads)
    part: Part | None = None
    schema: int = 1

    def to(self, status: Status, **changes: Any) -> Payment:
        allowed = status == self.status or status in TRANSITIONS[self.status]
        assert allowed, f"payment: {self.status} to {status}"
        return replace(self, status=status, **changes)

    def find(self, step: str, attempt: int) -> Step | None:
        return next((s for s in self.steps if s.step == step and s.attempt == attempt), None)

    def latest(self, step: str) -> Step | None:
        return next((s for s in reversed(self.steps) if s.step == step), None)

    def rests(self, step: str, now: int) -> bool:
        """Whether the latest step of that name was refused and waits for its next try."""
        latest = self.latest(step)
        return latest is not None and latest.rests(now)

    def attempts(self, step: str) -> int:
        """The number of its latest attempt. Those before may be lost: the next one's key must be beyond all."""
        return max((s.attempt for s in self.steps if s.step == step), default=0)

    def hold_of(self, intent: str) -> Step:
        """The hold that made a PaymentIntent."""
        return next(s for s in self.steps if s.step == "hold" and s.result is not None and s.result.get("id") == intent)

    def with_step(self, step: Step) -> Payment:
        """The record with `step` in the place of the one of the same name and attempt, or at the end."""
        if self.find(step.step, step.attempt) is None:
            return replace(self, steps=(*self.steps, step))
        same = (step.step, step.attempt)
        return replace(self, steps=tuple(step if (s.step, s.attempt) == same else s for s in self.steps))

    def with_transfer(self, transfer: Transfer) -> Payment:
        return replace(self, transfers=tuple(transfer if t.to == transfer.to else t for t in self.transfers))

    def transfer_to(self, payee: str) -> Transfer:
        return next(t for t in self.transfers if t.to == payee)

    def with_refund(self, refund: Refund) -> Payment:
        """The record with `refund` in the place of the one with its id, or at the end."""
        if all(r.id != refund.id for r in self.refunds):
            return replace(self, refunds=(*self.refunds, refund))
        return replace(self, refunds=tuple(refund if r.id == refund.id else r for r in self.refunds))

    @property
    def open_steps(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.open)

    @property
    def live_intents(self) -> tuple[tuple[int, str], ...]:
        """Attempt and id of each PaymentIntent that holds money, or still could: at most one may be wanted."""
        seen = [(s.attempt, s.result) for s in self.steps if s.step == "hold" and s.result is not None]
        return tuple((n, r["id"]) for n, r in seen if r.get("id") and r.get("status") not in CLOSED_INTENT)

    def to_dict(self) -> dict[str, Any]:
        """The document. It shares the parameters' mappings with the record, which nobody changes."""
        return _fields(self) | {
            "transfers": [_fields(transfer) for transfer in self.transfers],
            "refunds": [_fields(refund) for refund in self.refunds],
            "dispute": None if self.dispute is None else _fields(self.dispute),
            "settlement": None if self.settlement is None else _fields(self.settlement),
            "steps": [_fields(step) for step in self.steps],
            "reads": _fields(self.reads),
            "part": None if self.part is None else _fields(self.part),
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Payment:
        settlement, dispute, part = body.get("settlement"), body.get("dispute"), body.get("part")
        return cls(
            **{
                **body,
                "transfers": tuple(Transfer(**transfer) for transfer in body.get("transfers", ())),
                "refunds": tuple(Refund(**refund) for refund in body.get("refunds", ())),
                "dispute": None if dispute is None else Dispute(**dispute),
                "settlement": None if settlement is None else Settlement(**settlement),
                "steps": tuple(Step(**step) for step in body.get("steps", ())),
                "reads": Reads(**body.get("reads", {})),
                "part": None if part is None else Part(**part),
            }
        )


@dataclass(frozen=True, slots=True)
class Notice:
    """An event to tell the marketplace of: its type, and public fields only."""

    type: str
    data: dict[str, Any]


def public(payment: Payment) -> dict[str, Any]:
    """What events may say of a payment: no steps, and neither the client secret nor the bank's link, which holds it."""
    names = (
        "status", "currency", "amount_held", "amount_captured", "amount_refunded", "amount_total", "amount_waived",
        "attempt", "payment_intent", "card", "hold_until", "decline_code",
    )  # fmt: skip
    return {name: getattr(payment, name) for name in names}


def told(kind: str, payment: Payment) -> Notice:
    return Notice(f"payment.{kind}", public(payment))


def told_transfer(kind: str, transfer: Transfer) -> Notice:
    return Notice(f"transfer.{kind}", _fields(transfer))


def told_refund(payment: Payment, refund: Refund) -> Notice:
    return Notice("payment.refunded", public(payment) | {"refund": _fields(refund)})


def told_dispute(payment: Payment, dispute: Dispute) -> Notice:
    return Notice("payment.disputed", public(payment) | {"dispute": _fields(dispute)})


def _fields(record: Payment | Step | Transfer | Refund | Dispute | Settlement | Reads | Part) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}
