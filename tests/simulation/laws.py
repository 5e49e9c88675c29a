"""What must hold after a session has come to rest: the laws, judged from the truth and from Stripe's side.

Figures are computed here once more, by other means than the gateway's, from what was really forwarded, from the rows of
the ledger, and from what Stripe did. Each broken law is one line; its number comes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from gateway.session import SessionRecord
from tests.simulation import booked
from tests.simulation.gateway import MINIMUMS, Processes
from tests.simulation.quiet import REREAD_MS
from tests.simulation.relay import PRESENCE_MS, UNTIL_MS
from tests.simulation.world import START

GIVEN_TAILS_MS = 10_000
# Faults after which usage may be missing: then only over-billing is judged, and under-billing by its own bound.
LOSSY = frozenset(
    {"node_crash", "two_owners", "node_pause", "clock_forward", "clock_back", "store_cut_off", "store_outage",
     "store_power_loss", "report_lost", "client_vanishes", "store_restart", "store_slow", "network_lost"}
)  # fmt: skip
PAID = frozenset({"captured", "partially_refunded", "refunded", "disputed"})
OWN_ENDS = frozenset({"client_left", "expert_left", "limit_reached", "cap_reached"})
STEPPED = frozenset({"clock_forward", "clock_back"})


def broken(p: Processes) -> list[str]:
    """The laws that this session broke."""
    record = p.record
    if record is None:
        return ["law 5: the session was never created"]
    if p.script.booking is not None:
        return booked.broken(p)
    if record.status != "finalized" or record.bill is None:
        return [f"law 5: forgotten, {record.status}", *p.stripe.breaches]
    found = [*p.stripe.breaches, *(f"bug: {bug}" for bug in p.world.bugs)]
    return [*found, *_metered(p, record), *_capped(p, record), *_billed(p, record), *_paid(p, record),
            *_shared(p, record), *_strangers(p), *_told(p, record), *_displayed(p, record)]  # fmt: skip


def _union(stretches: Iterable[tuple[int, int]]) -> int:
    total, reached = 0, -1
    for start, end in sorted(stretches):
        start = max(start, reached)
        if end > start:
            total, reached = total + end - start, end
    return total


def _union_within(stretches: Iterable[tuple[int, int]], parts: Iterable[tuple[int, int]]) -> int:
    """How much of the (disjoint) parts lies in the stretches."""
    held = list(stretches)
    return sum(_union((max(a, s), min(b, e)) for s, e in held) for a, b in parts)


def _happened(p: Processes, kinds: frozenset[str]) -> bool:
    return not kinds.isdisjoint(p.world.faults.happened_total)


def _metered(p: Processes, record: SessionRecord) -> list[str]:
    """Laws 2 and 3: what is metered was forwarded; what both heard is metered, but for what a crash may lose."""
    assert record.bill is not None
    metered = record.bill["union_ms"]
    forwarded = _union((start, end) for start, end, _ in p.truth.stretches)
    owners = p.rules.epoch or 0
    found = []
    # Two owners place the same instant a few ms apart: each reads Redis's clock with an error (6-media).
    if metered > forwarded + 10 * max(0, owners - 1):
        found.append(f"law 3: {metered} ms metered, {forwarded} forwarded")
    heard = _union((start, heard) for start, _, heard in p.truth.stretches)
    crashes = sum(node.process.deaths for node in p.nodes)
    if not _happened(p, LOSSY) and p.world.outage_until == 0:
        if record.end_reason == "node_lost" and not crashes:
            found.append("law 2: ended as orphaned while its owner lived")
        # What others end is forwarded until the owner has heard of it, and not metered from that instant.
        late = 1_000 + 3_000 * ("wakeup_lost" in p.world.faults.happened_total)
        heard -= 0 if record.end_reason in OWN_ENDS else late
        loss = crashes * (2 * p.script.tick_ms + 1_000)
        if metered < min(heard, record.limit_ms) - loss - (1_000 if crashes else 0):
            found.append(f"law 2: {heard} ms heard by both, {metered} metered")
    return found


def _capped(p: Processes, record: SessionRecord) -> list[str]:
    """Law 4: nothing is forwarded later than one second after the limit, counted from the first instant together that
    anybody knows of: an owner that dies or is replaced, or Redis with its power, may take the word of it along."""
    stretches = sorted((start, end) for start, end, _ in p.truth.stretches)
    while len(stretches) > 1 and _forgotten(p, *stretches[0]):
        stretches.pop(0)
    if not stretches:
        return []
    start, end = stretches[0][0], max(end for _, end in stretches)
    limit = min(p.script.terms.max_minutes * 60_000, p.script.cap_ms)
    if end > start + limit + 1_000 + _stepped(p):
        return [f"law 4: forwarded {end - start - limit} ms beyond the limit"]
    return []


def _forgotten(p: Processes, start: int, end: int) -> bool:
    """Whether a stretch may have left no trace: none is in the ledger, and no longer than its gate stays open without
    an owner's word, or while Redis was away, or until its owner noticed what Redis lost with its power (its ticks are
    some twenty times as long as the real ones). Law 2 bounds what is lost of usage."""
    if any(s - START < end and start < e - START for s, e in p.rules.rows.values()):
        return False
    lost = UNTIL_MS if p.world.deaths or (p.rules.epoch or 0) > 1 else 0
    if lost:
        lost += max((until - start for since, until in p.world.outages if since <= start < until), default=0)
    if "store_power_loss" in p.world.faults.happened_total:
        lost = max(lost, 2_000 + REREAD_MS + 3 * p.script.tick_ms)
    return end - start <= lost


def _stepped(p: Processes) -> int:
    return p.stepped_ms


def _billed(p: Processes, record: SessionRecord) -> list[str]:
    """Laws 3 and 6: the bill follows from its rows, with one floor and one rounding."""
    bill, terms = record.bill, p.script.terms
    assert bill is not None
    found = []
    start, end = record.started_at, min(record.deadline or 0, record.ended_at or 0)
    rows = [(max(s, start), min(e, end)) for s, e in p.rules.rows.values()] if start is not None else []
    union = _union(rows) - _union_within(rows, record.unseen)
    paid = max(0, union - record.free_ms)
    metered = (2 * terms.unit_amount * (paid // 1000) + 60) // 120 if record.kind == "metered" else 0
    charged = 0 if record.waived or metered < MINIMUMS[terms.currency] else metered
    commission = (2 * charged * terms.commission_bps + 10_000) // 20_000
    ambassador = commission * terms.ambassador.share_bps // 10_000 if terms.ambassador else 0
    expected = {
        "union_ms": union, "billable_ms": paid, "billable_seconds": paid // 1000, "amount_metered": metered,
        "amount_total": charged, "amount_expert": charged - commission, "amount_ambassador": ambassador,
        "amount_platform": commission - ambassador, "amount_waived": metered - charged,
    }  # fmt: skip
    for name, value in expected.items():
        if bill[name] != value:
            found.append(f"law {6 if 'amount' in name else 3}: bill says {name} {bill[name]}, the ledger {value}")
    if record.unseen and (p.rules.epoch or 0) < 2:
        found.append("law 2: what its only owner reported was not billed")
    if record.kind != terms.kind and p.script.unable_at is None:
        found.append("rule R16: made free although the expert may be paid")
    if (
        record.kind == terms.kind
        and record.free_ms != terms.free_minutes * 60_000
        and record.free_ms != record.limit_ms
    ):
        found.append("law 3: the free part is not what was promised")
    return found


def _paid(p: Processes, record: SessionRecord) -> list[str]:
    """Law 5: exactly one money state, the same at Stripe; never above hold and consent, never forgotten."""
    payment, stripe = p.rules.docs["payment"].body, p.stripe
    assert record.bill is not None
    found = []
    taken = [i for i in stripe.intents.values() if i["status"] == "succeeded"]
    left = [i["id"] for i in stripe.intents.values() if i["status"] in ("requires_capture", "requires_action")]
    if len(taken) > 1 or stripe.captures > 1:
        found.append("law 5: charged twice")
    if left:
        found.append(f"law 5: forgotten at Stripe: {left}, payment {payment['status']}")
    status, total = payment["status"], 0 if record.waived_after else record.bill["amount_total"]
    received = sum(i["amount_received"] for i in taken)
    if any(i["amount_received"] > i["amount"] for i in taken) or (received > record.amount_max and not stripe.meddled):
        found.append("law 5: charged above the hold")
    if (status in PAID) != bool(taken):
        found.append(f"law 5: payment says {status}, Stripe has taken {received}")
    back = stripe.refunded() + stripe.lost()
    if status in PAID and (payment["amount_captured"] != received or payment["amount_total"] != received):
        found.append(f"law 5: captured {received}, recorded {payment['amount_captured']}/{payment['amount_total']}")
    if payment["amount_refunded"] != back or (status in PAID and status != _paid_status(p, received, back)):
        found.append(f"law 5: {back} of {received} went back, recorded {payment['amount_refunded']}, {status}")
    if not stripe.meddled and received not in (0, total):
        found.append(f"law 5: billed {total}, charged {received}")
    if total and not received and status not in ("due", "none") and not _small(p, total):
        found.append(f"law 5: billed {total}, never charged: {status}")
    if total and status == "none":
        found.append(f"law 5: billed {total} without any payment")
    if not total and not stripe.meddled and received:
        found.append("law 5: charged although nothing is due")
    if any(step["state"] in ("intent", "sent", "unknown") for step in payment["steps"]):
        found.append("law 5: a money step stays open for ever")
    if not payment["settled"] and status not in ("due", "disputed"):
        found.append(f"law 5: never settled: {status}")
    if payment["settled"] and status in ("pending", "action_required", "held", "capturing", "awaiting_join"):
        found.append(f"law 5: settled while {status}")
    return found


def _paid_status(p: Processes, received: int, back: int) -> str:
    if p.stripe.open_case:
        return "disputed"
    return "captured" if not back else "refunded" if back == received else "partially_refunded"


def _small(p: Processes, total: int) -> bool:
    return total * p.stripe.rate_milli // 1000 < p.stripe.minimum


def _shared(p: Processes, record: SessionRecord) -> list[str]:
    """Law 6 at Stripe: what was transferred and what stays are the charge, payee by payee; debts stand beside.

    The shares are those of what is left of the charge, or of the whole if the platform bears the refunds.
    """
    payment, stripe = p.rules.docs["payment"].body, p.stripe
    if payment["status"] not in PAID:
        return ["law 6: transferred without a charge"] if stripe.transfers else []
    captured = payment["amount_captured"]
    if not captured:
        return ["law 5: captured nothing"]
    gross = captured * stripe.rate_milli // 1000
    at_most = _wanted(p, captured, gross, _left(p, captured))
    wanted = dict.fromkeys(at_most, 0) if stripe.open_case else dict(at_most)  # withheld, unless it was paid before
    if stripe.restricted:
        wanted["acct_exp"] = 0  # but what it owes from before is taken
    found, net = [], Counter[str]()
    for transfer in stripe.transfers:
        net[transfer["destination"]] += transfer["amount"] - transfer["amount_reversed"]
    for account in wanted:
        before = p.script.debt if account == "acct_exp" else 0
        has = net[account] + before - p.rules.values.get("owed:" + account, 0)
        if not wanted[account] <= has <= at_most[account]:
            found.append(f"law 6: {account} is due {wanted[account]} to {at_most[account]}, got {has}")
    if sum(net.values()) > gross:
        found.append("law 6: more transferred than charged")
    shares = [t["destination"] for t in stripe.transfers if "source_transaction" in t]
    if len(shares) != len(set(shares)):
        found.append("law 5: transferred twice")
    theirs = [t for t in payment["transfers"] if t["stripe_id"] or t["amount_restored"]]
    kept = sum(t["amount"] - t["amount_offset"] - t["amount_reversed"] + t["amount_restored"] for t in theirs)
    if kept != sum(net.values()):
        found.append("law 6: the record's transfers are not Stripe's")
    return found


def _left(p: Processes, captured: int) -> int:
    bears = bool(p.script.refunds) and p.script.refunds[0][2] == "platform"
    return captured - p.stripe.lost() - (p.stripe.by_hand if bears else p.stripe.refunded())


def _wanted(p: Processes, captured: int, gross: int, left: int) -> dict[str, int]:
    terms, left = p.script.terms, max(0, left)
    commission = (2 * left * terms.commission_bps + 10_000) // 20_000
    ambassador = commission * terms.ambassador.share_bps // 10_000 if terms.ambassador else 0
    wanted = {"acct_exp": gross * (left - commission) // captured, "acct_amb": gross * ambassador // captured}
    if terms.expert.stripe_account is None:
        wanted["acct_exp"] = 0
    return wanted


def _strangers(p: Processes) -> list[str]:
    """Law 7, as far as events go: neither secrets nor people in what the marketplace is sent."""
    for event in p.rules.events:
        data: dict[str, Any] = event["data"]
        if "client_secret" in data or "action_url" in data or "email" in data or "steps" in data:
            return [f"law 7: {event['type']} says too much"]
    return []


def _told(p: Processes, record: SessionRecord) -> list[str]:
    """Law 8: numbered without gaps, each received or dead, exactly one `session.finalized`, created first."""
    events = p.rules.events
    kinds = Counter(event["type"] for event in events)
    found = []
    if [event["sequence"] for event in events] != list(range(1, len(events) + 1)):
        found.append("law 8: the events' numbers have gaps")
    if len({event["id"] for event in events}) != len(events):
        found.append("law 8: one id, two events")
    if events[0]["type"] != "session.created" or kinds["session.created"] != 1:
        found.append("law 8: session.created is not the first")
    for kind in ("session.finalized", "session.ended"):
        if kinds[kind] != 1:
            found.append(f"law 8: {kinds[kind]} {kind}")
    if len(p.rules.finals) != 1:
        found.append(f"law 8: {len(p.rules.finals)} records in the stream of finalized sessions")
    settled = p.rules.docs["payment"].body["settled"] or p.stripe.open_case
    again = len(p.script.refunds) + 2 * len(p.stripe.disputes)
    again += sum(at is not None for at in (p.script.able_at, p.script.refund_returns_at, p.script.refund_by_hand))
    if not int(settled and not p.stripe.open_case) <= kinds["session.settled"] <= int(settled) * (1 + again):
        found.append(f"law 8: {kinds['session.settled']} session.settled")
    if kinds["payment.captured"] != (p.rules.docs["payment"].body["status"] in PAID):
        found.append(f"law 8: {kinds['payment.captured']} payment.captured")
    _, opens, dead = p.rules.values.get("deliveries", (0, {}, ()))
    received = {ident for ident, _ in p.market.received}
    if gone := received - {event["id"] for event in events}:
        found.append(f"law 8: {len(gone)} told, and not in the record")
    missing = [
        event["type"] for event in events
        if event["id"] not in received and event["sequence"] not in set(dead) | set(opens)
    ]  # fmt: skip
    if missing or opens:
        found.append(f"law 8: never arrived: {missing or opens}")
    return found


def _displayed(p: Processes, record: SessionRecord) -> list[str]:
    """Law 9: never charged more than the last figure for display; R6: warned before the time is up."""
    assert record.bill is not None
    found = []
    total, page = record.bill["amount_total"], p.pages[0]
    shown = max(p.shown_at_most, page.cost or 0)
    if total > shown:
        found.append(f"law 9: billed {total}, at most {shown} was displayed")
    calm = not _happened(p, LOSSY) and not any(node.process.deaths for node in p.nodes) and not p.script.drops
    if calm and page.cost is not None and total > page.cost and p.rules.epoch == 1:
        found.append(f"law 9: billed {total}, the last figure was {page.cost}")
    if calm and record.end_reason in ("limit_reached", "cap_reached") and p.rules.epoch == 1:
        warned = {e["data"]["remaining"] for e in p.rules.events if e["type"] == "session.warning"}
        if record.limit_ms > 30_000 + PRESENCE_MS and not (warned or page.warned):
            found.append("rule R6: ended by the limit without a warning")
    return found
