"""The WebSocket of `/v1/signal`: admission, hello, limits, one reader and one writer a socket. Decides nothing else.

The host sits behind three protocols: `Door.enter` seats a socket, `Seat` takes its messages, `Socket` answers.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter as Tally
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web
from prometheus_client import Counter, Gauge

from gateway.signaling.messages import (
    MAX_MESSAGE_BYTES,
    SUBPROTOCOL,
    BadMessage,
    ClientMessage,
    Close,
    ErrorMessage,
    Hello,
    Ping,
    Pong,
    ServerMessage,
    SignalError,
    parse,
)

log = structlog.get_logger(__name__)

SOCKETS = Gauge("gateway_signaling_sockets", "Open signaling WebSockets.", ["state"])
MESSAGES = Counter("gateway_signaling_messages_total", "Signaling messages.", ["direction", "type"])
CLOSES = Counter("gateway_signaling_closes_total", "Closed signaling WebSockets, by close code, or who went.", ["code"])


class Socket(Protocol):
    """A participant's socket, as the host sees it."""

    def send(self, message: ServerMessage) -> None:
        """Queue a message; never blocks. Nothing happens on a socket that is closing."""

    def close(self, code: Close, reason: str = "") -> None:
        """Close after what is queued; `Seat.closed` follows."""


class Seat(Protocol):
    """A seated socket's counterpart in the host; calls come one after the other."""

    async def receive(self, message: ClientMessage) -> None:
        """Take a message (never `hello` or `ping`). Raises SignalError, which the client is told."""

    async def closed(self) -> None:
        """The socket is gone, for whatever reason. Called once."""


class Door(Protocol):
    """The host's entrance."""

    async def enter(self, hello: Hello, socket: Socket) -> Seat:
        """Seat the socket and send `welcome` on it. Any SignalError closes the socket."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what strangers and slow or noisy clients may cost us."""

    hello_s: float = 5.0
    heartbeat_s: float = 20.0
    burst: int = 60
    per_second: float = 20.0
    # Strangers: sockets before their `hello` (6-media, Secrets and sockets).
    waiting_per_address: int = 16
    waiting: int = 1024
    # A reader this far behind gets a fresh start instead of our memory; the largest offer is below 64 KiB.
    queued_messages: int = 256
    queued_bytes: int = 512 * 1024
    closing_s: float = 5.0


DEFAULT_LIMITS: Final = Limits()
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Bucket:
    """A token bucket; `now` in seconds of any monotonic clock."""

    def __init__(self, burst: int, per_second: float, now: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._level = float(burst)
        self._at = now

    def take(self, now: float) -> bool:
        """Take one token; False if there is none."""
        self._level = min(self._burst, self._level + (now - self._at) * self._per_second)
        self._at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True


TOO_LARGE: Final = ErrorMessage(code="too_large", message="A message may have 64 KiB.", fatal=True)


class Wire(web.WebSocketResponse):
    """aiohttp's WebSocket, with our code where aiohttp itself closes on a message that is too large."""

    said: int | None = None

    async def close(self, *, code: int = WSCloseCode.OK, message: bytes = b"", drain: bool = True) -> bool:
        if code == WSCloseCode.MESSAGE_TOO_BIG:
            with suppress(ConnectionError):
                await self.send_str(TOO_LARGE.text())
            code, message = Close.REFUSED_FRAME, b"too_large"
        if not self.closed:
            self.said = code
        return await super().close(code=code, message=message, drain=drain)

    @property
    def outcome(self) -> str:
        """For the metric: our close code, `client` if the client closed, `lost` if nobody could."""
        if self.said is None:
            return "lost"
        return str(int(self.said)) if self.said in _OURS else "client"


_OURS: Final = frozenset(Close)


@dataclass(frozen=True, slots=True)
class _Goodbye:
    code: Close
    reason: str


class Connection:
    """One socket: a bounded queue out, drained by one writer task, and a reader that feeds the seat."""

    def __init__(self, wire: Wire, abort: Callable[[], None], limits: Limits) -> None:
        self._wire = wire
        self.abort = abort
        self._limits = limits
        self._queue: deque[str | _Goodbye] = deque()
        self._queued_bytes = 0
        self._ready = asyncio.Event()
        self._goodbye: _Goodbye | None = None

    def send(self, message: ServerMessage) -> None:
        if self._goodbye is not None:
            return
        text = message.text()
        self._queued_bytes += len(text)
        if len(self._queue) >= self._limits.queued_messages or self._queued_bytes > self._limits.queued_bytes:
            self._drop()
            return
        MESSAGES.labels("out", message.type).inc()
        self._put(text)

    def close(self, code: Close, reason: str = "") -> None:
        if self._goodbye is None:
            self._goodbye = _Goodbye(code, reason)
            self._put(self._goodbye)

    def refuse(self, error: SignalError) -> None:
        """Tell the client what was wrong; close if that is fatal."""
        self.send(error.as_message())
        if error.fatal:
            self.close(error.close, error.code)

    def _put(self, item: str | _Goodbye) -> None:
        self._queue.append(item)
        self._ready.set()

    def _drop(self) -> None:
        """The reader is too slow: no close frame would get through either."""
        self._goodbye = _Goodbye(Close.TRY_AGAIN, "too slow")
        self._queue.clear()
        self._put(self._goodbye)
        self.abort()

    async def write(self) -> None:
        """Write until the socket closes; the one place that writes."""
        with suppress(ConnectionError):
            while not await self._write_next():
                pass

    async def _write_next(self) -> bool:
        """Write what is next in the queue; True when that was the last."""
        while not self._queue:
            self._ready.clear()
            await self._ready.wait()
        item = self._queue.popleft()
        if isinstance(item, _Goodbye):
            await self._wire.close(code=item.code, message=item.reason.encode())
            return True
        self._queued_bytes -= len(item)
        await self._wire.send_str(item)
        return False

    async def hello(self) -> Hello:
        """The first message. Raises SignalError, and Gone if the client leaves without a word."""
        try:
            async with asyncio.timeout(self._limits.hello_s):
                frame = await self._wire.receive()
        except TimeoutError:
            raise SignalError("hello_timeout", "Say hello within 5 s.", close=Close.HELLO_TIMEOUT) from None
        message = _message(frame)
        if message is None:
            raise Gone
        if not isinstance(message, Hello):
            raise SignalError("protocol", "The first message is hello.")
        return message

    async def listen(self, seat: Seat) -> None:
        """Feed the seat until the socket closes, from either side."""
        loop = asyncio.get_running_loop()
        bucket = Bucket(self._limits.burst, self._limits.per_second, loop.time())
        while self._goodbye is None:
            frame = await self._wire.receive()
            try:
                if not bucket.take(loop.time()):
                    raise SignalError("rate_limited", "Too many messages.", fatal=True, close=Close.RATE_LIMITED)
                message = _message(frame)
                if message is None:
                    return
                await self._take(message, seat)
            except SignalError as error:
                self.refuse(error)

    async def _take(self, message: ClientMessage, seat: Seat) -> None:
        match message:
            case Hello():
                raise SignalError("protocol", "hello comes once.", fatal=True)
            case Ping(t=t):
                self.send(Pong(t=t))
            case _:
                await seat.receive(message)


def _message(frame: WSMessage) -> ClientMessage | None:
    """What a frame says; None when it says that the socket is closed. Raises SignalError for what is not ours."""
    if frame.type is WSMsgType.BINARY:
        raise SignalError("binary", "Messages are text frames.", fatal=True, close=Close.REFUSED_FRAME)
    if frame.type is not WSMsgType.TEXT:
        return None
    try:
        message = parse(frame.data)
    except BadMessage:
        MESSAGES.labels("in", "invalid").inc()
        raise
    MESSAGES.labels("in", message.type).inc()
    return message


class Gone(Exception):
    """The client went away before it said hello."""


class Lobby:
    """Who is connected and has not said hello: bounded an address and in all, the oldest goes first."""

    def __init__(self, per_address: int, in_all: int) -> None:
        self._per_address = per_address
        self._in_all = in_all
        self._waiting: dict[Connection, str] = {}
        self._counts: Tally[str] = Tally()

    def __len__(self) -> int:
        return len(self._waiting)

    def admit(self, connection: Connection, address: str) -> None:
        if self._counts[address] >= self._per_address:
            self._evict(next(waiting for waiting, of in self._waiting.items() if of == address))
        if len(self._waiting) >= self._in_all:
            self._evict(next(iter(self._waiting)))
        self._waiting[connection] = address
        self._counts[address] += 1

    def leave(self, connection: Connection) -> None:
        """Idempotent."""
        address = self._waiting.pop(connection, None)
        if address is None:
            return
        self._counts[address] -= 1
        if not self._counts[address]:
            del self._counts[address]

    def _evict(self, connection: Connection) -> None:
        self.leave(connection)
        connection.close(Close.TRY_AGAIN, "too many are waiting")


def remote_network(request: web.Request) -> str:
    """What counts as one address: an IPv4 address, or an IPv6 /64, since a customer has at least that many."""
    try:
        address = ipaddress.ip_address(request.remote or "")
    except ValueError:
        return request.remote or ""
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))


class SignalEndpoint:
    """The handler of `GET /v1/signal`, and the sockets that it holds until its application leaves."""

    def __init__(
        self,
        door: Door,
        limits: Limits = DEFAULT_LIMITS,
        address_of: Callable[[web.Request], str] = remote_network,
    ) -> None:
        self._door = door
        self._limits = limits
        self._address_of = address_of
        self._lobby = Lobby(limits.waiting_per_address, limits.waiting)
        self._connections: set[Connection] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one socket to its end; 400 for requests that do not offer our subprotocol."""
        offered = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if SUBPROTOCOL not in offered:
            return web.Response(status=400, text=f"This is a WebSocket with the subprotocol {SUBPROTOCOL}.\n")
        wire = Wire(
            protocols=(SUBPROTOCOL,),
            heartbeat=self._limits.heartbeat_s,
            timeout=self._limits.closing_s,
            max_msg_size=MAX_MESSAGE_BYTES + 1,
            compress=False,
        )
        await wire.prepare(request)
        await self._hold(Connection(wire, _abort_of(request), self._limits), wire, self._address_of(request))
        return wire

    async def leave(self, _: web.Application) -> None:
        """Tell every socket, also those that have not said who they are: else each would hold up the node's end."""
        for connection in tuple(self._connections):
            connection.close(Close.GOING_AWAY)

    async def _hold(self, connection: Connection, wire: Wire, address: str) -> None:
        self._connections.add(connection)
        self._lobby.admit(connection, address)
        writer = asyncio.create_task(connection.write(), name="signaling writer")
        try:
            await self._serve(connection)
        finally:
            self._lobby.leave(connection)
            self._connections.discard(connection)
            await _finish(connection, wire, writer, self._limits.closing_s)

    async def _serve(self, connection: Connection) -> None:
        seat: Seat | None = None
        try:
            with SOCKETS.labels("waiting").track_inprogress():
                hello = await connection.hello()
                self._lobby.leave(connection)
                seat = await self._door.enter(hello, connection)
            with SOCKETS.labels("seated").track_inprogress():
                await connection.listen(seat)
        except Gone:
            pass
        except SignalError as error:
            # Until it is seated a stranger has one attempt a socket, so all refusals are fatal.
            connection.send(error.as_message().model_copy(update={"fatal": True}))
            connection.close(error.close, error.code)
        except Exception:
            log.exception("signaling.failed")
            connection.close(Close.TRY_AGAIN, "internal error")
        finally:
            if seat is not None:
                await seat.closed()


def add_signaling(app: web.Application, door: Door, limits: Limits = DEFAULT_LIMITS) -> None:
    """Serve `GET /v1/signal` there until it shuts down."""
    endpoint = SignalEndpoint(door, limits)
    app.router.add_get("/v1/signal", endpoint.handle)
    app.on_shutdown.append(endpoint.leave)


def _abort_of(request: web.Request) -> Callable[[], None]:
    def abort() -> None:
        if request.transport is not None:
            request.transport.abort()

    return abort


async def _finish(connection: Connection, wire: Wire, writer: asyncio.Task[None], closing_s: float) -> None:
    """Let the writer say goodbye, then make sure that nothing is left of either."""
    connection.close(Close.GOING_AWAY)
    try:
        async with asyncio.timeout(closing_s + 1):
            await writer
    except TimeoutError:
        connection.abort()
    finally:
        writer.cancel()
        CLOSES.labels(wire.outcome).inc()
