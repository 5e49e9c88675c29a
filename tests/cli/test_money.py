"""`gateway reconcile`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
from redis.asyncio import Redis

from gateway.billing_bridge.stripe_client import StripeClient
from gateway.clock import SystemClock
from gateway.dev.sandbox import Sandbox, SandboxConfig
from gateway.dev.valkey import EmbeddedValkey
from gateway.journal import Journal
from tests.billing_bridge.fixtures import KEY, AskStripe, Till
from tests.cli.ended import ended


async def test_reconcile_compares_a_data_directory_whether_its_gateway_runs_or_not(tmp_path: Path, capsys: Any) -> None:
    async def told(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()  # what was logged until now
        code = await asyncio.to_thread(ended, ["reconcile", "--data", str(tmp_path), *arguments])
        return code, capsys.readouterr().out

    sandbox = Sandbox(SandboxConfig(data_dir=tmp_path / "stripe"))
    await sandbox.start()
    async with (
        EmbeddedValkey(tmp_path / "valkey") as valkey,
        Redis.from_url(valkey.url) as redis,
        aiohttp.ClientSession() as http,
        StripeClient(KEY, sandbox.url) as stripe,
    ):
        till = Till(Journal(redis), stripe, AskStripe(sandbox.url, http))
        await till.open(created=SystemClock().wall_ms())
        held = await till.settle()
        assert await told() == (0, "1 sessions, 0 differences\n")
        await stripe.send("payment_intents.cancel", {"payment_intent": held.payment_intent}, "by hand")
    await sandbox.stop()
    code, out = await told("--json")
    found = json.loads(out)["differences"][0]
    assert (code, found["object"], found["ours"], found["theirs"]) == (1, held.payment_intent, "held", "canceled")


async def test_reconcile_of_a_folder_without_a_sandbox_fails(tmp_path: Path, capsys: Any) -> None:
    async with EmbeddedValkey(tmp_path / "valkey"):
        assert await asyncio.to_thread(ended, ["reconcile", "--data", str(tmp_path)]) == 1
    assert "no sandbox" in capsys.readouterr().err
