"""A worker's addresses: several, of both families, its own ones and those that a NAT gives it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from gateway.errors import RelayUnavailable
from gateway.sfu.port import Candidate
from gateway.sfu.sockets import open_media
from tests.sfu.caller import Caller, UdpCaller
from tests.sfu.network import pair
from tests.sfu.workers import connect, node, soon, talking, watching

BOTH = ("127.0.0.1", "::1")


async def test_a_legs_callers_may_sit_on_different_families_of_one_worker() -> None:
    async with node(hosts=BOTH, advertise=BOTH) as running, watching(running.relay) as watch:
        await running.relay.configure(soon())
        one, two = [
            await joined(candidate, leg, candidate.address)
            for leg, candidate in enumerate(datagrams(running.relay.candidates("call")))
        ]
        await connect(watch)
        async with talking(one, two):
            await one.until(lambda: len(one.caller.media) > 5)
            await two.until(lambda: len(two.caller.media) > 5)
        await one.close()
        await two.close()


def datagrams(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [candidate for candidate in candidates if candidate.transport == "udp"]


async def joined(candidate: Candidate, leg: int, bind: str, reached: str | None = None) -> UdpCaller:
    caller = UdpCaller(Caller(*pair(f"call{leg}")), (reached or candidate.address, candidate.port), bind)
    await caller.open()
    return caller


async def test_each_advertised_address_of_ours_answers_from_itself() -> None:
    several = ("127.0.0.1", "127.0.0.2")
    async with node(hosts=("0.0.0.0",), advertise=several) as running, watching(running.relay) as watch:
        await running.relay.configure(soon())
        first, second = datagrams(running.relay.candidates("call"))
        assert (first.address, second.address) == several
        assert first.priority > second.priority
        assert first.foundation != second.foundation
        callers = [await joined(candidate, leg, "127.0.0.1") for leg, candidate in enumerate((first, second))]
        for caller, candidate in zip(callers, (first, second), strict=True):
            await caller.until(lambda caller=caller: caller.caller.confirmed > 1)
            assert caller.sources == {(candidate.address, candidate.port)}
        await connect(watch)
        async with talking(*callers):
            for caller in callers:
                await caller.until(lambda caller=caller: len(caller.caller.media) > 5)
        for caller in callers:
            await caller.close()


async def test_behind_a_one_to_one_nat_the_configured_address_is_told_and_ours_is_bound() -> None:
    outside = ("198.51.100.1", "198.51.100.2")
    async with node(hosts=("127.0.0.1",), advertise=outside) as running, watching(running.relay) as watch:
        await running.relay.configure(soon())
        first, second = datagrams(running.relay.candidates("call"))
        assert (first.address, second.address) == outside
        assert first.port == second.port
        callers = [await joined(first, leg, "127.0.0.1", reached="127.0.0.1") for leg in (0, 1)]
        await connect(watch)
        async with talking(*callers):
            await asyncio.gather(*(c.until(lambda c=c: len(c.caller.media) > 5) for c in callers))
        for caller in callers:
            await caller.close()


def test_several_addresses_behind_a_nat_share_the_wildcard_socket() -> None:
    media = open_media(("0.0.0.0",), 0, ("198.51.100.1", "198.51.100.2"))
    assert [sock.getsockname()[0] for sock in media.sockets] == ["0.0.0.0"]
    for sock in media.sockets:
        sock.close()


def test_an_address_of_a_family_without_a_host_is_an_error() -> None:
    with pytest.raises(RelayUnavailable, match="IPv6"):
        open_media(("127.0.0.1",), 0, ("127.0.0.1", "2001:db8::1"))
