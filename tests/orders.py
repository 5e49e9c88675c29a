"""Orders and records that tests start from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gateway.session import NewClient, NewExpert, NewSession, SessionRecord, Step, opened

NOW = 1_700_000_000_000


def order(**changes: Any) -> NewSession:
    """The metered session of the contract: 3.00 USD a minute, no free part, 30 minutes."""
    base = NewSession(
        client=NewClient("c1", "Client", "client@example.com", stripe_customer="cus_1", payment_method="pm_card_visa"),
        expert=NewExpert("e1", "Expert", "expert@example.com", "de", stripe_account="acct_demo", country="US"),
        unit_amount=300,
        currency="usd",
    )
    return replace(base, **changes)


def opening(**changes: Any) -> Step:
    return opened(
        order(**changes), id="ses_1", account="acc_test", livemode=False, now=NOW, cap_ms=5_400_000,
        expires_ms=86_400_000,
    )  # fmt: skip


def record(**changes: Any) -> SessionRecord:
    """A record fresh from its order."""
    return opening(**changes).record
