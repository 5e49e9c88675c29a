from __future__ import annotations

from typing import Any

import pytest
import structlog
from aiohttp import ClientPayloadError, web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import REGISTRY

from gateway.api.context import ApiContext
from gateway.api.middleware import request_id
from gateway.api.routes import public_app
from gateway.errors import RelayUnavailable, TooMany
from tests.api.conftest import Post
from tests.api.market import FULL, order

Api = TestClient[Any, Any]
BEARER = {"Authorization": f"Bearer {FULL}"}


def counted(method: str, route: str, status: int) -> float:
    labels = {"method": method, "route": route, "status": str(status)}
    return REGISTRY.get_sample_value("gateway_http_requests_total", labels) or 0.0


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/", 404, "not_found"),
        ("DELETE", "/v1/sessions", 405, "method_not_allowed"),
        ("PUT", "/v1/enter", 405, "method_not_allowed"),
        ("POST", "/v1/openapi.json", 405, "method_not_allowed"),
    ],
)
async def test_every_error_is_a_problem(api: Api, method: str, path: str, status: int, code: str) -> None:
    answer = await api.request(method, path)
    body = await answer.json()
    assert (answer.status, answer.content_type) == (status, "application/problem+json")
    assert (body["status"], body["code"], body["instance"]) == (status, code, path)
    assert body["type"] == f"https://gateway.example/v1/docs#{code}"
    assert body["request_id"] == answer.headers["X-Request-Id"]
    if status == 405:
        assert answer.headers["Allow"]


@pytest.mark.parametrize("sane", ["12345678", "550e8400-e29b-41d4-a716-446655440000", "req_" + "a" * 60])
def test_a_sane_request_id_is_kept(sane: str) -> None:
    assert request_id(sane) == sane


@pytest.mark.parametrize(
    "odd", [None, "", "short", "x" * 65, "a b c d e f", "id\nforged=1", "ü" * 10, "4242424242424242"]
)
def test_any_other_is_replaced(odd: str | None) -> None:
    minted = request_id(odd)
    assert minted.startswith("req_")
    assert minted != request_id(odd)


async def test_the_request_id_is_on_every_answer(api: Api) -> None:
    for path in ("/v1/docs", "/nowhere", "/v1/sessions"):
        answer = await api.get(path, headers={"X-Request-Id": "trace-0001"})
        assert answer.headers["X-Request-Id"] == "trace-0001"


async def test_requests_are_counted_by_template_not_by_path(api: Api) -> None:
    before = counted("GET", "/v1/sessions/{id}", 404), counted("GET", "unmatched", 404)
    await api.get("/v1/sessions/ses_none", headers=BEARER)
    await api.get("/some/secret/path")
    after = counted("GET", "/v1/sessions/{id}", 404), counted("GET", "unmatched", 404)
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1]


async def test_strange_methods_make_no_new_series(api: Api) -> None:
    before = counted("other", "unmatched", 405) + counted("other", "unmatched", 404)
    await api.request("PROPFIND", "/v1/sessions")
    assert counted("other", "unmatched", 405) + counted("other", "unmatched", 404) == before + 1


async def test_one_line_per_request_and_nothing_private_in_it(api: Api, post: Post) -> None:
    with structlog.testing.capture_logs() as lines:
        await post("/v1/sessions", order(), key="secret-idempotency-key")
        await api.get("/v1/sessions?reference=private-reference", headers=BEARER)
        await api.get("/r/good-secret")
        await api.post("/v1/enter", json={"secret": "entry-secret"})
    requests = [line for line in lines if line["event"] == "request"]
    assert [(line["method"], line["route"], line["status"]) for line in requests] == [
        ("POST", "/v1/sessions", 201),
        ("GET", "/v1/sessions", 200),
        ("GET", "/r/{secret}", 200),
        ("POST", "/v1/enter", 200),
    ]
    assert [line["account"] for line in requests] == ["acc_dev", "acc_dev", None, None]
    told = str(lines)
    for private in (FULL, "secret-idempotency-key", "private-reference", "good-secret", "entry-secret", "example.com"):
        assert private not in told


async def test_pages_load_nothing_from_elsewhere(api: Api) -> None:
    policy = (await api.get("/v1/docs")).headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "connect-src 'self' ws: wss:" in policy
    assert "http" not in policy
    assert "unsafe" not in policy


async def test_answers_are_not_cached_framed_or_sniffed(api: Api) -> None:
    headers = (await api.get("/v1/sessions", headers=BEARER)).headers
    assert headers["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "aiohttp" not in headers["Server"]


async def test_cors_is_closed(api: Api) -> None:
    for path in ("/v1/sessions", "/v1/docs", "/nowhere"):
        answer = await api.get(path, headers={"Origin": "https://elsewhere.example"})
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert (await api.options("/v1/sessions", headers={"Origin": "https://elsewhere.example"})).status == 405


async def test_r10_https_is_insisted_on_where_it_is_spoken(api: Api, context: ApiContext) -> None:
    assert "max-age" in (await api.get("/v1/docs")).headers["Strict-Transport-Security"]
    plain = ApiContext(context.sessions, context.keys, context.idempotency, "http://localhost:8080")
    async with TestClient(TestServer(public_app(plain))) as local:
        assert "Strict-Transport-Security" not in (await local.get("/v1/docs")).headers


async def test_routes_that_others_add_are_covered_too(context: ApiContext) -> None:
    app = public_app(context)

    async def broken(_: web.Request) -> web.Response:
        raise ZeroDivisionError("private")

    async def throttled(_: web.Request) -> web.Response:
        raise TooMany("Slow down.", retry_after=7)

    async def no_relay(_: web.Request) -> web.Response:
        raise RelayUnavailable("No relay is free.")

    async def late(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        raise ZeroDivisionError("private")

    async def talk(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(socket.headers["X-Request-Id"])
        await socket.close()
        return socket

    for path, handler in (
        ("broken", broken),
        ("throttled", throttled),
        ("none", no_relay),
        ("late", late),
        ("ws", talk),
    ):
        app.router.add_get(f"/{path}", handler)
    async with TestClient(TestServer(app)) as api:
        answer = await api.get("/broken")
        assert (answer.status, "private" in await answer.text()) == (500, False)
        answer = await api.get("/throttled")
        assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
        answer = await api.get("/none")
        assert (answer.status, (await answer.json())["code"]) == (503, "relay_unavailable")
        with pytest.raises(ClientPayloadError):
            await (await api.get("/late")).read()
        before = counted("GET", "/ws", 101)
        async with api.ws_connect("/ws", headers={"X-Request-Id": "trace-0001"}) as socket:
            assert await socket.receive_str() == "trace-0001"
            await socket.receive()
    assert counted("GET", "/ws", 101) == before + 1
