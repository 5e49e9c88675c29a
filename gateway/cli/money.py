"""Whether all agree on the money: `gateway reconcile`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.commands import FAILED, OK, Commands
from gateway.cli.place import met
from gateway.cli.process import once
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.billing_bridge.reconcile import Difference


def add(commands: Commands) -> None:
    about = "compare bills, payment records and Stripe, and name every difference (exit code 1)"
    reconcile = commands.add("reconcile", _reconcile, about)
    reconcile.add_argument("--config", type=Path, metavar="FILE", help="the configuration of Redis and Stripe")
    reconcile.add_argument(
        "--days", type=int, default=30, help="sessions created in the last so many days (default %(default)s)"
    )
    reconcile.add_argument("--json", action="store_true", help="for programs")


def _reconcile(args: argparse.Namespace) -> int:
    """0: all is alike; 1: there are differences, or it could not be found out."""
    count, differences = once(_compared(args))
    if args.json:
        rows = [{name: getattr(each, name) for name in each.__slots__} for each in differences]
        print(json.dumps({"sessions": count, "differences": rows}, indent=2))
    else:
        print(*differences, f"{count} sessions, {len(differences)} differences", sep="\n")
    return FAILED if differences else OK


async def _compared(args: argparse.Namespace) -> tuple[int, list[Difference]]:
    from redis.asyncio import Redis

    from gateway.app import archive
    from gateway.billing_bridge.audit import reconciled
    from gateway.billing_bridge.platform import Unhurried
    from gateway.clock import SystemClock
    from gateway.journal import Journal
    from gateway.keys import Keys
    from gateway.platforms import bridge_settings, clients

    settings = Settings.load(args.config)
    since_s = SystemClock().wall_ms() // 1000 - args.days * 86_400
    count, found = 0, list[Difference]()
    async with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
        kept = await met(archive(settings), redis)
        journal = Journal(redis, Keys(settings.redis.partitions), archive=kept)
        for platform, stripe in clients(settings).items():
            async with stripe:
                client = Unhurried(bridge_settings(settings, platform).platform(redis, stripe, platform))
                compared, differences = await reconciled(journal, client, since_s, platform)
            count, found = count + compared, found + differences
    return count, found
