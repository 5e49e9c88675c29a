from __future__ import annotations

import asyncio

import pytest
from aiohttp.test_utils import TestClient, TestServer

from gateway.api.health import Check, private_app


async def fine() -> object:
    return None


async def says_no() -> object:
    return False


async def breaks() -> object:
    raise ConnectionError("10.0.0.1 refused")


async def hangs() -> object:
    return await asyncio.Event().wait()


async def asked(checks: dict[str, Check], path: str) -> tuple[int, str]:
    async with TestClient(TestServer(private_app(checks, check_s=0.05))) as client:
        answer = await client.get(path)
        return answer.status, await answer.text()


async def test_ready_when_every_check_passes() -> None:
    assert await asked({"redis": fine, "relay": fine}, "/readyz") == (200, '{"status": "ready", "failing": []}')


@pytest.mark.parametrize("check", [says_no, breaks, hangs])
async def test_not_ready_names_what_fails(check: Check) -> None:
    status, body = await asked({"redis": fine, "bridge": check}, "/readyz")
    assert (status, body) == (503, '{"status": "not_ready", "failing": ["bridge"]}')


async def test_alive_whatever_is_missing() -> None:
    assert await asked({"redis": breaks}, "/livez") == (200, '{"status": "alive"}')


async def test_metrics_are_prometheus_text() -> None:
    status, body = await asked({}, "/metrics")
    assert status == 200
    assert "# TYPE gateway_http_requests_total counter" in body
