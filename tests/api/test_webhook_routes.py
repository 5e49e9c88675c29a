"""Webhook endpoints and events over HTTP, against the real desk: each account sees its own, secrets are told once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from gateway.api.context import ApiContext
from gateway.api.routes import public_app
from gateway.clock import SystemClock
from gateway.ids import born_ms, first_id, new_id
from gateway.journal import Event, Journal
from gateway.webhooks.endpoints import Endpoints, configured, new_webhook_secret
from gateway.webhooks.lanes import HASH
from gateway.webhooks.webhook_desk import WebhookDesk
from gateway.webhooks.webhooks import Webhooks, WebhookSettings
from tests.api.market import FULL, LIVE, READER, STRANGER
from tests.api.test_routes import documented

URL = "https://marketplace.example/hook"
ENDPOINTS_PATH = "/v1/webhook_endpoints"


class Client:
    def __init__(self, http: TestClient[Any, Any], journal: Journal, endpoints: Endpoints) -> None:
        self.http, self.journal, self.endpoints = http, journal, endpoints

    async def call(
        self, method: str, path: str, body: Any = None, *, auth: str = FULL, template: str | None = None
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {auth}"}
        answer = await self.http.request(method, path, json=body, headers=headers)
        return answer.status, await documented(answer, template or path.split("?")[0])

    async def happen(self, session: str, *types: str, account: str = "acc_dev") -> list[str]:
        events = [Event(kind, {}) for kind in types]
        await self.journal.commit(session, {"session": (0, {"account": account, "livemode": False})}, events=events)
        return [event.id for event in events]

    async def open(self, session: str) -> set[str]:
        """What is waiting to be delivered again: endpoint and sequence."""
        rows = await self.journal.redis.hgetall(self.journal.keys.of(session, HASH))  # type: ignore[misc]
        return {name.decode()[2:] for name in rows if name.startswith(b"o:")}


@pytest.fixture
async def client(context: ApiContext, journal: Journal) -> AsyncIterator[Client]:
    clock = SystemClock()
    fixed = [configured("https://fixed.example/hook", new_webhook_secret())]
    endpoints = Endpoints(journal.redis, clock, fixed, allow_private=False)
    desk = WebhookDesk(journal, endpoints, Webhooks(journal, endpoints, WebhookSettings(), clock))
    async with TestClient(TestServer(public_app(replace(context, webhooks=desk)))) as http:
        yield Client(http, journal, endpoints)


async def test_an_endpoints_secret_is_told_when_it_is_made_and_when_it_is_rotated_only(client: Client) -> None:
    status, made = await client.call("POST", ENDPOINTS_PATH, {"url": URL, "types": ["session.finalized"]})
    assert (status, made["url"], made["types"], made["enabled"]) == (201, URL, ["session.finalized"], True)
    assert made["secret"].startswith("whsec_")
    _, listed = await client.call("GET", ENDPOINTS_PATH, auth=READER)
    assert [one["configured"] for one in listed["data"]].count(True) == 1
    assert {one["secret"] for one in listed["data"]} == {None}
    path = f"{ENDPOINTS_PATH}/{made['id']}/rotate"
    status, rotated = await client.call("POST", path, {}, template=ENDPOINTS_PATH + "/{endpoint}/rotate")
    assert status == 200
    assert rotated["secret"] not in (None, made["secret"])


async def test_other_accounts_endpoints_look_absent(client: Client) -> None:
    _, made = await client.call("POST", ENDPOINTS_PATH, {"url": URL})
    _, listed = await client.call("GET", ENDPOINTS_PATH, auth=STRANGER)
    assert made["id"] not in [one["id"] for one in listed["data"]]
    one = ENDPOINTS_PATH + "/{endpoint}"
    for method, tail, body in (("DELETE", "", None), ("POST", "/rotate", {})):
        path = f"{ENDPOINTS_PATH}/{made['id']}{tail}"
        status, problem = await client.call(method, path, body, auth=STRANGER, template=one + tail)
        assert (status, problem["code"]) == (404, "endpoint_not_found")
    status, gone = await client.call("DELETE", f"{ENDPOINTS_PATH}/{made['id']}", template=one)
    assert (status, gone) == (200, {"id": made["id"], "deleted": True})


async def test_a_configured_endpoint_is_changed_in_the_configuration(client: Client) -> None:
    _, listed = await client.call("GET", ENDPOINTS_PATH)
    fixed = listed["data"][0]["id"]
    status, problem = await client.call("DELETE", f"{ENDPOINTS_PATH}/{fixed}", template=ENDPOINTS_PATH + "/{endpoint}")
    assert (status, problem["code"]) == (409, "endpoint_configured")


@pytest.mark.parametrize(
    "url",
    ["ftp://a.example/", "https://", "https://u:p@a.example/", "nowhere", "https://[::1", "https://a.example:65536/",
     "https://a.example:0/", "http://a.example/", "https://127.0.0.1/", "https://[::ffff:10.0.0.1]/",
     "https://169.254.169.254/", "https://[fec0::1]/"],
)  # fmt: skip
async def test_a_url_that_nothing_can_be_sent_to_is_refused(client: Client, url: str) -> None:
    status, problem = await client.call("POST", ENDPOINTS_PATH, {"url": url})
    assert (status, problem["param"]) == (400, "url")


async def test_keys_that_may_only_read_change_nothing(client: Client) -> None:
    status, problem = await client.call("POST", ENDPOINTS_PATH, {"url": URL}, auth=READER)
    assert (status, problem["code"]) == (403, "insufficient_scope")


async def test_all_events_of_the_account_come_in_pages_and_nobody_elses(client: Client) -> None:
    mine = [id for n in range(5) for id in await client.happen(f"ses_{n}", "session.created", "session.ended")]
    await client.happen("ses_other", "session.created", account="acc_other")
    got: list[str] = []
    more = True
    while more:
        tail = f"&starting_after={got[-1]}" if got else ""
        _, page = await client.call("GET", f"/v1/events?limit=3{tail}")
        got, more = got + [event["id"] for event in page["data"]], page["has_more"]
    assert got == sorted(mine)
    _, live = await client.call("GET", "/v1/events", auth=LIVE)
    assert live["data"] == []
    _, none = await client.call("GET", "/v1/events?since=2100-01-01T00:00:00Z")
    assert none["data"] == []


async def test_an_event_is_sent_again_by_its_id_alone(client: Client) -> None:
    _, made = await client.call("POST", ENDPOINTS_PATH, {"url": URL})
    _, event = await client.happen("ses_1", "session.created", "session.ended")
    path, template = f"/v1/events/{event}/resend", "/v1/events/{event}/resend"
    status, sent = await client.call("POST", path, {"endpoint": made["id"]}, template=template)
    assert (status, sent, await client.open("ses_1")) == (200, {"deliveries": 1}, {f"{made['id']}:2"})
    _, sent = await client.call("POST", path, {}, template=template)
    assert sent == {"deliveries": 2}
    for auth, wanted in ((STRANGER, event), (FULL, new_id("evt"))):
        status, problem = await client.call("POST", f"/v1/events/{wanted}/resend", {}, auth=auth, template=template)
        assert (status, problem["code"]) == (404, "event_not_found")


async def test_everything_since_a_time_is_sent_again_to_one_endpoint(client: Client) -> None:
    await client.happen("ses_1", "session.created", "session.ended")
    await client.happen("ses_2", "session.created")
    await client.happen("ses_other", "session.created", account="acc_other")
    _, made = await client.call("POST", ENDPOINTS_PATH, {"url": URL})
    path, template = f"{ENDPOINTS_PATH}/{made['id']}/resend", ENDPOINTS_PATH + "/{endpoint}/resend"
    _, sent = await client.call("POST", path, {"since": "2020-01-01T00:00:00Z"}, template=template)
    assert sent == {"deliveries": 3}
    assert await client.open("ses_other") == set()
    _, sent = await client.call("POST", path, {"since": "2100-01-01T00:00:00Z"}, template=template)
    assert sent == {"deliveries": 0}


def test_the_first_id_of_a_time_sorts_between_older_and_newer_ones() -> None:
    id = new_id("evt")
    assert first_id("evt", born_ms(id)) <= id < first_id("evt", born_ms(id) + 1)


async def test_an_endpoint_that_answered_410_is_sent_nothing_until_it_is_enabled_again(client: Client) -> None:
    _, made = await client.call("POST", ENDPOINTS_PATH, {"url": URL})
    [event] = await client.happen("ses_1", "session.created")
    await client.endpoints.disable(made["id"], "gone")
    one, template = f"{ENDPOINTS_PATH}/{made['id']}", ENDPOINTS_PATH + "/{endpoint}"
    since = {"since": "2020-01-01T00:00:00Z"}
    for path, body, shape in (
        (f"/v1/events/{event}/resend", {"endpoint": made["id"]}, "/v1/events/{event}/resend"),
        (f"{one}/resend", since, f"{template}/resend"),
    ):
        status, problem = await client.call("POST", path, body, template=shape)
        assert (status, problem["code"]) == (409, "endpoint_disabled")
    status, problem = await client.call("POST", f"{one}/enable", {}, auth=STRANGER, template=f"{template}/enable")
    assert (status, problem["code"]) == (404, "endpoint_not_found")
    status, enabled = await client.call("POST", f"{one}/enable", {}, template=f"{template}/enable")
    assert (status, enabled["enabled"], enabled["disabled_reason"], enabled["secret"]) == (200, True, None, None)
    _, sent = await client.call("POST", f"{one}/resend", since, template=f"{template}/resend")
    assert sent == {"deliveries": 1}


async def test_a_type_that_is_never_sent_is_refused(client: Client) -> None:
    status, problem = await client.call("POST", ENDPOINTS_PATH, {"url": URL, "types": ["session.finalised"]})
    assert (status, problem["param"]) == (400, "types")


async def test_events_tell_their_mode(client: Client) -> None:
    await client.happen("ses_1", "session.created")
    for path in ("/v1/events", "/v1/events?since=2020-01-01T00:00:00Z"):
        _, page = await client.call("GET", path)
        assert [event["livemode"] for event in page["data"]] == [False]
