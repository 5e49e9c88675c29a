"""The order of checks that every endpoint goes through, and idempotency over HTTP."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from gateway.errors import Bug, Conflict, StoreUnavailable
from tests.api.conftest import Post
from tests.api.market import CALLER, CASHIER, FULL, LIVE, READER, STRANGER, MemorySessions, order

Api = TestClient[Any, Any]
JSON = {"Content-Type": "application/json"}
BEARER = {"Authorization": f"Bearer {FULL}"}


async def test_without_a_key_nothing_is_read(api: Api) -> None:
    answer = await api.post("/v1/sessions", data=b"{", headers=JSON)
    assert (answer.status, (await answer.json())["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("auth", "path", "body", "allowed"),
    [
        (READER, "/v1/sessions", order(), False),
        (CASHIER, "/v1/sessions", order(), False),
        (CALLER, "/v1/sessions", order(), True),
        (READER, "/v1/sessions/ses_1/end", {}, False),
        (CALLER, "/v1/sessions/ses_1/payment", {"payment_method": "pm_1"}, False),
        (CALLER, "/v1/sessions/ses_1/waive", {}, False),
        (READER, "/v1/sessions/ses_1/tokens", {"role": "client"}, False),
    ],
)
async def test_scopes_hold(post: Post, auth: str, path: str, body: Any, allowed: bool) -> None:
    answer = await post(path, body, auth=auth)
    assert answer.status == (201 if allowed else 403)
    if not allowed:
        assert (await answer.json())["code"] == "insufficient_scope"


@pytest.mark.parametrize("auth", [READER, CALLER, CASHIER])
async def test_every_key_may_read(api: Api, auth: str) -> None:
    assert (await api.get("/v1/sessions", headers={"Authorization": f"Bearer {auth}"})).status == 200


@pytest.mark.parametrize(("auth", "told"), [(READER, False), (CALLER, True), (CASHIER, True)])
async def test_law7_a_key_that_only_reads_is_told_nothing_that_opens_a_call_or_charges_a_card(
    api: Api, sessions: MemorySessions, post: Post, auth: str, told: bool
) -> None:
    made = await (await post("/v1/sessions", order())).json()
    docs = sessions.kept[made["id"]]
    secret = {**docs.payment, "client_secret": "pi_1_secret"}
    sessions.kept[made["id"]] = replace(docs, payment=secret, pay_url="https://pay.example/pay#s")
    for path in (f"/v1/sessions/{made['id']}", "/v1/sessions"):
        answer = await api.get(path, headers={"Authorization": f"Bearer {auth}"})
        assert ("pi_1_secret" in await answer.text()) is ("/pay#s" in await answer.text()) is told


@pytest.mark.parametrize(
    "path", ["/v1/sessions", "/v1/sessions/ses_1/payment", "/v1/sessions/ses_1/refunds", "/v1/sessions/ses_1/waive"]
)
async def test_what_can_move_money_needs_an_idempotency_key(post: Post, path: str) -> None:
    answer = await post(path, order(), key=None)
    assert (answer.status, (await answer.json())["code"]) == (400, "idempotency_key_required")


@pytest.mark.parametrize(("query", "code"), [("", "idempotency_key_required"), ("?preview=true", "not_found")])
async def test_r14_a_preview_moves_no_money_and_needs_no_idempotency_key(api: Api, query: str, code: str) -> None:
    """It gets as far as the bookings, of which there are none here."""
    answer = await api.post(f"/v1/bookings/bkg_1/cancel{query}", json={"by": "client"}, headers=BEARER)
    assert (await answer.json())["code"] == code


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", JSON, 400, "invalid_json"),
        (b"[]", JSON, 400, "invalid_json"),
        (b"x" * (64 * 1024 + 1), JSON, 413, "body_too_large"),
        (json.dumps(order()).encode(), {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        (b"", JSON, 400, "missing_field"),
    ],
)
async def test_a_body_that_cannot_be_read(
    api: Api, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await api.post("/v1/sessions", data=body, headers={**BEARER, "Idempotency-Key": "k", **headers})
    assert (answer.status, (await answer.json())["code"]) == (status, code)


async def test_a_large_body_in_chunks_is_refused_too(api: Api) -> None:
    async def chunks() -> Any:
        for _ in range(70):
            yield b"x" * 1024

    answer = await api.post("/v1/sessions", data=chunks(), headers={**BEARER, "Idempotency-Key": "k", **JSON})
    assert (answer.status, (await answer.json())["code"]) == (413, "body_too_large")


async def test_a_card_number_is_refused_in_body_and_query_and_never_repeated(api: Api, post: Post) -> None:
    body = await (await post("/v1/sessions", order(reference="4242 4242 4242 4242"))).text()
    query = await (await api.get("/v1/sessions?reference=4242424242424242", headers=BEARER)).text()
    for answer in (body, query):
        assert json.loads(answer)["code"] == "card_number_refused"
        assert "4242" not in answer


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/sessions/ses_1?foo=1"),
        ("GET", "/v1/sessions/ses_1/receipts?foo=1"),
        ("POST", "/v1/sessions/ses_1/waive?foo=1"),
        ("DELETE", "/v1/people/x?foo=1"),
    ],
)
async def test_a_parameter_of_a_call_that_takes_none_is_refused(api: Api, method: str, path: str) -> None:
    answer = await api.request(method, path, headers={**BEARER, "Idempotency-Key": "k"})
    problem = await answer.json()
    assert (answer.status, problem["code"], problem["param"]) == (400, "unknown_parameter", "foo")


async def test_a_parameter_given_twice_is_refused(api: Api) -> None:
    answer = await api.get("/v1/sessions?limit=1&limit=2", headers=BEARER)
    assert (answer.status, (await answer.json())["code"]) == (400, "invalid_parameter")


async def test_the_first_result_is_replayed(post: Post, sessions: MemorySessions) -> None:
    first, second = await post("/v1/sessions", order()), await post("/v1/sessions", order())
    assert (first.status, second.status) == (201, 201)
    assert await first.read() == await second.read()
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert len(sessions.opened) == 1


async def test_another_body_under_the_key_is_refused(post: Post) -> None:
    await post("/v1/sessions", order())
    answer = await post("/v1/sessions", order(media="voice"))
    assert (answer.status, (await answer.json())["code"]) == (422, "idempotency_key_reused")


async def test_accounts_and_modes_have_keys_of_their_own(post: Post, sessions: MemorySessions) -> None:
    for auth in (FULL, LIVE, STRANGER):
        assert (await post("/v1/sessions", order(), auth=auth)).status == 201
    assert len(sessions.opened) == 3


async def test_while_the_first_is_under_way_the_second_waits(post: Post, sessions: MemorySessions) -> None:
    sessions.gate = asyncio.Event()
    first = asyncio.create_task(post("/v1/sessions", order()))
    await asyncio.wait_for(sessions.entered.wait(), 5)
    second = await post("/v1/sessions", order())
    assert second.status == 409
    assert (await second.json())["code"] == "idempotency_key_in_use"
    assert int(second.headers["Retry-After"]) >= 1
    sessions.gate.set()
    assert (await first).status == 201
    assert len(sessions.opened) == 1


@pytest.mark.parametrize("body", [order(rate__currency="xxx"), order(media="text")])
async def test_a_refused_request_keeps_nothing(post: Post, body: dict[str, Any]) -> None:
    assert (await post("/v1/sessions", body)).status == 400
    assert (await post("/v1/sessions", order())).status == 201


async def test_a_conflict_frees_the_key(post: Post, sessions: MemorySessions) -> None:
    sessions.fails = Conflict("taken", code="reference_in_use", session="ses_0")
    answer = await post("/v1/sessions", order())
    assert (answer.status, (await answer.json())["session"]) == (409, "ses_0")
    sessions.fails = None
    assert (await post("/v1/sessions", order())).status == 201


@pytest.mark.parametrize("failure", [StoreUnavailable("away"), Bug("broken"), RuntimeError("broken")])
async def test_law5_a_retry_after_a_failure_finds_the_session_instead_of_making_a_second(
    post: Post, sessions: MemorySessions, failure: Exception
) -> None:
    sessions.fails_after = failure
    answer = await post("/v1/sessions", order())
    assert answer.status in (500, 503)
    assert "broken" not in await answer.text()
    sessions.fails_after = None
    retry = await post("/v1/sessions", order())
    assert retry.status == 201
    assert sessions.opened == [(await retry.json())["id"]]


async def test_law5_a_request_that_died_is_taken_over_with_its_session(post: Post, sessions: MemorySessions) -> None:
    """The node dies between the commit and the answer: its lock (200 ms here) runs out, and the retry goes on."""
    sessions.fails_after = asyncio.CancelledError()
    with pytest.raises(Exception, match=r"(?i)disconnected"):
        await post("/v1/sessions", order())
    sessions.fails_after = None
    async with asyncio.timeout(5):
        while (retry := await post("/v1/sessions", order())).status == 409:
            await asyncio.sleep(0.02)
    assert retry.status == 201
    assert sessions.opened == [(await retry.json())["id"]]


async def test_a_refusal_after_a_take_over_keeps_the_session_of_the_first(post: Post, sessions: MemorySessions) -> None:
    sessions.fails_after = StoreUnavailable("away")
    await post("/v1/sessions", order())
    sessions.fails_after = Conflict("later", code="version_conflict")
    await post("/v1/sessions", order())
    sessions.fails_after = None
    assert (await post("/v1/sessions", order())).status == 201
    assert len(sessions.opened) == 1


async def test_a_key_is_accepted_where_it_is_not_needed(post: Post, sessions: MemorySessions) -> None:
    session = (await (await post("/v1/sessions", order())).json())["id"]
    for _ in range(2):
        assert (await post(f"/v1/sessions/{session}/end", {"reason": "x"}, key="end-1")).status == 200
    assert [call for call in sessions.calls if call[0] == "end"] == [("end", session, "x")]
    assert (await post(f"/v1/sessions/{session}/end", {}, key=None)).status == 200
