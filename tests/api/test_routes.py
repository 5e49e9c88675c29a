"""Each endpoint over HTTP; every answer here is also checked against the OpenAPI document that describes it."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from jsonschema import Draft202012Validator

from gateway.api import openapi
from gateway.api.context import ApiContext
from gateway.api.routes import ENDPOINTS, public_app
from gateway.web import FILES
from tests.api.conftest import Post
from tests.api.market import FULL, LIVE, STRANGER, MemorySessions, event, order

Api = TestClient[Any, Any]
BEARER = {"Authorization": f"Bearer {FULL}"}
DOCUMENT = openapi.document(ENDPOINTS, server_url="https://gateway.example")


async def documented(answer: ClientResponse, path: str) -> Any:
    """The body, after it was held against what the document says of this answer."""
    operation = DOCUMENT["paths"][path][answer.method.lower()]
    content = operation["responses"][str(answer.status)]["content"]
    body = await answer.json(content_type=None)
    schema = {**content[answer.content_type]["schema"], "components": DOCUMENT["components"]}
    Draft202012Validator(schema).validate(body)
    if answer.status >= 400:
        assert body["code"] in operation["x-problem-codes"]
    return body


@pytest.fixture
async def session(post: Post) -> str:
    return str((await (await post("/v1/sessions", order(), key="fixture")).json())["id"])


async def test_create_answers_as_the_contract_shows(post: Post) -> None:
    answer = await post("/v1/sessions", order())
    body = await documented(answer, "/v1/sessions")
    assert answer.status == 201
    assert body["id"].startswith("ses_")
    assert body["payment"] | {"status": "held", "amount_held": 25500, "client_secret": None} == body["payment"]
    assert (body["cap_seconds"], body["limit_seconds"], body["free_seconds"]) == (5400, 5400, 300)
    assert (body["reference"], body["currency"], body["commission_bps"]) == ("order-123", "usd", 1000)
    for role in ("client", "expert"):
        assert body["participants"][role]["token"] == f"token-{role}"
        assert body["participants"][role]["url"].startswith("https://gateway.example/call#")
    assert (body["livemode"], body["created"]) == (False, "2026-11-21T20:00:00.000Z")


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"rate__currency": "jpy"}, "unknown_currency", "rate.currency"),
        ({"rate__unit_amount": 1_000}, None, None),
        ({"rate__unit_amount": 1}, "rate_out_of_range", "rate.unit_amount"),
        ({"kind": "booked", "max_minutes": 20}, "booked_minutes_invalid", "max_minutes"),
        ({"kind": "booked"}, "booked_through_bookings", "kind"),
        ({"kind": "pro_bono"}, "pro_bono_too_long", "max_minutes"),
        ({"expert__rating": 3.4}, "expert_not_eligible", "expert.rating"),
        ({"expert__country": "NZ"}, "expert_not_payable", "expert.country"),
        ({"surprise": 1}, "unknown_field", "surprise"),
    ],
)
async def test_each_refusal_has_its_own_code(
    post: Post, sessions: MemorySessions, changes: dict[str, Any], code: str | None, param: str | None
) -> None:
    answer = await post("/v1/sessions", order(**changes))
    body = await documented(answer, "/v1/sessions")
    if code is None:
        assert answer.status == 201
    else:
        assert (answer.status, body["code"], body["param"]) == (400, code, param)
        assert sessions.opened == []


async def test_read_shows_the_session_without_the_ways_into_it(api: Api, session: str) -> None:
    body = await documented(await api.get(f"/v1/sessions/{session}", headers=BEARER), "/v1/sessions/{id}")
    assert (body["id"], body["status"]) == (session, "ready")
    assert body["participants"]["client"] == {"joined_at": None, "token": None, "url": None}


@pytest.mark.parametrize("auth", [LIVE, STRANGER])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("GET", "/usage", None),
        ("GET", "/receipts", None),
        ("GET", "/events", None),
        ("POST", "/end", {}),
        ("POST", "/tokens", {"role": "client"}),
        ("POST", "/payment", {"payment_method": "pm_1"}),
        ("POST", "/waive", {}),
        ("POST", "/refunds", {"reason": "x"}),
    ],
)
async def test_law7_others_and_the_other_mode_see_nothing(
    api: Api, session: str, sessions: MemorySessions, auth: str, method: str, path: str, body: Any
) -> None:
    headers = {"Authorization": f"Bearer {auth}", "Idempotency-Key": "x"}
    answer = await api.request(method, f"/v1/sessions/{session}{path}", json=body, headers=headers)
    assert (await documented(answer, f"/v1/sessions/{{id}}{path}"))["code"] == "session_not_found"
    assert sessions.calls == []


@pytest.mark.parametrize("id", ["ses_unknown", "evt_1", "ses_" + "a" * 60, "ses_%00"])
async def test_what_cannot_be_a_session_is_not_found(api: Api, id: str) -> None:
    answer = await api.get(f"/v1/sessions/{id}", headers=BEARER)
    assert (answer.status, (await answer.json())["code"]) == (404, "session_not_found")


async def test_lists_come_in_pages(api: Api, post: Post, sessions: MemorySessions) -> None:
    for number in range(3):
        await post("/v1/sessions", order(), key=f"k{number}")
    answer = await api.get("/v1/sessions?limit=2&status=ready&expert=e1&client=c1&reference=r", headers=BEARER)
    body = await documented(answer, "/v1/sessions")
    assert (len(body["data"]), body["has_more"]) == (2, True)
    wanted = {"status": "ready", "expert": "e1", "client": "c1", "reference": "r", "limit": 2, "starting_after": None}
    wanted |= {"livemode": False}
    assert sessions.calls == [("list", "acc_dev", wanted)]


async def test_a_list_holds_sessions_of_the_keys_mode_only(api: Api, session: str) -> None:
    body = await (await api.get("/v1/sessions", headers={"Authorization": f"Bearer {LIVE}"})).json()
    assert body["data"] == []


async def test_end_is_told_with_its_reason(post: Post, session: str, sessions: MemorySessions) -> None:
    answer = await post(f"/v1/sessions/{session}/end", {"reason": "support"})
    body = await documented(answer, "/v1/sessions/{id}/end")
    assert (body["status"], body["end_reason"]) == ("ended", "ended_by_api")
    assert sessions.calls == [("end", session, "support")]


async def test_tokens_are_for_one_role(post: Post, session: str) -> None:
    answer = await post(f"/v1/sessions/{session}/tokens", {"role": "expert"})
    body = await documented(answer, "/v1/sessions/{id}/tokens")
    assert (answer.status, body["role"], body["token"]) == (201, "expert", "token-expert")
    assert (await post(f"/v1/sessions/{session}/tokens", {"role": "guest"}, key="k2")).status == 400


async def test_an_ended_session_gives_no_tokens(post: Post, session: str) -> None:
    await post(f"/v1/sessions/{session}/end", {}, key=None)
    answer = await post(f"/v1/sessions/{session}/tokens", {"role": "expert"}, key=None)
    assert (await documented(answer, "/v1/sessions/{id}/tokens"))["code"] == "session_ended"


async def test_usage_tells_rows_union_and_bill(api: Api, session: str) -> None:
    answer = await api.get(f"/v1/sessions/{session}/usage", headers=BEARER)
    body = await documented(answer, "/v1/sessions/{id}/usage")
    assert (body["union_ms"], body["billable_seconds"], body["bill"]["amount_total"]) == (1_800_000, 1500, 7500)
    assert body["rows"][0] | {"epoch": 1, "number": 1, "ms": 1_800_000} == body["rows"][0]


async def test_receipts_are_empty_until_issued(api: Api, session: str) -> None:
    answer = await api.get(f"/v1/sessions/{session}/receipts", headers=BEARER)
    assert (await documented(answer, "/v1/sessions/{id}/receipts"))["data"] == []


async def test_another_card_and_a_waiver_reach_their_use_cases(
    post: Post, session: str, sessions: MemorySessions
) -> None:
    paid = await post(f"/v1/sessions/{session}/payment", {"payment_method": "pm_card_mastercard"}, key="p")
    await documented(paid, "/v1/sessions/{id}/payment")
    await documented(await post(f"/v1/sessions/{session}/waive", {}, key="w"), "/v1/sessions/{id}/waive")
    assert sessions.calls == [("pay", session, "pm_card_mastercard"), ("waive", session)]


async def test_a_refund_reaches_its_use_case_and_is_one_however_often_it_is_asked_for(
    post: Post, session: str, sessions: MemorySessions
) -> None:
    order = {"amount": 2500, "reason": "Poor sound", "charge_to": "platform"}
    first = await documented(await post(f"/v1/sessions/{session}/refunds", order, key="r"), "/v1/sessions/{id}/refunds")
    again = await documented(await post(f"/v1/sessions/{session}/refunds", order, key="r"), "/v1/sessions/{id}/refunds")
    assert (first["amount"], first["currency"], first["status"]) == (2500, "usd", "ordered")
    assert again == first
    assert first["id"].startswith("ref_")
    assert sessions.calls == [("refund", session, 2500, "Poor sound", "platform")]


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": "x", "amount": 0}, {"reason": "x", "charge_to": "me"}])
async def test_an_unclear_refund_is_refused(post: Post, session: str, body: Any) -> None:
    answer = await post(f"/v1/sessions/{session}/refunds", body, key="r")
    assert (await documented(answer, "/v1/sessions/{id}/refunds"))["status"] == 400


async def test_law8_events_come_in_order_from_where_the_reader_left(
    api: Api, session: str, sessions: MemorySessions
) -> None:
    sessions.told = [event(sequence, session) for sequence in range(1, 6)]
    answer = await api.get(f"/v1/events?session={session}&after=2&limit=2", headers=BEARER)
    body = await documented(answer, "/v1/events")
    assert ([told["sequence"] for told in body["data"]], body["has_more"]) == ([3, 4], True)
    answer = await api.get(f"/v1/sessions/{session}/events?after=4", headers=BEARER)
    body = await documented(answer, "/v1/sessions/{id}/events")
    assert (body["data"], body["has_more"]) == ([{**event(5, session), "livemode": False}], False)


async def test_enter_needs_no_key_and_is_open_to_every_origin(api: Api) -> None:
    answer = await api.post("/v1/enter", json={"secret": "s"}, headers={"Origin": "https://elsewhere.example"})
    assert (await documented(answer, "/v1/enter"))["pricing"] == {"currency": "usd"}
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    preflight = await api.options("/v1/enter", headers={"Origin": "https://elsewhere.example"})
    assert (preflight.status, preflight.headers["Access-Control-Allow-Methods"]) == (204, "POST")


@pytest.mark.parametrize(
    ("secret", "status", "code"), [("expired", 410, "link_expired"), ("unknown", 404, "link_invalid")]
)
async def test_links_that_open_nothing(api: Api, secret: str, status: int, code: str) -> None:
    answer = await api.post("/v1/enter", json={"secret": secret})
    assert (answer.status, (await documented(answer, "/v1/enter"))["code"]) == (status, code)


async def test_stripes_events_are_handed_on_as_they_came(api: Api, stripe_inbox: list[bytes]) -> None:
    raw = b'{ "id": "evt_1",\n "type": "charge.refunded" }' + b" " * 100_000
    answer = await api.post("/v1/stripe/events", data=raw, headers={"Stripe-Signature": "valid"})
    assert await documented(answer, "/v1/stripe/events") == {"received": True}
    assert stripe_inbox == [raw]


@pytest.mark.parametrize("headers", [{}, {"Stripe-Signature": "forged"}])
async def test_forged_events_of_stripe_are_refused(
    api: Api, stripe_inbox: list[bytes], headers: dict[str, str]
) -> None:
    answer = await api.post("/v1/stripe/events", data=b"{}", headers=headers)
    assert (answer.status, (await documented(answer, "/v1/stripe/events"))["code"]) == (400, "bad_signature")
    assert stripe_inbox == []


async def test_a_receipts_page_has_no_script_and_is_not_indexed(api: Api) -> None:
    answer = await api.get("/r/good-secret")
    assert (answer.status, answer.content_type) == (200, "text/html")
    assert "script-src" not in answer.headers["Content-Security-Policy"]
    assert (answer.headers["X-Robots-Tag"], answer.headers["Cache-Control"]) == ("noindex", "private, no-store")


async def test_a_receipts_link_that_opens_nothing_says_so_to_people_and_to_programs(api: Api) -> None:
    answer = await api.get("/r/bad", headers={"Accept": "text/html,*/*;q=0.8", "Accept-Language": "fr-FR,fr;q=0.9"})
    assert (answer.status, answer.content_type) == (404, "text/html")
    assert "Ce lien n’ouvre aucun reçu" in await answer.text()
    assert (answer.headers["X-Robots-Tag"], answer.headers["Cache-Control"]) == ("noindex", "private, no-store")
    answer = await api.get("/r/bad", headers={"Accept": "application/json"})
    assert (await documented(answer, "/r/{secret}"))["code"] == "receipt_not_found"


async def test_without_bridge_and_mailer_their_paths_are_absent(context: ApiContext) -> None:
    bare = ApiContext(context.sessions, context.keys, context.idempotency, context.public_url)
    async with TestClient(TestServer(public_app(bare))) as api:
        assert (await api.get("/r/good-secret")).status == 404
        assert (await api.post("/v1/stripe/events", data=b"{}")).status == 404


async def test_the_call_page_and_the_sdk_are_served(api: Api) -> None:
    for path, asset in FILES.items():
        if asset.path.exists():
            answer = await api.get(path)
            assert (answer.status, answer.headers["Content-Type"]) == (200, asset.content_type)
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert (await api.get("/sdk/parley.js")).headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    "path", ["/static/", "/static/../__init__.py", "/sdk/..%2f__init__.py", "/metrics", "/livez", "/readyz"]
)
async def test_nothing_else_is_served(api: Api, path: str) -> None:
    answer = await api.get(path)
    assert (answer.status, (await answer.json())["code"]) == (404, "not_found")
