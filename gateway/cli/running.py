"""What runs: `gateway serve`, `bridge` and `dev`; and `check-config`, whether it could."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog

from gateway import supervisor
from gateway.cli.commands import FAILED, OK, Commands
from gateway.cli.process import log_to_stderr, run
from gateway.errors import GatewayError
from gateway.plans import node_plan
from gateway.settings import Log, Settings


def add(commands: Commands) -> None:
    serve = commands.add("serve", _serve, "run a node: REST, signaling, media, metering")
    serve.add_argument("--with-bridge", action="store_true", help="run the bridge to Stripe, mail and webhooks inside")
    about = "run a bridge: holds, captures, transfers, receipts, webhooks; any number of them"
    bridge = commands.add("bridge", _bridge, about)
    _dev_arguments(
        commands.add("dev", _dev, "run the whole product on this machine, with everything it needs embedded")
    )
    about = "check the configuration and print what is in force, secrets masked"
    check = commands.add("check-config", _check, about)
    for parser in (serve, bridge, check):
        parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file; environment variables override it")


def _dev_arguments(dev: argparse.ArgumentParser) -> None:
    dev.add_argument("--host", default="127.0.0.1", type=_address, help="address to listen on (default %(default)s)")
    dev.add_argument("--port", default=8080, type=_port, help="pages, REST, signaling (default %(default)s)")
    dev.add_argument("--media-port", default=3478, type=_port, help="UDP and TCP, media (default %(default)s)")
    dev.add_argument("--private-port", default=9090, type=_port, help="health and metrics (default %(default)s)")
    dev.add_argument(
        "--data", type=Path, metavar="DIR", help="keeps everything over restarts (default: a temporary folder)"
    )
    dev.add_argument("--config", type=Path, metavar="FILE", help="TOML file with other settings, such as [session]")


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is not a port: choose a number from 1 to 65535")
    return int(text)


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address("127.0.0.1" if text == "localhost" else text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not an address: use one like 127.0.0.1 or ::1") from None


def _serve(args: argparse.Namespace) -> int:
    settings = Settings.load(args.config)
    if supervisor.inherited() is None:
        supervisor.become(node_plan(settings, [sys.executable, "-m", "gateway", *args.line]))
    from gateway.app import serve

    log_to_stderr(settings.log)
    return _logged(serve(settings, with_bridge=args.with_bridge))


def _bridge(args: argparse.Namespace) -> int:
    from gateway.app import bridge

    settings = Settings.load(args.config)
    log_to_stderr(settings.log)
    return _logged(bridge(settings))


def _logged(work: Coroutine[Any, Any, None]) -> int:
    """What ends a server is a line of its log, in the log's format, for whoever collects that."""
    try:
        return run(work)
    except (GatewayError, OSError) as fault:
        structlog.get_logger(__name__).error("failed", code=getattr(fault, "code", "os_error"), detail=str(fault))
        return FAILED


def _dev(args: argparse.Namespace) -> int:
    from gateway.dev.stack import DevOptions, stack

    options = DevOptions(args.host, args.port, args.private_port, args.media_port, args.data, args.config)
    log_to_stderr(Log(format="console", level="info"))

    async def until_stopped() -> None:
        async with stack(options, lambda line: print(line, flush=True)):
            await asyncio.Event().wait()

    return run(until_stopped())


def _check(args: argparse.Namespace) -> int:
    print(json.dumps(Settings.load(args.config).effective(), indent=2, ensure_ascii=False))
    return OK
