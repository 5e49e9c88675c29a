"""Renders the records of a session into the objects of the REST API; pure.

Nothing leaves by accident: each answer names its members, so a new field of a record stays inside until it is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from gateway.api import answers
from gateway.api.context import Created, Docs, Entry, WebhookEndpoint
from gateway.money import split
from gateway.payees import routes as payees
from gateway.payees.earned import Earned
from gateway.session import ROLES, Role

Record = Mapping[str, Any]
PEOPLE = ("name", "email", "locale", "timezone")
BILL = (
    "billable_seconds", "free_seconds_used", "amount_total", "amount_expert", "amount_platform", "amount_ambassador",
    "amount_metered", "amount_waived",
)  # fmt: skip


def time(ms: int | None) -> str | None:
    """Wall ms as RFC 3339 in UTC with milliseconds."""
    return None if ms is None else stamp(ms)


def stamp(ms: int) -> str:
    moment = datetime.fromtimestamp(ms // 1000, UTC).replace(microsecond=ms % 1000 * 1000)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def session(docs: Docs, entries: Mapping[Role, Entry] | None = None) -> answers.Session:
    """The session object; with `entries`, the ways into the call."""
    record, payment = docs.session, docs.payment
    return answers.Session(
        id=record["id"],
        livemode=record["livemode"],
        created=stamp(record["created"]),
        expires_at=stamp(record["expires_at"]),
        reference=record["reference"],
        kind=record["kind"],
        media=record["media"],
        ring=record["ring"],
        hold=record["hold"],
        status=record["status"],
        end_reason=record["end_reason"],
        client=_client(docs),
        expert=_expert(docs),
        ambassador=answers.AmbassadorView(**record["ambassador"]) if record["ambassador"] else None,
        rate=answers.RateView(unit_amount=record["unit_amount"], currency=record["currency"]),
        currency=record["currency"],
        commission_bps=record["commission_bps"],
        free_seconds=record["free_ms"] // 1000,
        limit_seconds=record["limit_ms"] // 1000,
        cap_seconds=record["cap_ms"] // 1000,
        waived=bool(record["waived"] or record.get("waived_after")),
        payment=payment_view(payment, docs.pay_url),
        platform=record.get("platform", payees.MAIN),
        transfers=[_transfer(transfer) for transfer in payment.get("transfers", ())],
        refunds=[_refund(record, refund) for refund in payment.get("refunds", ())],
        participants=_participants(record, entries or {}),
        started_at=time(record["started_at"]),
        ended_at=time(record["ended_at"]),
        booking=_place(record.get("meeting")),
        continues=record.get("continues"),
        continued_by=record.get("continued_by"),
        ratings=dict(record.get("ratings") or {}),
        settled=payment.get("settled", False),
        amount_captured=payment.get("amount_captured", 0),
        amount_refunded=payment.get("amount_refunded", 0),
        **_standing(record, payment),
    )


def _place(meeting: Record | None) -> answers.BookingPlace | None:
    if meeting is None:
        return None
    return answers.BookingPlace(id=meeting["booking"], meeting=meeting["number"], starts_at=time(meeting["starts_at"]))


def _standing(record: Record, payment: Record) -> dict[str, Any]:
    """The bill's figures, or what is left of them where the bridge had to let something off afterwards."""
    figures, total = _figures(record.get("bill") or {}), payment.get("amount_total")
    if total is None or figures["amount_total"] is None or total >= figures["amount_total"]:
        return figures
    shares = split(total, record["commission_bps"], (record.get("ambassador") or {}).get("share_bps", 0))
    return figures | {
        "amount_total": total, "amount_waived": figures["amount_metered"] - total, "amount_expert": shares.expert,
        "amount_platform": shares.platform, "amount_ambassador": shares.ambassador,
    }  # fmt: skip


def _figures(bill: Record) -> dict[str, Any]:
    return {name: bill.get(name) for name in BILL}


def created(made: Created) -> answers.Session:
    return session(made.docs, {"client": made.client, "expert": made.expert})


def payability(
    expert: str, country: str, currency: str, found: payees.Payability, eligible: bool | None, detail: str | None
) -> answers.Payability:
    platform, account = found.route.platform, found.account
    code = None if found.payable else "expert_not_payable"
    return answers.Payability(
        expert=expert,
        country=country,
        currency=currency,
        payable=found.payable,
        eligible=eligible,
        code="expert_not_eligible" if eligible is False else code,
        reason=found.reason,
        detail=detail,
        route=found.route.kind,
        platform=platform.name if platform else None,
        settlement_currency=platform.settlement_currency if platform else None,
        stripe_account=None if account is None else _connected(account),
        source=payees.SOURCE,
        as_of=payees.AS_OF,
    )


def _connected(account: payees.Account) -> answers.ConnectedAccount:
    return answers.ConnectedAccount(
        id=account.id,
        exists=account.exists,
        country=account.country,
        transfers=account.transfers,
        payouts_enabled=account.payouts_enabled,
        disabled_reason=account.disabled_reason,
        requirements_due=list(account.due),
        payout_schedule=None
        if account.schedule is None
        else answers.PayoutSchedule(
            interval=account.schedule.interval, days=list(account.schedule.days), own=account.schedule.own
        ),
        seen_at=stamp(account.seen_at),
    )


def earnings(
    expert: str, page: Sequence[Earned], has_more: bool, totals: Mapping[str, Mapping[str, int]] | None
) -> answers.EarningsPage:
    return answers.EarningsPage(
        expert=expert,
        data=[_earning(row) for row in page],
        has_more=has_more,
        totals=None
        if totals is None
        else [answers.EarningsTotal(currency=currency, **sums) for currency, sums in totals.items()],
    )


def _earning(row: Earned) -> answers.Earning:
    return answers.Earning(
        session=row.session,
        reference=row.reference,
        ended_at=stamp(row.ended_at),
        payout_week=row.week,
        currency=row.currency,
        amount_share=row.amount_share,
        settlement_currency=row.settlement_currency,
        amount=row.amount,
        amount_offset=row.amount_offset,
        amount_reversed=row.amount_reversed,
        amount_owed=row.amount_owed,
        amount_restored=row.amount_restored,
        status=cast(Any, row.status),
        reason=row.reason,
        stripe_id=row.stripe_id,
        stripe_account=row.stripe_account,
        platform=row.platform,
    )


def _client(docs: Docs) -> answers.ClientView:
    record = docs.session["client"]
    return answers.ClientView(
        id=record["id"], stripe_customer=record.get("stripe_customer"), **_person(docs.people, "client")
    )


def _expert(docs: Docs) -> answers.ExpertView:
    record = docs.session["expert"]
    rating = record.get("rating_milli")
    return answers.ExpertView(
        id=record["id"],
        stripe_account=record.get("stripe_account"),
        country=record.get("country"),
        rating=None if rating is None else rating / 1000,
        **_person(docs.people, "expert"),
    )


def _person(people: Record, role: Role) -> dict[str, Any]:
    """Null after the person was erased (R22): the session's own record holds ids only."""
    person = people.get(role) or {}
    return {name: person.get(name) for name in PEOPLE}


def payment_view(payment: Record, pay_url: str | None) -> answers.PaymentView:
    card = payment.get("card")
    return answers.PaymentView(
        status=payment.get("status", "none"),
        amount_held=payment.get("amount_held", 0),
        amount_captured=payment.get("amount_captured", 0),
        amount_refunded=payment.get("amount_refunded", 0),
        attempt=payment.get("attempt", 0),
        card=answers.Card(brand=card["brand"], last4=card["last4"], country=card.get("country")) if card else None,
        hold_until=time(payment.get("hold_until")),
        action_url=payment.get("action_url"),
        decline_code=payment.get("decline_code"),
        client_secret=payment.get("client_secret"),
        pay_url=pay_url,
    )


def _transfer(transfer: Record) -> answers.TransferView:
    return answers.TransferView(
        to=transfer["to"],
        amount=transfer["amount"],
        currency=transfer["currency"],
        status=transfer["status"],
        account=transfer.get("account"),
        stripe_id=transfer.get("stripe_id"),
        amount_share=transfer.get("amount_share"),
        reason=transfer.get("reason"),
        amount_offset=transfer.get("amount_offset", 0),
        amount_reversed=transfer.get("amount_reversed", 0),
        amount_owed=transfer.get("amount_owed", 0),
        amount_restored=transfer.get("amount_restored", 0),
    )


def _refund(record: Record, refund: Record) -> answers.RefundView:
    names = ("id", "amount", "reason", "charge_to", "status", "stripe_id", "failure")
    shown: dict[str, Any] = {name: refund.get(name) for name in names}
    return answers.RefundView(session=record["id"], currency=record["currency"], **shown)


def refund(docs: Docs, order: Record) -> answers.RefundView:
    """One refund: as the bridge has it, or as it was ordered while the bridge has not looked yet."""
    made = next((each for each in docs.payment.get("refunds", ()) if each["id"] == order["id"]), None)
    return _refund(docs.session, made or {**order, "status": "ordered"})


def _participants(record: Record, entries: Mapping[Role, Entry]) -> answers.Participants:
    joined = record.get("joined") or {}

    def seat(role: Role) -> answers.Seat:
        entry = entries.get(role)
        return answers.Seat(
            joined_at=time(joined.get(role)),
            token=entry.token if entry else None,
            url=entry.url if entry else None,
        )

    return answers.Participants(client=seat("client"), expert=seat("expert"))


def sessions(page: Sequence[Docs], has_more: bool, complete_since: int | None) -> answers.SessionList:
    """`complete_since`: wall ms."""
    data = [session(docs) for docs in page]
    return answers.SessionList(data=data, has_more=has_more, complete_since=time(complete_since))


def entry(session_id: str, role: Role, way: Entry) -> answers.EntryView:
    return answers.EntryView(session=session_id, role=role, token=way.token, url=way.url)


def usage(docs: Docs, measured: Record) -> answers.Usage:
    """The interval ledger and how the bill follows from it; before `finalized`, as it stands now."""
    record, bill = docs.session, measured["bill"]
    return answers.Usage(
        session=record["id"],
        final=record["status"] == "finalized",
        rows=[
            answers.Row(epoch=row["epoch"], number=row["number"], **_span(row["start"], row["end"]))
            for row in measured["rows"]
        ],
        intervals=[answers.Interval(**_span(start, end)) for start, end in bill["intervals"]],
        union_ms=bill["union_ms"],
        free_ms=record["free_ms"],
        free_seconds_used=bill["free_seconds_used"],
        billable_ms=bill["billable_ms"],
        billable_seconds=bill["billable_seconds"],
        bill=_bill(bill),
        arithmetic=measured["arithmetic"],
    )


def _span(start: int, end: int) -> dict[str, Any]:
    return {"started_at": stamp(start), "ended_at": stamp(end), "ms": end - start}


def _bill(bill: Record) -> answers.BillView:
    return answers.BillView(**_figures(bill), waived_reason=bill.get("waived_reason"), currency=bill["currency"])


def events(
    page: Sequence[Record], has_more: bool, livemode: bool, complete_since: int | None = None
) -> answers.EventList:
    """`complete_since`: wall ms."""
    data = [answers.Event(**{**event, "livemode": livemode}) for event in page]
    return answers.EventList(data=data, has_more=has_more, complete_since=time(complete_since))


def endpoint(found: WebhookEndpoint, *, secret: bool = False) -> answers.WebhookEndpoint:
    """`secret`: it was made just now, and its owner gets to see it this once."""
    return answers.WebhookEndpoint(
        id=found.id, url=found.url, types=list(found.types), enabled=found.enabled,
        disabled_reason=found.disabled_reason, configured=found.account is None,
        secret=found.secrets[0].value if secret else None,
    )  # fmt: skip


def receipts(docs: Docs, public_url: str) -> answers.ReceiptList:
    """Both sides' receipts, once they are issued, each with its corrections."""
    kept = {name: letter for name, letter in (docs.receipts or {}).items() if name != "schema"}
    issued = {name: letter for name, letter in kept.items() if letter["number"]}
    return answers.ReceiptList(
        data=[_receipt(role, issued, public_url) for role in ROLES if role in issued],
        has_more=False,
        payment_due=_mail(kept["due"]) if "due" in kept else None,
    )


def _receipt(role: Role, issued: Record, public_url: str) -> answers.Receipt:
    later = [letter for name, letter in issued.items() if name.startswith(f"{role}.")]
    corrections = [answers.Correction(**_letter(letter, public_url)) for letter in later]
    return answers.Receipt(role=role, corrections=corrections, **_letter(issued[role], public_url))


def _mail(letter: Record) -> answers.MailView:
    mail = letter["mail"]
    return answers.MailView(
        status=mail["status"], tries=mail["tries"], sent_at=time(mail["sent_at"]), error=mail["error"]
    )


def _letter(letter: Record, public_url: str) -> dict[str, Any]:
    return {
        "number": letter["number"],
        "issued_at": time(letter["issued_at"]),
        "url": f"{public_url}/r/{letter['secret']}",
        "mail": _mail(letter),
    }
