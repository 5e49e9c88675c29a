"""What receipts state: R7, 5-money (The bill, People and cards)."""

from __future__ import annotations

import itertools
import json
import re
from datetime import date
from decimal import Decimal
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Bug
from gateway.receipts import rendering
from gateway.receipts.receipt import ROLES, Receipt, Role, compose, iso_week, plain, readiness, timeline
from tests.receipts.receipt_cases import (
    HALF_HOUR,
    INTERRUPTED,
    ISSUER,
    LINK,
    START,
    bill,
    payment,
    people,
    released,
    session,
)

NOW = START + 1_805_000
LATER = NOW + 3_600_000


def receipt(role: Role = "client", **docs: Any) -> Receipt:
    record, money = docs.get("session", session()), docs.get("payment", payment())
    names = docs.get("people", people())
    return compose(record, money, names, role, "C-2026-000042", ISSUER, NOW, LINK)


def amounts(one: Receipt) -> dict[str, int | None]:
    return {line.kind: line.amount for line in one.lines}


# What is stated


def test_r07_both_sides_see_the_sessions_total() -> None:
    for role in ROLES:
        words = rendering.mail(receipt(role, people=people(expert={"locale": "en"})))
        assert "75.00 USD" in words.text
        assert "75.00" in words.html


def test_the_subject_states_the_readers_own_figure() -> None:
    subjects = [rendering.mail(receipt(role, people=people(expert={"locale": "en"}))).subject for role in ROLES]
    assert ["75.00" in subjects[0], "67.50" in subjects[1], "75.00" in subjects[1]] == [True, True, False]


def test_r07_the_arithmetic_of_a_paid_session_with_a_free_part() -> None:
    text = rendering.mail(receipt()).text
    assert re.search(r"Time together +30 min 00 s", text)
    assert re.search(r"Free part +−5 min 00 s", text)
    assert re.search(r"Billable time +75\.00 USD\n +25 min 00 s × 3\.00 USD/min", text)
    assert re.search(r"Total +75\.00 USD", text)


def test_r04_the_client_sees_card_hold_and_what_was_released() -> None:
    text = rendering.mail(receipt()).text
    assert "Visa •••• 4242" in text
    assert re.search(r"Held before the session +255\.00 USD", text)
    assert re.search(r"Released, not charged +180\.00 USD", text)


def test_r03_the_expert_sees_gross_commission_and_net_without_the_ambassador() -> None:
    one = receipt("expert")
    assert amounts(one) == {
        "together": None, "free": None, "billable": 7500, "total": 7500, "commission": -750, "net": 6750,
    }  # fmt: skip
    assert one.payment is None


@settings(deadline=None)
@given(st.integers(0, 5_400), st.integers(1, 1_500), st.integers(0, 5_000))
def test_law6_total_less_commission_is_net_on_every_receipt(seconds: int, unit_amount: int, bps: int) -> None:
    frozen = bill(((START, START + seconds * 1000),), unit_amount=unit_amount, free_ms=0)
    total = frozen["amount_total"]
    frozen["amount_expert"] = total - total * bps // 10_000
    figures = amounts(receipt("expert", session=session(frozen, commission_bps=bps, unit_amount=unit_amount)))
    assert (figures["total"] or 0) + (figures.get("commission") or 0) == (figures.get("net") or 0 if total else 0)


def test_the_expert_sees_both_figures_and_the_rate_of_a_foreign_settlement() -> None:
    money = payment(
        settlement={"currency": "usd", "amount": 8127, "fee": 266, "exchange_rate": "1.08363"},
        transfers=[{"to": "expert", "amount": 7314, "currency": "usd", "status": "pending"}],
    )
    one = receipt("expert", session=session(bill(currency="eur"), currency="eur"), payment=money)
    assert one.earnings is not None
    assert one.earnings.settlement is not None
    assert (one.earnings.settlement.amount, one.earnings.settlement.rate) == (7314, Decimal("1.08363"))
    text = rendering.mail(one).text
    assert "67,50 EUR" in text
    assert "73,14 USD" in text
    assert "zu 1 EUR = 1,08363 USD" in text


def test_a_foreign_settlement_before_its_transfer_is_the_floored_share() -> None:
    money = payment(settlement={"currency": "usd", "amount": 8127, "fee": 0, "exchange_rate": None}, transfers=[])
    one = receipt("expert", session=session(bill(currency="eur"), currency="eur"), payment=money)
    assert one.earnings is not None
    assert one.earnings.settlement is not None
    assert one.earnings.settlement.amount == 8127 * 6750 // 7500


def test_r18_the_payout_week_is_the_iso_week_of_the_end() -> None:
    assert (iso_week(START).number, iso_week(START).first, iso_week(START).last) == (
        47, date(2026, 11, 16), date(2026, 11, 22),
    )  # fmt: skip
    new_year = iso_week(1_767_225_600_000)  # Thursday 2026-01-01
    assert (new_year.year, new_year.number, new_year.first) == (2026, 1, date(2025, 12, 29))
    assert "KW 47" in rendering.mail(receipt("expert")).text


def test_start_and_end_in_the_readers_zone_and_in_utc() -> None:
    text = rendering.mail(receipt()).text
    assert "Nov 21, 2026, 10:44:05 AM EST" in text
    assert "Nov 21, 2026, 3:44:05 PM UTC" in text


@pytest.mark.parametrize("zone", [None, "UTC", "Nowhere/Atall", "../../etc/passwd", ""])
def test_without_a_usable_zone_times_are_in_utc_and_said_once(zone: str | None) -> None:
    text = rendering.mail(receipt(people=people(client={"timezone": zone}))).text
    assert text.count("3:44:05 PM UTC") == 1


def test_issuer_tax_id_support_and_what_it_is_not() -> None:
    text = rendering.mail(receipt()).text
    assert "Receipt, not a tax invoice" in text
    assert "Parley, Example Street 1, 10115 Berlin, Tax ID DE000000000" in text
    assert "help@example.com" in text


def test_test_mode_is_said_and_live_mode_is_not() -> None:
    assert "Test mode" not in rendering.mail(receipt()).html
    sandboxed = rendering.mail(receipt(session=session(livemode=False)))
    assert "no real money was moved" in sandboxed.text
    assert sandboxed.subject.startswith("[Test mode]")


# What it came to


def test_a_waived_fee_is_shown_with_the_figure_and_the_reason() -> None:
    frozen = bill(amount_total=0, waived_reason="waived")
    one = receipt(session=session(frozen, waived=True), payment=released())
    assert (one.outcome, amounts(one)["waived"], amounts(one)["total"]) == ("waived", -7500, 0)
    assert "Expert Two waived the fee" in rendering.mail(one).text


@pytest.mark.parametrize("role", ROLES)
def test_below_the_minimum_charge_both_receipts_say_why(role: Role) -> None:
    frozen = bill(((START, START + 303_000),), amount_total=0, waived_reason="below_minimum")
    one = receipt(role, session=session(frozen), payment=released(), people=people(expert={"locale": "en"}))
    assert one.outcome == "below_minimum"
    assert "smallest amount that can be charged" in rendering.mail(one).text.replace("\n", " ")


def test_too_small_for_stripe_after_the_bill_was_frozen_is_below_the_minimum() -> None:
    frozen = bill(((START, START + 309_000),))
    one = receipt("expert", session=session(frozen), payment=released(amount_total=0, amount_waived=45))
    assert (one.outcome, one.amount_total, amounts(one)["waived"], one.earnings) == ("below_minimum", 0, -45, None)


@pytest.mark.parametrize("kind", ["pro_bono", "free"])
def test_where_no_fee_was_agreed_no_line_says_what_the_time_would_cost(kind: str) -> None:
    frozen = bill(amount_metered=0, amount_total=0, amount_waived=0)
    one = receipt(session=session(frozen, kind=kind), payment=released())
    assert [line.kind for line in one.lines] == ["together", "total"], "1500 s × 3.00 a minute is not 0.00"


def test_a_minus_stays_with_its_amount_on_a_narrow_screen() -> None:
    page = rendering.page(receipt("expert"))
    cells = [cell for cell in page.split("<td ") if ">−" in cell]
    assert cells
    assert all("white-space:nowrap" in cell for cell in cells)


def test_waived_after_the_bill_was_frozen() -> None:
    one = receipt(session=session(waived=True), payment=released(amount_total=0, amount_waived=7500))
    assert (one.outcome, one.amount_total) == ("waived", 0)


def test_law5_what_was_captured_is_the_total_where_the_hold_was_smaller_than_the_bill() -> None:
    one = receipt("expert", payment=payment(amount_captured=5000, amount_total=5000, amount_waived=2500))
    assert amounts(one) | {"together": 0, "free": 0} == {
        "together": 0, "free": 0, "billable": 7500, "waived": -2500, "total": 5000, "commission": -500, "net": 4500,
    }  # fmt: skip


def test_a_session_within_its_free_part_costs_nothing() -> None:
    one = receipt(session=session(bill(((START, START + 200_000),))), payment=released())
    assert (one.outcome, one.amount_total) == ("within_free", 0)


def test_a_free_session_has_no_rate_and_no_card() -> None:
    frozen = bill(unit_amount=0)
    one = receipt(session=session(frozen, kind="free", unit_amount=0), payment=None)
    text = rendering.mail(one).text
    assert one.outcome == "free"
    assert "per minute" not in text
    assert "PAYMENT" not in text


def test_a_payment_due_says_so() -> None:
    one = receipt(payment=payment(status="due", amount_captured=0, transfers=[], settlement=None))
    assert one.outcome == "due"
    assert "did not go through" in rendering.mail(one).text


def test_refunds_made_since_are_named() -> None:
    one = receipt(payment=payment(status="partially_refunded", amount_refunded=1000))
    assert one.outcome == "partly_refunded"
    assert "Refunded since this receipt was issued: 10.00 USD" in rendering.mail(one).text


# The timeline


def test_interruptions_stand_between_connected_spans_and_the_free_part_is_cut_off() -> None:
    spans = timeline(INTERRUPTED, START + 1_310_000, 300_000, charged=True)
    assert [(s.kind, s.start - START, s.end - START) for s in spans] == [
        ("free", 0, 300_000),
        ("billed", 300_000, 512_300),
        ("interrupted", 512_300, 520_400),
        ("billed", 520_400, 1_300_000),
        ("interrupted", 1_300_000, 1_310_000),
    ]


spans_of_time = st.lists(st.tuples(st.integers(1, 600_000), st.integers(0, 60_000)), max_size=8)


@settings(deadline=None)
@given(spans_of_time, st.integers(0, 900_000), st.integers(0, 60_000))
def test_the_timeline_covers_start_to_end_and_splits_free_from_billed(
    steps: list[tuple[int, int]], free_ms: int, tail: int
) -> None:
    at, intervals = START, []
    for length, gap in steps:
        intervals.append((at, at + length))
        at += length + gap
    ended_at = (intervals[-1][1] if intervals else START) + tail
    spans = timeline(intervals, ended_at, free_ms, charged=True)
    assert all(a.end == b.start for a, b in itertools.pairwise(spans))
    connected = {kind: sum(s.end - s.start for s in spans if s.kind == kind) for kind in ("free", "billed")}
    union = sum(length for length, _ in steps)
    assert connected["free"] == min(union, free_ms)
    assert connected["billed"] == max(0, union - free_ms)
    assert sum(s.end - s.start for s in spans) == (ended_at - START if intervals else 0)


def test_both_receipts_show_the_same_timeline() -> None:
    record = session(bill(INTERRUPTED))
    assert receipt("client", session=record).timeline == receipt("expert", session=record).timeline


# What is never shown


@pytest.mark.parametrize("role", ROLES)
def test_law7_neither_side_sees_the_others_address_or_any_account(role: Role) -> None:
    one = receipt(role)
    shown = " ".join([repr(one), *vars_of(rendering.mail(one)), rendering.page(one)])
    for secret in ("client@example.com", "expert@example.com", "acct_secret", "cus_secret"):
        assert secret not in shown


def vars_of(words: rendering.Rendered) -> list[str]:
    return [words.subject, words.text, words.html]


def test_names_cannot_bring_markup_lines_or_braces() -> None:
    evil = people(expert={"name": "<img src=x>\r\nBcc: a@b.example\u202e {number}"})
    words = rendering.mail(receipt(people=evil))
    assert "<img" not in words.html
    assert "\n" not in words.subject
    assert "\u202e" not in words.text
    assert "{number}" in words.subject


@settings(deadline=None)
@given(st.text(max_size=200))
def test_plain_text_is_one_short_printable_line(text: str) -> None:
    line = plain(text)
    assert len(line) <= 80
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", line)


def test_an_erased_person_leaves_a_receipt_without_a_name() -> None:
    one = receipt(people={"schema": 1})
    assert "Video session with Expert" in rendering.mail(one).text


def test_the_html_needs_nothing_from_elsewhere() -> None:
    class Loads(HTMLParser):
        found: list[str]

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found += [f"{tag} {name}" for name, _ in attrs if name in ("src", "srcset", "background")]
            self.found += [tag] if tag in ("script", "link", "img", "iframe") else []

    for html in (rendering.mail(receipt()).html, rendering.page(receipt())):
        parser = Loads()
        parser.found = []
        parser.feed(html)
        assert parser.found == []
        assert "url(" not in html
        assert "@import" not in html


# Languages


def test_every_language_has_every_word_with_the_same_placeholders() -> None:
    words = json.loads(files("gateway.receipts").joinpath("templates/words.json").read_text("utf-8"))
    assert tuple(words) == rendering.LANGUAGES
    for language in words.values():
        assert {key: set(re.findall(r"{\w+}", text)) for key, text in language.items()} == {
            key: set(re.findall(r"{\w+}", text)) for key, text in words["en"].items()
        }


@pytest.mark.parametrize(
    ("tag", "total", "invoice"),
    [
        ("en", "75.00 USD", "Receipt, not a tax invoice"),
        ("de", "75,00 USD", "Quittung, keine Rechnung"),
        ("fr-FR", "75,00 USD", "Reçu, ne tient pas lieu de facture"),
        ("es_MX", "75.00 USD", "Recibo, no es una factura fiscal"),
        ("xx", "75.00 USD", "Receipt, not a tax invoice"),
        ("not a tag at all", "75.00 USD", "Receipt, not a tax invoice"),
    ],
)
def test_the_readers_language_and_formats(tag: str, total: str, invoice: str) -> None:
    text = rendering.mail(receipt(people=people(client={"locale": tag}))).text
    assert total in text
    assert invoice in text


OUTCOMES = [
    (session(), payment()),
    (session(), payment(status="due")),
    (session(), payment(status="refunded", amount_refunded=7500)),
    (session(), payment(status="disputed")),
    (session(bill(amount_total=0, waived_reason="waived")), released()),
    (session(bill(amount_total=0, waived_reason="below_minimum")), released()),
    (session(bill(unit_amount=0), unit_amount=0, kind="free", media="voice"), None),
    (session(bill(INTERRUPTED), kind="booked"), payment()),
    (session(bill(currency="chf"), currency="chf"), payment(currency="chf")),
    *(
        (
            session(bill((), started_at=None, amount_metered=100, amount_total=100 - back, waived_reason="policy"))
            | {"started_at": None, "end_reason": reason, "meeting": {"starts_at": START, "canceled_by": by}},
            payment(amount_captured=100, amount_refunded=back),
        )
        for reason, by, back in (("canceled", "client", 50), ("canceled", None, 100), ("no_show_client", None, 0))
    ),
]


@pytest.mark.parametrize("language", rendering.LANGUAGES)
@pytest.mark.parametrize("role", ROLES)
def test_every_outcome_can_be_said_in_every_language(language: str, role: Role) -> None:
    for transfer in ("pending", "paid", "withheld", "reversed", "owed"):
        for record, money in OUTCOMES:
            names = people(client={"locale": language}, expert={"locale": language})
            moved = money and money | {
                "transfers": [{"to": "expert", "amount": 1, "currency": "usd", "status": transfer}]
            }
            one = receipt(role, session=record, payment=moved, people=names)
            words = rendering.mail(one)
            assert "{" not in words.text + words.subject
            assert rendering.page(one).startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("currency", "tag", "shown"),
    [
        ("usd", "en", "1,234.50 USD"),
        ("cad", "en", "1,234.50 CAD"),
        ("gbp", "de", "1.234,50 GBP"),
        ("chf", "en", "1,234.50 CHF"),
        ("chf", "de", "1.234,50 CHF"),
        ("eur", "fr", "1 234,50 EUR"),
        ("aud", "en", "1,234.50 AUD"),
    ],
)
def test_money_has_its_iso_code_and_no_symbol(currency: str, tag: str, shown: str) -> None:
    text = rendering.money(123_450, currency, rendering.locale_of(tag))
    assert re.sub("[\u00a0\u202f]", " ", text) == shown
    assert rendering.money(-123_450, currency, rendering.locale_of(tag)) == f"−{text}"


@pytest.mark.parametrize(("tag", "shown"), [("en", "1,234 JPY"), ("de", "1.234 JPY"), ("fr", "1 234 JPY")])
def test_yen_have_no_cents(tag: str, shown: str) -> None:
    text = rendering.money(1_234, "jpy", rendering.locale_of(tag))
    assert re.sub("[\u00a0\u202f]", " ", text) == shown
    settled = {"currency": "jpy", "amount": 11_194, "fee": 0, "exchange_rate": None}
    one = receipt("expert", payment=payment(settlement=settled, transfers=[]))
    assert one.earnings is not None
    assert one.earnings.settlement is not None
    assert one.earnings.settlement.rate.quantize(Decimal("0.01")) == Decimal("149.25")


# When


def test_a_session_that_nobody_met_in_gets_no_receipt() -> None:
    frozen = bill((), started_at=None)
    assert readiness(session(frozen, started_at=None), released(), LATER) == "never"
    assert readiness(None, None, LATER) == "never"


def test_a_free_session_that_was_live_gets_one() -> None:
    frozen = bill(unit_amount=0)
    assert readiness(session(frozen, kind="free"), {"status": "none", "steps": []}, NOW) == "send"
    assert readiness(session(frozen, kind="free"), None, NOW) == "send"


@pytest.mark.parametrize("status", ["pending", "action_required", "held", "capturing", "awaiting_join"])
def test_a_moving_payment_is_waited_for(status: str) -> None:
    assert readiness(session(), payment(status=status), LATER) == "wait"


@pytest.mark.parametrize("status", ["captured", "released", "none", "due", "refunded", "disputed"])
def test_a_payment_at_rest_is_not(status: str) -> None:
    assert readiness(session(), payment(status=status), NOW) == "send"


def test_open_money_steps_are_waited_for_and_transfers_are_not() -> None:
    step = {"step": "capture", "state": "unknown"}
    assert readiness(session(), payment(steps=[step]), LATER) == "wait"
    assert readiness(session(), payment(steps=[step | {"state": "done"}]), NOW) == "send"
    assert readiness(session(), payment(steps=[{"step": "transfer_expert", "state": "intent"}]), NOW) == "send"


def test_the_settlement_of_a_capture_is_waited_for_but_not_for_ever() -> None:
    assert readiness(session(), payment(settlement=None), NOW) == "wait"
    assert readiness(session(), payment(settlement=None), LATER) == "send"


def test_a_session_that_is_not_finalized_waits_and_cannot_be_composed() -> None:
    running = session(status="live") | {"bill": None}
    assert readiness(running, payment(), NOW) == "wait"
    with pytest.raises(Bug):
        receipt(session=running)


def test_half_an_hour_at_three_dollars_with_five_free_minutes() -> None:
    assert bill(HALF_HOUR)["amount_total"] == 7500


def meeting(**changes: Any) -> dict[str, Any]:
    """Booked for 90.00, called off late: half of it goes back."""
    off = bill((), amount_metered=9_000, amount_waived=4_500, waived_reason="policy", amount_total=4_500)
    booked = {"booking": "bkg_1", "number": 1, "starts_at": START + 3_600_000}
    return session(off, kind="booked", meeting=booked, free_ms=0, started_at=None, end_reason="canceled", **changes)


@pytest.mark.parametrize(("role", "last"), [("client", 4_500), ("expert", 4_050)])
def test_r14_a_receipt_of_a_meeting_that_was_called_off_states_the_fee_and_what_went_back(
    role: Role, last: int
) -> None:
    money = payment(status="partially_refunded", amount_captured=9_000, amount_refunded=4_500, amount_held=0)
    stated = receipt(role, session=meeting(), payment=money)
    told = {line.kind: line.amount for line in stated.lines}
    assert (told["booked"], told["given_back"], stated.lines[-1].amount) == (9_000, -4_500, last)
    assert (stated.started_at, stated.ended_at) == (START + 3_600_000, START + 3_600_000), "its appointment"
    assert "since this receipt" not in rendering.mail(stated).text


APPOINTED = "Nov 21, 2026, 4:44:05 PM UTC"


@pytest.mark.parametrize(
    ("by", "role", "said"),
    [
        ("client", "client", "You canceled this meeting on Nov 21, 2026, 4:14:05 PM UTC."),
        ("client", "expert", "The client canceled this meeting on"),
        ("expert", "client", "The expert canceled this meeting on"),
        ("platform", "expert", "canceled by the platform on"),
    ],
)
def test_r14_a_receipt_says_that_a_meeting_was_called_off_when_by_whom_and_what_the_terms_keep(
    by: str, role: Role, said: str
) -> None:
    record = meeting()
    record["meeting"]["canceled_by"] = by
    money = payment(status="partially_refunded", amount_captured=9_000, amount_refunded=4_500, amount_held=0)
    utc = {"locale": "en", "timezone": "UTC"}
    words = rendering.mail(receipt(role, session=record, payment=money, people=people(utc, utc)))
    for text in (" ".join(words.text.split()), words.html.replace("\u00a0", " ")):
        assert said in text
        assert "45.00 USD of the fee of 90.00 USD stays and 45.00 USD is given back" in text
        assert APPOINTED in text
        assert "Canceled" in text
        assert "Time together" not in text
        assert "Duration" not in text


@pytest.mark.parametrize(
    ("reason", "back", "role", "said", "terms"),
    [
        ("no_show_client", 0, "client", "you did not come", "the whole fee of 90.00 USD stays"),
        ("no_show_client", 0, "expert", "the client did not come", "the whole fee of 90.00 USD stays"),
        ("no_show_expert", 9_000, "client", "the expert did not come", "the whole fee of 90.00 USD is given back"),
        ("connection_lost", 9_000, "client", "This meeting was not held.", "the whole fee of 90.00 USD is given back"),
    ],
)
def test_r14_a_receipt_says_who_did_not_come(reason: str, back: int, role: Role, said: str, terms: str) -> None:
    policy = {"waived_reason": "policy"} if back else {}
    off = bill((), amount_metered=9_000, amount_waived=back, amount_total=9_000 - back, **policy)
    record = meeting(bill=off) | {"end_reason": reason}
    money = payment(status="refunded" if back else "captured", amount_captured=9_000, amount_refunded=back)
    utc = {"locale": "en", "timezone": "UTC"}
    text = " ".join(rendering.mail(receipt(role, session=record, payment=money, people=people(utc, utc))).text.split())
    assert said in text
    assert terms in text
    assert ("Not held" in text, "Canceled" in text, APPOINTED in text) == (True, False, True)


def test_r14_a_receipt_of_a_meeting_waits_until_its_terms_have_given_back() -> None:
    money = payment(amount_captured=9_000)
    assert readiness(meeting(), money, START + 1_000) == "wait"
    assert (
        readiness(meeting(), money | {"status": "partially_refunded", "amount_refunded": 4_500}, START + 1_000)
        == "send"
    )
    assert readiness(meeting(), money, LATER) == "send", "a correction will follow"
