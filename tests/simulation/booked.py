"""The laws of a booking: one charge, a part of it for each meeting, and of each part what the terms leave.

What stays of a meeting's fee is computed here once more, from how it ended and from what was metered.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.simulation.node import BOOKING

if TYPE_CHECKING:
    from tests.simulation.gateway import Processes

PAID = frozenset({"captured", "partially_refunded", "refunded"})
OURS = frozenset({"node_lost", "ended_by_api"})
DAY_MS = 86_400_000
Body = dict[str, Any]


def broken(p: Processes) -> list[str]:
    """The laws that the booking and its meetings broke; what each was metered is `laws`' own matter."""
    assert p.script.booking is not None
    names = [name for name in p.streams.all if name.startswith("ses_")]
    docs = p.streams.all[BOOKING].docs if BOOKING in p.streams.all else {}
    found = [*p.stripe.breaches, *(f"bug: {bug}" for bug in p.world.bugs)]
    if "session" not in docs or len(names) != len(p.script.booking.starts_at):
        return [*found, "law 5: the booking was never made"]
    meetings = [{name: doc.body for name, doc in p.streams[session].docs.items()} for session in sorted(names)]
    forgotten = [meeting["session"]["status"] for meeting in meetings if meeting["session"]["status"] != "finalized"]
    if forgotten:
        return [*found, f"law 5: forgotten meetings, {forgotten}"]
    found += _charged(p, docs["session"].body, docs["payment"].body, meetings)
    for number, meeting in enumerate(meetings, 1):
        found += _settled(number, p, meeting)
    return [*found, *_shared(p, meetings)]


def _charged(p: Processes, record: Body, payment: Body, meetings: list[Body]) -> list[str]:
    """Law 5: charged once, the whole fee, or not at all; the parts are the charge."""
    stripe, found = p.stripe, []
    fee = p.script.terms.unit_amount * p.script.terms.max_minutes
    received = sum(intent["amount_received"] for intent in stripe.intents.values())
    live = [i["id"] for i in stripe.intents.values() if i["status"] in ("requires_capture", "requires_action")]
    if stripe.captures > 1 or received not in (0, fee * len(meetings)):
        found.append(f"law 5: {received} charged for {len(meetings)} meetings at {fee}")
    if live:
        found.append(f"law 5: forgotten at Stripe: {live}, booking {payment['status']}")
    if payment["amount_captured"] != received:
        found.append(f"law 5: captured {received}, the booking says {payment['amount_captured']}")
    for meeting in meetings:
        if meeting["payment"]["amount_captured"] != (fee if received else 0):
            found.append(f"law 5: a meeting has {meeting['payment']['amount_captured']} of {received}")
    if any(step["state"] in ("intent", "sent", "unknown") for step in payment["steps"]):
        found.append("law 5: a step of the booking stays open for ever")
    if record["canceled"] and not payment["settled"]:
        found.append(f"law 5: the booking was canceled and never settled: {payment['status']}")
    return found


def _kept(p: Processes, record: Body) -> int:
    """What the terms leave of a meeting's fee."""
    fee, meeting = record["unit_amount"] * record["limit_ms"] // 60_000, record["meeting"]
    reason, held_ms = record["end_reason"], record["bill"]["union_ms"]
    if record["waived"] or not record["funded"]:
        return 0  # who cancels before it was paid for has paid nothing
    if record["started_at"] is not None:
        ours = reason in OURS and held_ms * 10 < 8 * record["limit_ms"]
        seconds, whole = held_ms // 1000, record["limit_ms"] // 1000
        return int((2 * fee * seconds + whole) // (2 * whole)) if ours else int(fee)
    if reason == "no_show_client":
        return int(fee)
    if reason == "canceled" and meeting["canceled_by"] == "client" and meeting["starts_at"] is not None:
        early = record["ended_at"] <= meeting["starts_at"] - DAY_MS
        return 0 if early else int(fee - (fee + 1) // 2)
    return 0


def _settled(number: int, p: Processes, meeting: Body) -> list[str]:
    """Laws 5, 6 and 8 of one meeting."""
    record, payment, found = meeting["session"], meeting["payment"], []
    stays, bill, captured = _kept(p, record), record["bill"], payment["amount_captured"]
    parts = bill["amount_expert"] + bill["amount_platform"] + bill["amount_ambassador"]
    if bill["amount_total"] != stays or parts != stays:
        billed, reason = bill["amount_total"], record["end_reason"]
        found.append(f"law 6: meeting {number}: {stays} stay after {reason}, billed {billed}")
    if captured and payment["amount_refunded"] != captured - stays:
        back = payment["amount_refunded"]
        found.append(f"law 5: meeting {number}: {back} of {captured} went back, {stays} stay ({record['end_reason']})")
    if captured and (payment["status"] not in PAID or not payment["settled"]):
        found.append(f"law 5: meeting {number}: {payment['status']}, settled {payment['settled']}")
    events = p.streams[record["id"]].events
    kinds = Counter(event["type"] for event in events)
    if [event["sequence"] for event in events] != list(range(1, len(events) + 1)):
        found.append("law 8: the events' numbers have gaps")
    if kinds["session.finalized"] != 1 or kinds["session.ended"] != 1 or kinds["payment.captured"] != bool(captured):
        found.append(f"law 8: meeting {number} told {dict(kinds)}")
    _, opens, dead = p.streams[record["id"]].values.get("deliveries", (0, {}, ()))
    received = {ident for ident, _ in p.market.received}
    missing = [e["type"] for e in events if e["id"] not in received and e["sequence"] not in dead]
    if missing or opens:
        found.append(f"law 8: never arrived: {missing or opens}")
    return found


def _shared(p: Processes, meetings: list[Body]) -> list[str]:
    """Law 6 at Stripe: refunds are what does not stay, and each payee has its share of what does."""
    stripe, terms, found = p.stripe, p.script.terms, []
    taken = stripe.taken
    if taken is None:
        return ["law 6: transferred without a charge"] if stripe.transfers else []
    stays = [_kept(p, meeting["session"]) for meeting in meetings]
    if stripe.refunded() != taken["amount_received"] - sum(stays):
        found.append(f"law 5: {stripe.refunded()} went back of {taken['amount_received']}, {sum(stays)} stay")
    gross, wanted = taken["amount_received"] * stripe.rate_milli // 1000, Counter[str]()
    for number, left in enumerate(stays, 1):
        captured = meetings[number - 1]["payment"]["amount_captured"]
        if not captured:
            return [*found, f"law 6: meeting {number} has no part of the charge"]
        part = gross * number // len(stays) - gross * (number - 1) // len(stays)
        commission = (2 * left * terms.commission_bps + 10_000) // 20_000
        ambassador = commission * terms.ambassador.share_bps // 10_000 if terms.ambassador else 0
        if terms.expert.stripe_account is not None:
            wanted["acct_exp"] += part * (left - commission) // captured
        wanted["acct_amb"] += part * ambassador // captured
    for account, amount in wanted.items():
        net = sum(t["amount"] - t["amount_reversed"] for t in stripe.transfers if t["destination"] == account)
        if net != amount:
            found.append(f"law 6: {account} is due {amount}, has {net}")
    return found
