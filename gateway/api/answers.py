"""What answers look like: pydantic models, filled by `views` and published by `openapi`.

Amounts are integers in minor units, times RFC 3339 in UTC with milliseconds, durations integers in seconds.
Members are always present; what is not known yet, or does not apply, is null.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.session import EndReason, HoldWhen, Kind, Media, Role, Status

Time = str
PaymentStatus = Literal[
    "none", "awaiting_join", "pending", "action_required", "held", "failed", "capturing", "captured", "released",
    "due", "refunded", "partially_refunded", "disputed",
]  # fmt: skip


def moment(example: str = "2026-11-21T20:00:00.000Z") -> Any:
    """A field for a `Time`."""
    return Field(examples=[example], json_schema_extra={"format": "date-time"})


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ClientView(Answer):
    id: str
    name: str | None
    email: str | None
    locale: str | None
    timezone: str | None
    stripe_customer: str | None


class ExpertView(Answer):
    id: str
    name: str | None
    email: str | None
    locale: str | None
    timezone: str | None
    stripe_account: str | None
    country: str | None
    rating: float | None


class AmbassadorView(Answer):
    stripe_account: str
    share_bps: int


class RateView(Answer):
    unit_amount: int = Field(description="Minor units per minute")
    currency: str


class Card(Answer):
    brand: str
    last4: str
    country: str | None


class PaymentView(Answer):
    status: PaymentStatus
    amount_held: int
    amount_captured: int
    amount_refunded: int
    attempt: int = Field(description="Counts the cards tried")
    card: Card | None
    hold_until: Time | None = moment()
    action_url: str | None = Field(description="Where the client confirms the card (3-D Secure)")
    decline_code: str | None = Field(
        description="Why there is no hold: Stripe's word, or `card_required`, `card_brand_not_supported`, `hold_lost`, "
        "`authentication_abandoned`"
    )
    client_secret: str | None = Field(description="For Stripe's elements in the client's hands only")
    pay_url: str | None = Field(
        description="The client's page to pay on, while it is needed (`action_required`, `failed`, `due`): a secret of "
        "the client's, good for nothing else; send it to nobody else"
    )


class TransferView(Answer):
    to: Literal["expert", "ambassador"]
    amount: int
    currency: str = Field(description="The settlement currency, which may differ from the session's")
    status: Literal["pending", "paid", "withheld", "reversed", "owed"]
    account: str | None
    stripe_id: str | None
    amount_share: int | None = Field(description="The share in the session's currency")
    reason: str | None = Field(description="Why it is withheld, if it is")
    amount_offset: int = Field(description="Kept back from it for what the payee owed from before")
    amount_reversed: int = Field(description="Taken back after refunds or a lost dispute")
    amount_owed: int = Field(description="To be taken back, but the payee's balance did not allow it")
    amount_restored: int = Field(description="Transferred once more, as the bank returned a refund")


class RefundView(Answer):
    id: str = Field(examples=["ref_01k9m0h3f8q2v7x4r6s5t1w2y3"])
    object: Literal["refund"] = "refund"
    session: str
    amount: int
    currency: str
    reason: str | None = Field(
        description="Yours; `dispute` for what a lost dispute took, `booking_policy` for what its terms give back"
    )
    charge_to: Literal["shares", "platform"]
    status: Literal["ordered", "pending", "succeeded", "failed"] = Field(
        description="`ordered`: not at Stripe yet; `pending`: on its way to the card"
    )
    stripe_id: str | None
    failure: str | None = Field(description="Stripe's code, if it failed")


class Seat(Answer):
    """A side's way into the call. `token` and `url` are that person's secrets; only `create` and `tokens` tell them."""

    joined_at: Time | None = moment()
    token: str | None = Field(description="For the first connect, within ten minutes")
    url: str | None = Field(description="The call page; the link works until `expires_at`")


class Participants(Answer):
    client: Seat
    expert: Seat


class BookingPlace(Answer):
    """Which meeting of which booking."""

    id: str
    meeting: int
    starts_at: Time | None = moment()


class Session(Answer):
    id: str = Field(examples=["ses_01k9m0h3f8q2v7x4r6s5t1w2y3"])
    object: Literal["session"] = "session"
    livemode: bool
    created: Time = moment()
    expires_at: Time = moment("2026-11-22T20:00:00.000Z")
    reference: str | None
    kind: Kind
    media: Media
    ring: bool
    hold: HoldWhen
    status: Status
    end_reason: EndReason | None = Field(description="Why it ended; the only place that says so")
    client: ClientView
    expert: ExpertView
    ambassador: AmbassadorView | None
    rate: RateView
    currency: str
    commission_bps: int
    free_seconds: int = Field(description="What is left of the free part, at the start of this session")
    limit_seconds: int = Field(description="The session ends after this time")
    cap_seconds: int = Field(description="No session is longer than this")
    waived: bool
    platform: str = Field(description="The platform account at Stripe by which it is paid; `main` is the first one")
    payment: PaymentView
    transfers: list[TransferView]
    refunds: list[RefundView]
    participants: Participants
    started_at: Time | None = moment()
    ended_at: Time | None = moment("2026-11-21T20:30:00.000Z")
    booking: BookingPlace | None
    continues: str | None = Field(description="The session before this one, on the same terms")
    continued_by: str | None
    ratings: dict[str, Any] = Field(description="By the side that gave them")
    settled: bool = Field(description="No step of money is open any more")
    billable_seconds: int | None = Field(description="Null, like the amounts below, until `finalized`")
    free_seconds_used: int | None
    amount_total: int | None = Field(description="What the client pays")
    amount_expert: int | None
    amount_platform: int | None
    amount_ambassador: int | None
    amount_metered: int | None = Field(description="What the metered time costs, before a waiver")
    amount_waived: int | None
    amount_captured: int
    amount_refunded: int


class Reaching(Answer):
    """A list that does not reach into the archive."""

    complete_since: Time | None = Field(
        description="What was created since then is listed. Older sessions that have been settled and quiet for as "
        "long may be in the archive, where they are found by their id alone. null: all there is is listed",
        examples=["2026-10-22T20:00:00.000Z"],
        json_schema_extra={"format": "date-time"},
    )


class SessionList(Reaching):
    object: Literal["list"] = "list"
    data: list[Session]
    has_more: bool


class EntryView(Answer):
    session: str
    role: Role
    token: str
    url: str


class Row(Answer):
    """One stored interval. A retry rewrites its row; rows of two owners may overlap, and the union counts once."""

    epoch: int
    number: int
    started_at: Time = moment()
    ended_at: Time = moment()
    ms: int


class Interval(Answer):
    started_at: Time = moment()
    ended_at: Time = moment()
    ms: int


class BillView(Answer):
    billable_seconds: int
    free_seconds_used: int
    amount_total: int
    amount_expert: int
    amount_platform: int
    amount_ambassador: int
    amount_metered: int
    amount_waived: int
    waived_reason: str | None
    currency: str


class Usage(Answer):
    session: str
    object: Literal["usage"] = "usage"
    final: bool = Field(description="Whether the session is finalized; before that the figures still grow")
    rows: list[Row]
    intervals: list[Interval] = Field(description="Their union: when both were together")
    union_ms: int
    free_ms: int
    free_seconds_used: int
    billable_ms: int
    billable_seconds: int
    bill: BillView
    arithmetic: str = Field(description="The bill in one line, to be checked by hand")


class MailView(Answer):
    """How far the mail has come; it is repeated over days before it counts as failed."""

    status: Literal["pending", "sent", "failed", "canceled"] = Field(description="`canceled`: paid before it was sent")
    tries: int
    sent_at: Time | None = moment()
    error: str | None = Field(description="What the mail server said last, if it refused")


class Correction(Answer):
    """Takes the place of the document before it, after a refund, a lost dispute or a late payment."""

    number: str
    issued_at: Time | None = moment()
    url: str | None = Field(description="A page to read and print, for this person only")
    mail: MailView


class Receipt(Answer):
    role: Role
    number: str
    issued_at: Time | None = moment()
    url: str | None = Field(description="A page to read and print, for this person only")
    mail: MailView
    corrections: list[Correction] = Field(description="Oldest first; numbered in the receipt's own series")


class ReceiptList(Answer):
    object: Literal["list"] = "list"
    data: list[Receipt]
    has_more: bool
    payment_due: MailView | None = Field(description="The mail that asks the client to pay a bill whose hold was lost")


class Event(Answer):
    """Word for word as the webhook carries it, so that one reader does for both."""

    model_config = ConfigDict(extra="allow", frozen=True)

    id: str
    type: str = Field(examples=["session.finalized"])
    api_version: str
    created: int = Field(description="Milliseconds since the Unix epoch")
    session: str
    sequence: int = Field(description="Counts up from 1 without a gap")
    data: dict[str, Any]
    livemode: bool


class EventList(Reaching):
    object: Literal["list"] = "list"
    data: list[Event]
    has_more: bool


class PayoutSchedule(Answer):
    interval: str = Field(description="`weekly`, `daily`, `monthly` or `manual`")
    days: list[str] = Field(description="Of the week", examples=[["friday"]])
    own: bool = Field(description="The expert decides it, in a Stripe dashboard of theirs, and not the platform")


class ConnectedAccount(Answer):
    """The expert's Stripe account, as Stripe showed it at `seen_at`."""

    id: str
    exists: bool = Field(description="Whether it is connected to the platform account")
    country: str | None
    transfers: str = Field(description="Stripe's capability: `active`, `inactive` or `pending`")
    payouts_enabled: bool = Field(description="Whether Stripe pays out to the bank; shares can be transferred without")
    disabled_reason: str | None
    requirements_due: list[str] = Field(description="What Stripe still needs of the expert")
    payout_schedule: PayoutSchedule | None = Field(description="How Stripe pays out to the bank")
    seen_at: Time = moment()


class Payability(Answer):
    object: Literal["payability"] = "payability"
    expert: str
    country: str
    currency: str
    payable: bool = Field(description="Whether the money can reach the expert")
    eligible: bool | None = Field(description="Whether the rating allows a price; null without `rating`")
    code: str | None = Field(description="With which a paid session would be refused now; null: it would not")
    reason: str = Field(
        description="`own_country`, `self_serve`, `agreed_with_stripe`, `regional_platform`; or why not: "
        "`country_not_supported`, `no_platform_in_region`, `currency_not_supported`, `account_required`, "
        "`account_unknown`, `account_out_of_reach`, `transfers_inactive`"
    )
    detail: str | None = Field(description="The same for people, if it cannot be paid")
    route: Literal["transfer", "recipient", "platform_account", "unsupported"]
    platform: str | None = Field(description="The platform account that pays; `main` is the first one")
    settlement_currency: str | None = Field(description="In which that account settles and transfers")
    stripe_account: ConnectedAccount | None
    source: str = Field(description="Where Stripe documents whom a platform account reaches")
    as_of: str = Field(description="When that was read")


class Earning(Answer):
    """The expert's share of one session."""

    session: str = Field(examples=["ses_01k9m0h3f8q2v7x4r6s5t1w2y3"])
    reference: str | None
    ended_at: Time = moment()
    payout_week: str = Field(description="ISO week in whose payout it is counted", examples=["2026-W47"])
    currency: str = Field(description="The session's")
    amount_share: int = Field(description="In the session's currency; the amounts below are in the settlement currency")
    settlement_currency: str
    amount: int
    amount_offset: int = Field(description="Kept back from it for what the expert owed from before")
    amount_reversed: int = Field(description="Taken back after refunds or a lost dispute")
    amount_owed: int = Field(description="To be taken back, but the expert's balance did not allow it")
    amount_restored: int = Field(description="Transferred once more, as the bank returned a refund")
    status: Literal["pending", "paid", "withheld", "reversed", "owed"]
    reason: str | None = Field(description="Why it is withheld, if it is")
    stripe_id: str | None = Field(description="The transfer at Stripe")
    stripe_account: str | None
    platform: str


class EarningsTotal(Answer):
    """Of all shares that settled in one currency: `amount` is the sum of the five after it."""

    currency: str
    sessions: int
    amount: int
    paid: int = Field(description="Transferred, less what was taken back")
    pending: int
    withheld: int
    offset: int
    reversed: int
    owed: int = Field(description="A part of what was paid, still to be taken back")


class EarningsPage(Answer):
    object: Literal["list"] = "list"
    expert: str
    data: list[Earning]
    has_more: bool
    totals: list[EarningsTotal] | None = Field(
        description="Of the whole time asked for, not of this page; on the first page only"
    )


class WebhookEndpoint(Answer):
    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    url: str
    types: list[str] = Field(description="Empty: all")
    enabled: bool
    disabled_reason: str | None = Field(description="`gone`: it answered 410")
    configured: bool = Field(description="Set in the gateway's configuration; can only be changed there")
    secret: str | None = Field(description="Signing secret; told when it is made and never again")


class WebhookEndpointList(Answer):
    object: Literal["list"] = "list"
    data: list[WebhookEndpoint]
    has_more: bool = False


class Deleted(Answer):
    id: str
    deleted: Literal[True] = True


class Resent(Answer):
    deliveries: int = Field(description="How many deliveries were started")


class Received(Answer):
    received: Literal[True] = True


class Entrance(Answer):
    """What the call page learns of the session before it joins."""

    model_config = ConfigDict(extra="allow", frozen=True)

    session: str
    role: Role
    token: str | None
    signal: str
    status: Status


class CardForm(Answer):
    """Stripe.js: its address, and the account's publishable key."""

    script: str
    key: str


class KeptCard(Answer):
    """One of the client's own cards at Stripe; `id` is that of its PaymentMethod."""

    id: str
    brand: str
    last4: str
    exp_month: int
    exp_year: int


class Asked(Answer):
    """What the pay page shows: before the call a hold is asked for, after it a bill, and a booking's whole fee."""

    state: Literal["due", "hold", "working", "confirm", "paid", "held", "nothing"]
    asks: Literal["hold", "bill", "booking"]
    amount: int
    currency: str
    attempt: int = Field(description="Cards tried so far; send it with the next one")
    card: Card | None
    decline_code: str | None
    action_url: str | None
    expert: str
    media: Media
    unit_amount: int = Field(description="Of a minute")
    free_seconds: int
    limit_seconds: int = Field(description="Of the session, or of each meeting")
    billable_seconds: int | None
    hold_until: int | None = Field(description="Wall ms, as the times below")
    started_at: int | None
    meetings: list[int | None] = Field(description="A booking's: when each begins; null: at any time")
    locale: str
    timezone: str | None
    livemode: bool
    receipt: str | None
    cards: list[KeptCard] = Field(description="That the client keeps at Stripe, newest first")
    form: CardForm | None = Field(description="Null: cards cannot be taken here")


class ProblemView(Answer):
    """RFC 9457; `code` is stable. Some codes add members of their own."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = Field(examples=["https://gateway.example/v1/docs#rate_out_of_range"])
    title: str = Field(examples=["The rate is outside the configured range"])
    status: int = Field(examples=[400])
    detail: str = Field(examples=["The rate must be 100 to 1500 minor units a minute."])
    instance: str = Field(examples=["/v1/sessions"])
    code: str = Field(examples=["rate_out_of_range"])
    param: str | None = Field(examples=["rate.unit_amount"])
    request_id: str = Field(examples=["req_01k9m0h3fb1c2d3e4f5g6h7j8k"])
