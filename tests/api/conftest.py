"""The public application over sessions in memory and a real Valkey, and a client that speaks to it as a marketplace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import redis.asyncio as aioredis
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from gateway.api.auth import KeyRing
from gateway.api.context import ApiContext
from gateway.api.idempotency import Idempotency
from gateway.api.routes import public_app
from gateway.errors import NotFound, Unauthorized
from tests.api.market import FULL, KEYS, FixedClock, MemorySessions

Post = Callable[..., Awaitable[ClientResponse]]


@pytest.fixture
def sessions() -> MemorySessions:
    return MemorySessions()


@pytest.fixture
def stripe_inbox() -> list[bytes]:
    return []


@pytest.fixture
def context(sessions: MemorySessions, redis: aioredis.Redis, stripe_inbox: list[bytes]) -> ApiContext:
    async def receipt_page(secret: str) -> str:
        if secret != "good-secret":
            raise NotFound("There is no receipt behind this link.", code="receipt_not_found")
        return "<!doctype html><title>Receipt</title>"

    async def stripe_events(body: bytes, signature: str) -> None:
        if signature != "valid":
            raise Unauthorized("The signature does not match.", code="bad_signature")
        stripe_inbox.append(body)

    return ApiContext(
        sessions=sessions,
        keys=KeyRing(KEYS),
        idempotency=Idempotency(redis, lock_ms=200),
        public_url="https://gateway.example",
        clock=FixedClock(),
        receipt_page=receipt_page,
        stripe_events=stripe_events,
    )


@pytest.fixture
async def api(context: ApiContext) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(public_app(context))) as client:
        yield client


@pytest.fixture
def post(api: TestClient[Any, Any]) -> Post:
    """POST JSON with an API key and, unless `key=None`, an Idempotency-Key."""

    async def send(path: str, body: Any, *, key: str | None = "k1", auth: str = FULL) -> ClientResponse:
        headers = {"Authorization": f"Bearer {auth}"} | ({"Idempotency-Key": key} if key else {})
        return await api.post(path, json=body, headers=headers)

    return send
