"""A configuration that is good, in an environment that says nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.ended import GOOD


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("GATEWAY_", "PARLEY_")) or name == "REDIS_URL"]:
        monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "gateway.toml"
    file.write_text(GOOD)
    return file
