"""Events to real receivers that verify, fail, hang, redirect and go away (3-contracts Webhooks; law 8)."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from gateway.clock import SystemClock
from gateway.errors import Conflict, InvalidRequest, NotFound
from gateway.journal import Event, Journal
from gateway.webhooks import webhooks as sender
from gateway.webhooks.endpoints import Endpoint, Endpoints, configured, new_webhook_secret
from gateway.webhooks.lanes import Lane
from gateway.webhooks.outbound import Outbound, PublicResolver, public
from gateway.webhooks.webhooks import Webhooks, WebhookSettings, body_of
from tests.billing_bridge.clocks import look

SESSION = "ses_01kt0q8m3fe9w7r2c5x6y8z0ab"
HOUR = 3_600_000


class MovableClock(SystemClock):
    """The real time, set forward: receivers check signatures against their own clock."""

    ahead = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.ahead


class Receiver:
    """A marketplace's endpoint: verifies, keeps what it got, and answers as it is told to."""

    def __init__(self, secret: str) -> None:
        self.secret, self.url = secret, ""
        self.events: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: list[web.Response] = []
        self.status: int | Callable[[dict[str, Any]], int] = 204
        self.hang = asyncio.Event()
        self.hang.set()

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.text()
        self.headers.append(dict(request.headers))
        event = json.loads(body)
        with contextlib.suppress(WebhookVerificationError):
            Webhook(self.secret).verify(body, dict(request.headers))
            self.events.append(event)
        await self.hang.wait()
        if self.answers:
            return self.answers.pop(0)
        return web.Response(status=self.status if isinstance(self.status, int) else self.status(event))

    @property
    def sequences(self) -> list[int]:
        return [event["sequence"] for event in self.events]


async def serve(receiver: Receiver) -> web.AppRunner:
    app = web.Application()
    app.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    return runner


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver(new_webhook_secret())
    runner = await serve(made)
    yield made
    made.hang.set()
    await runner.cleanup()


@pytest.fixture
async def other() -> AsyncIterator[Receiver]:
    made = Receiver(new_webhook_secret())
    runner = await serve(made)
    yield made
    made.hang.set()
    await runner.cleanup()


class Bench:
    """A sender on the journal, and the passes it makes."""

    def __init__(self, journal: Journal, *receivers: Receiver, **settings: Any) -> None:
        self.journal, self.clock = journal, MovableClock()
        fixed = [configured(one.url, one.secret) for one in receivers]
        self.endpoints = Endpoints(journal.redis, self.clock, fixed)
        values = WebhookSettings(**{"allow_private": True, "timeout_s": 2.0, **settings})
        self.webhooks = Webhooks(journal, self.endpoints, values, self.clock)

    async def happen(self, *types: str, session: str = SESSION) -> None:
        for kind in types:
            await self.journal.commit(session, {}, events=[Event(kind, {"n": 1})])

    async def look(self) -> int:
        return await look(self.journal, "outbox", self.webhooks.handle, self.clock.wall_ms())

    async def close(self) -> None:
        await self.webhooks._outbound.close()


@pytest.fixture
async def bench(journal: Journal, receiver: Receiver) -> AsyncIterator[Bench]:
    made = Bench(journal, receiver)
    yield made
    await made.close()


# Arriving


async def test_law8_events_arrive_signed_and_in_order(bench: Bench, receiver: Receiver) -> None:
    await bench.happen("session.created", "payment.held", "session.ready")
    assert await bench.look() == 1
    assert receiver.sequences == [1, 2, 3]
    members = {"id", "type", "api_version", "created", "session", "sequence", "data", "livemode"}
    assert set(receiver.events[0]) == members
    headers = {name.lower(): value for name, value in receiver.headers[0].items()}
    assert headers["webhook-id"] == receiver.events[0]["id"]
    assert headers["webhook-signature"].startswith("v1,")
    assert await bench.look() == 0


async def test_events_that_come_later_continue_where_it_stopped(bench: Bench, receiver: Receiver) -> None:
    await bench.happen("session.created")
    await bench.look()
    await bench.happen("session.ready")
    await bench.look()
    assert receiver.sequences == [1, 2]


async def test_law8_nothing_is_told_that_a_power_loss_could_take_back(journal: Journal, receiver: Receiver) -> None:
    patient = Journal(journal.redis, journal.keys, waitaof_ms=50)
    bench = Bench(patient, receiver)
    await journal.redis.config_set("appendfsync", "no")
    try:
        await bench.happen("session.created")
        await bench.look()
        assert receiver.events == []
    finally:
        await journal.redis.config_set("appendfsync", "always")
    bench.clock.ahead += sender.BUSY_MS
    await bench.look()
    assert receiver.sequences == [1]
    await bench.close()


async def test_law8_an_event_that_comes_while_the_disk_is_waited_for_has_a_look_of_its_own(
    journal: Journal, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(journal, receiver)
    await bench.happen("session.created")
    confirmed = journal.disk.confirmed

    async def meanwhile() -> None:
        monkeypatch.setattr(journal.disk, "confirmed", confirmed)
        await confirmed()
        await bench.happen("session.ready")

    monkeypatch.setattr(journal.disk, "confirmed", meanwhile)
    await bench.look()
    assert receiver.sequences == [1]
    await bench.look()
    assert receiver.sequences == [1, 2]
    await bench.close()


async def test_two_senders_at_once_send_nothing_twice(journal: Journal, receiver: Receiver) -> None:
    benches = [Bench(journal, receiver) for _ in range(3)]
    await benches[0].happen("session.created", "payment.held")
    (claim,) = await journal.due("outbox", lease_ms=60_000, now=benches[0].clock.wall_ms())
    await asyncio.gather(*(one.webhooks.handle(claim) for one in benches))
    await asyncio.gather(*(one.close() for one in benches))
    assert receiver.sequences == [1, 2]


async def test_a_sender_that_died_in_the_middle_is_followed_by_another(
    journal: Journal, receiver: Receiver, bench: Bench
) -> None:
    receiver.hang.clear()
    await bench.happen("session.created")
    dying = asyncio.create_task(bench.look())
    async with asyncio.timeout(5):
        while not receiver.headers:
            await asyncio.sleep(0.01)
    bench.webhooks._lanes.give = _crash  # type: ignore[method-assign, assignment]
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    receiver.hang.set()
    successor = Bench(journal, receiver)
    assert await successor.look() == 0
    successor.clock.ahead = 61_000
    assert await successor.look() == 1
    await successor.close()
    assert receiver.sequences == [1, 1]
    assert {event["id"] for event in receiver.events} == {receiver.events[0]["id"]}


async def _crash(*_: Any) -> None:
    raise ConnectionResetError


# Failing


async def test_a_retry_of_one_event_never_delays_later_ones(bench: Bench, receiver: Receiver) -> None:
    receiver.status = lambda event: 500 if event["sequence"] == 2 else 204
    await bench.happen("session.created", "payment.held", "session.ready")
    await bench.look()
    await bench.happen("session.started")
    await bench.look()
    assert receiver.sequences == [1, 2, 3, 4]
    receiver.status = 204
    bench.clock.ahead = 4_000
    assert await bench.look() == 0
    bench.clock.ahead = 7_000
    await bench.look()
    assert receiver.sequences == [1, 2, 3, 4, 2]
    assert {one["state"] for one in await bench.webhooks.deliveries(SESSION)} == {"delivered"}
    bench.clock.ahead = 100 * HOUR
    assert await bench.look() == 0


async def test_a_retry_has_the_same_id_and_body_and_a_new_time(bench: Bench, receiver: Receiver) -> None:
    receiver.answers = [web.Response(status=500)]
    await bench.happen("session.created")
    await bench.look()
    bench.clock.ahead = 10_000
    await bench.look()
    first, second = receiver.headers
    assert first["webhook-id"] == second["webhook-id"]
    assert first["webhook-timestamp"] != second["webhook-timestamp"]
    assert receiver.events[0] == receiver.events[1]


async def test_law8_after_ten_attempts_an_event_is_a_visible_dead_letter(bench: Bench, receiver: Receiver) -> None:
    receiver.status = 503
    await bench.happen("session.created")
    for _ in range(12):
        await bench.look()
        bench.clock.ahead += 30 * HOUR
    assert len(receiver.headers) == 10
    (letter,) = await bench.webhooks.dead_letters()
    assert (letter["session"], letter["sequence"], letter["attempts"], letter["why"]) == (SESSION, 1, 10, "503")
    await bench.webhooks.measure()
    assert sender.DEAD_LETTERS._value.get() == 1


async def test_a_dead_letter_can_be_sent_again(bench: Bench, receiver: Receiver) -> None:
    receiver.status = 410
    await bench.happen("session.created")
    await bench.look()
    (letter,) = await bench.webhooks.dead_letters()
    receiver.status = 204
    await bench.endpoints.enable(letter["endpoint"])
    assert await bench.webhooks.resend(letter["event"]) == 1
    await bench.look()
    assert receiver.sequences == [1, 1]
    assert await bench.webhooks.dead_letters() == []
    with pytest.raises(NotFound):
        await bench.webhooks.resend(letter["event"])


async def test_an_event_that_arrived_can_be_sent_again_by_its_session(bench: Bench, receiver: Receiver) -> None:
    await bench.happen("session.created", "session.ready")
    await bench.look()
    assert await bench.webhooks.resend(receiver.events[1]["id"], SESSION) == 1
    await bench.look()
    assert receiver.sequences == [1, 2, 2]


async def test_410_disables_the_endpoint_and_what_was_open_becomes_a_dead_letter(
    bench: Bench, receiver: Receiver, journal: Journal
) -> None:
    receiver.answers = [web.Response(status=500), web.Response(status=410)]
    await bench.happen("session.created", "session.ready", "session.started")
    await bench.look()
    assert receiver.sequences == [1, 2]
    (endpoint,) = await bench.endpoints.list()
    assert (endpoint.enabled, endpoint.disabled_reason) == (False, "gone")
    bench.clock.ahead = HOUR
    await bench.look()
    assert {letter["sequence"] for letter in await bench.webhooks.dead_letters()} == {1, 2}
    after_restart = Endpoints(journal.redis, bench.clock, [configured(receiver.url, receiver.secret)])
    assert [one.enabled for one in await after_restart.list()] == [False]
    changed = new_webhook_secret()
    reconfigured = Endpoints(journal.redis, bench.clock, [configured(receiver.url, changed)])
    assert [one.secrets[0].value for one in await reconfigured.list()] == [changed]


async def test_retry_after_is_honoured(bench: Bench, receiver: Receiver) -> None:
    receiver.answers = [web.Response(status=429, headers={"Retry-After": "600"})]
    await bench.happen("session.created")
    await bench.look()
    bench.clock.ahead = 599_000
    assert await bench.look() == 0
    bench.clock.ahead = 601_000
    await bench.look()
    assert len(receiver.headers) == 2


async def test_a_date_beyond_all_time_harms_neither_its_receiver_nor_the_others(
    journal: Journal, receiver: Receiver, other: Receiver
) -> None:
    receiver.answers = [web.Response(headers={"Retry-After": "Mon, 31 Dec 99999999999999999999 23:59:59 GMT"})]
    bench = Bench(journal, receiver, other)
    await bench.happen("session.created")
    await bench.look()
    await bench.happen("session.ready")
    await bench.look()
    assert (receiver.sequences, other.sequences) == ([1, 2], [1, 2])
    await bench.close()


async def test_a_redirect_is_a_failure_and_is_not_followed(bench: Bench, receiver: Receiver, other: Receiver) -> None:
    receiver.answers = [web.Response(status=307, headers={"Location": other.url})]
    await bench.happen("session.created")
    await bench.look()
    assert other.headers == []
    (view,) = await bench.webhooks.deliveries(SESSION)
    assert (view["state"], view["why"]) == ("open", "307")


async def test_a_receiver_that_refuses_the_connection_is_tried_again(journal: Journal) -> None:
    nobody = Receiver(new_webhook_secret())
    nobody.url = "http://127.0.0.1:1/hook"
    bench = Bench(journal, nobody)
    await bench.happen("session.created")
    await bench.look()
    (view,) = await bench.webhooks.deliveries(SESSION)
    assert (view["state"], view["attempts"], view["why"]) == ("open", 1, "connection")
    await bench.webhooks.measure()
    assert sender.OLDEST._value.get() >= 0
    await bench.close()


async def test_an_endless_answer_is_cut_and_counts_by_its_status(bench: Bench, receiver: Receiver) -> None:
    receiver.answers = [web.Response(status=200, body=b"x" * 5_000_000)]
    await bench.happen("session.created")
    await bench.look()
    assert [one["state"] for one in await bench.webhooks.deliveries(SESSION)] == ["delivered"]


# Several receivers


async def test_a_receiver_that_hangs_delays_nobody_else(journal: Journal, receiver: Receiver, other: Receiver) -> None:
    bench = Bench(journal, receiver, other, timeout_s=1.0, per_endpoint=4, at_once=64)
    receiver.hang.clear()
    sessions = [f"ses_{n:026d}" for n in range(40)]
    for one in sessions:
        await bench.happen("session.created", "session.ready", session=one)
    running = asyncio.create_task(bench.webhooks.run())
    async with asyncio.timeout(5):
        while len(other.events) < 80:
            await asyncio.sleep(0.02)
    # The hanging one has had a few attempts at most: its places were full, and then it was paused.
    assert len(receiver.headers) < 20
    receiver.hang.set()
    async with asyncio.timeout(30):
        while {(e["session"], e["sequence"]) for e in receiver.events} != {(s, n) for s in sessions for n in (1, 2)}:
            await asyncio.sleep(0.05)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert len(other.events) == 80


async def test_a_receiver_that_hangs_delays_no_later_event_of_its_session(
    journal: Journal, receiver: Receiver, other: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "PATIENCE_S", 0.1)
    bench = Bench(journal, receiver, other, timeout_s=30.0)
    receiver.hang.clear()
    running = asyncio.create_task(bench.webhooks.run())
    async with asyncio.timeout(5):
        for n in range(1, 4):
            await bench.happen("session.created")
            while len(other.events) < n:
                await asyncio.sleep(0.01)
        assert receiver.sequences == [1]
        receiver.hang.set()
        while len(receiver.events) < 3:
            await asyncio.sleep(0.01)
    assert (receiver.sequences, other.sequences) == ([1, 2, 3], [1, 2, 3])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_law8_an_attempt_that_is_cut_off_when_the_sender_stops_is_made_at_once_by_another(
    journal: Journal, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "PATIENCE_S", 0.01)
    receiver.hang.clear()
    stopped, successor = Bench(journal, receiver, timeout_s=30.0), Bench(journal, receiver)
    await stopped.happen("session.created")
    looking = asyncio.create_task(stopped.look())
    async with asyncio.timeout(5):
        while not receiver.events or await journal.redis.hlen(journal.keys.beside(SESSION, "due:outbox:claims")):
            await asyncio.sleep(0.01)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    receiver.hang.set()
    assert await successor.look() == 1
    assert receiver.sequences == [1, 1]
    await asyncio.gather(stopped.close(), successor.close())


async def test_law8_what_a_slow_lane_found_out_takes_no_wish_from_who_looks_meanwhile(bench: Bench) -> None:
    await bench.happen("session.created")
    (endpoint,) = await bench.endpoints.list()
    lanes, queue = bench.webhooks._lanes, bench.journal.keys.beside(SESSION, "due:outbox")
    now = bench.clock.wall_ms()
    await lanes.take(SESSION, "slow", [endpoint.id], now, now + 60_000)
    (claim,) = await bench.journal.due("outbox", lease_ms=60_000, now=now + 10)
    await lanes.give(SESSION, "slow", Lane(endpoint, None, 1, next_at=now + 20_000, alone=True))
    assert await bench.journal.redis.zscore(queue, SESSION) == claim.until + 1
    await bench.journal.done(claim, now + 500)
    assert [one.session for one in await bench.journal.due("outbox", lease_ms=60_000, now=now + 20)] == [SESSION]


async def test_the_oldest_undelivered_event_is_none_once_its_retry_arrived(bench: Bench, receiver: Receiver) -> None:
    receiver.answers = [web.Response(status=500)]
    await bench.happen("session.created")
    await bench.look()
    assert await bench.journal.redis.zcard(sender.UNDELIVERED) == 1
    bench.clock.ahead = 7_000
    await bench.look()
    assert (receiver.sequences, await bench.journal.redis.zcard(sender.UNDELIVERED)) == ([1, 1], 0)


async def test_each_endpoint_gets_the_types_it_asked_for_from_when_it_was_made(
    bench: Bench, receiver: Receiver, other: Receiver
) -> None:
    await bench.happen("session.created")
    await asyncio.sleep(0.002)
    made = await bench.endpoints.add(other.url, ["session.finalized"])
    other.secret = made.secrets[0].value
    await asyncio.sleep(0.002)
    await bench.happen("session.ended", "session.finalized")
    await bench.look()
    assert receiver.sequences == [1, 2, 3]
    assert other.sequences == [3]


async def test_an_endpoint_of_one_account_gets_no_other_accounts_events(
    bench: Bench, other: Receiver, journal: Journal
) -> None:
    made = await bench.endpoints.add(other.url, account="acc_one")
    other.secret = made.secrets[0].value
    for account in ("acc_one", "acc_two"):
        await journal.commit(f"ses_{account}", {"session": (0, {"account": account})}, events=[Event("a.b", {})])
    await bench.look()
    assert [event["session"] for event in other.events] == ["ses_acc_one"]


# Secrets


async def test_after_a_rotation_both_secrets_verify_for_a_day(bench: Bench, other: Receiver) -> None:
    made = await bench.endpoints.add(other.url)
    await asyncio.sleep(0.002)
    rotated = await bench.endpoints.rotate(made.id)
    for secret in (made.secrets[0].value, rotated.secrets[0].value):
        other.secret = secret
        await bench.happen("session.created")
        await bench.look()
    assert other.sequences == [1, 2]
    at = bench.clock.wall_ms()
    assert len(rotated.signature("evt_1", at, "{}").split(" ")) == 2
    assert len(rotated.signature("evt_1", at + 25 * HOUR, "{}").split(" ")) == 1
    assert made.secrets[0].value not in repr(rotated)


async def test_a_secret_that_was_told_is_not_lost_to_a_410_beside_its_rotation(
    bench: Bench, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await bench.endpoints.add("https://example.com/hook")
    sender, told = Endpoints(journal.redis, bench.clock), list[Endpoint]()
    get = sender.get

    async def read_just_before(endpoint: str) -> Endpoint:
        found = await get(endpoint)
        if not told:
            told.append(await bench.endpoints.rotate(endpoint))
        return found

    monkeypatch.setattr(sender, "get", read_just_before)
    await sender.disable(made.id, "gone")
    after = await bench.endpoints.get(made.id)
    assert (after.secrets, after.enabled) == (told[0].secrets, False)


async def test_endpoints_are_listed_removed_and_refused(bench: Bench, receiver: Receiver) -> None:
    made = await bench.endpoints.add("https://example.com/hook", ["session.ended", "session.ended"])
    assert [e.id for e in await bench.endpoints.list()] == sorted([made.id, configured(receiver.url, "").id])
    assert Endpoint.from_json(made.to_json()) == made
    await bench.endpoints.remove(made.id)
    with pytest.raises(NotFound):
        await bench.endpoints.get(made.id)
    for refused in (bench.endpoints.remove, bench.endpoints.rotate):
        with pytest.raises(Conflict):
            await refused(configured(receiver.url, "").id)
    for url in ("ftp://example.com", "https://", "https://user:pass@example.com", "javascript:alert(1)"):
        with pytest.raises(InvalidRequest):
            await bench.endpoints.add(url)


# Size, and where events may not go


@settings(deadline=None)
@given(st.text(max_size=40_000))
def test_a_body_stays_under_20_kilobytes_and_is_the_same_every_time(text: str) -> None:
    event = {"id": "evt_1", "type": "a.b", "sequence": 1, "data": {"text": text}}
    body = body_of(event, True)
    assert len(body.encode()) <= 20_000
    assert body == body_of(event, True)
    assert (json.loads(body)["id"], json.loads(body)["livemode"]) == ("evt_1", True)


PRIVATE = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1", "240.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_law7_private_addresses_are_refused_in_every_wrapping(address: str) -> None:
    assert not public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "2606:2800:21f:cb07::1", "64:ff9b::5db8:d70e", "::ffff:93.184.215.14"]
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:{port}/hook",
        "https://[::1]:{port}/hook",
        "https://[::ffff:127.0.0.1]:{port}/hook",
        "https://2130706433:{port}/hook",
        "https://127.1:{port}/hook",
        "https://0x7f.0.0.1:{port}/hook",
        "https://localhost:{port}/hook",
        "http://example.com/hook",
    ],
)
async def test_without_permission_no_private_network_is_ever_connected_to(url: str, receiver: Receiver) -> None:
    port = receiver.url.split(":")[2].split("/")[0]
    outbound = Outbound(SystemClock())
    answer = await outbound.post(url.format(port=port), "{}", {})
    await outbound.close()
    assert answer.status is None
    assert answer.fault in ("blocked", "bad_url")
    assert receiver.headers == []


class Rebinding(AbstractResolver):
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        row = {"hostname": host, "port": port, "family": family, "proto": 0, "flags": 0}
        return [ResolveResult(host=one, **row) for one in ("10.0.0.1", "93.184.215.14")]  # type: ignore[typeddict-item]

    async def close(self) -> None: ...


async def test_of_a_name_with_both_only_the_public_address_is_used() -> None:
    found = await PublicResolver(Rebinding()).resolve("example.com", 443)
    assert [one["host"] for one in found] == ["93.184.215.14"]
