"""`gateway reconcile`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
from redis.asyncio import Redis

from gateway.billing_bridge.audit import reconciled
from gateway.billing_bridge.stripe_client import StripeClient
from gateway.cli.money import ledger_differences
from gateway.clock import SystemClock
from gateway.dev.sandbox import Sandbox, SandboxConfig
from gateway.dev.valkey import EmbeddedValkey
from gateway.journal import Journal
from gateway.meter.ledger import Ledger
from tests.billing_bridge.fixtures import KEY, AskStripe, Till
from tests.cli.ended import ended
from tests.settled import settled


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
    assert found["todo"].startswith("Resend")


async def test_law3_reconcile_names_a_bill_that_its_ledger_does_not_give(journal: Journal) -> None:
    session = await settled(journal)

    async def found() -> dict[str, str]:
        _, differences = await reconciled(journal, {}, 0, 0, lambda body: ledger_differences(journal, ledger, body))
        return {each.object: each.what for each in differences if each.what != "no platform account"}

    ledger = Ledger(journal.redis, journal.keys)
    assert await found() == {}
    doc = (await journal.read(session, "session"))["session"]
    assert doc is not None
    more = doc.body | {"bill": doc.body["bill"] | {"billable_seconds": 91}}
    await journal.commit(session, {"session": (doc.version, more)})
    assert await found() == {"bill.billable_seconds": "another bill by the ledger", "ledger": "not as it was sealed"}
    await journal.redis.delete(journal.keys.of(session, "session"))
    assert await found() == {"payment": "half a record"}
    await journal.redis.delete(journal.keys.of(session, "payment"))
    assert await found() == {"usage": "half a record"}


async def test_a_bill_too_small_for_then_is_so_whatever_the_smallest_charge_is_now(journal: Journal) -> None:
    session = await settled(journal)
    doc = (await journal.read(session, "session"))["session"]
    assert doc is not None
    bill = doc.body["bill"]
    small = bill | {
        "amount_total": 0, "amount_waived": bill["amount_metered"], "waived_reason": "below_minimum",
        "amount_expert": 0, "amount_platform": 0, "amount_ambassador": 0,
    }  # fmt: skip
    await journal.commit(session, {"session": (doc.version, doc.body | {"bill": small})})
    found = await ledger_differences(journal, Ledger(journal.redis, journal.keys), doc.body | {"bill": small})
    assert {each.what for each in found} == {"not as it was sealed"}


async def test_reconcile_of_a_folder_without_a_sandbox_fails(tmp_path: Path, capsys: Any) -> None:
    async with EmbeddedValkey(tmp_path / "valkey"):
        assert await asyncio.to_thread(ended, ["reconcile", "--data", str(tmp_path)]) == 1
    assert "no sandbox" in capsys.readouterr().err
