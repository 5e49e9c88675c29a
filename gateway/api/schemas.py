"""What requests may say: pydantic models, strict, with unknown fields refused. Rules across fields are in `terms`."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeVar
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from gateway.api.cardnumbers import find_card
from gateway.errors import InvalidRequest
from gateway.session import HoldWhen, Kind, Media, Role, Status

M = TypeVar("M", bound=BaseModel)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# The shape only, as browsers check it (HTML, section 4.10.5.1.5): whether it exists is known when mail arrives.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_LABEL}(?:\.{_LABEL})*")


def _plain(text: str) -> str:
    """Line breaks would forge mail headers, and direction overrides would let a name disguise itself."""
    if _CONTROL.search(text):
        raise PydanticCustomError("control_characters", "Control characters are not allowed")
    return text


def _email(text: str) -> str:
    if not _EMAIL.fullmatch(text):
        raise PydanticCustomError("email", "This is not an e-mail address")
    return text


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise PydanticCustomError("timezone", "This is not a time zone of the IANA database") from None
    return name


LOCALE: Final = r"^[a-z]{2,3}([-_][A-Z][a-z]{3})?([-_]([A-Z]{2}|[0-9]{3}))?$"
COUNTRY: Final = r"^[A-Z]{2}$"
URL: Final = r"^https?://[^\s]+$"
EVENT_TYPE: Final = r"^[a-z_]+\.[a-z_]+$"
TIMEZONE: Final = r"^[A-Za-z0-9_+/-]+$"
WANTED: Final = {
    LOCALE: "Send a language tag such as `de`, `de-CH` or `zh-Hans`",
    COUNTRY: "Send a country as two capital letters of ISO 3166-1, such as `US`",
    URL: "Send an absolute address that begins with `https://`",
    EVENT_TYPE: "Send the type of an event, such as `session.settled`",
    TIMEZONE: "Send a time zone of the IANA database, such as `Europe/Berlin`",
}

Text = Annotated[str, Field(min_length=1, max_length=120), AfterValidator(_plain)]
Id = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_plain)]
Email = Annotated[
    str, Field(min_length=3, max_length=254, json_schema_extra={"format": "email"}), AfterValidator(_email)
]
Locale = Annotated[str, Field(pattern=LOCALE)]
Timezone = Annotated[str, Field(max_length=64, pattern=TIMEZONE), AfterValidator(_timezone)]
Reference = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_plain)]
BasisPoints = Annotated[int, Field(ge=0, le=10_000)]


def _stripe_id(prefix: str) -> Any:
    return Field(max_length=255, pattern=rf"^{prefix}_[A-Za-z0-9_]+$")


Customer = Annotated[str, _stripe_id("cus")]
PaymentMethod = Annotated[str, _stripe_id("pm")]
Account = Annotated[str, _stripe_id("acct")]
EndpointId = Annotated[str, Field(pattern=r"^whe_[a-z0-9]{1,40}$")]


class Request(BaseModel):
    """Strict, because a rate of "300" or of 300.5 is a mistake of the caller that should not be guessed at."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Client(Request):
    """Who pays. `id` is the marketplace's own; name and e-mail go into the receipts."""

    id: Id
    name: Text
    email: Email
    locale: Locale = "en"
    timezone: Timezone | None = Field(default=None, description="IANA name; the receipt's times are shown in it")
    stripe_customer: Customer | None = Field(default=None, description="Required with `payment_method`")
    payment_method: PaymentMethod | None = Field(default=None, description="The card to hold; required for a price")


class Expert(Request):
    """Who is paid. The rating is the one that counts for this session."""

    id: Id
    name: Text
    email: Email
    locale: Locale = "en"
    timezone: Timezone | None = Field(default=None, description="IANA name; the receipt's times are shown in it")
    stripe_account: Account | None = Field(default=None, description="Connected account; required for a price")
    country: Annotated[str, Field(pattern=COUNTRY)] | None = Field(
        default=None, description="ISO 3166-1 alpha-2, of the Stripe account; required for a price"
    )
    rating: Annotated[float, Field(ge=0, le=5)] | None = Field(default=None, description="0 to 5; null: none yet")


class Ambassador(Request):
    """Who referred the expert, and takes a share of the platform's commission."""

    stripe_account: Account
    share_bps: BasisPoints = Field(description="Of the commission, in hundredths of a percent")


class Rate(Request):
    unit_amount: int = Field(ge=0, le=1_000_000, description="Minor units per minute")
    currency: str = Field(max_length=8, description="usd, gbp, eur, cad or chf")


class CreateSession(Request):
    """`POST /v1/sessions`. A declined card is no refusal: the answer tells it in `payment`."""

    reference: Reference | None = Field(default=None, description="Yours; unique among unfinished sessions")
    kind: Kind = "metered"
    media: Media = Field(default="video", description="How the call starts; both may switch at any time")
    ring: bool = Field(default=False, description="Ring the expert's devices, instead of sending links")
    hold: HoldWhen = Field(default="now", description="When the card is held")
    client: Client
    expert: Expert
    ambassador: Ambassador | None = None
    rate: Rate | None = Field(default=None, description="Required for `metered`")
    free_minutes: int = Field(
        default=0,
        ge=0,
        le=90,
        description="The first minutes together that cost nothing: once per client and expert within 24 hours",
    )
    max_minutes: int | None = Field(
        default=None, ge=1, description="The client's limit; 30 if unsaid (15 without a fee), at most 90"
    )
    commission_bps: BasisPoints | None = Field(default=None, description="Of the total; the configured 1000 if unsaid")
    if_not_eligible: Literal["refuse", "free"] = Field(
        default="refuse",
        description="What to do if the expert may not be paid: by the rating, or by what Stripe says of the account, "
        'now and once more before a card is held later (`hold: "join"`, another card)',
    )
    expires_at: AwareDatetime | None = Field(
        default=None, description="RFC 3339; until when the links open the session. 24 hours if unsaid"
    )


class EndSession(Request):
    reason: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_plain)] | None = Field(
        default=None, description="Yours, for the record; `end_reason` stays the gateway's own word"
    )


class JoinToken(Request):
    role: Role


class Payment(Request):
    payment_method: PaymentMethod


class OpenPay(Request):
    token: Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^[A-Za-z0-9._~-]+$")]


class PayWith(OpenPay):
    payment_method: PaymentMethod
    attempt: int = Field(ge=0, description="The attempt that the page shows: one more is made, never two")


class Refund(Request):
    amount: int | None = Field(
        default=None, ge=1, description="Minor units of the session's currency; all that is left, if unsaid"
    )
    reason: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_plain)] = Field(
        description="Yours, for the record and the receipts"
    )
    charge_to: Literal["shares", "platform"] = Field(
        default="shares",
        description="Who bears it: expert, platform and ambassador by their shares, or the platform alone",
    )


class Waive(Request):
    """Nothing to say: the session is the path's."""


class Enter(Request):
    secret: Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^[A-Za-z0-9._~-]+$")]


class NewEndpoint(Request):
    """Where events go. Without `types` it gets all."""

    url: Annotated[str, Field(max_length=2048, pattern=URL)]
    types: Annotated[list[Annotated[str, Field(max_length=64, pattern=EVENT_TYPE)]], Field(max_length=64)] = Field(
        default_factory=list, description="Types of events, such as `session.finalized`; empty = all"
    )


class Rotate(Request):
    """Nothing to say: the endpoint is the path's."""


class Enable(Request):
    """Nothing to say: the endpoint is the path's."""


class Resend(Request):
    endpoint: EndpointId | None = Field(default=None, description="This endpoint alone; left out: all that want it")


class ResendSince(Request):
    since: AwareDatetime = Field(description="All events made at this time or later")


class Query(BaseModel):
    """Query parameters arrive as text, so these models convert; unknown names are refused all the same."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def previews(self) -> bool:
        """Whether the request only asks what it would do."""
        return False


Limit = Annotated[int, Field(ge=1, le=100)]


class SessionFilter(Query):
    status: Status | None = None
    expert: Id | None = Field(default=None, description="The expert's id, as you gave it")
    client: Id | None = Field(default=None, description="The client's id, as you gave it")
    reference: Annotated[str, Field(max_length=200)] | None = None
    limit: Limit = 10
    starting_after: Annotated[str, Field(pattern=r"^ses_[a-z0-9]{1,40}$")] | None = Field(
        default=None, description="The last id of the page before"
    )


class EventPage(Query):
    after: int = Field(default=0, ge=0, le=1_000_000_000, description="The last `sequence` that you have")
    limit: Limit = 100


class EventFilter(EventPage):
    """With `session`: its events by `after`. Without: all of the account's by `since` and `starting_after`."""

    session: Annotated[str, Field(pattern=r"^ses_[a-z0-9]{1,40}$")] | None = None
    since: AwareDatetime | None = Field(default=None, description="Only events made at this time or later (RFC 3339)")
    starting_after: Annotated[str, Field(pattern=r"^evt_[a-z0-9]{26}$")] | None = Field(
        default=None, description="The last id of the page before"
    )


class PayabilityQuery(Query):
    country: Annotated[str, Field(pattern=COUNTRY)] = Field(
        description="ISO 3166-1 alpha-2, of the expert's Stripe account"
    )
    currency: Annotated[str, Field(max_length=8)] = Field(default="usd", description="Of the session")
    stripe_account: Account | None = Field(
        default=None, description="The connected account; that of the expert's latest session if unsaid"
    )
    rating: Annotated[float, Field(ge=0, le=5)] | None = Field(
        default=None, description="0 to 5; then the answer says too whether the expert may be paid at all"
    )


class EarningsQuery(Query):
    """Of sessions by when they ended."""

    since: AwareDatetime | None = Field(
        default=None, alias="from", description="Ended at this time or later (RFC 3339)"
    )
    until: AwareDatetime | None = Field(default=None, alias="to", description="Ended before this time (RFC 3339)")
    limit: Limit = 25
    starting_after: Annotated[str, Field(pattern=r"^ses_[a-z0-9]{1,40}$")] | None = Field(
        default=None, description="The last session of the page before"
    )


def read_json(body: bytes) -> dict[str, Any]:
    """The JSON object in a body; empty means {}.

    Raises InvalidRequest: `invalid_json`, or `card_number_refused` if any field looks like a card number.
    """
    if not body.strip():
        return {}
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except DuplicateName:
        raise InvalidRequest(
            "A name stands twice in one object of the body: two readers might take it differently.",
            code="invalid_json",
        ) from None
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is not valid JSON.", code="invalid_json") from None
    refuse_cards(value)
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be one JSON object.", code="invalid_json")
    return value


def refuse_cards(value: object) -> None:
    try:
        path = find_card(value)
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.", code="invalid_json") from None
    if path is not None:
        raise InvalidRequest(
            "A field looks like a card number. Send Stripe's id of the payment method instead.",
            code="card_number_refused",
            param=path or None,
        )


class DuplicateName(ValueError):
    """Never leaves this file."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """RFC 8259 section 4 leaves the meaning of duplicate names open; two readers would see two rates."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise DuplicateName
    return members


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def parse(model: type[M], values: dict[str, Any], *, query: bool = False) -> M:
    """`values` as the model. Raises InvalidRequest naming the first offending field in `param`, never its value."""
    try:
        return model.model_validate(values) if query else model.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False, include_input=False), query) from None


def _refusal(errors: list[ErrorDetails], query: bool) -> InvalidRequest:
    first = errors[0]
    param, kind = _place(first), _fault(first)
    noun = "parameter" if query else "field"
    detail = {
        "missing": f"`{param}` is required.",
        "unknown": f"`{param}` is not a {noun} of this call.",
        "invalid": f"`{param}`: {_wanted(first) or first['msg']}.",
    }[kind]
    more = [_place(error) for error in errors[1:] if _fault(error) == kind][:9]
    return InvalidRequest(detail, code=f"{kind}_{noun}", param=param, **({"also": more} if more else {}))


def _place(error: ErrorDetails) -> str:
    return ".".join(str(part) for part in error["loc"])


def _fault(error: ErrorDetails) -> str:
    return {"missing": "missing", "extra_forbidden": "unknown"}.get(error["type"], "invalid")


def _wanted(error: ErrorDetails) -> str | None:
    """What is wanted where a pattern was not met; None for faults whose own words say it."""
    if error["type"] != "string_pattern_mismatch":
        return None
    pattern = error["ctx"]["pattern"]
    prefix = re.match(r"\^([a-z]+)_\[", pattern)
    return f"Send an id that begins with `{prefix[1]}_`" if prefix else WANTED.get(pattern)


def as_utc_ms(moment: datetime) -> int:
    """Milliseconds since the Unix epoch."""
    return int(moment.timestamp() * 1000)
