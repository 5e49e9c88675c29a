"""The evidence of a session as a page to print, for a person at a bank: who agreed to what, what happened and cost.

Pure. One HTML file without script, links or pictures; what only programs want stands in an appendix, as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from gateway.archive.evidence import stamp
from gateway.archive.happened import ending, money

STYLE: Final = (
    ":root{color-scheme:light}*{box-sizing:border-box}"
    "body{font:14px/1.45 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;"
    "background:#fff;overflow-wrap:anywhere}"
    "h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:1.6rem 0 .4rem;border-bottom:1px solid #bbb}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.18rem .8rem .18rem 0}"
    "th{font-weight:600}thead th{color:#555;font-size:.85em}tbody th{width:12rem}tr{break-inside:avoid}"
    "td.n{text-align:right;white-space:nowrap;padding-right:0}td.t{white-space:nowrap;width:12rem}"
    "blockquote{margin:.4rem 0;padding:.1rem .9rem;border-left:3px solid #888}"
    ".lead{font-size:1.05rem}.small{color:#555}"
    ".raw td,.raw th{font:.72em/1.35 ui-monospace,monospace}"
    "@media(max-width:36rem){tbody th,td.t{width:auto;white-space:normal}tbody th{display:block;padding-bottom:0}"
    "tbody th+td,.wide td{display:block}.wide thead{display:none}.wide td{padding:0}.wide td:last-child"
    "{padding-bottom:.6rem}}"
    "@media print{body{margin:0;padding:0;max-width:none;font-size:9.5pt}h2{break-after:avoid}"
    ".raw{break-before:page}.raw td,.raw th{font-size:6.5pt}}"
)
# Steps toward Stripe and their bookkeeping: what came of them stands above, and in the JSON.
INSIDE: Final = frozenset({"steps", "reads", "part", "alarmed", "schema"})
# In the JSON, and of no use to somebody who was not there.
UNTOLD: Final = frozenset({"session.settled", "session.warning", "transfer.created", "transfer.reversed"})


def page(found: Mapping[str, Any]) -> str:
    """What `evidence` found, to print."""
    title = f"Evidence for session {escape(found['session'])}"
    reference = f", order {escape(str(found['reference']))} of the marketplace" if found["reference"] else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>"
        f'<p class="small">Made {_time(found["made_at"])} from the gateway’s records{reference}. All times are UTC.</p>'
        f'<p class="lead">{_lead(found)}</p>{"".join(_sections(found))}{_appendix(found)}</body></html>\n'
    )


def _sections(found: Mapping[str, Any]) -> Iterable[str]:
    yield _section("The parties", _parties(found))
    yield _section("What the client agreed to", _consent(found))
    yield _section("What happened", _timeline(found["timeline"]))
    yield _section("Time connected, and what it cost", _arithmetic(found))
    yield _section("Payment", _payment(found["payment"]))
    yield _section("Receipts", _receipts(found))
    yield _section("How this can be checked", _seal(found["ledger"]))
    if found["no_longer_kept"]:
        gone = ("".join(_row(one["what"], f"{one['why']}{_since(one)}") for one in found["no_longer_kept"]),)
        yield _section("No longer kept", _table(gone))


def _lead(found: Mapping[str, Any]) -> str:
    """The case in a few sentences."""
    names = [escape(found[role]["name"] or f"the {role}") for role in ("client", "expert")]
    started, bill = found["course"]["started_at"], found["bill"]
    if not started:
        return f"{names[0]} and {names[1]} were to meet in a call. They were never connected. {_charged(found)}"
    lasted = f", together for {_duration(bill['union_ms'])}" if bill else ""
    end = f" It ended because {escape(ending(found['course']['end']))}." if found["course"]["end"] else ""
    return (
        f"{names[0]} and {names[1]} were connected in a call from {_time(started)} on{lasted}.{end} {_charged(found)}"
    )


def _charged(found: Mapping[str, Any]) -> str:
    payment = found["payment"]
    if not payment or not payment.get("amount_captured"):
        return "Nothing has been charged."
    card = f" to {escape(_card(payment))}" if payment.get("card") else ""
    back = payment.get("amount_refunded")
    refunded = f" Of that {_money(payment, 'amount_refunded')} was refunded." if back else ""
    return f"<b>{_money(payment, 'amount_captured')}</b> was charged{card}.{refunded}"


def _parties(found: Mapping[str, Any]) -> str:
    def cells(role: str) -> str:
        person = found[role]
        stripe = person.get("stripe_customer") or person.get("stripe_account")
        values = (person["name"], person["email"], person["id"], stripe)
        return f"<tr><th>{role.capitalize()}</th>{''.join(_td(value) for value in values)}</tr>"

    return _table((cells("client"), cells("expert")), ("", "Name", "E-mail", "Id at the marketplace", "Id at Stripe"))


def _consent(found: Mapping[str, Any]) -> str:
    consent = found["consent"]
    if consent is None:
        return "<p>No consent was recorded.</p>"
    most = money(consent["amount_max"], found["terms"]["currency"])
    text = consent["text"] and f"<blockquote>{escape(consent['text'])}</blockquote>"
    told = (
        f"<p>On {_time(consent['at'])}, before joining, the client agreed to the price that was shown. "
        f"The most that it could cost was {most}. The words (version {escape(consent['text_version'])}, "
        f"language {escape(consent['locale'])}):</p>"
    )
    return told + (text or "<p>The words of this version are not the call page’s own.</p>")


def _timeline(events: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        f'<tr><td class="t">{_time(event["at"])}</td>{_td(event["said"])}</tr>'
        for event in events
        if event["what"] not in UNTOLD
    ]
    return _table(rows) if rows else "<p>Nothing is recorded.</p>"


def _arithmetic(found: Mapping[str, Any]) -> str:
    terms, bill = found["terms"], found["bill"]
    if not bill:
        return "<p>The bill is not final yet.</p>"
    spans = [
        f"<tr><th>Connected</th><td>{_time(span['from'])} – {_clock(span['to'])}</td>"
        f'<td class="n">{span["seconds"]:.3f} s</td></tr>'
        for span in found["connected"]
    ]
    rate = f"{money(terms['unit_amount'], terms['currency'])} a minute"
    price = f"{bill['billable_seconds']} s × {rate} ÷ 60"
    if terms["kind"] == "booked":
        price = "the price of the booked meeting"
    rows = [
        *spans,
        _sum("Together", "both connected, media flowing both ways", f"{bill['union_ms'] / 1000:.3f} s"),
        _sum("Free part", f"of {terms['free_ms'] // 1000} s agreed", f"− {bill['free_seconds_used']} s"),
        _sum("Billable", "whole seconds beyond the free part", f"{bill['billable_seconds']} s"),
        _sum("Price", price, _money(bill, "amount_metered")),
    ]
    if bill["amount_waived"]:
        why = (bill["waived_reason"] or "").replace("_", " ")
        rows.append(_sum("Waived", why, f"− {_money(bill, 'amount_waived')}"))
    return _table([*rows, _sum("Total", "", f"<b>{_money(bill, 'amount_total')}</b>")])


def _payment(payment: Mapping[str, Any]) -> str:
    if not payment:
        return "<p>There was no payment.</p>"
    rows = [
        _row("Status", str(payment.get("status", "")).replace("_", " ")),
        _row("Card", _card(payment)) if payment.get("card") else "",
        _row("Authorised", _money(payment, "amount_held")) if payment.get("amount_held") else "",
        _row("Charged", _money(payment, "amount_captured")) if payment.get("amount_captured") else "",
        _row("PaymentIntent at Stripe", payment.get("payment_intent")),
        _row("Charge at Stripe", payment.get("charge")),
    ]
    for refund in payment.get("refunds") or ():
        told = f"{money(refund['amount'], payment['currency'])}, {refund['status']}, {refund.get('stripe_id') or '–'}"
        rows.append(_row(f"Refund {refund['number']}", f"{told}: {refund['reason']}" if refund.get("reason") else told))
    if dispute := payment.get("dispute"):
        why = dispute["reason"] or "no reason told"
        disputed = f"{money(dispute['amount'], payment['currency'])}, {dispute['status']}, {why}"
        rows.append(_row("Dispute", f"{disputed}, {dispute['id']}"))
    return _table(rows)


def _receipts(found: Mapping[str, Any]) -> str:
    rows = []
    for name, letter in found["receipts"].items():
        if not isinstance(letter, Mapping):
            continue
        role = "expert" if name.startswith("expert") else "client"
        kind = {"due": "Call to pay"}.get(name, "Correction" if "." in name else "Receipt")
        mail = letter.get("mail") or {}
        sent = _time(stamp(mail["sent_at"])) if mail.get("sent_at") else mail.get("status")
        cells = (letter.get("number"), f"{kind} to the {role}", found[role]["email"], sent)
        rows.append(f"<tr>{''.join(_td(cell) for cell in cells)}</tr>")
    return _table(rows, ("Number", "What", "Address", "Handed to the mail server")) if rows else "<p>None yet.</p>"


def _seal(ledger: Mapping[str, Any]) -> str:
    verdict = "it is as it was sealed" if ledger["intact"] else "IT IS NOT AS IT WAS SEALED"
    if not ledger["head"]:
        return "<p>The ledger of this session is not sealed.</p>"
    faults = "".join(f"<li>{escape(fault)}</li>" for fault in ledger["broken"])
    return (
        "<p>Terms, metered usage and bill were sealed by a chain of SHA-256 sums when the bill was made. Checked again "
        f"for this document ({escape(', '.join(ledger['checked']))}): {verdict}. The seal, which the marketplace was "
        f"told at the time by <i>session.finalized</i>: {escape(ledger['head'])}</p>"
        + (f"<ul>{faults}</ul>" if faults else "")
    )


def _appendix(found: Mapping[str, Any]) -> str:
    """What was found, as it is: amounts in minor units, spans in ms."""
    rest = {**found, "payment": {name: value for name, value in found["payment"].items() if name not in INSIDE}}
    rows = [
        f"<tr><th>{escape(name)}</th>{_td(json.dumps(value, ensure_ascii=False))}</tr>"
        for name, value in rest.items()
        if name != "timeline"
    ]
    note = '<p class="small">Amounts in minor units of the currency. The JSON form has every step besides.</p>'
    return f'<div class="raw"><h2>Appendix: the records</h2>{note}{_table(rows)}</div>'


def _section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2>{body}"


def _table(rows: Iterable[str], head: Sequence[str] = ()) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    opening = f'<table class="wide"><thead><tr>{top}</tr></thead>' if head else "<table>"
    return f"{opening}<tbody>{''.join(rows)}</tbody></table>"


def _row(name: str, value: object) -> str:
    return f"<tr><th>{escape(name)}</th>{_td(value)}</tr>"


def _sum(name: str, how: str, result: str) -> str:
    return f'<tr><th>{escape(name)}</th>{_td(how, "")}<td class="n">{result}</td></tr>'


def _td(value: object, nothing: str = "–") -> str:
    return f"<td>{escape(str(value)) if value not in (None, '') else nothing}</td>"


def _card(payment: Mapping[str, Any]) -> str:
    card = payment["card"]
    country = f", issued in {card['country']}" if card.get("country") else ""
    return f"{str(card.get('brand') or 'card').capitalize()} ending in {card.get('last4')}{country}"


def _money(values: Mapping[str, Any], name: str) -> str:
    return money(values[name], values["currency"])


def _since(gone: Mapping[str, Any]) -> str:
    return f", since {_time(gone['since'])}" if gone["since"] else ""


def _time(stamp: str | None) -> str:
    """`2026-11-22 06:54:15` of an RFC 3339 time in UTC."""
    return f"{stamp[:10]} {_clock(stamp)}" if stamp else "–"


def _clock(stamp: str) -> str:
    return stamp[11:19]


def _duration(ms: int) -> str:
    minutes, seconds = divmod(ms // 1000, 60)
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
