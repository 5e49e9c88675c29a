"""`gateway check-config`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.ended import SIGNING_KEY, ended


def test_check_config_prints_what_is_in_force_with_secrets_masked(config: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("GATEWAY_SESSION__CAP_SECONDS", "60")
    assert ended(["check-config", "--config", str(config)]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown)["session"]["cap_seconds"] == 60
    assert SIGNING_KEY not in shown
    assert "sk_test_file" not in shown
