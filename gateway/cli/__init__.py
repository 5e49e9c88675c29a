"""The `gateway` command: a file for each room of commands, and what a failure becomes."""

from __future__ import annotations

import argparse
import sys

from gateway import __version__
from gateway.cli import entry, money, records, running, shelf
from gateway.cli.commands import BAD_CONFIGURATION, FAILED, Command, Commands, described
from gateway.errors import GatewayError
from gateway.settings import BadConfiguration

# In the order of the help.
ROOMS = (running, entry, records, money, shelf)


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
    parser = described(argparse.ArgumentParser(prog="gateway"), "The realtime media and metering gateway.")
    parser.add_argument("--version", action="version", version=f"gateway {__version__}")
    commands = Commands(parser)
    for room in ROOMS:
        room.add(commands)
    return parser
