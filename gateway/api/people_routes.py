"""The endpoints of people: what is kept of somebody, and its erasure (R22)."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from gateway.api.answers import Answer, Time, moment
from gateway.api.context import People
from gateway.api.endpoint import Call, Endpoint
from gateway.api.schemas import Limit, Query
from gateway.api.views import stamp, time
from gateway.archive.person import Person
from gateway.errors import NotFound


class ExportPage(Query):
    limit: Limit = 100
    starting_after: Annotated[str, Field(pattern=r"^ses_[a-z0-9]{1,40}$")] | None = Field(
        default=None, description="The last session of the page before"
    )


class KeptReceipt(Answer):
    number: str | None
    issued_at: Time = moment()
    mail: str = Field(description="How its mail stands")


class KeptOfPerson(Answer):
    """What one session keeps of the person on their side of it; null or empty what was erased."""

    session: str
    role: Literal["client", "expert"]
    name: str | None
    email: str | None
    locale: str | None
    timezone: str | None
    created: Time = moment()
    reference: str | None
    kind: str
    media: str
    status: str
    end_reason: str | None
    joined_at: Time | None = moment()
    started_at: Time | None = moment()
    ended_at: Time | None = moment()
    connected: list[list[Time]] = Field(description="Spans in which both were connected: from, to")
    rating_given: dict[str, Any] | None = Field(description="What the person wrote about the other side")
    receipts: list[KeptReceipt]
    money: dict[str, Any] = Field(
        description="Of a client: payment, card (brand, last four, country) and consent; of an expert: share, "
        "transfers, account and the rating that counted. Amounts in minor units, times in Unix milliseconds"
    )


class Export(Answer):
    id: str
    data: list[KeptOfPerson]
    has_more: bool


class Erased(Answer):
    id: str
    erased: Literal[True] = True
    sessions: int = Field(description="Out of how many sessions personal data were taken; 0 when there were none")


async def export(call: Call) -> Export:
    query: ExportPage = call.query
    person = _person(call)
    data, more = await _desk(call).export(person, limit=query.limit, starting_after=query.starting_after)
    return Export(id=person.id, data=[kept(each) for each in data], has_more=more)


async def erase(call: Call) -> Erased:
    person = _person(call)
    return Erased(id=person.id, sessions=await _desk(call).erase(person))


def kept(found: dict[str, Any]) -> KeptOfPerson:
    times = {name: time(found[name]) for name in ("created", "joined_at", "started_at", "ended_at")}
    receipts = [{**receipt, "issued_at": time(receipt["issued_at"])} for receipt in found["receipts"]]
    connected = [[stamp(start), stamp(end)] for start, end in found["connected"]]
    return KeptOfPerson(**{**found, **times, "receipts": receipts, "connected": connected})


def _person(call: Call) -> Person:
    return Person(call.account, call.livemode, call.request.match_info["person"])


def _desk(call: Call) -> People:
    if call.context.people is None:
        raise NotFound("This gateway keeps no people.")
    return call.context.people


PEOPLE_ENDPOINTS: Final = (
    Endpoint(
        "GET",
        "/v1/people/{person}/export",
        "exportPerson",
        "Privacy",
        "Export what is kept of a person",
        "Everything that the gateway keeps of a client or an expert, by the id that you gave them: one entry for each "
        "side of a session that they were on, oldest first, from the archive too. Nothing of the other side is in it.",
        export,
        Export,
        scope="read",
        query=ExportPage,
        problems=("archive_unavailable", "archive_damaged"),
    ),
    Endpoint(
        "DELETE",
        "/v1/people/{person}",
        "erasePerson",
        "Privacy",
        "Erase a person",
        "Takes name, e-mail, language, time zone and what they wrote about others out of all records, events, receipts "
        "and the archive, for good. What laws on bookkeeping want stays under your id for them: times, amounts, "
        "receipts' numbers, a card's brand and last four digits. Refused while a session of theirs is still to be held "
        "or paid. Mails and webhooks that were sent, your own records and Stripe's are not in our hands.",
        erase,
        Erased,
        scope="sessions",
        problems=("person_in_use", "archive_unavailable", "archive_damaged"),
    ),
)
