"""What an operator asks of the records: `gateway replay`, `gateway evidence` and `gateway deliveries`."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.commands import FAILED, OK, Commands
from gateway.cli.place import opened, where
from gateway.cli.process import once
from gateway.errors import NotFound
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.meter.replay import Replay

DOCS = ("session", "payment", "people", "receipts")


def add(commands: Commands) -> None:
    about = "rebuild a session's bill from its ledger, and compare it with the one kept"
    _replay_arguments(commands.add("replay", _replay, about))
    _evidence_arguments(
        commands.add("evidence", _evidence, "write all that tells of a session into one file, for a dispute")
    )
    about = "list the events and mails that could not be delivered, and send them again"
    _deliveries_arguments(commands.add("deliveries", _deliveries, about))


def _replay_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("session", metavar="SESSION")
    where(parser)
    parser.add_argument("--json", action="store_true", help="for programs")


def _evidence_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("session", metavar="SESSION")
    where(parser)
    parser.add_argument(
        "--out", type=_evidence_file, metavar="FILE", help=".html to print, .json for programs (default: JSON)"
    )


def _evidence_file(text: str) -> Path:
    file = Path(text)
    if file.suffix not in (".html", ".json"):
        raise argparse.ArgumentTypeError(
            f"{text} must end in .html or .json; for a PDF, print the HTML page into one with a browser"
        )
    return file


def _deliveries_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("session", metavar="SESSION", nargs="?", help="how its events and its mails stand")
    where(parser)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--resend", metavar="ID", help="send this event (evt_…) or this mail (receipt.…) again")
    action.add_argument("--since", metavar="SECONDS", type=int, help="send all events of the last SECONDS again")
    parser.add_argument("--mails", action="store_true", help="with --since: all mails instead")
    action.add_argument("--enable", metavar="ENDPOINT", help="send to this endpoint (whe_…) again, which answered 410")


def _replay(args: argparse.Namespace) -> int:
    replay = once(replayed(args))
    print(json.dumps(replay_json(replay), indent=2) if args.json else replay_text(replay))
    return FAILED if replay.differences or replay.broken else OK


def _evidence(args: argparse.Namespace) -> int:
    text = once(evidence(args))
    if args.out is None:
        print(text, end="")
    else:
        _write_private(args.out, text)
    return OK


def _write_private(file: Path, text: str) -> None:
    """It has names and addresses in it: for the owner only, also where a file was there before."""
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as opened_file:
        os.fchmod(opened_file.fileno(), 0o600)
        opened_file.write(text)


def _deliveries(args: argparse.Namespace) -> int:
    for row in once(deliveries(args)):
        print(json.dumps(row, ensure_ascii=False))
    return OK


async def replayed(args: argparse.Namespace) -> Replay:
    """A session's bill from its ledger. Raises NotFound."""
    from gateway.app import session_rules
    from gateway.billing_bridge.pricing import Terms, minimum_charge
    from gateway.meter.ledger import Ledger
    from gateway.meter.replay import replay
    from gateway.payees.routes import MAIN

    settings = Settings.load(args.config) if args.config else None
    async with opened(args) as journal:
        doc = (await journal.read(args.session, "session"))["session"]
        if doc is None:
            raise NotFound(f"There is no session {args.session}.")
        currency, platform = doc.body["currency"], doc.body.get("platform", MAIN)
        minimum = minimum_charge(currency, Terms())
        if settings is not None:
            minimum = session_rules(settings).minimum(currency, platform)
        ledger = Ledger(journal.redis, journal.keys, archive=journal.archive)
        return await replay(journal, ledger, args.session, minimum=minimum)


async def evidence(args: argparse.Namespace) -> str:
    """The file's text. Raises NotFound."""
    from gateway.app import archiver_settings
    from gateway.archive import evidence as core
    from gateway.archive.archive import Retention
    from gateway.archive.evidence_page import page
    from gateway.meter.ledger import Ledger
    from gateway.meter.replay import replay

    async with opened(args) as journal:
        ledger = Ledger(journal.redis, journal.keys, archive=journal.archive)
        found = await replay(journal, ledger, args.session)
        docs = {name: doc.body if doc else None for name, doc in (await journal.read(args.session, *DOCS)).items()}
        events = await journal.events(args.session)
    kept = archiver_settings(Settings.load(args.config)).retention if args.config else Retention()
    rows = [{"epoch": r.epoch, "number": r.number, "start": r.start, "end": r.end} for r in found.usage.rows]
    made = core.evidence(
        docs, events, rows, found.broken,
        made_at=int(time.time() * 1000), rows_dropped=found.usage.dropped, kept=kept,
    )  # fmt: skip
    if args.out is not None and args.out.suffix == ".html":
        return page(made)
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


async def deliveries(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Dead letters and undeliverable mails; or a session's events and mails; or what sending again started; or the
    endpoint that was enabled. Raises NotFound."""
    from gateway.app import endpoints, webhook_settings
    from gateway.clock import SystemClock
    from gateway.receipts.mail_desk import MailDesk
    from gateway.webhooks.endpoints import Endpoints
    from gateway.webhooks.webhooks import Webhooks, WebhookSettings

    settings, clock = Settings.load(args.config) if args.config else None, SystemClock()
    async with opened(args) as journal:
        known = endpoints(settings, journal.redis, clock) if settings else Endpoints(journal.redis, clock)
        chosen = webhook_settings(settings) if settings else WebhookSettings()
        webhooks, mails = Webhooks(journal, known, chosen, clock), MailDesk(journal)
        if args.enable:
            endpoint = await known.enable(args.enable)
            return [{"endpoint": endpoint.id, "url": endpoint.url, "enabled": endpoint.enabled}]
        if args.resend and args.resend.startswith("receipt."):
            await mails.resend(args.resend)
            return [{"mail": args.resend, "mails": 1}]
        if args.resend:
            place = await journal.event_place(args.resend)
            if place is None:
                raise NotFound(f"There is no event {args.resend}.", code="event_not_found")
            return [{"event": args.resend, "deliveries": await webhooks.resend(args.resend, place[0])}]
        if args.since is not None:
            since = int((time.time() - args.since) * 1000)
            if args.mails:
                return [{"mails": await mails.resend_since(since)}]
            return [{"deliveries": await webhooks.resend_since(since)}]
        if args.session and await webhooks.owner(args.session) is None:
            raise NotFound(f"There is no session {args.session}.", code="session_not_found")
        events = await (webhooks.deliveries(args.session) if args.session else webhooks.dead_letters())
        letters = await (mails.of(args.session) if args.session else mails.undeliverable())
        return [{"kind": "webhook", **event} for event in events] + [{"kind": "mail", **one} for one in letters]


def replay_json(replay: Replay) -> dict[str, Any]:
    """A replayed bill for programs."""
    return {
        "session": replay.record.id,
        "rows": [{"epoch": row.epoch, "start": row.start, "end": row.end} for row in replay.usage.rows],
        "bill": replay.bill.to_dict(),
        "frozen": replay.frozen,
        "chain": {"head": (replay.record.chain or {}).get("head"), "broken": replay.broken},
        "differences": {name: {"frozen": was, "replayed": now} for name, (was, now) in replay.differences.items()},
    }


def replay_text(replay: Replay) -> str:
    """A replayed bill to read, with the verdict last."""
    bill, record = replay.bill, replay.record
    currency = bill.currency.upper()

    def money(amount: int) -> str:
        return f"{amount / 100:>12,.2f} {currency}"

    spans = [f"  {start} – {end}  {(end - start) / 1000:>10.3f} s" for start, end in bill.intervals]
    lines = [
        f"{record.id}  {record.status}{f', {record.end_reason}' if record.end_reason else ''}",
        f"{_rows(replay)}, {len(bill.intervals)} spans together (wall ms):",
        *spans,
        f"together   {bill.union_ms / 1000:>12.3f} s",
        f"free       {bill.free_seconds_used:>12} s",
        f"billable   {bill.billable_seconds:>12} s  × {record.unit_amount / 100:.2f} {currency} a minute",
        f"metered    {money(bill.amount_metered)}",
        f"waived     {money(bill.amount_waived)}" + (f"  ({bill.waived_reason})" if bill.waived_reason else ""),
        f"total      {money(bill.amount_total)}",
        f"expert     {money(bill.shares.expert)}",
        f"platform   {money(bill.shares.platform)}",
        f"ambassador {money(bill.shares.ambassador)}",
    ]
    return "\n".join([*lines, *_verdict(replay)])


def _rows(replay: Replay) -> str:
    if replay.usage.dropped:
        return "the ledger's rows were dropped, as their time was over"
    return f"{len(replay.usage.rows)} rows in the ledger"


def _verdict(replay: Replay) -> list[str]:
    if replay.frozen is None:
        return ["not final yet: this is what it would cost now"]
    chain = (replay.record.chain or {}).get("head")
    seal = ["THE LEDGER IS NOT AS IT WAS SEALED:", *(f"  {fault}" for fault in replay.broken)]
    if not replay.broken:
        seal = [f"the ledger is as it was sealed: {chain}" if chain else "the ledger was never sealed"]
    if not replay.differences:
        return ["the frozen bill is the same", *seal]
    return [
        *seal,
        "THE FROZEN BILL DIFFERS:",
        *(f"  {name}: frozen {was}, replayed {now}" for name, (was, now) in replay.differences.items()),
    ]
