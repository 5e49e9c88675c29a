"""The socket shell over real WebSockets: hello, limits, closing, and what the host sees of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, WSServerHandshakeError, web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import REGISTRY

from gateway.signaling.messages import (
    MAX_MESSAGE_BYTES,
    SUBPROTOCOL,
    ClientMessage,
    Close,
    Hello,
    Media,
    Sas,
    SignalError,
    Status,
)
from gateway.signaling.websocket import Bucket, Limits, Lobby, Socket, add_signaling

HELLO = {"type": "hello", "token": "good", "media": {"audio": True, "video": True}}
QUICK = Limits(hello_s=0.2, closing_s=0.5)
Client = TestClient[web.Request, web.Application]
Opener = Callable[..., Awaitable[Client]]


class Seated:
    """The test's own host side of a socket."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.heard: asyncio.Queue[ClientMessage] = asyncio.Queue()
        self.gone = asyncio.Event()
        self.refusal: Exception | None = None

    async def receive(self, message: ClientMessage) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.heard.put_nowait(message)

    async def closed(self) -> None:
        assert not self.gone.is_set(), "closed is told once"
        self.gone.set()


class House:
    """The test's own door: opens for the token `good`."""

    def __init__(self) -> None:
        self.seats: list[Seated] = []
        self.fault: Exception | None = None

    async def enter(self, hello: Hello, socket: Socket) -> Seated:
        if self.fault is not None:
            raise self.fault
        if hello.token != "good":
            raise SignalError("token_invalid", "No.", fatal=True, close=Close.UNAUTHORIZED)
        self.seats.append(Seated(socket))
        socket.send(Status(status="ready"))
        return self.seats[-1]

    @property
    def seat(self) -> Seated:
        return self.seats[-1]


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
async def serve(house: House) -> AsyncIterator[Opener]:
    clients: list[Client] = []

    async def start(limits: Limits = QUICK) -> Client:
        app = web.Application()
        add_signaling(app, house, limits)
        client = TestClient(TestServer(app))
        await client.start_server()
        clients.append(client)
        return client

    yield start
    for client in clients:
        await client.close()


async def connect(client: Client) -> aiohttp.ClientWebSocketResponse[bool]:
    socket: aiohttp.ClientWebSocketResponse[bool] = await client.ws_connect("/v1/signal", protocols=(SUBPROTOCOL,))
    return socket


async def seated(client: Client) -> aiohttp.ClientWebSocketResponse[bool]:
    socket = await connect(client)
    await socket.send_json(HELLO)
    assert (await socket.receive_json())["type"] == "status"
    return socket


async def farewell(socket: aiohttp.ClientWebSocketResponse[bool]) -> tuple[list[str], int | None]:
    """Codes of the errors that come until the socket closes, and the close code."""
    codes = []
    async with asyncio.timeout(5):
        async for frame in socket:
            if frame.type is WSMsgType.TEXT:
                codes += [frame.json()["code"]] if frame.json()["type"] == "error" else []
    return codes, socket.close_code


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


# Hello


async def test_a_hello_takes_a_seat(serve: Opener, house: House) -> None:
    client = await serve()
    socket = await seated(client)
    assert socket.protocol == SUBPROTOCOL
    await socket.send_json({"type": "media", "audio": True, "video": False})
    assert isinstance(await house.seat.heard.get(), Media)
    await socket.close()
    await house.seat.gone.wait()


async def test_other_subprotocols_are_refused(serve: Opener) -> None:
    client = await serve()
    with pytest.raises(WSServerHandshakeError) as error:
        await client.ws_connect("/v1/signal")
    assert error.value.status == 400


async def test_silence_is_closed(serve: Opener) -> None:
    client = await serve(Limits(hello_s=0.05))
    assert await farewell(await connect(client)) == (["hello_timeout"], Close.HELLO_TIMEOUT)


@pytest.mark.parametrize("text", ["{", '{"type":"leave"}', '{"type":"hello"}', '{"type":"ping","t":1}'])
async def test_anything_but_a_hello_is_the_end(serve: Opener, house: House, text: str) -> None:
    socket = await connect(await serve())
    await socket.send_str(text)
    assert (await socket.receive_json())["fatal"] is True
    assert (await farewell(socket), house.seats) == (([], Close.PROTOCOL), [])


async def test_law7_a_bad_token_opens_nothing(serve: Opener, house: House) -> None:
    socket = await connect(await serve())
    await socket.send_json({**HELLO, "token": "bad"})
    assert await farewell(socket) == (["token_invalid"], Close.UNAUTHORIZED)
    assert house.seats == []


async def test_a_second_hello_is_the_end(serve: Opener, house: House) -> None:
    socket = await seated(await serve())
    await socket.send_json(HELLO)
    assert await farewell(socket) == (["protocol"], Close.PROTOCOL)
    await house.seat.gone.wait()


async def test_a_client_that_leaves_without_a_word_costs_nothing(serve: Opener, house: House) -> None:
    client = await serve()
    await (await connect(client)).close()
    await (await seated(client)).close()
    assert len(house.seats) == 1


# Messages


async def test_pings_are_answered_here(serve: Opener, house: House) -> None:
    socket = await seated(await serve())
    await socket.send_json({"type": "ping", "t": 12.5})
    assert await socket.receive_json() == {"type": "pong", "t": 12.5}
    assert house.seat.heard.empty()


async def test_bad_messages_are_told_and_the_call_goes_on(serve: Opener, house: House) -> None:
    socket = await seated(await serve())
    for text in ("{", '{"type":"nope"}'):
        await socket.send_str(text)
        assert (await socket.receive_json())["code"] == "bad_message"
    await socket.send_json({"type": "leave"})
    assert (await house.seat.heard.get()).type == "leave"


async def test_what_the_seat_refuses_is_told(serve: Opener, house: House) -> None:
    socket = await seated(await serve())
    house.seat.refusal = SignalError("stale", "Too late.")
    await socket.send_json({"type": "leave"})
    assert (await socket.receive_json()) == {"type": "error", "code": "stale", "message": "Too late.", "fatal": False}
    house.seat.refusal = SignalError("session_ended", "Over.", fatal=True, close=Close.ENDED)
    await socket.send_json({"type": "leave"})
    assert await farewell(socket) == (["session_ended"], Close.ENDED)
    await house.seat.gone.wait()


@pytest.mark.parametrize("where", ["door", "seat"])
async def test_a_fault_of_ours_asks_to_try_again(serve: Opener, house: House, where: str) -> None:
    client = await serve()
    if where == "door":
        house.fault = RuntimeError("broken")
        socket = await connect(client)
        await socket.send_json(HELLO)
    else:
        socket = await seated(client)
        house.seat.refusal = RuntimeError("broken")
        await socket.send_json({"type": "leave"})
    assert await farewell(socket) == ([], Close.TRY_AGAIN)


async def test_messages_come_in_order(serve: Opener, house: House) -> None:
    socket = await seated(await serve())
    for number in range(50):
        house.seat.socket.send(Sas(step="commit", value=f"n{number}"))
    house.seat.socket.close(Close.ENDED, "over")
    house.seat.socket.send(Sas(step="commit", value="late"))
    values = [frame.json()["value"] async for frame in socket if frame.type is WSMsgType.TEXT]
    assert values == [f"n{number}" for number in range(50)]
    assert socket.close_code == Close.ENDED


# Limits


async def test_binary_frames_are_refused(serve: Opener) -> None:
    socket = await seated(await serve())
    await socket.send_bytes(b"\x00")
    assert await farewell(socket) == (["binary"], Close.REFUSED_FRAME)


@pytest.mark.parametrize("letter", ["x", "€"])
async def test_64_kib_a_message(serve: Opener, house: House, letter: str) -> None:
    socket = await seated(await serve())
    await socket.send_str("x" * MAX_MESSAGE_BYTES)
    assert (await socket.receive_json())["code"] == "bad_message"
    await socket.send_str(letter * (MAX_MESSAGE_BYTES // len(letter.encode()) + 1))
    assert await farewell(socket) == (["too_large"], Close.REFUSED_FRAME)
    await house.seat.gone.wait()


async def test_a_flood_is_closed_and_the_call_beside_it_goes_on(serve: Opener, house: House) -> None:
    client = await serve(Limits(burst=5, per_second=0.001))
    beside = await seated(client)
    socket = await seated(client)
    for _ in range(6):
        await socket.send_str("{")
    codes, close = await farewell(socket)
    assert (codes, close) == (["bad_message"] * 5 + ["rate_limited"], Close.RATE_LIMITED)
    await beside.send_json({"type": "ping", "t": 1})
    assert (await beside.receive_json())["type"] == "pong"


async def test_a_reader_that_is_too_slow_is_dropped(serve: Opener, house: House) -> None:
    socket = await seated(await serve(Limits(queued_messages=10, closing_s=0.2)))
    for _ in range(11):
        house.seat.socket.send(Sas(step="commit", value="A" * 128))
    assert socket.closed is False
    await house.seat.gone.wait()


async def test_strangers_are_few_an_address_and_the_oldest_goes(serve: Opener) -> None:
    client = await serve(Limits(waiting_per_address=2))
    first, second, third = [await connect(client) for _ in range(3)]
    assert await farewell(first) == ([], Close.TRY_AGAIN)
    for socket in (second, third):
        await socket.send_json(HELLO)
        assert (await socket.receive_json())["type"] == "status"
    assert not (await connect(client)).closed


def test_the_lobby_is_bounded_in_all() -> None:
    class Stranger:
        code: Close | None = None

        def close(self, code: Close, reason: str = "") -> None:
            self.code = code

    strangers: list[Any] = [Stranger() for _ in range(4)]
    lobby = Lobby(per_address=2, in_all=3)
    for number, stranger in enumerate(strangers):
        lobby.admit(stranger, f"address {number}")
    assert [stranger.code for stranger in strangers] == [Close.TRY_AGAIN, None, None, None]
    lobby.leave(strangers[1])
    lobby.leave(strangers[1])
    assert len(lobby) == 2


def test_the_bucket_refills_with_time() -> None:
    bucket = Bucket(burst=2, per_second=1, now=0.0)
    assert [bucket.take(0.0) for _ in range(3)] == [True, True, False]
    assert [bucket.take(1.0), bucket.take(1.5), bucket.take(2.0)] == [True, False, True]
    assert [bucket.take(100.0) for _ in range(3)] == [True, True, False]


async def test_a_node_that_goes_away_says_so_to_all(house: House) -> None:
    app = web.Application()
    add_signaling(app, house, QUICK)
    async with TestClient(TestServer(app)) as client:
        waiting, seat = await connect(client), await seated(client)
        await app.shutdown()
        assert await farewell(waiting) == ([], Close.GOING_AWAY)
        assert await farewell(seat) == ([], Close.GOING_AWAY)


# What operators see


async def test_messages_sockets_and_closes_are_counted(serve: Opener, house: House) -> None:
    def counts() -> list[float]:
        messages = metric("gateway_signaling_messages_total", direction="in", type="leave")
        return [messages, metric("gateway_signaling_closes_total", code="4003")]

    messages, closes = counts()
    socket = await seated(await serve())
    assert metric("gateway_signaling_sockets", state="seated") >= 1
    await socket.send_json({"type": "leave"})
    await house.seat.heard.get()
    house.seat.socket.close(Close.ENDED)
    await farewell(socket)
    async with asyncio.timeout(5):
        while counts() != [messages + 1, closes + 1]:
            await asyncio.sleep(0)


async def test_a_huge_message_costs_its_sender_the_socket_only(serve: Opener, house: House) -> None:
    client = await serve()
    beside, socket = await seated(client), await seated(client)
    with suppress(ConnectionError):
        await socket.send_str("x" * 8_000_000)
    await house.seat.gone.wait()
    await beside.send_json({"type": "ping", "t": 1})
    assert (await beside.receive_json())["type"] == "pong"
