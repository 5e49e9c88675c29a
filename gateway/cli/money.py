"""Whether all agree on the money: `gateway reconcile`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gateway.cli.commands import FAILED, OK, Commands
from gateway.cli.place import accounts, opened, where
from gateway.cli.process import once

if TYPE_CHECKING:
    from gateway.billing_bridge.differences import Difference
    from gateway.journal import Journal
    from gateway.meter.ledger import Ledger


def add(commands: Commands) -> None:
    about = "compare ledger, bills, payment records and Stripe, and name every difference (exit code 1)"
    reconcile = commands.add("reconcile", _reconcile, about)
    where(reconcile)
    reconcile.add_argument(
        "--days", type=int, default=30, help="sessions created in the last so many days (default %(default)s)"
    )
    reconcile.add_argument("--json", action="store_true", help="for programs")


def _reconcile(args: argparse.Namespace) -> int:
    """0: all is alike; 1: there are differences, or it could not be found out."""
    count, differences = once(_compared(args))
    if args.json:
        rows = [asdict(each) | {"todo": each.todo} for each in differences]
        print(json.dumps({"sessions": count, "differences": rows}, indent=2))
    else:
        print(*differences, f"{count} sessions, {len(differences)} differences", sep="\n")
    return FAILED if differences else OK


async def _compared(args: argparse.Namespace) -> tuple[int, list[Difference]]:
    from gateway.billing_bridge.audit import reconciled
    from gateway.clock import SystemClock
    from gateway.meter.ledger import Ledger

    now = SystemClock().wall_ms()
    since_s = now // 1000 - args.days * 86_400
    async with opened(args) as journal, accounts(args, journal.redis) as stripes:
        ledger = Ledger(journal.redis, journal.keys, archive=journal.archive)

        async def against_ledger(session: Mapping[str, Any]) -> list[Difference]:
            return await ledger_differences(journal, ledger, session)

        return await reconciled(journal, stripes, since_s, now, against_ledger)


async def ledger_differences(journal: Journal, ledger: Ledger, session: Mapping[str, Any]) -> list[Difference]:
    """The frozen bill against the one that the ledger gives, and the ledger against its seal."""
    from gateway.billing_bridge.differences import Difference
    from gateway.meter.replay import replay

    ident, bill = session["id"], session.get("bill")
    if bill is None:
        return []
    # As it was decided then, whatever the smallest charge is now.
    minimum = bill["amount_metered"] + 1 if bill["waived_reason"] == "below_minimum" else 0
    found = await replay(journal, ledger, ident, minimum=minimum)
    return [
        *(Difference(ident, "ledger", "not as it was sealed", fault, None) for fault in found.broken),
        *(
            Difference(ident, f"bill.{name}", "another bill by the ledger", *values)
            for name, values in found.differences.items()
        ),
    ]
