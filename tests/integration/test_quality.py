"""Quality through the whole stack: heard by the relay's worker, told by the pages, judged, said to both, counted."""

from __future__ import annotations

import asyncio

from prometheus_client import REGISTRY

from tests.integration.conftest import Stand


async def test_both_are_told_how_good_their_connections_are(stand: Stand) -> None:
    client, expert = await stand.pair(await stand.paid())
    for caller in (client, expert):
        told = await caller.until("quality", mine=..., peer=...)
        assert told["mine"] in ("excellent", "good", "poor")
    await client.say("stats", loss=0.4, jitter=0.01, rtt=0.02)
    await client.until("quality", mine="poor")
    await expert.until("quality", peer="poor")
    await expert.disconnect()
    await expert.return_()
    assert (await expert.until("quality", mine=..., peer="poor"))["peer"] == "poor"


async def test_what_the_relay_measures_of_real_callers_is_counted_by_direction(stand: Stand) -> None:
    before = {one: observed(one) for one in ("uplink", "downlink")}
    client, expert = await stand.pair(await stand.paid())
    async with asyncio.timeout(15):  # the relay says nothing of a leg before it has listened to it for a turn
        while not all(observed(one) > before[one] for one in before):
            await client.say("stats", loss=0.02, jitter=0.004, rtt=0.02)
            await expert.hears(expert.arrived["audio"] + 25)
    assert REGISTRY.get_sample_value("gateway_relay_one_way_calls") == 0
    assert REGISTRY.get_sample_value("gateway_relay_silent_legs") == 0


def observed(direction: str) -> float:
    return REGISTRY.get_sample_value("gateway_call_loss_ratio_count", {"direction": direction}) or 0
