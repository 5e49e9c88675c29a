"""Workers and control processes that stop, die and come back: calls go on, and no law is broken meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.sfu.remote import RemoteRelay
from tests.sfu.workers import CLOCK, Node, connect, node, soon, talking, two_callers, watching


@pytest.fixture
async def running() -> AsyncIterator[Node]:
    async with node() as started:
        yield started


@contextlib.asynccontextmanager
async def controlled(started: Node, limit_ms: int = 600_000) -> AsyncIterator[asyncio.subprocess.Process]:
    """A control process of its own, newer than the one of this test, which from then on only knows the way."""
    started.relay.candidates("call")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.sfu.controlling", str(started.paths[0]), str(limit_ms),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"configured\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def test_a_killed_worker_is_back_with_its_calls_within_300_ms_and_no_ice_restart(running: Node) -> None:
    relay = running.relay
    async with watching(relay) as watch:
        await relay.configure(soon())
        async with two_callers(relay) as (one, two):
            before = await connect(watch)
            async with talking(one, two):
                await watch.until(lambda r: bool(r.spans) and r.spans[-1].end - r.spans[-1].start > 300)
                (victim,) = running.workers
                os.kill(victim, signal.SIGKILL)
                killed_at, heard = time.monotonic(), len(two.caller.media)
                # What was forwarded before it died is still under way.
                await asyncio.sleep(0.02)
                heard = max(heard, len(two.caller.media))
                await two.until(lambda: len(two.caller.media) > heard)
                back_after = time.monotonic() - killed_at
                report = await watch.until(lambda r: len(r.spans) == 2)
            assert back_after < 0.3
            assert running.workers != [victim]
            lost, resumed = report.spans
            assert (lost.ended_by, resumed.ended_by) == ("lost", None)
            assert lost.number < resumed.number
            assert lost.end <= resumed.start
            assert [leg.packets_in > 0 for leg in report.legs] == [True, True]
            assert report.legs[0].packets_in >= before.legs[0].packets_in
            assert report.deadline == lost.start + soon().limit_ms


async def test_law4_a_call_keeps_its_deadline_over_a_workers_death(running: Node) -> None:
    relay = running.relay
    async with watching(relay) as watch:
        await relay.configure(soon(limit_ms=1500))
        async with two_callers(relay) as (one, two):
            await connect(watch)
            async with talking(one, two):
                await watch.until(lambda r: bool(r.spans) and r.deadline is not None)
                os.kill(running.workers[0], signal.SIGKILL)
                report = await watch.until(lambda r: bool(r.spans) and r.spans[-1].ended_by == "deadline")
            assert report.spans[-1].end == report.spans[0].start + 1500


async def test_a_worker_that_dies_while_control_is_away_still_knows_its_calls(running: Node) -> None:
    async with controlled(running) as control, two_callers(running.relay) as (one, two):
        control.send_signal(signal.SIGSTOP)
        async with talking(one, two):
            await two.until(lambda: len(two.caller.media) > 5)
            os.kill(running.workers[0], signal.SIGKILL)
            await asyncio.sleep(0.05)
            heard = len(two.caller.media)
            await two.until(lambda: len(two.caller.media) > heard + 5)


async def test_law4_the_relay_cuts_at_the_deadline_while_control_is_stopped(running: Node) -> None:
    async with controlled(running, limit_ms=1000) as control, two_callers(running.relay) as (one, two):
        await one.until(lambda: one.caller.challenges and one.caller.confirmed > 1)
        await two.until(lambda: two.caller.challenges and two.caller.confirmed > 1)
        control.send_signal(signal.SIGSTOP)
        async with talking(one, two):
            await two.until(lambda: two.caller.media)
            first = last = time.monotonic()
            heard = len(two.caller.media)
            while time.monotonic() - last < 0.7:
                await asyncio.sleep(0.02)
                if len(two.caller.media) > heard:
                    last, heard = time.monotonic(), len(two.caller.media)
            # A span starts at most a second after the first packet and lasts one; the cut may be a second late.
            assert last - first < 3


async def test_law4_what_was_queued_across_the_deadline_while_the_worker_was_stopped_does_not_pass(
    running: Node,
) -> None:
    relay, (worker,) = running.relay, running.workers
    async with watching(relay) as watch:
        await relay.configure(soon(limit_ms=1000))
        async with two_callers(relay) as (one, two):
            await connect(watch)
            async with talking(one, two):
                report = await watch.until(lambda r: bool(r.spans) and r.deadline is not None)
            assert report.deadline is not None
            os.kill(worker, signal.SIGSTOP)
            await asyncio.sleep(0.05)
            heard, queued = len(two.caller.media), 200
            for _ in range(queued):
                one.send(one.caller.rtp())
            await asyncio.sleep(max(0, report.deadline - CLOCK.boot_ms()) / 1000 + 0.1)
            os.kill(worker, signal.SIGCONT)
            last = await watch.until(lambda r: bool(r.spans) and r.spans[-1].ended_by is not None)
            await asyncio.sleep(0.1)
            assert last.spans[-1].ended_by == "deadline"
            assert last.spans[-1].end == report.deadline
            assert len(two.caller.media) == heard
        drops = (await relay.statistics()).drops
        assert drops["over_deadline"] >= queued


async def test_a_killed_control_leaves_the_call_running_and_the_next_one_finds_its_span(running: Node) -> None:
    async with controlled(running) as control, two_callers(running.relay) as (one, two), talking(one, two):
        await two.until(lambda: len(two.caller.media) > 10)
        control.kill()
        await control.wait()
        heard = len(two.caller.media)
        await two.until(lambda: len(two.caller.media) > heard + 50)
        again = await RemoteRelay.open(running.paths)
        try:
            assert again.candidates("call") == running.relay.candidates("call")
            async with watching(again) as watch:
                report = await watch.until(lambda r: bool(r.spans))
                assert len(report.spans) == 1
                assert report.spans[0].ended_by is None
                assert report.tag == "7:1:2:owner"
        finally:
            await again.close()


async def test_an_older_control_is_refused(running: Node) -> None:
    async with controlled(running):
        # The test's own control is older than the one just started: the worker let go of it for good.
        async with asyncio.timeout(5):
            while running.relay._links[0].up:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert not running.relay._links[0].up


async def test_an_idle_worker_never_runs(running: Node) -> None:
    await running.relay.configure(soon())
    (worker,) = running.workers
    await asyncio.sleep(0.2)
    before = _runs(worker)
    await asyncio.sleep(2)
    assert _runs(worker) == before


def _runs(pid: int) -> str:
    """Nanoseconds on a processor, waiting for one, and how often it was given one."""
    return Path(f"/proc/{pid}/schedstat").read_text()


async def test_calls_are_placed_by_load_and_stay_where_they_are() -> None:
    async with node(workers=2) as running:
        relay = running.relay
        placed = {f"c{number}": relay.candidates(f"c{number}")[0].port for number in range(6)}
        ports = list(placed.values())
        assert sorted(ports.count(port) for port in set(ports)) == [3, 3]
        assert {call: relay.candidates(call)[0].port for call in placed} == placed
        await relay.release("c0")
        assert relay.candidates("c9")[0].port == placed["c0"]
