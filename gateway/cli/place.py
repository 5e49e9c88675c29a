"""Whose records a command reads, and whose Stripe: those of a configuration, or of a `gateway dev`'s data directory."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.errors import GatewayError
from gateway.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.archive.archive import Archive
    from gateway.billing_bridge.audit import Asks
    from gateway.journal import Journal


def where(parser: argparse.ArgumentParser) -> None:
    """Which gateway's records."""
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--config", type=Path, metavar="FILE", help="the configuration whose Redis holds the records")
    place.add_argument("--data", type=Path, metavar="DIR", help="the data directory of a `gateway dev`, running or not")


@asynccontextmanager
async def opened(args: argparse.Namespace) -> AsyncIterator[Journal]:
    """The records of a configuration's Redis, or of a data directory; its Valkey is started if nobody runs it."""
    from redis.asyncio import Redis

    from gateway.app import archive
    from gateway.archive.archive import Archive
    from gateway.archive.places import store_at
    from gateway.dev.valkey import EmbeddedValkey
    from gateway.journal import Journal
    from gateway.keys import Keys

    if args.config:
        settings = Settings.load(args.config)
        async with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
            yield Journal(redis, Keys(settings.redis.partitions), archive=await met(archive(settings), redis))
        return
    if not (args.data / "valkey").is_dir():
        raise GatewayError(f"{args.data} is not the data directory of a gateway dev")
    valkey = EmbeddedValkey(args.data / "valkey")
    running = await valkey.answers()
    if not running:
        await valkey.start()
    try:
        async with Redis.from_url(valkey.url) as redis:
            yield Journal(redis, Keys(), archive=await met(Archive(store_at(args.data / "archive")), redis))
    finally:
        if not running:
            await valkey.stop()


async def met(archive: Archive | None, redis: Redis) -> Archive | None:
    from gateway.archive.hot import meet

    if archive is not None:
        await meet(archive, redis)
    return archive


@asynccontextmanager
async def accounts(args: argparse.Namespace, redis: Redis) -> AsyncIterator[dict[str, Asks]]:
    """Stripe's platform accounts by name: those of a configuration, kept to their limits, or what the sandbox of a
    data directory has."""
    from gateway.billing_bridge.platform import Unhurried
    from gateway.dev.at_rest import AtRest, files
    from gateway.platforms import bridge_settings, clients

    async with AsyncExitStack() as opened_here:
        if args.config:
            settings = Settings.load(args.config)
            yield {
                name: Unhurried(
                    bridge_settings(settings, name).platform(redis, await opened_here.enter_async_context(client), name)
                )
                for name, client in clients(settings).items()
            }
            return
        yield {
            name: opened_here.enter_context(closing(AtRest(file))) for name, file in files(args.data / "stripe").items()
        }
