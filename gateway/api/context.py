"""What the API needs of the rest of the gateway, as protocols, and the context that carries it to the handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web

from gateway.api.auth import KeyRing
from gateway.api.idempotency import Idempotency
from gateway.api.terms import Limits
from gateway.archive.person import Person
from gateway.bookings.booking import BookingRecord, NewBooking
from gateway.bookings.booking import Status as BookingStatus
from gateway.bookings.meetings import CanceledBy
from gateway.clock import Clock, SystemClock
from gateway.payees.earned import Earned
from gateway.payees.routes import Payability
from gateway.session import NewSession, Role
from gateway.sessions.directory import Wanted
from gateway.sessions.refunds import NewRefund


class Docs(Protocol):
    """The records of one session as the journal keeps them (times wall ms)."""

    @property
    def session(self) -> Mapping[str, Any]: ...

    @property
    def payment(self) -> Mapping[str, Any]: ...

    @property
    def people(self) -> Mapping[str, Any]: ...

    @property
    def receipts(self) -> Mapping[str, Any] | None: ...

    @property
    def pay_url(self) -> str | None:
        """The client's pay page, while something has to be done there."""
        ...


class Entry(Protocol):
    """A person's way into the call; both members are secrets."""

    @property
    def token(self) -> str: ...

    @property
    def url(self) -> str: ...


class Created(Protocol):
    @property
    def docs(self) -> Docs: ...

    @property
    def client(self) -> Entry: ...

    @property
    def expert(self) -> Entry: ...


class Sessions(Protocol):
    """The use cases. Each raises NotFound for a session that the account does not have."""

    async def create(self, terms: NewSession, *, account: str, livemode: bool, session_id: str) -> Created:
        """Open the session under the id given, waiting at most 10 s for the hold's first outcome; again with the same
        id, give the session that is there.

        Raises Conflict `reference_in_use`, `expert_busy`, `expert_offline`. A CallerError means: nothing was written.
        """
        ...

    async def get(self, account: str, session: str) -> Docs: ...

    async def list(
        self,
        account: str,
        *,
        livemode: bool,
        status: str | None,
        expert: str | None,
        client: str | None,
        reference: str | None,
        limit: int,
        starting_after: str | None,
    ) -> tuple[Sequence[Docs], bool]:
        """Newest first, and whether there are more."""
        ...

    async def end(self, account: str, session: str, reason: str | None) -> Docs: ...

    async def tokens_for(self, account: str, session: str, role: Role) -> Entry:
        """Raises Conflict `session_ended`."""
        ...

    async def usage(self, account: str, session: str) -> Mapping[str, Any]:
        """`rows` [{epoch, number, start, end}], `bill` (as in the session's record), `arithmetic`."""
        ...

    async def pay(self, account: str, session: str, payment_method: str, *, request: str | None = None) -> Docs: ...

    async def refund(self, account: str, session: str, new: NewRefund) -> tuple[Docs, Mapping[str, Any]]:
        """Order a refund and wait for its first word; the session, and the order as it is kept. Again with the same id
        orders nothing. Raises Conflict `payment_state`, `refund_too_large`."""
        ...

    async def waive(self, account: str, session: str) -> Docs: ...

    async def enter(self, secret: str) -> Mapping[str, Any]:
        """The body of `POST /v1/enter`. Raises CallerError `link_invalid`, `link_expired`, `session_ended`."""
        ...

    async def events(self, account: str, session: str, after: int) -> Sequence[Mapping[str, Any]]: ...


class Booked(Protocol):
    """A booking's records, its meetings' in order, and by session the ways into those that are still to be held."""

    @property
    def booking(self) -> BookingRecord: ...

    @property
    def payment(self) -> Mapping[str, Any]: ...

    @property
    def meetings(self) -> Sequence[Docs]: ...

    @property
    def ways(self) -> Mapping[str, Mapping[Role, Entry]]: ...

    @property
    def pay_url(self) -> str | None: ...

    @property
    def status(self) -> BookingStatus: ...


class People(Protocol):
    """What is kept of a person (R22)."""

    async def erase(self, person: Person) -> int:
        """Out of how many sessions. Raises Conflict `person_in_use`."""
        ...

    async def export(
        self, person: Person, *, limit: int, starting_after: str | None
    ) -> tuple[Sequence[dict[str, Any]], bool]:
        """As `gateway.archive.people.kept_of` tells each, oldest first; and whether there are more."""
        ...


class Bookings(Protocol):
    """The use cases of bookings. Each raises NotFound `booking_not_found` for one that the account does not have."""

    async def create(self, new: NewBooking, *, account: str, livemode: bool, booking_id: str) -> Booked:
        """Again with the same id, gives the booking that is there. Raises Conflict `reference_in_use`."""
        ...

    async def get(self, account: str, livemode: bool, booking: str) -> Booked: ...

    async def list(
        self, wanted: Wanted, *, status: BookingStatus | None, limit: int, starting_after: str | None
    ) -> tuple[Sequence[Booked], bool]:
        """Newest first, and whether there are more. Raises NotFound for an unknown cursor."""
        ...

    async def pay(
        self, account: str, livemode: bool, booking: str, payment_method: str, *, request: str | None = None
    ) -> Booked:
        """Raises Conflict `payment_state`."""
        ...

    async def preview(
        self, account: str, livemode: bool, booking: str, meeting: int | None, by: CanceledBy
    ) -> tuple[Booked, Mapping[str, int]]:
        """And what is given back by session, in minor units. Raises Conflict `meeting_state`, NotFound."""
        ...

    async def cancel(
        self, account: str, livemode: bool, booking: str, meeting: int | None, by: CanceledBy, *, request: str
    ) -> tuple[Booked, Mapping[str, int]]: ...


class EndpointSecret(Protocol):
    @property
    def value(self) -> str: ...


class WebhookEndpoint(Protocol):
    """Where an account's events go; `account` None: it is set in the configuration."""

    @property
    def id(self) -> str: ...

    @property
    def url(self) -> str: ...

    @property
    def types(self) -> Sequence[str]: ...

    @property
    def enabled(self) -> bool: ...

    @property
    def disabled_reason(self) -> str | None: ...

    @property
    def account(self) -> str | None: ...

    @property
    def secrets(self) -> Sequence[EndpointSecret]: ...


class WebhookDesk(Protocol):
    """What an account may do with its webhooks. Each raises NotFound for what is not the account's."""

    async def endpoints(self, account: str) -> Sequence[WebhookEndpoint]: ...

    async def add(self, account: str, url: str, types: Sequence[str]) -> WebhookEndpoint: ...

    async def remove(self, account: str, endpoint: str) -> WebhookEndpoint:
        """Raises Conflict `endpoint_configured`; so does `rotate`."""
        ...

    async def rotate(self, account: str, endpoint: str) -> WebhookEndpoint: ...

    async def enable(self, account: str, endpoint: str) -> WebhookEndpoint: ...

    async def events(
        self, account: str, livemode: bool, *, since: int, after: str, limit: int
    ) -> tuple[Sequence[Mapping[str, Any]], bool]:
        """Oldest first, from `since` (wall ms) on and beyond the id `after`; and whether there are more."""
        ...

    async def resend(self, account: str, livemode: bool, event: str, endpoint: str | None) -> int:
        """Returns to how many endpoints. Raises NotFound `event_not_found`; Conflict `endpoint_disabled`, as below."""
        ...

    async def resend_since(self, account: str, since: int, endpoint: str) -> int: ...


class Payees(Protocol):
    async def payability(
        self, *, account: str, livemode: bool, expert: str, country: str, currency: str, stripe_account: str | None
    ) -> Payability:
        """Raises StripeUnavailable."""
        ...


class PayDesk(Protocol):
    """What the client's pay page does. Each raises Unauthorized `link_invalid`, `link_expired`."""

    async def open(self, secret: str) -> dict[str, Any]: ...

    async def pay(self, secret: str, payment_method: str, attempt: int) -> dict[str, Any]:
        """Raises Conflict `payment_state`, `session_state`, `too_many_cards`."""
        ...


@dataclass(frozen=True, slots=True)
class PayPage:
    """The pay page: who answers it, the address of the receipts, the script of the card's form, and the public keys of
    the platform accounts."""

    desk: PayDesk
    public_url: str
    script: str
    keys: Mapping[str, str]


class Earnings(Protocol):
    """What experts earned; times wall ms."""

    async def page(
        self, account: str, livemode: bool, expert: str, *, since: int, until: int, limit: int, after: str | None
    ) -> tuple[Sequence[Earned], bool]:
        """Newest first, and whether there are more. Raises NotFound for an unknown cursor."""
        ...

    async def totals(
        self, account: str, livemode: bool, expert: str, *, since: int, until: int
    ) -> Mapping[str, Mapping[str, int]]:
        """By settlement currency: `sessions` and the sums."""
        ...


# The printable page of a receipt's secret (HTML); raises NotFound `receipt_not_found`.
ReceiptPage = Callable[[str], Awaitable[str]]
# Takes Stripe's raw body and its Stripe-Signature header; raises Unauthorized `bad_signature`.
StripeEvents = Callable[[bytes, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ApiContext:
    """Everything the public application serves from. `public_url` is the gateway's own address, without a path."""

    sessions: Sessions
    keys: KeyRing
    idempotency: Idempotency
    public_url: str
    limits: Limits = field(default_factory=Limits)
    clock: Clock = field(default_factory=SystemClock)
    receipt_page: ReceiptPage | None = None
    stripe_events: StripeEvents | None = None
    webhooks: WebhookDesk | None = None
    bookings: Bookings | None = None
    payees: Payees | None = None
    pay: PayPage | None = None
    people: People | None = None
    earnings: Earnings | None = None
    # How long a settled session has to be quiet until it leaves the lists for the archive; None: it never does.
    archived_after_ms: int | None = None

    @property
    def complete_since(self) -> int | None:
        """Nothing that was created since then (wall ms) is in the archive; None: nothing is."""
        return None if self.archived_after_ms is None else self.clock.wall_ms() - self.archived_after_ms

    @property
    def docs_url(self) -> str:
        return f"{self.public_url}/v1/docs"


CONTEXT = web.AppKey("api_context", ApiContext)
