"""What the rooms of commands have in common: how one is added, its help, exit codes."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from typing import TypeAlias

OK, FAILED, USAGE, BAD_CONFIGURATION = 0, 1, 2, 78  # 78: EX_CONFIG of sysexits.h
EXIT_CODES = textwrap.dedent("""\
    exit codes:
      0   done, or stopped by SIGINT or SIGTERM
      1   failed; standard error says why
      2   the command line was not understood
      78  the configuration is bad; standard error names each key
""")
# Gives the exit code.
Command: TypeAlias = Callable[[argparse.Namespace], int]


class Commands:
    """The commands of a parser. Every help tells the exit codes."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(self, name: str, command: Command, summary: str) -> argparse.ArgumentParser:
        """The new command's own parser, for its arguments."""
        parser = described(self._commands.add_parser(name, help=summary), summary)
        parser.set_defaults(command=command)
        return parser


def described(parser: argparse.ArgumentParser, description: str) -> argparse.ArgumentParser:
    parser.description = description[0].upper() + description[1:].rstrip(".") + "."
    parser.epilog = EXIT_CODES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser
