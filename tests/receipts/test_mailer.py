"""Receipts through a real Valkey and a real SMTP conversation: numbered once, sent to both, seen when undeliverable."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.errors import NotFound
from gateway.journal import NOW, Journal
from gateway.receipts.mail_desk import MailDesk, mail_id
from gateway.receipts.mailer import Mailer
from gateway.receipts.receipt import ROLES
from tests.billing_bridge.clocks import StandingClock, look
from tests.receipts.post import Sink, settings_for, sunk
from tests.receipts.receipt_cases import (
    SESSION,
    START,
    bill,
    payment,
    people,
    refunded,
    released,
    session,
)

LATER = START + 2_000_000


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with sunk() as sink:
        yield sink


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock(LATER)


@pytest.fixture
async def mailer(journal: Journal, sink: Sink, clock: StandingClock) -> AsyncIterator[Mailer]:
    made = Mailer(journal, settings_for(sink), clock)
    yield made
    await made._post.close()


async def settle(journal: Journal, record: dict[str, Any] | None = None, **docs: Any) -> str:
    """Put a settled session into the store, due for the mailer."""
    body = record or session()
    put = {"session": (0, body), "payment": (0, docs.get("payment", payment()))}
    put["people"] = (0, docs.get("people", people()))
    await journal.commit(body["id"], put, due={"mail": 1})
    return str(body["id"])


async def receipts_of(journal: Journal, session_id: str = SESSION) -> dict[str, Any]:
    doc = (await journal.read(session_id, "receipts"))["receipts"]
    assert doc is not None
    return doc.body


async def test_r07_client_and_expert_each_get_one_mail_with_the_total(
    journal: Journal, mailer: Mailer, sink: Sink
) -> None:
    await settle(journal)
    assert await look(journal, "mail", mailer.handle, LATER) == 1
    assert sink.recipients == ["client@example.com", "expert@example.com"]
    for mail, total in zip(sink.mails, ("75.00 USD", "75,00 USD"), strict=True):
        text, html = mail.get_body(("plain",)), mail.get_body(("html",))
        assert text is not None
        assert html is not None
        assert total in text.get_content()
        assert total.split(" ")[0] in html.get_content()
    assert await look(journal, "mail", mailer.handle, LATER * 2) == 0


async def test_receipts_are_numbered_kept_and_told(journal: Journal, mailer: Mailer, sink: Sink) -> None:
    await settle(journal)
    await look(journal, "mail", mailer.handle, LATER)
    body = await receipts_of(journal)
    assert (body["client"]["number"], body["expert"]["number"]) == ("C-2026-000001", "E-2026-000001")
    assert {body[role]["mail"]["status"] for role in ROLES} == {"sent"}
    events = await journal.events(SESSION)
    assert [(e["type"], e["data"]["role"], e["data"]["amount_total"]) for e in events] == [
        ("receipt.sent", "client", 7500),
        ("receipt.sent", "expert", 7500),
    ]
    assert "example.com" not in str(events)


async def test_numbers_have_no_gap_when_many_sessions_end_at_once(journal: Journal, mailer: Mailer) -> None:
    ids = [f"ses_{n:026d}" for n in range(30)]
    for one in ids:
        await settle(journal, session(id=one))
    assert await look(journal, "mail", mailer.handle, LATER) == 30
    numbers = sorted([(await receipts_of(journal, one))["client"]["number"] for one in ids])
    assert numbers == [f"C-2026-{n:06d}" for n in range(1, 31)]


@pytest.mark.parametrize("write", [0, 1])
async def test_a_crash_at_either_write_of_a_receipt_burns_no_number(
    journal: Journal, mailer: Mailer, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    await settle(journal)
    with monkeypatch.context() as patch:
        patch.setattr(journal, "commit", _crash_at(write, journal.commit))
        with pytest.raises(ConnectionResetError):
            await look(journal, "mail", mailer.handle, LATER)
    await settle(journal, session(id="ses_other"))
    await look(journal, "mail", mailer.handle, LATER + 61_000)
    numbers = [(await receipts_of(journal, one))["client"]["number"] for one in (SESSION, "ses_other")]
    assert sorted(numbers) == ["C-2026-000001", "C-2026-000002"]
    assert await journal.redis.hget("{receipts:default}:C-2026", "last") == b"2"


def _crash_at(write: int, commit: Any) -> Any:
    """The journal's commit, until its so-manieth call (from 0), which breaks off before it."""
    count = iter(range(100))

    async def crashing(*args: Any, **kwargs: Any) -> Any:
        if next(count) == write:
            raise ConnectionResetError
        return await commit(*args, **kwargs)

    return crashing


async def test_two_mailers_at_once_give_one_number(journal: Journal, sink: Sink, clock: StandingClock) -> None:
    first, second = (Mailer(journal, settings_for(sink), clock) for _ in range(2))
    await settle(journal)
    (claim,) = await journal.due("mail", lease_ms=60_000, now=LATER)
    await asyncio.gather(first.handle(claim), second.handle(claim), return_exceptions=True)
    await asyncio.gather(first._post.close(), second._post.close())
    assert (await receipts_of(journal))["client"]["number"] == "C-2026-000001"
    assert await journal.redis.hget("{receipts:default}:C-2026", "last") == b"1"
    assert len({mail["Message-ID"] for mail in sink.mails}) == 2


async def test_test_mode_has_a_series_of_its_own(journal: Journal, mailer: Mailer) -> None:
    await settle(journal, session(livemode=False))
    await look(journal, "mail", mailer.handle, LATER)
    assert (await receipts_of(journal))["client"]["number"] == "TEST-C-2026-000001"


async def test_a_mail_sent_again_has_the_same_message_id(journal: Journal, mailer: Mailer, sink: Sink) -> None:
    await settle(journal)
    await look(journal, "mail", mailer.handle, LATER)
    await MailDesk(journal).resend(mail_id(SESSION, "client"))
    await look(journal, "mail", mailer.handle, LATER * 2)
    assert [mail["Message-ID"] for mail in sink.mails] == [
        f"<receipt.{SESSION}.{role}@parley.example>" for role in ("client", "expert", "client")
    ]


async def test_a_busy_server_is_tried_again_and_the_other_side_is_not_kept_waiting(
    journal: Journal, mailer: Mailer, sink: Sink, clock: StandingClock
) -> None:
    sink.refusals["client@example.com"] = "451 try later"
    await settle(journal)
    await look(journal, "mail", mailer.handle, LATER)
    mail = (await receipts_of(journal))["client"]["mail"]
    assert (mail["status"], mail["tries"], mail["error"]) == ("pending", 1, "smtp_451")
    assert sink.recipients == ["expert@example.com"]
    sink.refusals.clear()
    assert await look(journal, "mail", mailer.handle, LATER + 29_000) == 0
    clock.now = LATER + 60_000
    assert await look(journal, "mail", mailer.handle, clock.now) == 1
    assert sink.recipients == ["expert@example.com", "client@example.com"]


async def test_a_mail_server_that_is_away_loses_nothing(
    journal: Journal, mailer: Mailer, sink: Sink, clock: StandingClock
) -> None:
    away = Mailer(journal, settings_for(sink, port=1), clock)
    await settle(journal)
    await look(journal, "mail", away.handle, LATER)
    assert (await receipts_of(journal))["expert"]["mail"]["error"] == "connection"
    clock.now = LATER + 60_000
    await look(journal, "mail", mailer.handle, clock.now)
    assert len(sink.mails) == 2


async def test_an_address_refused_for_good_is_seen_and_can_be_sent_again(
    journal: Journal, mailer: Mailer, sink: Sink
) -> None:
    sink.refusals["expert@example.com"] = "550 no such user expert@example.com"
    await settle(journal)
    await look(journal, "mail", mailer.handle, LATER)
    (undelivered,) = await MailDesk(journal).undeliverable()
    assert (undelivered["session"], undelivered["role"], undelivered["error"]) == (SESSION, "expert", "smtp_550")
    assert "example.com" not in str(await receipts_of(journal))
    sink.refusals.clear()
    await MailDesk(journal).resend(mail_id(SESSION, "expert"))
    await look(journal, "mail", mailer.handle, LATER * 2)
    assert await MailDesk(journal).undeliverable() == []
    assert sink.recipients[-1] == "expert@example.com"


@pytest.mark.parametrize("address", [None, "", "no address", "two@a.example, three@b.example", "x\r\nBcc: y@z.example"])
async def test_an_address_that_is_none_fails_visibly_and_sends_nothing(
    journal: Journal, mailer: Mailer, sink: Sink, address: str | None
) -> None:
    await settle(journal, people=people(client={"email": address}))
    await look(journal, "mail", mailer.handle, LATER)
    assert (await receipts_of(journal))["client"]["mail"]["status"] == "failed"
    assert sink.recipients == ["expert@example.com"]


async def test_an_address_beyond_ascii_is_sent_to_a_server_that_can(
    journal: Journal, mailer: Mailer, sink: Sink
) -> None:
    await settle(journal, people=people(client={"email": "müller@example.com", "name": "Zoë"}))
    await look(journal, "mail", mailer.handle, LATER)
    assert sink.recipients[0] == "müller@example.com"


async def test_names_cannot_add_headers_or_recipients(journal: Journal, mailer: Mailer, sink: Sink) -> None:
    evil = 'Eve" <eve@evil.example>\r\nBcc: all@evil.example, "'
    await settle(journal, people=people(client={"name": evil}, expert={"name": evil}))
    await look(journal, "mail", mailer.handle, LATER)
    assert sink.recipients == ["client@example.com", "expert@example.com"]
    assert all(mail["Bcc"] is None for mail in sink.mails)
    assert [mail["To"].addresses[0].addr_spec for mail in sink.mails] == sink.recipients


async def test_nothing_is_sent_while_money_moves(journal: Journal, mailer: Mailer, sink: Sink) -> None:
    await settle(journal, payment=payment(status="capturing"))
    await look(journal, "mail", mailer.handle, LATER)
    assert (await journal.read(SESSION, "receipts"))["receipts"] is None
    held = (await journal.read(SESSION, "payment"))["payment"]
    assert held is not None
    await journal.commit(SESSION, {"payment": (held.version, payment())}, due={"mail": NOW})
    await look(journal, "mail", mailer.handle, LATER * 2)
    assert len(sink.mails) == 2


async def test_a_session_that_nobody_met_in_sends_nothing(journal: Journal, mailer: Mailer, sink: Sink) -> None:
    await settle(journal, session(bill((), started_at=None), started_at=None), payment=released())
    await look(journal, "mail", mailer.handle, LATER)
    assert sink.mails == []
    assert await look(journal, "mail", mailer.handle, LATER * 2) == 0


async def test_the_receipt_page_opens_by_its_secret_alone(journal: Journal, mailer: Mailer, sink: Sink) -> None:
    await settle(journal)
    await look(journal, "mail", mailer.handle, LATER)
    secret = (await receipts_of(journal))["client"]["secret"]
    text = sink.mails[0].get_body(("plain",))
    assert text is not None
    assert f"https://calls.example.com/r/{secret}" in text.get_content()
    page = await mailer.receipt_page(secret)
    assert "C-2026-000001" in page
    assert "expert@example.com" not in page
    for wrong in ("", "x" * 32, secret[:-1] + "_", SESSION, "é" * 20):
        with pytest.raises(NotFound):
            await mailer.receipt_page(wrong)


# Corrections


async def refund(journal: Journal, *refunds: dict[str, Any], **changes: Any) -> None:
    """What the bridge leaves when refunds were made: 25.00 of the 75.00 unless said otherwise."""
    made = refunds or (refunded(2_500),)
    back = sum(one["amount"] for one in made if one["status"] in ("pending", "succeeded"))
    money = payment(status="partially_refunded" if back else "captured", amount_refunded=back, refunds=list(made))
    doc = (await journal.read(SESSION, "payment"))["payment"]
    assert doc is not None
    await journal.commit(SESSION, {"payment": (doc.version, money | changes)}, due={"mail": NOW})


async def corrected(journal: Journal, mailer: Mailer, clock: StandingClock) -> None:
    """A session whose receipts are out, and a refund after it."""
    await settle(journal)
    await look(journal, "mail", mailer.handle, LATER)
    await refund(journal)
    clock.now = LATER + 60_000
    await look(journal, "mail", mailer.handle, clock.now * 2)


async def test_r07_after_a_refund_both_sides_get_a_numbered_correction(
    journal: Journal, mailer: Mailer, sink: Sink, clock: StandingClock
) -> None:
    await corrected(journal, mailer, clock)
    assert sink.recipients == ["client@example.com", "expert@example.com"] * 2
    numbers = {name: letter["number"] for name, letter in (await receipts_of(journal)).items() if name != "schema"}
    assert numbers == {
        "client": "C-2026-000001", "expert": "E-2026-000001", "client.2": "C-2026-000002", "expert.2": "E-2026-000002",
    }  # fmt: skip
    told = [event["data"] for event in await journal.events(SESSION)]
    assert [(one["number"], one["corrects"], one["amount_total"]) for one in told[2:]] == [
        ("C-2026-000002", "C-2026-000001", 5_000),
        ("E-2026-000002", "E-2026-000001", 5_000),
    ]
    assert sink.mails[2]["Message-ID"] == f"<receipt.{SESSION}.client.2@parley.example>"
    assert sink.mails[2]["Subject"] == (
        "Correction C-2026-000002 to receipt C-2026-000001: now 50.00 USD, session with Expert Two"
    )


async def test_a_correction_is_shown_with_its_receipt_and_answers_go_to_people(
    journal: Journal, mailer: Mailer, sink: Sink, clock: StandingClock
) -> None:
    await corrected(journal, mailer, clock)
    first, _, correction, _ = sink.mails
    assert first["References"] is None
    assert correction["References"] == first["Message-ID"]
    assert correction["Reply-To"] == "help@example.com"


async def test_a_look_too_many_corrects_nothing_twice(
    journal: Journal, mailer: Mailer, sink: Sink, clock: StandingClock
) -> None:
    await corrected(journal, mailer, clock)
    await journal.schedule("mail", SESSION, 0)
    await look(journal, "mail", mailer.handle, clock.now * 3)
    assert len(sink.mails) == 4


@pytest.mark.parametrize("write", [0, 1, 2, 3])
async def test_law5_a_crash_at_any_write_of_a_correction_leaves_one_document_and_one_number(
    journal: Journal, mailer: Mailer, sink: Sink, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    await settle(journal)
    await look(journal, "mail", mailer.handle, LATER)
    await refund(journal)
    with monkeypatch.context() as patch:
        patch.setattr(journal, "commit", _crash_at(write, journal.commit))
        with pytest.raises(ConnectionResetError):
            await look(journal, "mail", mailer.handle, LATER * 2)
    await look(journal, "mail", mailer.handle, LATER * 3)
    assert await journal.redis.hget("{receipts:default}:C-2026", "last") == b"2"
    assert set(await receipts_of(journal)) == {"schema", "client", "expert", "client.2", "expert.2"}
    assert len({mail["Message-ID"] for mail in sink.mails}) == 4, "repeated under the same id, if at all"
    assert len(sink.mails) == 4 + (write >= 2), "a mail whose sending was not kept goes out again"


async def test_nothing_is_corrected_while_it_is_not_known_whether_the_refund_was_made(
    journal: Journal, mailer: Mailer, sink: Sink
) -> None:
    await settle(journal)
    await look(journal, "mail", mailer.handle, LATER)
    await refund(journal, refunded(2_500, "ordered"), settled=False, steps=[{"step": "refund", "state": "unknown"}])
    await look(journal, "mail", mailer.handle, LATER * 2)
    assert len(sink.mails) == 2


async def test_a_refund_that_vanished_before_it_was_numbered_leaves_no_gap(
    journal: Journal, mailer: Mailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document is on the record first: what it stated was true, and the next one takes it back."""
    await settle(journal)
    await look(journal, "mail", mailer.handle, LATER)
    await refund(journal)
    with monkeypatch.context() as patch:
        patch.setattr(journal, "commit", _crash_at(1, journal.commit))
        with pytest.raises(ConnectionResetError):
            await look(journal, "mail", mailer.handle, LATER * 2)
    await refund(journal, refunded(2_500, "failed"))
    for n in (3, 4):
        await look(journal, "mail", mailer.handle, LATER * n)
    kept = await receipts_of(journal)
    assert [kept[name]["number"] for name in ("client.2", "client.3")] == ["C-2026-000002", "C-2026-000003"]
    assert [kept[name]["facts"]["refunded"] for name in ("client.2", "client.3")] == [2_500, 0]


async def test_a_correction_has_a_page_of_its_own_and_the_receipt_points_to_it(
    journal: Journal, mailer: Mailer, clock: StandingClock
) -> None:
    await corrected(journal, mailer, clock)
    kept = await receipts_of(journal)
    page = await mailer.receipt_page(kept["client.2"]["secret"])
    assert "C-2026-000002" in page
    assert "This document corrects C-2026-000001" in page
    assert "Corrected by C-2026-000002" in await mailer.receipt_page(kept["client"]["secret"])
    assert "C-2026" not in await mailer.receipt_page(kept["expert.2"]["secret"]), "law 7: the other side's series"


async def test_an_undeliverable_correction_is_seen_and_can_be_sent_again(
    journal: Journal, mailer: Mailer, sink: Sink, clock: StandingClock
) -> None:
    await settle(journal)
    await look(journal, "mail", mailer.handle, LATER)
    sink.refusals["client@example.com"] = "550 gone"
    await refund(journal)
    await look(journal, "mail", mailer.handle, LATER * 2)
    (undelivered,) = await MailDesk(journal).undeliverable()
    assert (undelivered["letter"], undelivered["number"]) == ("client.2", "C-2026-000002")
    sink.refusals.clear()
    await MailDesk(journal).resend(mail_id(SESSION, "client.2"))
    await look(journal, "mail", mailer.handle, LATER * 3)
    assert sink.recipients[-1] == "client@example.com"
    with pytest.raises(NotFound):
        await MailDesk(journal).resend(mail_id(SESSION, "client.3"))


# What an operator does


async def test_a_sessions_mails_are_listed_with_how_they_stand(
    journal: Journal, mailer: Mailer, sink: Sink, clock: StandingClock
) -> None:
    sink.refusals["expert@example.com"] = "451 later"
    await corrected(journal, mailer, clock)
    rows = [(row["mail"], row["number"], row["status"]) for row in await MailDesk(journal).of(SESSION)]
    assert rows == [
        (f"receipt.{SESSION}.client", "C-2026-000001", "sent"),
        (f"receipt.{SESSION}.expert", "E-2026-000001", "pending"),
        (f"receipt.{SESSION}.client.2", "C-2026-000002", "sent"),
        (f"receipt.{SESSION}.expert.2", "E-2026-000002", "pending"),
    ]
    assert await MailDesk(journal).of("ses_none") == []


async def test_all_mails_since_a_time_are_sent_again_under_their_ids(
    journal: Journal, mailer: Mailer, sink: Sink, clock: StandingClock
) -> None:
    await corrected(journal, mailer, clock)
    assert await MailDesk(journal).resend_since(clock.now) == 2
    assert await MailDesk(journal).resend_since(clock.now) == 0, "they are on their way"
    await look(journal, "mail", mailer.handle, clock.now * 4)
    assert [mail["Message-ID"] for mail in sink.mails[4:]] == [mail["Message-ID"] for mail in sink.mails[2:4]]
    assert await MailDesk(journal).resend_since(LATER) == 4
    numbers = [letter["number"] for name, letter in (await receipts_of(journal)).items() if name != "schema"]
    assert len(set(numbers)) == 4, "the documents are the same ones"


@pytest.mark.parametrize(
    "mail", ["", "receipt", f"receipt.{SESSION}", f"receipt.{SESSION}.schema", "receipt.ses_x.client"]
)
async def test_a_mail_that_is_none_cannot_be_sent_again(journal: Journal, mailer: Mailer, mail: str) -> None:
    await settle(journal)
    await look(journal, "mail", mailer.handle, LATER)
    with pytest.raises(NotFound):
        await MailDesk(journal).resend(mail)


# The call to pay


PAY = "https://pay.example.com/pay#secret"


async def due(journal: Journal, sink: Sink, clock: StandingClock) -> Mailer:
    """A session whose hold was lost, and a mailer of a gateway that has a pay page."""
    await settle(journal, payment=payment(status="due", amount_captured=0, amount_total=7500, settlement=None))
    return Mailer(journal, settings_for(sink), clock, lambda session: PAY)


async def test_a_lost_hold_becomes_a_mail_with_a_pay_link_and_never_a_silent_retry(
    journal: Journal, sink: Sink, clock: StandingClock
) -> None:
    mailer = await due(journal, sink, clock)
    for n in (1, 2, 3):
        await look(journal, "mail", mailer.handle, LATER * n)
    await mailer._post.close()
    assert sink.recipients == ["client@example.com", "expert@example.com", "client@example.com"]
    mail = sink.mails[2]
    assert mail["Subject"] == "Payment due: 75.00 USD, session with Expert Two"
    assert mail["Message-ID"] == f"<receipt.{SESSION}.due@parley.example>"
    for kind in ("plain", "html"):
        body = mail.get_body((kind,))
        assert body is not None
        assert PAY in body.get_content()
        assert "not a receipt" in body.get_content()
    assert "C-2026-000002" not in str(await receipts_of(journal)), "it takes no number"
    assert [event["data"]["number"] for event in await journal.events(SESSION)] == ["C-2026-000001", "E-2026-000001"]


async def test_a_call_to_pay_that_is_on_its_way_is_not_sent_once_it_was_paid(
    journal: Journal, sink: Sink, clock: StandingClock
) -> None:
    mailer = await due(journal, sink, clock)
    await look(journal, "mail", mailer.handle, LATER)
    await refund(journal, refunded(1, "failed"))  # paid, and nothing came back of it
    for n in (2, 3):
        await look(journal, "mail", mailer.handle, LATER * n)
    await mailer._post.close()
    assert (await receipts_of(journal))["due"]["mail"]["status"] == "canceled"
    assert [mail["Subject"].split(",")[0].strip() for mail in sink.mails[2:]] == [
        "Payment received",
        "Zahlung eingegangen",
    ]


async def test_a_call_to_pay_waits_while_a_card_is_being_tried(
    journal: Journal, sink: Sink, clock: StandingClock
) -> None:
    mailer = await due(journal, sink, clock)
    await look(journal, "mail", mailer.handle, LATER)
    doc = (await journal.read(SESSION, "payment"))["payment"]
    assert doc is not None
    await journal.commit(SESSION, {"payment": (doc.version, doc.body | {"status": "action_required"})})
    await look(journal, "mail", mailer.handle, LATER * 2)
    assert len(sink.mails) == 2
    await journal.commit(SESSION, {"payment": (doc.version + 1, doc.body)}, due={"mail": NOW})
    clock.now += 120_000
    await look(journal, "mail", mailer.handle, LATER * 3)
    await mailer._post.close()
    assert len(sink.mails) == 3


async def test_without_a_pay_page_there_is_no_call_to_pay(journal: Journal, mailer: Mailer, sink: Sink) -> None:
    await settle(journal, payment=payment(status="due", amount_captured=0, amount_total=7500, settlement=None))
    for n in (1, 2):
        await look(journal, "mail", mailer.handle, LATER * n)
    assert len(sink.mails) == 2


async def test_run_works_until_it_is_cancelled(journal: Journal, mailer: Mailer, sink: Sink) -> None:
    running = asyncio.create_task(mailer.run())
    await settle(journal)
    async with asyncio.timeout(10):
        while len(sink.mails) < 2:
            await asyncio.sleep(0.02)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
