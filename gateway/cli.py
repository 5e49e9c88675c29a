"""The `gateway` command: what it understands, and what it does with signals, logs and exit codes."""

from __future__ import annotations

import argparse
import asyncio
import gc
import ipaddress
import json
import logging
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
import uvloop

from gateway import __version__, records_cli, shelf_cli, supervisor
from gateway.errors import GatewayError
from gateway.plans import node_plan
from gateway.settings import BadConfiguration, Log, Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from gateway.billing_bridge.reconcile import Difference

COLLECT_AFTER = (20_000, 20, 50)
OK, FAILED, USAGE, BAD_CONFIGURATION = 0, 1, 2, 78  # 78: EX_CONFIG of sysexits.h
API_KEY_VARIABLE = "PARLEY_API_KEY"
EXIT_CODES = textwrap.dedent("""\
    exit codes:
      0   done, or stopped by SIGINT or SIGTERM
      1   failed; standard error says why
      2   the command line was not understood
      78  the configuration is bad; standard error names each key
""")
Command = Callable[[argparse.Namespace], int]
T = TypeVar("T")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = _parser().parse_args(arguments)
    args.line = sys.argv[1:] if arguments is None else arguments
    command: Command = args.command
    try:
        return command(args)
    except BadConfiguration as fault:
        print(*fault.problems, sep="\n", file=sys.stderr)
        return BAD_CONFIGURATION
    except (GatewayError, OSError) as fault:
        print(f"gateway: {fault}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("gateway: interrupted", file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = _described(argparse.ArgumentParser(prog="gateway"), "The realtime media and metering gateway.")
    parser.add_argument("--version", action="version", version=f"gateway {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, summary: str, description: str = "") -> argparse.ArgumentParser:
        sub = _described(commands.add_parser(name, help=summary), description or summary)
        sub.set_defaults(command=command)
        return sub

    serve = add("serve", _serve, "run a node: REST, signaling, media, metering")
    serve.add_argument("--with-bridge", action="store_true", help="run the bridge to Stripe, mail and webhooks inside")
    bridge = add("bridge", _bridge, "run a bridge: holds, captures, transfers, receipts, webhooks; any number of them")
    _dev_arguments(add("dev", _dev, "run the whole product on this machine, with everything it needs embedded"))
    check = add("check-config", _check, "check the configuration and print what is in force, secrets masked")
    for sub in (serve, bridge, check):
        sub.add_argument("--config", type=Path, metavar="FILE", help="TOML file; environment variables override it")
    _token_arguments(add("token", _token, "mint a join token and a link for one side of a session"))
    records_cli.replay_arguments(
        add("replay", _replay, "rebuild a session's bill from its ledger, and compare it with the one kept")
    )
    reconcile = add(
        "reconcile", _reconcile, "compare bills, payment records and Stripe, and name every difference (exit code 1)"
    )
    reconcile.add_argument("--config", type=Path, metavar="FILE", help="the configuration of Redis and Stripe")
    reconcile.add_argument(
        "--days", type=int, default=30, help="sessions created in the last so many days (default %(default)s)"
    )
    reconcile.add_argument("--json", action="store_true", help="for programs")
    records_cli.evidence_arguments(
        add("evidence", _evidence, "write all that tells of a session into one file, for a dispute")
    )
    records_cli.deliveries_arguments(
        add("deliveries", _deliveries, "list the events and mails that could not be delivered, and send them again")
    )
    shelf_cli.archive_arguments(
        add("archive", _archive, "move settled sessions from Redis to the archive, or check it (exit code 1: faults)")
    )
    shelf_cli.restore_arguments(add("restore", _restore, "bring sessions back from the archive into Redis"))
    return parser


def _described(parser: argparse.ArgumentParser, description: str) -> argparse.ArgumentParser:
    parser.description = description[0].upper() + description[1:].rstrip(".") + "."
    parser.epilog = EXIT_CODES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def _dev_arguments(dev: argparse.ArgumentParser) -> None:
    dev.add_argument("--host", default="127.0.0.1", type=_address, help="address to listen on (default %(default)s)")
    dev.add_argument("--port", default=8080, type=_port, help="pages, REST, signaling (default %(default)s)")
    dev.add_argument("--media-port", default=3478, type=_port, help="UDP and TCP, media (default %(default)s)")
    dev.add_argument("--private-port", default=9090, type=_port, help="health and metrics (default %(default)s)")
    dev.add_argument(
        "--data", type=Path, metavar="DIR", help="keeps everything over restarts (default: a temporary folder)"
    )
    dev.add_argument("--config", type=Path, metavar="FILE", help="TOML file with other settings, such as [session]")


def _token_arguments(token: argparse.ArgumentParser) -> None:
    token.add_argument("session", metavar="SESSION")
    token.add_argument("--role", choices=("client", "expert"), required=True)
    token.add_argument("--config", type=Path, metavar="FILE", help="sign it here, with this configuration's key")
    token.add_argument(
        "--url", default="http://localhost:8080", help="ask this gateway over REST (default %(default)s)"
    )
    token.add_argument("--api-key", default=os.environ.get(API_KEY_VARIABLE), help=f"default: ${API_KEY_VARIABLE}")


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 65536:
        raise ValueError(text)
    return port


def _address(text: str) -> str:
    return str(ipaddress.ip_address("127.0.0.1" if text == "localhost" else text))


def _serve(args: argparse.Namespace) -> int:
    settings = Settings.load(args.config)
    if supervisor.inherited() is None:
        supervisor.become(node_plan(settings, [sys.executable, "-m", "gateway", *args.line]))
    from gateway.app import serve

    log_to_stderr(settings.log)
    return run(serve(settings, with_bridge=args.with_bridge))


def _bridge(args: argparse.Namespace) -> int:
    from gateway.app import bridge

    settings = Settings.load(args.config)
    log_to_stderr(settings.log)
    return run(bridge(settings))


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


def _token(args: argparse.Namespace) -> int:
    if args.config is None and not args.api_key:
        print(f"gateway token: needs --config, or --api-key (or {API_KEY_VARIABLE}) for --url", file=sys.stderr)
        return USAGE

    minted = _once(_signed(args) if args.config else _asked(args))
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
    from gateway.clock import SystemClock
    from gateway.errors import NotFound
    from gateway.journal import Journal
    from gateway.keys import Keys
    from gateway.tokens import Tokens

    settings = Settings.load(args.config)
    async with _redis(settings.redis.url.get_secret_value()) as redis:
        doc = (await Journal(redis, Keys(settings.redis.partitions)).read(args.session, "session"))["session"]
    if doc is None:
        raise NotFound(f"There is no session {args.session}.")
    tokens = Tokens(settings.secrets.signing_key.get_secret_value().encode())
    secret = tokens.entry(args.session, args.role, expires_at=doc.body["expires_at"])
    token = tokens.join(args.session, args.role, now=SystemClock().wall_ms())
    return {"token": token, "url": f"{settings.server.public_url}/call#{secret}"}


def _replay(args: argparse.Namespace) -> int:
    replay = _once(records_cli.replayed(args))
    print(json.dumps(records_cli.replay_json(replay), indent=2) if args.json else records_cli.replay_text(replay))
    return FAILED if replay.differences or replay.broken else OK


def _evidence(args: argparse.Namespace) -> int:
    text = _once(records_cli.evidence(args))
    if args.out is None:
        print(text, end="")
    else:
        args.out.write_text(text, encoding="utf-8")
    return OK


def _archive(args: argparse.Namespace) -> int:
    return _told(*_once(shelf_cli.archive(args)))


def _restore(args: argparse.Namespace) -> int:
    return _told(*_once(shelf_cli.restore(args)))


def _told(lines: list[str], good: bool) -> int:
    print(*lines, sep="\n")
    return OK if good else FAILED


def _deliveries(args: argparse.Namespace) -> int:
    for row in _once(records_cli.deliveries(args)):
        print(json.dumps(row, ensure_ascii=False))
    return OK


def _reconcile(args: argparse.Namespace) -> int:
    """0: all is alike; 1: there are differences, or it could not be found out."""
    count, differences = _once(_compared(args))
    if args.json:
        rows = [{name: getattr(each, name) for name in each.__slots__} for each in differences]
        print(json.dumps({"sessions": count, "differences": rows}, indent=2))
    else:
        print(*differences, f"{count} sessions, {len(differences)} differences", sep="\n")
    return FAILED if differences else OK


async def _compared(args: argparse.Namespace) -> tuple[int, list[Difference]]:
    from gateway.app import archive
    from gateway.billing_bridge.audit import reconciled
    from gateway.clock import SystemClock
    from gateway.journal import Journal
    from gateway.keys import Keys
    from gateway.payees.platforms import clients

    settings = Settings.load(args.config)
    since_s = SystemClock().wall_ms() // 1000 - args.days * 86_400
    count, found = 0, list[Difference]()
    async with _redis(settings.redis.url.get_secret_value()) as redis:
        kept = await records_cli.met(archive(settings), redis)
        journal = Journal(redis, Keys(settings.redis.partitions), archive=kept)
        for platform, stripe in clients(settings).items():
            async with stripe:
                compared, differences = await reconciled(journal, stripe, since_s, platform)
            count, found = count + compared, found + differences
    return count, found


@asynccontextmanager
async def _redis(url: str) -> AsyncIterator[Redis]:
    from redis.asyncio import Redis

    redis = Redis.from_url(url)
    try:
        yield redis
    finally:
        await redis.aclose()


def _once(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def run(work: Coroutine[Any, Any, None]) -> int:
    """Run to the end on uvloop. SIGINT and SIGTERM cancel the work, which then cleans up; a second one ends at once."""

    async def with_signals() -> int:
        loop = asyncio.get_running_loop()
        task = loop.create_task(work, name="main")

        def stop() -> None:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        try:
            await task
        except asyncio.CancelledError:
            structlog.get_logger(__name__).info("stopped")
        return OK

    # What is loaded by now stays; and requests come and go without cycles, so that most collections look for nothing.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(with_signals())


def log_to_stderr(settings: Log) -> None:
    """Ours and the libraries' lines in one form on standard error; standard output stays free for answers."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Plain tracebacks: richer ones print local variables, and those hold tokens, SDP and addresses.
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=32
    )
    last: list[Any] = [console]
    if settings.format == "json":
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
