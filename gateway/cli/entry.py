"""The way into a call: `gateway token`, from a gateway that runs or from its configuration."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from gateway.cli.commands import OK, USAGE, Commands
from gateway.cli.process import once
from gateway.errors import GatewayError
from gateway.settings import Settings

API_KEY_VARIABLE = "PARLEY_API_KEY"


def add(commands: Commands) -> None:
    token = commands.add("token", _token, "mint a join token and a link for one side of a session")
    token.add_argument("session", metavar="SESSION")
    token.add_argument("--role", choices=("client", "expert"), required=True)
    token.add_argument("--config", type=Path, metavar="FILE", help="sign it here, with this configuration's key")
    token.add_argument(
        "--url", default="http://localhost:8080", help="ask this gateway over REST (default %(default)s)"
    )
    token.add_argument("--api-key", default=os.environ.get(API_KEY_VARIABLE), help=f"default: ${API_KEY_VARIABLE}")


def _token(args: argparse.Namespace) -> int:
    if args.config is None and not args.api_key:
        print(f"gateway token: needs --config, or --api-key (or {API_KEY_VARIABLE}) for --url", file=sys.stderr)
        return USAGE

    minted = once(_signed(args) if args.config else _asked(args))
    print(f"token {minted['token']}\nurl {minted['url']}")
    return OK


async def _asked(args: argparse.Namespace) -> dict[str, str]:
    import aiohttp

    url = f"{args.url.rstrip('/')}/v1/sessions/{args.session}/tokens"
    try:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {args.api_key}"}) as http:
            async with http.post(url, json={"role": args.role}) as response:
                answer = await response.json(content_type=None)
    except (aiohttp.ClientError, ValueError) as fault:
        raise GatewayError(f"{args.url} does not answer as a gateway: {fault}") from None
    if response.status >= 400:
        raise GatewayError(f"{answer.get('code')}: {answer.get('detail') or answer.get('title')}")
    return dict(answer)


async def _signed(args: argparse.Namespace) -> dict[str, str]:
    from redis.asyncio import Redis

    from gateway.clock import SystemClock
    from gateway.errors import NotFound
    from gateway.journal import Journal
    from gateway.keys import Keys
    from gateway.tokens import Tokens

    settings = Settings.load(args.config)
    async with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
        doc = (await Journal(redis, Keys(settings.redis.partitions)).read(args.session, "session"))["session"]
    if doc is None:
        raise NotFound(f"There is no session {args.session}.")
    tokens = Tokens(settings.secrets.signing_key.get_secret_value().encode())
    secret = tokens.entry(args.session, args.role, expires_at=doc.body["expires_at"])
    token = tokens.join(args.session, args.role, now=SystemClock().wall_ms())
    return {"token": token, "url": f"{settings.server.public_url}/call#{secret}"}
