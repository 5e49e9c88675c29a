"""What follows a receipt whose figures are no longer true: issue 4, Receipts; 5-money, Refunds."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.money import split
from gateway.receipts import letters, rendering
from gateway.receipts.correction import Facts, at_rest, corrected, differs
from gateway.receipts.receipt import ROLES, Receipt, Role, compose
from tests.receipts.receipt_cases import ISSUER, LINK, START, bill, payment, people, refunded, session

NOW = START + 5_000_000


def stated(back: int = 0, borne: int = 0, **money: Any) -> Facts:
    """After refunds of so much, of which the platform bears `borne`."""
    refunds = [refunded(back - borne), refunded(borne, charge_to="platform")]
    return Facts.of(session(), payment(amount_refunded=back, refunds=refunds) | money)


def document(role: Role, before: Facts, now: Facts, record: Any = None, money: Any = None, **locale: str) -> Receipt:
    record, money = record or session(), money or payment()
    names = people(client={"locale": "en"} | locale, expert={"locale": "en"} | locale)
    receipt = compose(record, money, names, role, "C-2026-000043", ISSUER, NOW, LINK)
    return corrected(receipt, before, now, "C-2026-000042", record, money)


def amounts(one: Receipt) -> dict[str, int]:
    return {line.kind: line.amount or 0 for line in one.lines}


def test_the_client_is_told_what_was_charged_what_came_back_and_what_is_left() -> None:
    one = document("client", stated(), stated(2_500))
    assert amounts(one) == {"charged": 7500, "refunded": -2500, "paid": 5000, "stated": 7500, "difference": -2500}
    text = rendering.mail(one).text
    assert re.search(r"Stated before in C-2026-000042 +75\.00 USD", text)
    assert re.search(r"Difference +−25\.00 USD", text)
    assert "Visa •••• 4242" in text
    assert "five to ten days" in text


def test_a_correction_says_to_which_card_and_why() -> None:
    poor = refunded(2_500) | {"reason": "The connection\nwas poor"}
    now = Facts.of(session(), payment(amount_refunded=2_500, refunds=[poor]))
    assert "Visa •••• 4242 · The connection was poor" in rendering.mail(document("client", stated(), now)).text
    lost = Facts.of(session(), payment(amount_refunded=7_500, refunds=[refunded(7_500) | {"reason": "dispute"}]))
    assert "decided by the card’s bank" in rendering.mail(document("expert", stated(), lost)).text


def test_each_refund_has_its_own_line_with_its_day_and_its_reason() -> None:
    whys = ((100, "Line was bad", "shares"), (1, "one cent", "platform"), (50, "goodwill", "shares"))
    refunds = [
        refunded(amount, charge_to=borne_by) | {"id": f"ref_{amount}", "reason": why} for amount, why, borne_by in whys
    ]
    orders = {"orders": [{"id": "ref_100", "at": NOW - 86_400_000}, {"id": "ref_50", "at": NOW}]}
    now = Facts.of(session(), payment(amount_refunded=151, refunds=refunds), orders)
    assert Facts.from_dict(json.loads(json.dumps(now.to_dict()))) == now
    client, expert = (document(role, stated(), now) for role in ROLES)
    assert [(line.amount, line.why) for line in client.lines if line.kind == "refunded"] == [
        (-100, "Line was bad"), (-1, "one cent"), (-50, "goodwill"),
    ]  # fmt: skip
    assert [line.amount for line in expert.lines if line.kind == "refunded"] == [-100, -50], (
        "the platform's is no business of theirs"
    )
    text = rendering.mail(client).text
    assert "Nov 20, 2026 · Visa •••• 4242 · Line was bad" in text
    assert "Nov 21, 2026 · Visa •••• 4242 · goodwill" in text


def test_refunds_that_are_not_what_came_back_are_one_line_without_a_reason() -> None:
    refunds = [refunded(100) | {"reason": "a"}, refunded(50) | {"reason": "b"}]
    now = Facts.of(session(), payment(amount_refunded=160, refunds=refunds))
    told = [line for line in document("client", stated(), now).lines if line.kind == "refunded"]
    assert [(line.amount, line.why) for line in told] == [(-160, "")]


def test_a_letter_of_the_first_kind_reads_as_it_did() -> None:
    kept = {"due": False, "charged": 7500, "refunded": 150, "shared": 7350, "taken_back": 0, "kept_back": 0, "why": "a"}
    for role in ROLES:
        told = [line for line in document(role, stated(), Facts.from_dict(kept)).lines if line.kind == "refunded"]
        assert [(line.amount, line.why) for line in told] == [(-150, "a")]


def test_the_expert_is_told_the_new_total_commission_and_earnings() -> None:
    one = document("expert", stated(), stated(2_500))
    assert amounts(one) == {
        "total": 7500, "refunded": -2500, "remaining": 5000, "commission": -500, "net": 4500, "stated": 6750,
        "difference": -2250,
    }  # fmt: skip
    assert "now 45.00 USD" in rendering.mail(one).subject


def test_what_the_platform_bears_changes_nothing_for_the_expert() -> None:
    before, now = stated(), stated(2_500, borne=2_500)
    assert differs("client", before, now)
    assert not differs("expert", before, now)


def test_a_second_correction_starts_from_the_first() -> None:
    one = document("client", stated(2_500), stated(7_500))
    assert (amounts(one)["stated"], amounts(one)["difference"], one.outcome) == (5000, -5000, "refunded")


def test_a_refund_that_the_bank_returned_is_taken_back_from_the_figures() -> None:
    one = document("client", stated(2_500), stated())
    assert (amounts(one)["difference"], one.outcome) == (2500, "paid")
    assert "+25.00 USD" in rendering.mail(one).text
    assert "five to ten days" not in rendering.mail(one).text


def test_a_lost_dispute_reads_like_a_refund() -> None:
    lost = payment(status="refunded", amount_refunded=7500, refunds=[refunded(7500) | {"number": 0, "id": "du_1"}])
    now = Facts.of(session(), lost)
    assert (now.paid, now.shared) == (0, 0)
    one = document("expert", stated(), now)
    assert amounts(one)["net"] == 0
    assert amounts(one)["difference"] == -6750
    assert "Your earnings\n0.00 USD" in rendering.mail(one).text


def test_an_open_dispute_corrects_nothing() -> None:
    disputed = Facts.of(session(), payment(status="disputed"))
    assert not any(differs(role, stated(), disputed) for role in ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_a_due_bill_paid_late_gets_a_receipt_without_a_difference(role: Role) -> None:
    due = Facts.of(session(), payment(status="due", amount_captured=0, amount_total=7500))
    assert (due.due, due.paid, due.shared) == (True, 7500, 7500)
    assert differs(role, due, stated())
    one = document(role, due, stated())
    assert (one.kind, one.outcome) == ("payment", "paid")
    assert "difference" not in amounts(one)
    assert rendering.mail(one).subject.startswith("Payment received")


def test_r18_a_late_payment_is_paid_out_in_the_week_in_which_it_came() -> None:
    due = Facts.of(session(), payment(status="due", amount_captured=0, amount_total=7500))
    earned = document("expert", due, stated()).earnings
    assert earned is not None
    assert earned.payout is not None
    assert earned.payout.number == 47


def test_what_is_taken_back_and_what_is_kept_back_are_told_in_the_settlement_currency() -> None:
    euros = session(bill(currency="eur"), currency="eur")
    moved = {"to": "expert", "amount": 7314, "currency": "usd", "status": "owed"}
    money = payment(
        settlement={"currency": "usd", "amount": 8127, "fee": 266, "exchange_rate": "1.08363"},
        transfers=[moved | {"amount_reversed": 1000, "amount_owed": 1438}], amount_refunded=2500,
        refunds=[refunded(2500)],
    )  # fmt: skip
    one = document("expert", stated(), Facts.of(euros, money), euros, money)
    text = rendering.mail(one).text
    assert re.search(r"Taken back from your Stripe account +10\.00 USD", text)
    assert re.search(r"Kept back from your next transfers +14\.38 USD", text)
    assert re.search(r"Your share in USD +48\.76 USD\n +at 1 EUR = 1\.08363 USD", text)


@settings(deadline=None)
@given(st.integers(1, 135_000), st.integers(0, 5_000), st.lists(st.integers(0, 60_000), min_size=1, max_size=5))
def test_law6_any_series_of_corrections_adds_up_to_the_last_figure(total: int, bps: int, refunds: list[int]) -> None:
    record = session(bill() | {"amount_total": total}, commission_bps=bps)
    backs = [min(total, back) for back in itertools.accumulate(refunds, initial=0)]
    facts = [Facts(False, total, back, total - back) for back in backs]
    for role in ROLES:
        differences = 0
        for before, now in itertools.pairwise(facts):
            lines = amounts(document(role, before, now, record))
            differences += lines.get("difference", 0)
            if role == "client":
                assert lines["charged"] + lines.get("refunded", 0) == lines["paid"]
            else:
                left = lines.get("remaining", lines["total"])
                assert lines["total"] + lines.get("refunded", 0) == left
                assert left + lines.get("commission", 0) == lines["net"]
        last, first = (f.paid if role == "client" else split(f.shared, bps).expert for f in (facts[-1], facts[0]))
        assert first + differences == last


# When


@pytest.mark.parametrize("state", ["intent", "sent", "unknown"])
def test_a_refund_whose_outcome_is_open_is_waited_for(state: str) -> None:
    money = payment(steps=[{"step": "refund", "state": state}])
    assert not any(at_rest(role, money) for role in ROLES)


def test_the_expert_waits_for_the_reversal_and_the_client_does_not() -> None:
    money = payment(settled=False, steps=[{"step": "refund", "state": "done"}])
    assert (at_rest("client", money), at_rest("expert", money)) == (True, False)


def drafted(money: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """The record with what is due for it, numbered at once."""
    fresh = letters.drafts(session(), money, kept, NOW)
    made = {name: letters.drafted(facts, "s" * 32, f"<{name}>", NOW) for name, facts in fresh.items()}
    return kept | {name: letter | {"number": f"N-{name}"} for name, letter in made.items()}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7_500), st.booleans()), max_size=8))
def test_each_side_is_told_once_of_each_change_and_of_nothing_else(changes: list[tuple[int, bool]]) -> None:
    kept = drafted(payment(), {"schema": 1})
    told = {role: Facts.from_dict(kept[role]["facts"]) for role in ROLES}
    for back, platform in changes:
        charge_to = "platform" if platform else "shares"
        money = payment(amount_refunded=back, refunds=[refunded(back, charge_to=charge_to)])
        before, now = kept, Facts.of(session(), money)
        kept = drafted(money, kept)
        for role in ROLES:
            fresh = [name for name in kept if name not in before and letters.role_of(name) == role]
            assert len(fresh) == differs(role, told[role], now)
            told[role] = now if fresh else told[role]
        assert drafted(money, kept) == kept


def test_a_document_reads_the_same_whatever_came_after_it() -> None:
    kept = drafted(payment(), {"schema": 1})
    once = payment(amount_refunded=1000, refunds=[refunded(1000)])
    kept = drafted(once, kept)
    twice = payment(amount_refunded=3000, refunds=[refunded(3000)])
    receipt = compose(session(), twice, people(), "client", "N-client.2", ISSUER, NOW, LINK)
    one = letters.written(receipt, "client.2", drafted(twice, kept), session(), twice)
    assert amounts(one) == {"charged": 7500, "refunded": -1000, "paid": 6500, "stated": 7500, "difference": -1000}
    assert one.corrected_by == ("N-client.3",)


def test_a_corrected_receipts_page_leads_to_what_took_its_place() -> None:
    kept = drafted(payment(), {"schema": 1})
    money = payment(amount_refunded=1000, refunds=[refunded(1000)])
    kept = drafted(money, kept)
    for number in ("client.2", "expert.2"):
        kept[number] = kept[number] | {"secret": f"secret-of-{number}"}
    for role in ROLES:
        receipt = compose(session(), money, people(), role, f"N-{role}", ISSUER, NOW, "https://calls.example.com/r/own")
        first = letters.written(receipt, role, kept, session(), money)
        assert re.search(
            rf'href="https://calls.example.com/r/secret-of-{role}.2"[^>]*>[^<]*N-{role}.2', rendering.page(first)
        )
        assert f"https://calls.example.com/r/secret-of-{role}.2" in rendering.mail(first).text
        assert "secret-of" not in rendering.page(letters.written(receipt, f"{role}.2", kept, session(), money))


@pytest.mark.parametrize("language", rendering.LANGUAGES)
@pytest.mark.parametrize("role", ROLES)
def test_corrections_and_late_payments_can_be_said_in_every_language(language: str, role: Role) -> None:
    due = Facts.of(session(), payment(status="due", amount_captured=0, amount_total=7500))
    for before, now in ((stated(), stated(2500)), (stated(2500), stated()), (due, stated())):
        one = document(role, before, now, locale=language)
        words = rendering.mail(one)
        assert "{" not in words.text + words.subject
        assert "C-2026-000042" in words.text
        assert rendering.page(one).startswith("<!doctype html>")
