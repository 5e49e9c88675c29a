"""The command line: exit codes, help, and what goes to which stream."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import __version__
from tests.cli.ended import GOOD, ended

COMMANDS = ["serve", "bridge", "dev", "check-config", "token", "replay", "reconcile", "evidence", "deliveries"]
COMMANDS += ["archive", "restore"]


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_is_everywhere_and_tells_the_exit_codes(command: list[str], capsys) -> None:
    assert ended([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "exit codes:" in shown
    assert "78" in shown


def test_version(capsys) -> None:
    assert ended(["--version"]) == 0
    assert capsys.readouterr().out == f"gateway {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["dev", "--port", "0"],
        ["dev", "--port", "70000"],
        ["dev", "--host", "nowhere"],
        ["token", "ses_1"],
        ["token", "ses_1", "--role", "client"],
        ["replay", "ses_1"],
        ["replay", "ses_1", "--config", "a", "--data", "b"],
    ],
)
def test_a_command_line_that_makes_no_sense_ends_with_2(arguments: list[str], capsys) -> None:
    assert ended(arguments) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "bridge", "check-config"])
def test_a_bad_configuration_ends_with_78_and_names_its_keys(command: str, config: Path, capsys) -> None:
    config.write_text(GOOD + "[session]\ncap_secnds = 1\n")
    assert ended([command, "--config", str(config)]) == 78
    shown = capsys.readouterr()
    assert "session.cap_secnds" in shown.err
    assert shown.out == ""


def test_a_failure_ends_with_1_in_one_line(tmp_path: Path, capsys) -> None:
    assert ended(["replay", "ses_1", "--data", str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert "is not the data directory" in shown
    assert shown.count("\n") == 1
