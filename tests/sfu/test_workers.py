"""Relay workers on real sockets: scripted callers, and two real aiortc peers end to end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import uvloop
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack
from cryptography.hazmat.primitives.hashes import SHA256
from prometheus_client import REGISTRY

from gateway.errors import RelayUnavailable
from gateway.sfu.port import CallConfig, Candidate, Credentials, LegConfig
from gateway.sfu.remote import RemoteRelay
from gateway.supervisor import Plan, relay_workers
from tests.sfu.caller import Caller, UdpCaller
from tests.sfu.network import config, pair
from tests.sfu.workers import CLOCK, connect, node, soon, two_callers, watching


@pytest.fixture
async def relay() -> AsyncIterator[RemoteRelay]:
    async with node() as running:
        yield running.relay


async def test_scripted_callers_connect_talk_and_are_reported(relay: RemoteRelay) -> None:
    async with watching(relay) as watch:
        await relay.configure(soon())
        async with two_callers(relay) as (one, two):
            await connect(watch)
            one.send(one.caller.rtp())
            two.send(two.caller.rtp())
            await one.until(lambda: one.caller.media)
            await two.until(lambda: two.caller.media)
            report = await watch.until(lambda r: bool(r.spans) and r.spans[-1].end - r.spans[-1].start > 500)
            assert report.gate == "open"
            assert report.legs[0].rtt_ms is not None
            assert (await relay.statistics()).open_gates == 1
        last = await relay.release("call")
        assert last is not None
        assert last.spans[-1].ended_by == "released"
        assert await relay.release("call") is None


async def test_a_caller_that_changes_its_address_is_heard_again_without_control(relay: RemoteRelay) -> None:
    async with watching(relay) as watch:
        await relay.configure(soon())
        async with two_callers(relay) as (one, two):
            await connect(watch)
            await one.open()
            first = len(two.caller.media)
            async with asyncio.timeout(5):
                while len(two.caller.media) < first + 2:
                    one.send(one.caller.rtp())
                    two.send(two.caller.rtp())
                    await asyncio.sleep(0.05)
            one.caller.media.clear()
            async with asyncio.timeout(5):
                while not one.caller.media:
                    one.send(one.caller.rtp())
                    two.send(two.caller.rtp())
                    await asyncio.sleep(0.05)
        assert (await relay.statistics()).address_switches == 1


async def test_law7_strangers_on_the_wire_get_silence_and_the_call_goes_on(relay: RemoteRelay) -> None:
    async with watching(relay) as watch:
        await relay.configure(soon())
        async with two_callers(relay) as (one, two):
            await connect(watch)
            stranger = UdpCaller(Caller(*pair("nobody")), one.relay)
            await stranger.open(interval=None)
            replayed = one.caller.check()
            one.send(replayed)
            await one.until(lambda: one.caller.confirmed > 0)
            good = one.caller.check()
            strange = [replayed, stranger.caller.check(), stranger.caller.dtls(), stranger.caller.rtp(), b"\x00", b"",
                       good[:-1], good[:2] + b"\xff\xfc" + good[4:], b"GET / HTTP/1.1", bytes(60_000)]  # fmt: skip
            for data in strange:
                stranger.send(data)
            # The relay answers in order, so an answer to this says that the others have been dealt with.
            before = one.caller.confirmed
            one.send(one.caller.check())
            await one.until(lambda: one.caller.confirmed > before)
            one.send(one.caller.rtp())
            await two.until(lambda: two.caller.media)
            assert stranger.raw == []
            await stranger.close()
        drops = (await relay.statistics()).drops
        assert drops["replayed"] == drops["unknown_ufrag"] == drops["oversize"] == 1
        assert drops["unknown_source"] == 2


async def test_law4_the_cut_comes_by_the_relays_own_timer(relay: RemoteRelay) -> None:
    async with watching(relay) as watch:
        await relay.configure(soon(limit_ms=300))
        async with two_callers(relay) as (one, two):
            await connect(watch)
            one.send(one.caller.rtp())
            two.send(two.caller.rtp())
            report = await watch.until(lambda r: bool(r.spans) and r.spans[-1].ended_by is not None)
            assert report.spans[0].end - report.spans[0].start == 300
            assert report.spans[0].ended_by == "deadline"
            assert report.at - report.spans[0].end < 200


async def test_extending_many_calls_is_one_message_and_a_worker_that_lost_one_is_told_all(relay: RemoteRelay) -> None:
    (link,) = relay._links
    plain = soon()
    for name in ("one", "two"):
        await relay.configure(config(name, until=plain.until))
    await link._ask({"release": "two"})
    assert (await relay.statistics()).calls == 1
    before = next(link._ids)
    for name in ("one", "two", "one"):
        await relay.configure(config(name, until=plain.until + 1_000))
    await asyncio.gather(*link._prolonging)
    prolonged_and_told_one = 2
    assert next(link._ids) - before == prolonged_and_told_one + 1
    assert (await relay.statistics()).calls == 2
    assert link._lengthened == {}


async def test_iterators_end_with_the_relay_and_begin_with_what_is_there(relay: RemoteRelay) -> None:
    async with watching(relay) as watch, two_callers(relay):
        await relay.configure(soon())
        await connect(watch)
    seen = []

    async def read() -> None:
        async for report in relay.reports():
            seen.append(report.call)

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    await relay.close()
    await relay.close()
    async with asyncio.timeout(5):
        await reader
    assert seen == ["call"]
    with pytest.raises(RelayUnavailable):
        await relay.configure(soon())


async def test_a_taken_port_is_an_error_of_ours(relay: RemoteRelay) -> None:
    port = relay.candidates("call")[0].port
    with pytest.raises(RelayUnavailable) as refused:
        async with relay_workers(Plan(["127.0.0.1"], port, ["127.0.0.1"], 1)):
            pass
    assert refused.value.code == "media_port_unavailable"


async def test_ipv6_legs_are_checked_and_forwarded() -> None:
    async with node(hosts=("::1",), advertise=("::1",)) as running, watching(running.relay) as watch:
        await running.relay.configure(soon())
        async with two_callers(running.relay, bind="::1") as (one, two):
            await connect(watch)
            one.send(one.caller.rtp())
            await two.until(lambda: two.caller.media)


def test_control_runs_on_uvloop() -> None:
    async def scenario() -> bytes:
        async with node() as running, watching(running.relay) as watch:
            await running.relay.configure(soon())
            async with two_callers(running.relay) as (one, two):
                await connect(watch)
                one.send(one.caller.rtp())
                await two.until(lambda: two.caller.media)
                return two.caller.media[0]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(scenario())[0] == 0x80


async def test_prometheus_reads_what_the_workers_said(relay: RemoteRelay) -> None:
    async with watching(relay) as watch:
        await relay.configure(soon())
        async with two_callers(relay) as (one, two):
            await connect(watch)
            one.send(b"junk of a kind \x00")
            one.send(one.caller.rtp())
            await two.until(lambda: two.caller.media)
            await relay.statistics()
            read = REGISTRY.get_sample_value
            assert read("gateway_relay_legs") == 2
            assert read("gateway_relay_open_gates") == 1
            assert read("gateway_relay_drops_total", {"reason": "junk"}) == 1
            assert (read("gateway_relay_packets_total", {"direction": "in"}) or 0) > 4
            assert (read("gateway_relay_batch_messages_sum") or 0) > 4
            assert read("gateway_relay_batch_messages_bucket", {"le": "+Inf"}) == read(
                "gateway_relay_batch_messages_count"
            )
            assert read("gateway_relay_queue_drops_total") == 0


# --- two real peers


class Tone(AudioStreamTrack):
    """Silence of the right shape, every 20 ms."""


def rewritten(sdp: str, credentials: Credentials, candidate: Candidate) -> str:
    """The least that a gateway must change in a description: ICE is ours, everything else stays."""
    lines = [
        line for line in sdp.split("\r\n") if not re.match("a=(candidate|end-of-candidates|ice-lite|ice-options)", line)
    ]
    text = "\r\n".join(lines)
    text = re.sub("a=ice-ufrag:.*", f"a=ice-ufrag:{credentials.ufrag}", text)
    text = re.sub(
        "a=ice-pwd:.*", f"a=ice-pwd:{credentials.password}\r\na={candidate.line()}\r\na=end-of-candidates", text
    )
    return text.replace("\r\nt=0 0", "\r\nt=0 0\r\na=ice-lite", 1)


def own_credentials(sdp: str) -> Credentials:
    ufrag, password = re.search("a=ice-ufrag:(.*)\r", sdp), re.search("a=ice-pwd:(.*)\r", sdp)
    assert ufrag is not None
    assert password is not None
    return Credentials(ufrag[1], password[1])


async def negotiate(relay: RemoteRelay, one: RTCPeerConnection, two: RTCPeerConnection) -> CallConfig:
    """Offer, answer, each rewritten for the other side; the relay knows all four credential pairs at the end."""
    ours = (pair("call0")[1], pair("call1")[1])
    candidate = relay.candidates("call")[0]
    await one.setLocalDescription(await one.createOffer())
    offer = one.localDescription.sdp
    await two.setRemoteDescription(RTCSessionDescription(rewritten(offer, ours[1], candidate), "offer"))
    answer_description = await two.createAnswer()
    legs = (LegConfig((ours[0],), own_credentials(offer)), LegConfig((ours[1],), None))
    plain = CallConfig("call", 1, legs, True, 1_800_000, CLOCK.boot_ms() + 20_000)
    await relay.configure(plain)
    await two.setLocalDescription(answer_description)
    answer = two.localDescription.sdp
    complete = replace(plain, legs=(legs[0], LegConfig((ours[1],), own_credentials(answer))))
    await relay.configure(complete)
    await one.setRemoteDescription(RTCSessionDescription(rewritten(answer, ours[0], candidate), "answer"))
    return complete


def first_frame(peer: RTCPeerConnection) -> asyncio.Future[Any]:
    arrived: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @peer.on("track")
    def on_track(track: Any) -> None:
        async def read() -> None:
            arrived.set_result(await track.recv())

        arrived.reader = asyncio.create_task(read())  # type: ignore[attr-defined]

    return arrived


def certificate_seen(peer: RTCPeerConnection) -> str:
    """SHA-256 of the certificate that came in the peer's DTLS handshake."""
    certificate = peer.getSenders()[0].transport._ssl.get_peer_certificate(as_cryptography=True)
    return certificate.fingerprint(SHA256()).hex(":").upper()


def certificate_own(peer: RTCPeerConnection) -> str:
    prints = peer.getSenders()[0].transport.getLocalParameters().fingerprints
    return next(one.value.upper() for one in prints if one.algorithm == "sha-256")


async def test_law1_two_real_peers_do_dtls_with_each_other_and_hear_each_other(relay: RemoteRelay) -> None:
    one, two = RTCPeerConnection(RTCConfiguration([])), RTCPeerConnection(RTCConfiguration([]))
    async with watching(relay) as watch:
        try:
            for peer in (one, two):
                peer.addTrack(Tone())
            heard = (first_frame(one), first_frame(two))
            async with asyncio.timeout(20):
                await negotiate(relay, one, two)
                frames = await asyncio.gather(*heard)
            assert [frame.sample_rate for frame in frames] == [48000, 48000]
            report = await watch.until(lambda r: r.gate == "open" and bool(r.spans))
            assert all(leg.present for leg in report.legs)
            assert certificate_seen(one) == certificate_own(two)
            assert certificate_seen(two) == certificate_own(one)
        finally:
            await one.close()
            await two.close()
