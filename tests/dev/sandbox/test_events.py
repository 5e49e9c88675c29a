"""Which endpoint gets which event when, and how deliveries are signed (docs.stripe.com/webhooks)."""

from __future__ import annotations

import json

import pytest
import stripe

from gateway.dev.sandbox import endpoints, events, faults
from gateway.dev.sandbox.store import Delivery
from tests.dev.sandbox.conftest import Bench


def listening(bench: Bench, *types: str) -> None:
    bench.api.work(bench.now_ms, lambda turn: endpoints.configure(turn, "http://x/", "whsec_1", types or ("*",)) or {})


def order(bench: Bench, kind: str, event: str = "event customer.created", **more: int) -> None:
    bench.api.faults.faults.append(faults.parse({"match": event, "kind": kind, **more}))


def queued(bench: Bench, later_ms: int = 0) -> list[tuple[str, Delivery]]:
    due = bench.api.store.deliveries(bench.now_ms + later_ms, 100)
    return [((bench.api.store.get("event", each.event, None) or {})["type"], each) for each in due]


def test_a_delivery_is_signed_so_that_the_sdk_accepts_it(bench: Bench) -> None:
    listening(bench)
    customer = bench.ok("customers")
    [(_kind, delivery)] = queued(bench)
    prepared = events.payload(bench.api.store, delivery)
    assert prepared is not None
    _endpoint, body = prepared
    header = events.signature("whsec_1", body, bench.now_ms // 1_000)
    assert stripe.WebhookSignature.verify_header(body.decode(), header, "whsec_1", tolerance=None)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.WebhookSignature.verify_header(body.decode(), header, "whsec_2", tolerance=None)
    event = json.loads(body)
    assert (event["type"], event["data"]["object"]["id"]) == ("customer.created", customer["id"])
    assert (event["pending_webhooks"], event["livemode"], event["api_version"]) == (1, False, stripe.api_version)


def test_only_wanted_types_are_queued(bench: Bench) -> None:
    listening(bench, "payment_intent.succeeded")
    bench.paid()
    assert [kind for kind, _ in queued(bench)] == ["payment_intent.succeeded"]


def test_without_an_endpoint_nothing_is_queued_but_the_list_has_it(bench: Bench) -> None:
    bench.ok("customers")
    assert queued(bench) == []
    listed = bench.read("events", type="customer.created")["data"]
    assert bench.read(f"events/{listed[0]['id']}")["request"]["id"].startswith("req_")


def test_events_are_listed_by_type_with_wildcards_and_lists(bench: Bench) -> None:
    bench.paid()
    assert {each["type"] for each in bench.read("events", type="charge.*")["data"]} == {
        "charge.succeeded",
        "charge.captured",
    }
    both = bench.read("events", types=["charge.captured", "payment_intent.succeeded"])["data"]
    assert [each["type"] for each in both] == ["payment_intent.succeeded", "charge.captured"]


def test_refused_deliveries_come_again_until_given_up(bench: Bench) -> None:
    listening(bench)
    bench.ok("customers")
    waits = []
    while due := queued(bench, 10**9):
        _kind, delivery = due[0]
        bench.now_ms = max(bench.now_ms, delivery.due_ms)
        before = bench.now_ms
        events.settle(bench.api.store, delivery, accepted=False, now_ms=bench.now_ms)
        upcoming = bench.api.store.next_delivery_ms()
        if upcoming is not None:
            waits.append((upcoming - before) // 1_000)
    assert tuple(waits) == events.RETRY_SECONDS
    assert sum(waits) <= 3 * 86_400


def test_faults_of_events(bench: Bench) -> None:
    listening(bench)
    order(bench, "duplicate")
    bench.ok("customers")
    assert len(queued(bench)) == 2
    order(bench, "lose")
    bench.ok("customers")
    assert len(queued(bench)) == 2
    assert len(bench.read("events")["data"]) == 2
    order(bench, "delay", ms=5_000)
    bench.ok("customers")
    assert (len(queued(bench)), len(queued(bench, 5_000))) == (2, 3)


def test_a_reordered_event_waits_for_the_next_one(bench: Bench) -> None:
    listening(bench)
    order(bench, "reorder")
    first, second = bench.ok("customers"), bench.ok("customers")
    [(_kind, ahead)] = queued(bench)
    assert bench.api.store.get("event", ahead.event, None)["data"]["object"]["id"] == second["id"]  # type: ignore[index]
    events.settle(bench.api.store, ahead, accepted=True, now_ms=bench.now_ms)
    [(_kind, behind)] = queued(bench)
    assert bench.api.store.get("event", behind.event, None)["data"]["object"]["id"] == first["id"]  # type: ignore[index]


def test_endpoints_over_the_api(bench: Bench) -> None:
    made = bench.ok("webhook_endpoints", url="http://127.0.0.1:1/hook", enabled_events=["customer.created"])
    assert made["secret"].startswith("whsec_")
    assert "secret" not in bench.read(f"webhook_endpoints/{made['id']}")
    bench.ok("customers")
    assert [each.endpoint for _kind, each in queued(bench)] == [made["id"]]
    bench.ok(f"webhook_endpoints/{made['id']}", disabled=True)
    bench.ok("customers")
    assert len(queued(bench)) == 1
    assert events.payload(bench.api.store, queued(bench)[0][1]) is None
    assert bench.answer("DELETE", f"webhook_endpoints/{made['id']}", {}).status == 200
    assert bench.get(f"webhook_endpoints/{made['id']}")[0] == 404


def test_endpoints_must_name_known_events_and_a_full_url(bench: Bench) -> None:
    bench.refused("webhook_endpoints", url="http://x", enabled_events=["customer.exploded"])
    assert bench.refused("webhook_endpoints", url="x/hook", enabled_events=["*"])["code"] == "url_invalid"


def test_connect_endpoints_get_the_events_of_connected_accounts(bench: Bench) -> None:
    ours = bench.ok("webhook_endpoints", url="http://x/1", enabled_events=["*"])["id"]
    theirs = bench.ok("webhook_endpoints", url="http://x/2", enabled_events=["*"], connect=True)["id"]
    bench.ok("accounts/acct_demo", metadata={"a": "1"})
    bench.ok("customers")
    assert [(kind, each.endpoint) for kind, each in queued(bench)] == [
        ("account.updated", theirs),
        ("customer.created", ours),
    ]
