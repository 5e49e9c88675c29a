"""The letters of a session, kept in its `receipts` record: both receipts, their corrections, the call to pay. Pure.

A letter is known by its name: `client` and `expert` are the receipts, `client.2` the client's second document, `due`
the call to pay a bill whose hold was lost. A letter is drafted on the record before it is given a number, so that no
number is ever without its document; numbered before it is sent; and each attempt to send it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hmac import compare_digest
from typing import Any, Final

from gateway.outbox.delivery import MAIL_SCHEDULE_MS, Answer, Delivery, attempted
from gateway.receipts.correction import Facts, at_rest, corrected, differs
from gateway.receipts.receipt import ROLES, Receipt, Role, readiness

Letter = dict[str, Any]
Letters = Mapping[str, Any]
SCHEMA: Final = "schema"
DUE: Final = "due"
BEING_PAID_MS: Final = 60_000  # until a card that is being tried is looked at again


def role_of(name: str) -> Role:
    return "expert" if name.startswith("expert") else "client"


def names(letters: Letters) -> list[str]:
    """All letters, in the order in which they were written."""
    return [name for name in letters if name != SCHEMA]


def series(letters: Letters, role: Role) -> list[str]:
    """A side's receipt and its corrections, in order."""
    return [name for name in names(letters) if role_of(name) == role and name != DUE]


def thread(letters: Letters, name: str) -> tuple[str, ...]:
    """The Message-IDs of a side's letters up to this one, its own last: mail programs show them together."""
    line = series(letters, role_of(name))
    before = line if name == DUE else line[: line.index(name)]
    return tuple(letters[one]["mail"]["message_id"] for one in (*before, name))


def opened_by(letters: Letters, secret: str) -> str | None:
    """The letter whose page the secret opens."""
    found = (name for name in names(letters) if compare_digest(letters[name]["secret"], secret))
    return next((name for name in found if name != DUE), None)  # that one's page is the pay page


def drafts(
    session: Mapping[str, Any] | None,
    payment: Mapping[str, Any] | None,
    letters: Letters,
    now: int,
    *,
    orders: Mapping[str, Any] | None = None,
    payable: bool = True,
) -> dict[str, Facts]:
    """Letters whose time has come and which are not written yet, with the figures that each is going to state.
    `orders` of refunds say when each was asked for; `payable`: there is a page to pay a due bill on."""
    if session is None or readiness(session, payment, now) != "send":
        return {}
    facts = Facts.of(session, payment, orders)
    found: dict[str, Facts] = {}
    for role in ROLES:
        line = series(letters, role)
        if not line:
            found[role] = facts
        elif at_rest(role, payment) and differs(role, _stated(letters, line[-1]), facts):
            found[f"{role}.{len(line) + 1}"] = facts
    return found | ({DUE: facts} if payable and facts.due and DUE not in letters else {})


def _stated(letters: Letters, name: str) -> Facts:
    return Facts.from_dict(letters[name]["facts"])


def drafted(facts: Facts, secret: str, message_id: str, now: int) -> Letter:
    """A letter before it has its number; the call to pay gets none."""
    mail = {"status": "pending", "message_id": message_id, "tries": 0, "sent_at": None, "error": None, "next_at": now}
    return {"number": None, "secret": secret, "issued_at": now, "facts": facts.to_dict(), "mail": mail}


def unnumbered(letters: Letters) -> list[str]:
    return [name for name in names(letters) if letters[name]["number"] is None and name != DUE]


def to_send(letters: Letters, now: int) -> list[str]:
    """Whose time has come."""
    mails = [(name, letters[name]["mail"]) for name in names(letters)]
    return [name for name, mail in mails if mail["status"] == "pending" and mail["next_at"] <= now]


def held_back(name: str, letter: Letter, payment: Mapping[str, Any] | None, now: int) -> Letter | None:
    """The letter as it is kept when it must not be sent now: a call to pay what is not due any more is canceled, and
    waits while a card is being tried. None if it may go."""
    status = payment["status"] if payment else "none"
    if name != DUE or status in ("due", "failed"):
        return None
    if status in ("pending", "action_required"):
        return {**letter, "mail": {**letter["mail"], "next_at": now + BEING_PAID_MS}}
    return {**letter, "mail": {**letter["mail"], "status": "canceled", "next_at": None}}


def after(letter: Letter, answer: Answer, final: bool, now: int, jitter: float) -> Letter:
    """The letter after an attempt to send it; `final`: trying again is useless."""
    mail = letter["mail"]
    tried = attempted(Delivery(mail["tries"]), answer, now, jitter, MAIL_SCHEDULE_MS)
    if tried.state == "delivered":
        sent = {"status": "sent", "tries": tried.attempts, "sent_at": now, "error": None, "next_at": None}
        return {**letter, "mail": {**mail, **sent}}
    failed = final or tried.state == "dead"
    state = {"status": "failed" if failed else "pending", "next_at": None if failed else tried.next_at}
    return {**letter, "mail": {**mail, **state, "tries": tried.attempts, "error": tried.why}}


def anew(letter: Letter) -> Letter:
    """The letter with its attempts before it again; under the same Message-ID."""
    return {**letter, "mail": {**letter["mail"], "status": "pending", "tries": 0, "next_at": 0, "error": None}}


def next_at(letters: Letters) -> int | None:
    """When a mail has to be tried, if any."""
    mails = [letters[name]["mail"] for name in names(letters)]
    return min((mail["next_at"] for mail in mails if mail["status"] == "pending"), default=None)


def written(
    receipt: Receipt, name: str, letters: Letters, session: Mapping[str, Any], payment: Mapping[str, Any] | None
) -> Receipt:
    """The session's receipt made into the letter of that name."""
    if name == DUE:
        return replace(receipt, kind="due", outcome="due")
    line = series(letters, receipt.role)
    place = line.index(name)
    later = [letters[one] for one in line[place + 1 :] if letters[one]["number"]]
    if later:
        latest = f"{receipt.link.rpartition('/')[0]}/{later[-1]['secret']}"
        receipt = replace(receipt, corrected_by=tuple(one["number"] for one in later), latest=latest)
    if place == 0:
        return receipt
    last = line[place - 1]
    before, now = _stated(letters, last), _stated(letters, name)
    return corrected(receipt, before, now, letters[last]["number"], session, payment)
