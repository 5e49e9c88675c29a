"""The record of a connected account: how Stripe last showed it, its payout schedule and its payouts. Pure.

It is a stream of its own in the journal, so its events are numbered apart from any session's. Whoever wants to know
raises `asked`; the bridge asks Stripe and puts `answered` beside it. Stripe's events are such a wish too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from gateway.payees.routes import MAIN, Account, Schedule

DOC: Final = "account"
QUEUE: Final = "account"
# Experts whose sessions named the account, latest first; more than these share no account.
EXPERTS: Final = 8
# Payouts that are remembered, so that each state of one is told once.
PAYOUTS: Final = 50


@dataclass(frozen=True, slots=True)
class Connected:
    """`account` is the marketplace's, `id` Stripe's. `set_at`, `attempt` and `refused` are about setting the payout
    schedule; `freed_at` is when transfers that waited were last tried again; `open` are payouts that an event told of,
    `told` the state in which each was passed on."""

    id: str
    account: str
    livemode: bool
    platform: str = MAIN
    experts: tuple[str, ...] = ()
    asked: int = 1
    answered: int = 0
    tries: int = 0
    seen: Account | None = None
    set_at: int = 0
    attempt: int = 0
    refused: str | None = None
    freed_at: int = 0
    open: tuple[str, ...] = ()
    told: Mapping[str, str] = field(default_factory=dict)
    schema: int = 1

    @property
    def stream(self) -> str:
        return stream_of(self.account, self.livemode, self.platform, self.id)

    @property
    def waiting(self) -> bool:
        """Whether somebody wants to know more than was answered."""
        return self.asked > self.answered

    def knows(self, expert: str) -> bool:
        """Whether there is nothing to add for the expert."""
        return expert in self.experts or len(self.experts) >= EXPERTS

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Connected:
        seen = body.get("seen")
        return cls(
            **{
                **body,
                "experts": tuple(body["experts"]),
                "open": tuple(body["open"]),
                "seen": None if seen is None else _account(seen),
            }
        )


def _account(body: Mapping[str, Any]) -> Account:
    schedule = body["schedule"]
    known = None if schedule is None else Schedule(**{**schedule, "days": tuple(schedule["days"])})
    return Account(**{**body, "due": tuple(body["due"]), "schedule": known})


def stream_of(account: str, livemode: bool, platform: str, ident: str) -> str:
    """The name of its stream in the journal: one for each account of a marketplace that pays to it."""
    return f"{ident}.{platform}.{'live' if livemode else 'test'}.{account}"


def asking(record: Connected, expert: str | None = None, payout: str | None = None) -> Connected:
    """With one more wish to know, an expert that it belongs to, and a payout to look at."""
    experts, payouts = record.experts, record.open
    if expert is not None and expert not in experts[:1]:
        experts = (expert, *(other for other in experts if other != expert))
    if payout is not None and payout not in payouts:
        payouts = (*payouts, payout)
    return replace(record, asked=record.asked + 1, experts=experts[:EXPERTS], open=payouts[-PAYOUTS:])


def about(record: Connected) -> dict[str, Any]:
    """What every event about a connected account says of it."""
    return {"stripe_account": record.id, "platform": record.platform, "experts": list(record.experts)}


def shown(record: Connected) -> dict[str, Any]:
    """The account as the marketplace is told of it."""
    seen = record.seen
    assert seen is not None
    return {
        **about(record),
        "exists": seen.exists,
        "country": seen.country,
        "transfers": seen.transfers,
        "payouts_enabled": seen.payouts_enabled,
        "disabled_reason": seen.disabled_reason,
        "requirements_due": list(seen.due),
        "payout_schedule": None if seen.schedule is None else asdict(seen.schedule),
    }


def same(one: Account | None, other: Account) -> bool:
    """Whether nothing but the time has changed; a first look is no change."""
    return one is None or replace(one, seen_at=other.seen_at) == other
