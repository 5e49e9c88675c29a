"""Every message of the signaling protocol `parley.v1`, both ways, as models; and its AsyncAPI document.

Strict towards clients: unknown types and fields, wrong types and sizes are refused with `bad_message`. Numbers named
in seconds are whole seconds, money is in minor units. The protocol in words: docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Annotated, Any, Final, Literal, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, TypeAdapter, ValidationError
from pydantic import model_validator as checked
from pydantic.json_schema import models_json_schema

from gateway.errors import CallerError
from gateway.session import Role
from gateway.signaling.rating import Rating

SUBPROTOCOL: Final = "parley.v1"
MAX_MESSAGE_BYTES: Final = 65536
MAX_STATS_BYTES: Final = 2048

PeerIs = Literal["absent", "joined", "connected", "reconnecting", "left"]
Kind = Literal["offer", "answer"]


class Close(IntEnum):
    """Close codes of the WebSocket, and what a client does about each."""

    GOING_AWAY = 1001
    TRY_AGAIN = 1013
    PROTOCOL = 4000
    UNAUTHORIZED = 4001
    REPLACED = 4002
    ENDED = 4003
    REFUSED_FRAME = 4004
    RATE_LIMITED = 4005
    HELLO_TIMEOUT = 4006

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS: Final[Mapping[Close, str]] = {
    Close.GOING_AWAY: "This gateway is going away; reconnect at once and resume.",
    Close.TRY_AGAIN: "Too busy, or you read too slowly; reconnect after a moment and resume.",
    Close.PROTOCOL: "The protocol was not kept; a fault of the client, so reconnecting the same way will not help.",
    Close.UNAUTHORIZED: "The token or resume secret is not valid (any more); ask the marketplace for a fresh link.",
    Close.REPLACED: "Another page took this seat. Final: do not reconnect by yourself, offer “use here”.",
    Close.ENDED: "The session has ended.",
    Close.REFUSED_FRAME: "A message was larger than 64 KiB, or binary.",
    Close.RATE_LIMITED: "Too many messages; reconnect after some seconds and resume.",
    Close.HELLO_TIMEOUT: "No `hello` came within 5 seconds.",
}


class SignalError(CallerError):
    """What a client did wrong, told to it as `error`. `fatal` ones close the socket with `close`."""

    code = "protocol"

    def __init__(self, code: str, message: str, *, fatal: bool = False, close: Close = Close.PROTOCOL) -> None:
        super().__init__(message, code=code)
        self.message = message
        self.fatal = fatal
        self.close = close

    def as_message(self) -> ErrorMessage:
        return ErrorMessage(code=self.code, message=self.message, fatal=self.fatal)


class BadMessage(SignalError):
    """The text is not a message of ours (`bad_message`, `too_large`)."""


Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
Text = StringConstraints
Secret = Annotated[str, Text(min_length=1, max_length=2048)]
Base64Url = Annotated[str, Text(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+$")]
Name = Annotated[str, Text(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:/ -]+$")]
Locale = Annotated[str, Text(min_length=2, max_length=35, pattern=r"^[A-Za-z0-9-]+$")]
Number = Annotated[int, Field(ge=-(2**53), le=2**53)] | Annotated[float, Field(allow_inf_nan=False)]


def _is_none(value: object) -> bool:
    return value is None


LEFT_OUT = Field(exclude_if=_is_none)


class Message(BaseModel):
    """A JSON object with `type`; frozen."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    def text(self) -> str:
        """The message as it goes over the wire."""
        return self.model_dump_json()


class Part(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Generation(Part):
    """`mine` and `peer` count RTCPeerConnections of either side, `transport` ICE credentials of one's own leg."""

    mine: Count
    peer: Count
    transport: Count


class MediaState(Part):
    """Whether microphone and camera are on."""

    audio: bool
    video: bool


class PublicKey(Part):
    """The public half of a non-extractable WebCrypto key, as JWK (RFC 7518 section 6.2): ECDSA on P-256."""

    kty: Literal["EC"]
    crv: Literal["P-256"]
    x: Annotated[str, Text(pattern=r"^[A-Za-z0-9_-]{43}$")]
    y: Annotated[str, Text(pattern=r"^[A-Za-z0-9_-]{43}$")]
    ext: bool | None = None
    key_ops: Annotated[list[Name], Field(max_length=4)] | None = None


class Consent(Part):
    """The terms that were shown and agreed to; `amount_max` in minor units, for the client."""

    text_version: Name
    locale: Locale
    amount_max: Annotated[int, Field(ge=0, le=100_000_000)] | None = None


class Hello(Message):
    """First message, within 5 s: who is here, by join token (first connect) or resume secret (later ones).

    `generation` null: this page has no RTCPeerConnection; given: the same page, back on a new socket.
    `key` goes with `token`; from then on each `resume` carries `proof`, the key's signature over the last nonce.
    """

    type: Literal["hello"]
    token: Secret | None = None
    resume: Secret | None = None
    proof: Base64Url | None = None
    key: PublicKey | None = None
    sdk: Name = "unknown"
    capabilities: Annotated[list[Name], Field(max_length=16)] = Field(default_factory=list)
    media: MediaState
    generation: Generation | None = None
    consent: Consent | None = None

    @checked(mode="after")
    def _one_credential(self) -> Hello:
        if (self.token is None) == (self.resume is None):
            raise ValueError("exactly one of token and resume")
        if self.key is not None and self.token is None:
            raise ValueError("key goes with token")
        return self


class Description(Message):
    """An offer or answer, for the peer (perfect negotiation); the gateway rewrites its transport only.

    `number` counts a connection's own offers; an answer carries that of the offer it answers, so that an answer that
    crosses a newer offer is not taken for that one's.
    """

    type: Literal["description"] = "description"
    sdp: Annotated[str, Text(min_length=1, max_length=MAX_MESSAGE_BYTES)]
    kind: Kind
    generation: Generation
    number: Annotated[Count | None, LEFT_OUT] = None


class Rollback(Message):
    """The sender's own unanswered offer is void; an answer that is already under way will not be delivered."""

    type: Literal["rollback"]
    generation: Generation


class Sas(Message):
    """A commitment or nonce of the short authentication string; opaque to the gateway (law 1)."""

    type: Literal["sas"] = "sas"
    step: Literal["commit", "nonce", "reveal"]
    value: Base64Url


class Media(MediaState, Message):
    """Microphone or camera went on or off."""

    type: Literal["media"]


class Stats(Message):
    """What the page measured: flat numbers, at most 2 KiB. For quality only, never for billing."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Number | None]

    type: Literal["stats"]

    @property
    def numbers(self) -> dict[str, float]:
        return {name: value for name, value in (self.__pydantic_extra__ or {}).items() if value is not None}


class Leave(Message):
    """This participant hangs up."""

    type: Literal["leave"]


class Rate(Message):
    """Stars for the peer, overall and on the marketplace's parameters (R20)."""

    type: Literal["rate"]
    stars: Annotated[int, Field(ge=1, le=5)]
    comment: Annotated[str, Text(max_length=2000)] | None = None
    parameters: Annotated[dict[Name, Annotated[int, Field(ge=1, le=5)]], Field(max_length=16)] | None = None


class Continue(Message):
    """This participant wants a new session on the same terms (R6)."""

    type: Literal["continue"]


class Ping(Message):
    """Answered with `pong` and the same `t`."""

    type: Literal["ping"]
    t: Number


ClientMessage = Hello | Description | Rollback | Sas | Media | Stats | Leave | Rate | Continue | Ping


class Pricing(Part):
    """As in the entry; `commission_bps` for the expert only, `fee` for a booked meeting, which is paid before."""

    currency: str
    unit_amount: int
    free_seconds: int
    limit_seconds: int
    amount_max: int
    fee: Annotated[int | None, LEFT_OUT] = None
    commission_bps: Annotated[int | None, LEFT_OUT] = None


class Timers(Part):
    """Seconds: how long one may wait alone (`lone`) and how long a lost peer is waited for (`grace`)."""

    lone: int
    grace: int


class PeerInfo(Part):
    """The other participant, as the joining one finds it."""

    state: PeerIs
    name: str = ""
    media: MediaState | None = None


class IceServer(Part):
    """As RTCConfiguration takes it."""

    urls: list[str]
    username: Annotated[str | None, LEFT_OUT] = None
    credential: Annotated[str | None, LEFT_OUT] = None


class Welcome(Message):
    """The seat is taken. `resume` and `nonce` serve the next connect; `ping`, `cap`, `limit`, … are seconds."""

    type: Literal["welcome"] = "welcome"
    session: str
    role: Role
    polite: bool
    offerer: bool
    resume: str
    nonce: str
    ping: int = 20
    cap: int
    limit: int
    warnings: list[int]
    timers: Timers
    pricing: Pricing
    peer: PeerInfo
    ice_servers: list[IceServer] = Field(default_factory=list)
    generation: Generation
    status: str
    elapsed: int = 0
    billable: int = 0
    media: str


class Peer(Message):
    """The other participant changed. `generation` is the receiver's; a new `mine` or `peer` asks for a new connection.

    `replaced`: another page took the peer's seat.
    """

    type: Literal["peer"] = "peer"
    state: PeerIs
    media: MediaState | None = None
    generation: Generation
    replaced: Annotated[bool | None, LEFT_OUT] = None


class Pong(Message):
    """The answer to `ping`."""

    type: Literal["pong"] = "pong"
    t: Number


class Meter(Message):
    """The live figures, each second: seconds and minor units; `cost` for the client, `earnings` for the expert (R5)."""

    type: Literal["meter"] = "meter"
    elapsed: int
    billable: int
    remaining: int
    billing: Literal["free", "running", "paused"]
    currency: str
    cost: Annotated[int | None, LEFT_OUT] = None
    earnings: Annotated[int | None, LEFT_OUT] = None


class Warn(Message):
    """Time is running out: `remaining` seconds (R6)."""

    type: Literal["warning"] = "warning"
    remaining: int
    reason: Literal["limit_ending", "cap_ending", "free_ending"]


class Status(Message):
    """The session's status changed, or the payment's; with `pricing` when nothing will be charged any more."""

    type: Literal["status"] = "status"
    status: str
    payment: Annotated[dict[str, JsonValue] | None, LEFT_OUT] = None
    pricing: Annotated[Pricing | None, LEFT_OUT] = None


class Restart(Message):
    """Restart ICE now and send a new offer with this generation."""

    type: Literal["restart"] = "restart"
    reason: str
    generation: Generation


class Quality(Message):
    """How good both connections are by the gateway's judgement; null until it knows. Sent when either changes."""

    type: Literal["quality"] = "quality"
    mine: Rating | None
    peer: Rating | None


class ContinueState(Message):
    """How far both are with going on in a new session (R6), and the most that it can cost (the client only). `agreed`
    names it, and its payment as the receiver may see it; it comes again when that changes. `failed`: it cannot be, or
    not with this card; `code` says why."""

    type: Literal["continue"] = "continue"
    state: Literal["possible", "offered", "peer_wants", "agreed", "failed"]
    amount_max: Annotated[int | None, LEFT_OUT] = None
    session: Annotated[str | None, LEFT_OUT] = None
    token: Annotated[str | None, LEFT_OUT] = None
    url: Annotated[str | None, LEFT_OUT] = None
    payment: Annotated[dict[str, JsonValue] | None, LEFT_OUT] = None
    code: Annotated[str | None, LEFT_OUT] = None


class Summary(Part):
    """The bill as the receiver may see it; `continue` in JSON is `may_continue` here."""

    model_config = ConfigDict(serialize_by_alias=True)

    billable_seconds: int
    free_seconds: int
    duration_seconds: int
    amount_total: int
    amount_expert: Annotated[int | None, LEFT_OUT] = None
    amount_waived: int = 0
    waived_reason: str | None = None
    currency: str
    receipt_url: str | None = None
    may_continue: bool = Field(default=False, serialization_alias="continue")


class Ended(Message):
    """The session ended. Sent again with `receipt_url` when the receipt exists."""

    type: Literal["ended"] = "ended"
    reason: str
    summary: Summary | None = None


class ErrorMessage(Message):
    """Something the client sent was refused, or it has to go; after a `fatal` one the socket closes."""

    type: Literal["error"] = "error"
    code: str
    message: str
    fatal: bool = False


ServerMessage = (
    Welcome
    | Peer
    | Description
    | Sas
    | Pong
    | Meter
    | Warn
    | Status
    | Restart
    | Quality
    | ContinueState
    | Ended
    | ErrorMessage
)

CLIENT_MESSAGES: Final = cast("tuple[type[Message], ...]", get_args(ClientMessage))
SERVER_MESSAGES: Final = cast("tuple[type[Message], ...]", get_args(ServerMessage))

_client: Final[TypeAdapter[ClientMessage]] = TypeAdapter(Annotated[ClientMessage, Field(discriminator="type")])


def parse(text: str) -> ClientMessage:
    """Read one message of a client. Raises BadMessage: `bad_message` (told, not fatal) or `too_large` (4004)."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_MESSAGE_BYTES:
        raise BadMessage("too_large", "A message may have 64 KiB.", fatal=True, close=Close.REFUSED_FRAME)
    try:
        message = _client.validate_json(text)
    except ValidationError as error:
        raise BadMessage("bad_message", _reason(error)) from None
    if isinstance(message, Stats) and size > MAX_STATS_BYTES:
        raise BadMessage("bad_message", "stats may have 2 KiB.")
    return message


def _reason(error: ValidationError) -> str:
    """Names the place and the rule, never the value: it may be a secret."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part)[:32] for part in first["loc"][:4]) or "message"
    return f"{place}: {first['type']}"


def asyncapi(server: str = "localhost:8080") -> dict[str, Any]:
    """The protocol as an AsyncAPI 3.1 document, made from the models; seen from the gateway."""
    both = dict.fromkeys((*CLIENT_MESSAGES, *SERVER_MESSAGES))
    _, schemas = models_json_schema(
        [(model, "serialization" if model in SERVER_MESSAGES else "validation") for model in both],
        ref_template="#/components/schemas/{model}",
    )
    return {
        "asyncapi": "3.1.0",
        "info": {"title": "Parley Gateway signaling", "version": "1", "description": _about()},
        "defaultContentType": "application/json",
        "servers": {"gateway": {"host": server, "protocol": "wss"}},
        "channels": {"signal": _channel(tuple(both))},
        "operations": {
            "receive": _operation("receive", CLIENT_MESSAGES),
            "send": _operation("send", SERVER_MESSAGES),
        },
        "components": {"schemas": schemas["$defs"], "messages": {model.__name__: _message(model) for model in both}},
    }


def _about() -> str:
    codes = "\n".join(f"- {code.value}: {code.meaning}" for code in Close)
    return f"JSON text frames of at most 64 KiB, subprotocol `{SUBPROTOCOL}`.\n\nClose codes:\n\n{codes}"


def _channel(models: tuple[type[Message], ...]) -> dict[str, Any]:
    return {
        "address": "/v1/signal",
        "messages": {model.__name__: {"$ref": f"#/components/messages/{model.__name__}"} for model in models},
        "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
    }


def _operation(action: str, models: tuple[type[Message], ...]) -> dict[str, Any]:
    refs = [{"$ref": f"#/channels/signal/messages/{model.__name__}"} for model in models]
    return {"action": action, "channel": {"$ref": "#/channels/signal"}, "messages": refs}


def _message(model: type[Message]) -> dict[str, Any]:
    name = get_args(model.model_fields["type"].annotation)[0]
    about = " ".join((model.__doc__ or "").split())
    return {"name": name, "summary": about, "payload": {"$ref": f"#/components/schemas/{model.__name__}"}}
