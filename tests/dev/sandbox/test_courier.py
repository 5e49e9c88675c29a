"""Deliveries over real sockets: several at once, redirects refused, a dead endpoint tried again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from gateway.dev.sandbox import endpoints
from gateway.dev.sandbox.courier import Courier
from tests.dev.sandbox.conftest import START_MS, Bench

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    runners: list[web.AppRunner] = []

    async def start(handler: Handler) -> str:
        app = web.Application()
        app.router.add_post("/hook", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/hook"

    yield start
    for runner in runners:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def courier(bench: Bench) -> AsyncIterator[Courier]:
    made = Courier(bench.api.store, lambda: bench.now_ms)
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_silent_endpoint_does_not_hold_up_the_others(bench: Bench, serve: Any) -> None:
    silence, heard = asyncio.Event(), asyncio.Event()

    async def silent(_request: web.Request) -> web.Response:
        await silence.wait()
        return web.Response()

    async def quick(_request: web.Request) -> web.Response:
        heard.set()
        return web.Response()

    bench.ok("webhook_endpoints", url=await serve(silent), enabled_events=["customer.created"])
    bench.ok("webhook_endpoints", url=await serve(quick), enabled_events=["customer.updated"])
    customer = bench.ok("customers")
    async with courier(bench) as running:
        await until(lambda: bool(running.under_way))
        bench.ok(f"customers/{customer['id']}", name="x")
        running.wake.set()
        async with asyncio.timeout(5):
            await heard.wait()
        assert not silence.is_set()
        silence.set()
        await until(lambda: bench.api.store.undelivered() == 0)


@pytest.mark.parametrize("status", [301, 302, 400, 410, 500])
async def test_only_2xx_is_success(bench: Bench, serve: Any, status: int) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": "http://127.0.0.1:9/"})

    bench.ok("webhook_endpoints", url=await serve(refuse), enabled_events=["*"])
    bench.ok("customers")
    async with courier(bench):
        await until(lambda: (bench.api.store.next_delivery_ms() or 0) == START_MS + 1_000)


async def test_a_dead_endpoint_is_tried_again(bench: Bench) -> None:
    bench.api.work(bench.now_ms, lambda turn: endpoints.configure(turn, "http://127.0.0.1:9/", "whsec_1", ("*",)) or {})
    bench.ok("customers")
    async with courier(bench):
        await until(lambda: (bench.api.store.next_delivery_ms() or 0) > START_MS)
    assert bench.api.store.deliveries(START_MS + 10_000, 10)[0].attempt == 1


async def test_an_endpoint_taken_away_ends_its_deliveries(bench: Bench) -> None:
    made = bench.ok("webhook_endpoints", url="http://127.0.0.1:9/", enabled_events=["*"])
    bench.ok("customers")
    assert bench.answer("DELETE", f"webhook_endpoints/{made['id']}", {}).status == 200
    async with courier(bench):
        await until(lambda: bench.api.store.undelivered() == 0)
