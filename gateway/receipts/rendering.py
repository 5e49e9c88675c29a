"""A receipt in its reader's words: subject, text mail, HTML mail and printable page, in en, de, fr and es.

Pure: the catalogue of words and the templates are read once, on import of their first use. Money, dates and times are
babel's in the reader's locale; money has its ISO code and no symbol, since "$" alone names three currencies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Final
from zoneinfo import ZoneInfo

import jinja2
from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_interval, format_time, get_timezone_gmt, get_timezone_name
from babel.numbers import format_decimal, format_percent

from gateway.money import minor_units
from gateway.receipts.receipt import Card, Line, Receipt, Settlement, Span, Unheld, Week

LANGUAGES: Final = ("en", "de", "fr", "es")
# The page needs inline styles and nothing else. Its link is a secret, so it must not leave in a Referer.
PAGE_HEADERS: Final[Mapping[str, str]] = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
    "Cache-Control": "private, no-store",
}
_NBSP: Final = "\u00a0"
_TEXT_WIDTH: Final = 66
_BAR_MIN_PERCENT: Final = 1.0  # a shorter span would not be seen
_TONES: Final[Mapping[str, str]] = {"paid": "good", "due": "warn", "disputed": "warn"}
_BRANDS: Final[Mapping[str, str]] = {
    "amex": "American Express", "visa": "Visa", "mastercard": "Mastercard", "discover": "Discover",
    "diners": "Diners Club", "jcb": "JCB", "unionpay": "UnionPay",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rendered:
    """A receipt ready to send."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class Row:
    """A label with its value; `note` stands small beneath the label, `second` beneath the value."""

    label: str
    value: str
    note: str = ""
    second: str = ""
    strong: bool = False
    small: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the timeline: its width in the bar (percent) and its row in words."""

    kind: str
    percent: float
    when: str
    what: str
    length: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """Everything that the templates place, already in the reader's words."""

    lang: str
    title: str
    number: str
    status: str
    tone: str
    test: str
    head_label: str
    head_money: str
    head_code: str
    head_note: str
    subject_line: str
    held_on: str
    notes: tuple[str, ...]
    corrected: str
    latest: str
    urgent: bool
    lines: tuple[Row, ...]
    money_title: str
    money: tuple[Row, ...]
    timeline_title: str
    timeline_summary: str
    pieces: tuple[Piece, ...]
    details_title: str
    details: tuple[Row, ...]
    issuer: str
    issuer_lines: tuple[str, ...]
    not_invoice: str
    support: str
    support_href: str
    view: str
    link: str


def mail(receipt: Receipt) -> Rendered:
    """The mail of a receipt, as text and as HTML that needs nothing from elsewhere."""
    sheet = sheet_of(receipt)
    text = _environment().get_template("mail.txt").render(sheet=sheet, columns=_columns, rule="-" * _TEXT_WIDTH)
    return Rendered(
        subject=_Reader(receipt).subject(),
        text=_plain_spaces(text),
        html=_environment().get_template("mail.html").render(sheet=sheet),
    )


def page(receipt: Receipt) -> str:
    """The printable page of a receipt; serve it with PAGE_HEADERS."""
    return _environment().get_template("page.html").render(sheet=sheet_of(receipt))


def sheet_of(receipt: Receipt) -> Sheet:
    """The receipt in words, for the templates."""
    reader = _Reader(receipt)
    issuer, r = receipt.issuer, receipt
    gross = reader.money(r.amount_total)
    expert = r.role == "expert" and (r.amount_total > 0 or r.kind == "correction")
    head, _, code = (reader.money(reader.own()) if expert else gross).rpartition(_NBSP)
    return Sheet(
        lang=reader.locale.language,
        title=reader.title(),
        number=r.number,
        status=reader.status(),
        tone=_TONES.get(r.outcome, "calm"),
        test="" if r.livemode else reader.word("test"),
        head_label=reader.word(reader.head()),
        head_money=head,
        head_code=code,
        head_note=reader.word("head_expert_of", total=gross) if expert else "",
        subject_line=reader.word(f"session_{r.media}", peer=reader.peer),
        held_on=reader.day(r.started_at),
        notes=reader.notes(),
        corrected=reader.word("note_corrected_by", number=r.corrected_by[-1]) if r.corrected_by else "",
        latest=r.latest,
        urgent=r.kind == "due",
        lines=tuple(reader.line(line) for line in r.lines),
        money_title=reader.word("section_payment" if r.role == "client" else "section_payout"),
        money=reader.card_rows() if r.role == "client" else reader.payout_rows(),
        timeline_title=reader.word("section_timeline"),
        timeline_summary=reader.interruptions(),
        pieces=reader.pieces(),
        details_title=reader.word("section_details"),
        details=reader.details(),
        issuer=issuer.name,
        issuer_lines=(*issuer.address, *([reader.word("tax_id", id=issuer.tax_id)] if issuer.tax_id else [])),
        not_invoice=reader.word("not_receipt" if r.kind == "due" else "not_invoice"),
        support=reader.word("support", support=issuer.support) if issuer.support else "",
        support_href=_href(issuer.support),
        view=reader.word("pay", total=gross) if r.kind == "due" else reader.word("view"),
        link=r.link,
    )


class _Reader:
    """One receipt seen by its reader: language, formats and time zone."""

    def __init__(self, receipt: Receipt) -> None:
        self.receipt = receipt
        self.locale = locale_of(receipt.locale)
        self.zone = zone_of(receipt.timezone)
        self._words = _catalogue()[self.locale.language]

    def word(self, key: str, **values: object) -> str:
        # str.replace and not str.format: names and references are strangers' text and may hold braces.
        text = self._words[key]
        for name, value in values.items():
            text = text.replace("{" + name + "}", str(value))
        return text

    @property
    def peer(self) -> str:
        other = "expert" if self.receipt.role == "client" else "client"
        return self.receipt.peer_name or self.word(other)

    def money(self, amount: int, currency: str | None = None) -> str:
        return money(amount, currency or self.receipt.currency, self.locale)

    def title(self) -> str:
        kind = self.receipt.kind
        return self.word("receipt" if kind == "payment" else "status_due" if kind == "due" else kind)

    def head(self) -> str:
        """What the large figure is."""
        r = self.receipt
        if r.kind == "due":
            return "head_due"
        if r.role == "client":
            return "head_client" if r.kind == "receipt" and r.unheld is None else "head_paid"
        return "head_expert" if r.amount_total or r.kind != "receipt" else "head_client"

    def subject(self) -> str:
        r = self.receipt
        key = f"subject_{r.role}" + ("" if r.amount_total else "_nothing")
        if r.kind != "receipt":
            key = f"subject_{r.kind}"
        values = {"number": r.number, "corrects": r.corrects, "total": self.money(self.own()), "peer": self.peer}
        words = self.word(key, **values)
        return _plain_spaces(words if r.livemode else f"[{self.word('test')}] {words}")

    def own(self) -> int:
        """The reader's own figure: what the client pays, what the expert earns."""
        r = self.receipt
        return r.amount_total if r.role == "client" else self._amount("net")

    def status(self) -> str:
        r = self.receipt
        if r.unheld and r.kind == "receipt":
            return self.word("status_canceled" if r.unheld.reason == "canceled" else "status_not_held")
        return self.word("status_paid_expert" if (r.outcome, r.role) == ("paid", "expert") else f"status_{r.outcome}")

    def notes(self) -> tuple[str, ...]:
        r = self.receipt
        told = [] if r.livemode else [self.word("test_note")]
        told += self._notes_of_unheld(r.unheld) if r.unheld else []
        if r.kind == "receipt":
            told += self._notes_of_receipt()
        elif r.kind == "due":
            told.append(self.word("note_pay"))
        elif r.kind == "payment":
            told.append(self.word(f"note_payment_{r.role}", corrects=r.corrects))
        else:
            told.append(self.word("note_corrects", corrects=r.corrects))
            if r.role == "client" and self._amount("difference") < 0:
                told.append(self.word("note_refund_time"))
        return tuple(told)

    def _notes_of_unheld(self, one: Unheld) -> list[str]:
        """Why a meeting was not held; on its receipt also what the terms of the booking make of its fee."""
        by = (one.by or "platform") if one.reason == "canceled" else one.reason.removeprefix("no_show_")
        key = f"note_{'canceled' if one.reason == 'canceled' else 'no_show'}_{'you' if by == self.receipt.role else by}"
        told = [self.word(key if key in self._words else "note_not_held", at=self.moment(one.over_at))]
        if self.receipt.kind == "receipt" and one.fee and one.back is not None:
            terms = "all_back" if one.back == one.fee else "part_back" if one.back else "none_back"
            kept, back = self.money(one.fee - one.back), self.money(one.back)
            told.append(self.word(f"terms_{terms}", fee=self.money(one.fee), kept=kept, back=back))
        return told

    def _notes_of_receipt(self) -> list[str]:
        r, told = self.receipt, []
        if f"note_{r.outcome}_{r.role}" in self._words:
            expert = r.expert_name or self.word("expert")
            told.append(self.word(f"note_{r.outcome}_{r.role}", expert=expert))
        # What the terms of a booking give back is a line of the bill, not news.
        since = r.payment.refunded + self._amount("given_back") if r.payment else 0
        if since > 0:
            told.append(self.word("note_refunded", amount=self.money(since)))
        if r.outcome == "disputed":
            told.append(self.word("note_disputed"))
        return told

    def _amount(self, kind: str) -> int:
        return next((line.amount or 0 for line in self.receipt.lines if line.kind == kind), 0)

    def line(self, line: Line) -> Row:
        r = self.receipt
        if line.kind == "together":
            return Row(self.word("line_together"), duration(line.seconds or 0))
        if line.kind == "free":
            return Row(self.word("line_free"), f"−{duration(line.seconds or 0)}")
        amount = self.money(line.amount or 0)
        if line.kind in ("billable", "booked"):
            return Row(self.word(f"line_{line.kind}"), amount, note=self._arithmetic(line))
        if line.kind == "given_back":
            return Row(self.word("line_given_back"), amount)
        if line.kind == "waived":
            why = "below_minimum" if r.outcome == "below_minimum" else "waived"
            return Row(self.word(f"line_waived_{why}"), amount)
        if line.kind == "commission":
            percent = format_percent(Decimal(line.bps or 0) / 10_000, format=self._percent(line), locale=self.locale)
            return Row(self.word("line_commission", percent=percent), amount)
        if line.kind == "refunded":
            return Row(self.word(f"line_refunded_{r.role}"), amount, note=self._refund(line))
        if line.kind in ("charged", "remaining"):
            return Row(self.word(f"line_{line.kind}"), amount)
        if line.kind == "stated":
            return Row(self.word("line_stated", corrects=r.corrects), amount)
        if line.kind == "difference":
            sign = "+" if (line.amount or 0) > 0 else ""
            return Row(self.word("line_difference"), f"{sign}{amount}", strong=True)
        if line.kind in ("net", "paid"):
            return Row(self.word(f"line_{line.kind}"), amount, strong=True)
        label = self.word("line_total_expert" if r.role == "expert" else "line_total")
        return Row(label, amount, strong=r.kind != "correction")

    def _refund(self, line: Line) -> str:
        """When, to which card, and why: the marketplace's own words, or what bank or booking terms decided."""
        paid = self.receipt.payment
        when = format_date(_at(line.at, self.zone), "medium", locale=self.locale) if line.at else ""
        card = self._card(paid.card) if paid and paid.card else ""
        why = self.word(f"why_{line.why}") if f"why_{line.why}" in self._words else line.why
        return " · ".join(filter(None, (when, card, why)))

    def _card(self, card: Card) -> str:
        return f"{_BRANDS.get(card.brand, card.brand.title())} •••• {card.last4}"

    def _percent(self, line: Line) -> str | None:
        return None if not (line.bps or 0) % 100 else "#,##0.00%"

    def _arithmetic(self, line: Line) -> str:
        return f"{duration(line.seconds or 0)} × {self.money(line.unit_amount or 0)}/min"

    def card_rows(self) -> tuple[Row, ...]:
        paid = self.receipt.payment
        if paid is None or self.receipt.kind in ("correction", "due"):
            return ()
        rows = [Row(self.word("card"), self._card(paid.card))] if paid.card else []
        if paid.held:
            rows.append(Row(self.word("held"), self.money(paid.held)))
        rows.append(Row(self.word("charged"), self.money(paid.charged), strong=True))
        if paid.released:
            rows.append(Row(self.word("released"), self.money(paid.released)))
        if paid.refunded:
            rows.append(Row(self.word("refunded"), self.money(paid.refunded)))
        return tuple(rows)

    def payout_rows(self) -> tuple[Row, ...]:
        earned = self.receipt.earnings
        if earned is None:
            return ()
        rows = [self._share_row(earned.settlement)] if earned.settlement else []
        for key, amount in (("taken_back", earned.taken_back), ("kept_back", earned.kept_back)):
            if amount:
                rows.append(Row(self.word(key), self.money(amount, earned.currency)))
        if earned.transfer:
            rows.append(Row(self.word("transfer"), self.word(f"transfer_{earned.transfer}")))
        if earned.payout:
            rows.append(Row(self.word("payout_week"), self._week(earned.payout)))
        return tuple(rows)

    def _share_row(self, share: Settlement) -> Row:
        """The share as it is transferred, with the rate beneath."""
        rate = format_decimal(share.rate.normalize(), format="0.00####", locale=self.locale)
        codes = {"from": self.receipt.currency.upper(), "to": share.currency.upper(), "rate": rate}
        value = self.money(share.amount, share.currency)
        label = self.word("share_in", currency=codes["to"])
        return Row(label, value, note=self.word("exchange", **codes), strong=True)

    def _week(self, week: Week) -> str:
        dates = format_interval(week.first, week.last, "yMMMd", locale=self.locale)
        return self.word("payout_week_value", week=week.number, dates=dates)

    def interruptions(self) -> str:
        count = self.receipt.interruptions
        return self.word("interruptions_n" if count > 1 else f"interruptions_{count}", n=count)

    def pieces(self) -> tuple[Piece, ...]:
        spans = self.receipt.timeline
        whole = sum(span.end - span.start for span in spans)
        return tuple(self._piece(span, share) for span, share in zip(spans, _percents(spans, whole), strict=True))

    def _piece(self, span: Span, percent: float) -> Piece:
        when = f"{self.clock(span.start)} – {self.clock(span.end)}"
        kind = self.word(f"span_{span.kind}")
        return Piece(span.kind, percent, when, kind, duration((span.end - span.start) // 1000))

    def details(self) -> tuple[Row, ...]:
        r = self.receipt
        rows = [
            *([Row(self.word("number"), r.number)] if r.number else []),
            *([Row(self.word("corrects"), r.corrects)] if r.corrects else []),
            Row(self.word("issued"), self.day(r.issued_at)),
            Row(self.word("client"), r.client_name or "–"),
            Row(self.word("expert"), r.expert_name or "–"),
            *self._times(),
        ]
        if r.unheld is None:
            rows.append(Row(self.word("duration"), duration(r.duration_ms // 1000)))
        if r.unit_amount:
            rows.append(Row(self.word("rate"), self.word("rate_value", money=self.money(r.unit_amount))))
        if r.reference:
            rows.append(Row(self.word("reference"), r.reference))
        return (*rows, Row(self.word("session"), r.session, small=True))

    def _times(self) -> list[Row]:
        """Start and end; of a meeting that was not held its appointment, and when it was called off."""
        r, off = self.receipt, self.receipt.unheld
        times: dict[str, int | None] = {"started": r.started_at, "ended": r.ended_at}
        if off:
            times = {"appointed": off.appointed, "canceled_at": off.over_at if off.reason == "canceled" else None}
        return [Row(self.word(key), self.moment(at), second=self.moment_utc(at)) for key, at in times.items() if at]

    def day(self, wall_ms: int) -> str:
        return format_date(_at(wall_ms, self.zone), "long", locale=self.locale)

    def clock(self, wall_ms: int) -> str:
        return self._time(_at(wall_ms, self.zone))

    def _time(self, at: datetime) -> str:
        # babel's narrow space before AM and PM is invisible in many of the fonts that mails meet.
        return format_time(at, "medium", tzinfo=at.tzinfo, locale=self.locale).replace("\u202f", _NBSP)

    def moment(self, wall_ms: int) -> str:
        return self._moment(wall_ms, self.zone, _zone_name(_at(wall_ms, self.zone), self.locale))

    def moment_utc(self, wall_ms: int) -> str:
        """The same moment in UTC, or nothing where the reader's zone is UTC anyway."""
        return "" if self.zone is UTC else self._moment(wall_ms, UTC, "UTC")

    def _moment(self, wall_ms: int, zone: tzinfo, name: str) -> str:
        at = _at(wall_ms, zone)
        day = format_date(at, "medium", locale=self.locale)
        return f"{day}, {self._time(at)}{_NBSP}{name}"


def money(amount: int, currency: str, locale: Locale) -> str:
    """Minor units as the call page writes them: the figure in the reader's locale, and the ISO code."""
    parts = minor_units(currency)
    pattern = "#,##0" if parts == 1 else "#,##0.00"
    figure = format_decimal(abs(Decimal(amount)) / parts, format=pattern, locale=locale)
    return f"{'−' if amount < 0 else ''}{figure}{_NBSP}{currency.upper()}"


def duration(seconds: int) -> str:
    """`25 min 00 s`: the symbols of the SI, the same in every language."""
    return f"{seconds // 60}{_NBSP}min{_NBSP}{seconds % 60:02d}{_NBSP}s"


def locale_of(tag: str) -> Locale:
    """The locale of a BCP 47 tag, English where we have no words for its language."""
    try:
        locale = Locale.parse(tag.replace("_", "-"), sep="-")
    except (ValueError, UnknownLocaleError):
        return Locale("en")
    return locale if locale.language in LANGUAGES else Locale("en")


def zone_of(name: str | None) -> tzinfo:
    """The IANA zone of that name; UTC when there is none or nobody knows it."""
    if not name or name.upper() in ("UTC", "ETC/UTC", "Z"):
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return UTC


def _at(wall_ms: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(wall_ms // 1000, zone)


def _zone_name(at: datetime, locale: Locale) -> str:
    if at.tzinfo is UTC:
        return "UTC"
    name = get_timezone_name(at, "short", locale=locale)
    return name if name[:1].isalpha() else get_timezone_gmt(at, "long", locale=locale)


def _percents(spans: tuple[Span, ...], whole: int) -> list[float]:
    wide = [max(100 * (span.end - span.start) / max(1, whole), _BAR_MIN_PERCENT) for span in spans]
    return [round(100 * share / sum(wide), 2) for share in wide]


def _href(support: str) -> str:
    if support.startswith(("https://", "http://")):
        return support
    return f"mailto:{support}" if "@" in support else ""


def _plain_spaces(text: str) -> str:
    """Text mails and subjects with ordinary spaces, so that a search for a figure finds it."""
    return text.replace(_NBSP, " ").replace("\u202f", " ").replace("\u2009", " ")


def _columns(label: str, value: str) -> str:
    """Label left and value right, on one line where both fit."""
    room = _TEXT_WIDTH - len(label) - len(value)
    return f"{label}{' ' * room}{value}" if room >= 2 else f"{label}\n{value:>{_TEXT_WIDTH}}"


@cache
def _catalogue() -> dict[str, dict[str, str]]:
    source = files("gateway.receipts").joinpath("templates/words.json").read_text("utf-8")
    words: dict[str, dict[str, str]] = json.loads(source)
    return words


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("gateway.receipts"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
