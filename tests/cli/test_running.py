"""`gateway check-config`, and how a server tells what ended it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway import app
from gateway.cli import running
from gateway.errors import StoreUnavailable
from tests.cli.ended import SIGNING_KEY, ended


def test_check_config_prints_what_is_in_force_with_secrets_masked(config: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("GATEWAY_SESSION__CAP_SECONDS", "60")
    assert ended(["check-config", "--config", str(config)]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown)["session"]["cap_seconds"] == 60
    assert SIGNING_KEY not in shown
    assert "sk_test_file" not in shown


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--port", "99999", "a number from 1 to 65535"), ("--port", "x", "1 to 65535"), ("--host", "here", "127.0.0.1")],
)
def test_a_bad_option_of_dev_is_refused_with_what_would_be_good(capsys, option: str, value: str, said: str) -> None:
    assert ended(["dev", option, value]) == 2
    assert said in capsys.readouterr().err


def test_what_ends_a_server_is_a_line_of_its_log(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def bridge(settings: object) -> None:
        raise StoreUnavailable("Redis does not answer")

    monkeypatch.setattr(app, "bridge", bridge)
    monkeypatch.setattr(running, "log_to_stderr", lambda log: None)
    with capture_logs() as told:
        assert ended(["bridge", "--config", str(config)]) == 1
    assert told == [
        {"event": "failed", "log_level": "error", "code": "store_unavailable", "detail": "Redis does not answer"}
    ]
