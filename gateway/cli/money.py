"""Whether all agree on the money: `gateway reconcile`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from gateway.cli.commands import FAILED, OK, Commands
from gateway.cli.place import accounts, opened, where
from gateway.cli.process import once

if TYPE_CHECKING:
    from gateway.billing_bridge.differences import Difference


def add(commands: Commands) -> None:
    about = "compare bills, payment records and Stripe, and name every difference (exit code 1)"
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

    now = SystemClock().wall_ms()
    since_s = now // 1000 - args.days * 86_400
    async with opened(args) as journal, accounts(args, journal.redis) as stripes:
        return await reconciled(journal, stripes, since_s, now)
