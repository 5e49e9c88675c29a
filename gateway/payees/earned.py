"""An expert's share of one session (R18): the line that it is in the list of earnings, and the sums of many. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from gateway.keys import Line
from gateway.payees.routes import MAIN

SUMS: Final = ("amount", "paid", "pending", "withheld", "offset", "reversed", "owed")


@dataclass(frozen=True, slots=True)
class Earned:
    """A share of one session: `amount_share` in the session's currency, the others in the settlement currency, all in
    minor units. Of `amount`, `amount_offset` was kept back for older debts, `amount_reversed` taken back,
    `amount_owed` should have been, and `amount_restored` was given once more. `week`: in whose payout it is counted."""

    session: str
    reference: str | None
    ended_at: int
    week: str
    currency: str
    amount_share: int
    settlement_currency: str
    amount: int
    amount_offset: int
    amount_reversed: int
    amount_owed: int
    status: str
    reason: str | None
    stripe_id: str | None
    stripe_account: str | None
    platform: str
    amount_restored: int = 0

    @property
    def parts(self) -> dict[str, int]:
        """The amount and where it is: paid, pending, withheld, offset and reversed add up to it. `owed` is a part of
        what was paid or offset."""
        back = self.amount_reversed - self.amount_restored
        left = self.amount - self.amount_offset - back
        state = self.status if self.stripe_id is None and self.status in ("pending", "withheld") else "paid"
        return {
            "amount": self.amount,
            **{name: left if name == state else 0 for name in ("paid", "pending", "withheld")},
            "offset": self.amount_offset,
            "reversed": back,
            "owed": self.amount_owed,
        }

    def line(self, account: str, livemode: bool, expert: str) -> Line:
        return Line(list_of(account, livemode, expert), self.ended_at, asdict(self))


def list_of(account: str, livemode: bool, expert: str) -> str:
    return f"earned:{account}:{'live' if livemode else 'test'}:{expert}"


def totals(rows: Iterable[Earned]) -> dict[str, dict[str, int]]:
    """By settlement currency: how many sessions, and the sums of `Earned.parts`."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        sums = found.setdefault(row.settlement_currency, {"sessions": 0, **dict.fromkeys(SUMS, 0)})
        sums["sessions"] += 1
        for name, amount in row.parts.items():
            sums[name] += amount
    return dict(sorted(found.items()))


def line_of(session: Mapping[str, Any], payment: Mapping[str, Any]) -> Line | None:
    """The line of a session by its records; None if its expert has no share."""
    share = next((transfer for transfer in payment["transfers"] if transfer["to"] == "expert"), None)
    if share is None:
        return None
    names = (
        "amount_share", "amount", "amount_offset", "amount_reversed", "amount_owed", "amount_restored", "status",
        "reason",
    )  # fmt: skip
    earned = Earned(
        session=session["id"],
        reference=session["reference"],
        ended_at=session["ended_at"],
        week=week_of(_paid_at(session, payment)),
        currency=session["currency"],
        settlement_currency=share["currency"],
        stripe_id=share["stripe_id"],
        stripe_account=share["account"],
        platform=session.get("platform") or MAIN,
        **{name: share[name] for name in names},
    )
    return earned.line(session["account"], session["livemode"], session["expert"]["id"])


def _paid_at(session: Mapping[str, Any], payment: Mapping[str, Any]) -> int:
    """A bill that was due is paid out in the week in which it was paid at last, as its receipt says."""
    late: list[int] = [
        step["at"]
        for step in payment.get("steps", ())
        if step["step"] == "hold" and step["state"] == "done" and step["params"].get("capture_method") == "automatic"
    ]
    return max([int(session["ended_at"]), *late])


def week_of(wall_ms: int) -> str:
    """The ISO week (UTC), as `2026-W47`."""
    return datetime.fromtimestamp(wall_ms // 1000, UTC).strftime("%G-W%V")
