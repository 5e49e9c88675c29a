"""Simulated time, processes and network. Coroutines of the real shells are driven by hand, without an event loop.

A coroutine that wants something of the world yields a request; the world answers when its time has come. Each request
to Redis or Stripe is two instants: it arrives (and takes effect), then its answer arrives. Between them anything else
may happen, and at each of them the process may die.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from heapq import heappop, heappush
from random import Random
from typing import Any

from gateway.errors import GatewayError, StoreUnavailable
from tests.simulation.faults import Faults

# A call to the store, to Stripe, to the receiver of webhooks takes this many ms each way, and up to so many bits more.
LAGS = {"read": 0, "write": 0, "stripe": 40, "post": 5}
BITS = {"read": 2, "write": 2, "stripe": 8, "post": 8}
START = 1_700_000_000_000
STEPS_MAX = 60_000
AWAY = "away"

Done = Callable[[Any, Exception | None], None]
ARRIVAL, ANSWER, FAULT, BUG, SLEEP, PARK, WAIT = range(7)


class Livelock(Exception):
    """The session never came to rest."""


@types.coroutine
def request(*parts: Any) -> Generator[Any, Any, Any]:
    return (yield parts)


@types.coroutine
def io(kind: str, effect: Callable[[], Any]) -> Generator[Any, Any, Any]:
    """A call over the network: `kind` is `read`, `write` or `stripe`. If nothing else happens before its answer, it is
    done on the spot: most are, and the way up to the world and back is long."""
    world = World.running
    heap, now = world.heap, world.now
    lag = LAGS[kind] + world.rng.getrandbits(BITS[kind])
    if world.faults.armed or now < world.outage_until or now < world.task.process.cut_until:
        fault = world.fault(kind)
        if fault is not None:
            return (yield FAULT, fault, effect, lag)
    # Of a read nobody can tell where its time went, before or after it was read.
    back = 0 if kind == "read" else lag
    if heap and heap[0][0] <= now + lag:
        return (yield ARRIVAL, effect, lag, back)
    world.now = now + lag
    value = error = None
    try:
        value = effect()
    except GatewayError as failed:
        error = failed
    except Exception as bug:
        yield BUG, bug
    if kind != "read":
        if heap and heap[0][0] <= world.now + back:
            return (yield ANSWER, back, value, error)
        world.now += back
    world.steps += 1
    if world.steps > STEPS_MAX:
        yield BUG, Livelock()
    if error is not None:
        raise error
    return value


def sleep(ms: float) -> Coroutine[Any, Any, None]:
    return request(SLEEP, int(ms))


def park(register: Callable[[Task], None]) -> Coroutine[Any, Any, Any]:
    """Wait until whoever was told resumes us."""
    return request(PARK, register)


class Inbox:
    """Work for one task, which waits for it with a time-out."""

    __slots__ = ("items", "token", "waiter")

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.waiter: Task | None = None
        self.token = 0

    def next(self, ms: int) -> Coroutine[Any, Any, Any]:
        """The next item, or None after `ms`."""
        return request(WAIT, self, ms)


class Process:
    """Something that dies as a whole and is started again. `start` makes its tasks anew."""

    __slots__ = ("alive", "cut_until", "deaths", "kind", "name", "on_death", "start", "tasks", "world")

    def __init__(self, world: World, kind: str, name: str, start: Callable[[Process], None]) -> None:
        self.world, self.kind, self.name, self.start = world, kind, name, start
        self.tasks: list[Task] = []
        self.alive = True
        self.deaths = 0
        self.cut_until = 0
        self.on_death: Callable[[], None] | None = None
        start(self)

    def spawn(
        self, work: Coroutine[Any, Any, Any], done: Callable[[Any, Exception | None], None] | None = None
    ) -> Task:
        task = Task(self, work, done)
        self.tasks.append(task)
        self.world.at(self.world.now, self.world.resume, task)
        return task

    def die(self, back_after: int) -> None:
        if not self.alive:
            return
        self.alive = False
        self.deaths += 1
        self.world.deaths += 1
        if self.on_death is not None:
            self.on_death()
        for task in self.tasks:
            task.dead = True
            task.work.close()
        self.tasks = []
        self.world.at(self.world.now + back_after, self._back)

    def _back(self) -> None:
        self.alive = True
        self.start(self)


class Task:
    __slots__ = ("dead", "done", "process", "work")

    def __init__(self, process: Process, work: Coroutine[Any, Any, Any], done: Done | None) -> None:
        self.process, self.work, self.done = process, work, done
        self.dead = False


class World:
    """One session's universe. `skew` is Redis's wall clock minus true time; true time is also every boot clock."""

    running: World  # the one whose coroutines are driven now, and which of its tasks
    task: Task

    def __init__(self, rng: Random, faults: Faults) -> None:
        self.rng, self.faults = rng, faults
        self.now = START
        self.skew = 0
        self.heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self.count = 0
        self.steps = 0
        self.deaths = 0
        self.outage_until = 0
        self.outages: list[tuple[int, int]] = []  # from, to, since the beginning
        self.bugs: list[str] = []
        self.trace: list[str] | None = None

    # --- time

    def away(self, ms: int) -> None:
        """Redis answers nobody for so long."""
        self.outage_until = self.now + ms
        self.outages.append((self.now - START, self.outage_until - START))

    def at(self, when: int, call: Callable[..., None], *args: Any) -> None:
        self.count += 1
        heappush(self.heap, (when if when > self.now else self.now, self.count, call, args))

    def run(self) -> None:
        """Until nothing is left to happen."""
        heap = self.heap
        World.running = self
        while heap:
            when, _, call, args = heappop(heap)
            if when > self.now:
                self.now = when
            self.steps += 1
            if self.steps > STEPS_MAX:
                raise Livelock
            call(*args)

    def redis_ms(self) -> int:
        return self.now + self.skew

    def say(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{(self.now - START) / 1000:12.3f}  {text}")

    # --- tasks

    def post(self, inbox: Inbox, item: Any) -> None:
        inbox.items.append(item)
        waiter = inbox.waiter
        if waiter is not None:
            inbox.waiter = None
            inbox.token += 1
            self.at(self.now, self._hand, waiter, inbox)

    def _hand(self, task: Task, inbox: Inbox) -> None:
        if not task.dead:
            self.resume(task, inbox.items.pop(0) if inbox.items else None)

    def _timed_out(self, inbox: Inbox, token: int) -> None:
        if inbox.token == token and inbox.waiter is not None:
            task, inbox.waiter = inbox.waiter, None
            inbox.token += 1
            self.resume(task, None)

    def resume(self, task: Task, value: Any = None, error: Exception | None = None) -> None:
        """Go on with a task until it has to wait."""
        work = task.work
        while not task.dead:
            self.steps += 1
            if self.steps > STEPS_MAX:
                raise Livelock
            self.task = task
            try:
                asked = work.throw(error) if error is not None else work.send(value)
            except StopIteration as stop:
                return self._finished(task, stop.value, None)
            except (Livelock, AssertionError):
                raise
            except Exception as failed:
                return self._finished(task, None, failed)
            value = error = None
            kind = asked[0]
            if kind == ARRIVAL:
                return self.at(self.now + asked[2], self._arrive, task, asked[1], asked[3])
            if kind == ANSWER:
                return self.at(self.now + asked[1], self.resume, task, asked[2], asked[3])
            if kind == FAULT:
                return self._befall(task, *asked[1:])
            if kind == BUG:
                raise asked[1]
            if kind == SLEEP:
                return self.at(self.now + asked[1], self.resume, task)
            if kind == PARK:
                return asked[1](task)
            inbox = asked[1]
            if inbox.items:
                value = inbox.items.pop(0)
                continue
            then = self.now + asked[2]
            if not self.heap or self.heap[0][0] > then:
                self.now = then
                continue
            inbox.waiter = task
            self.at(then, self._timed_out, inbox, inbox.token)
            return None
        return None

    def _finished(self, task: Task, value: Any, error: Exception | None) -> None:
        task.dead = True
        if task in task.process.tasks:
            task.process.tasks.remove(task)
        if task.done is not None:
            task.done(value, error)
        elif error is not None:
            self.bugs.append(f"{task.process.name}: {error!r}")

    def _arrive(self, task: Task, effect: Callable[[], Any], lag: int, answered: bool = True) -> None:
        """The request takes effect, also when its sender is dead by now."""
        value, error = None, None
        try:
            value = effect()
        except GatewayError as failed:
            error = failed
        if answered and lag:
            self.at(self.now + lag, self.resume, task, value, error)
        elif answered:
            self.resume(task, value, error)

    # --- faults

    def fault(self, kind: str) -> str | None:
        """What befalls the running task's call instead of what should."""
        process = self.task.process
        if kind in ("read", "write") and (self.now < self.outage_until or self.now < process.cut_until):
            return AWAY
        fault = self.faults.of(process.kind, kind)
        if fault is not None:
            self.say(f"FAULT {fault} on {process.name}'s {kind}")
            self.faults.happened(fault)
        return fault

    def _befall(self, task: Task, fault: str, effect: Callable[[], Any], lag: int) -> None:
        process = task.process
        if fault == AWAY:
            # A command on a broken connection: whether it arrived is anybody's guess; while Redis is away it did not.
            return self.at(self.now + 200, self.resume, task, None, away())
        if fault == "crash_before":
            process.die(self.rng.choice((50, 500, 3_000, 20_000)))
        elif fault == "crash_during":
            self.at(self.now + lag, self._arrive, task, effect, lag, False)
            self.at(self.now + self.rng.randrange(lag + 1), process.die, self.rng.choice((50, 500, 3_000, 90_000)))
        elif fault == "crash_after":
            self._arrive(task, effect, lag, False)
            process.die(self.rng.choice((50, 500, 3_000, 90_000)))
        elif fault == "store_lost":
            self.at(self.now + 500, self.resume, task, None, away())
        elif fault == "store_unanswered":
            self._arrive(task, effect, lag, False)
            self.at(self.now + 500, self.resume, task, None, away())
        elif fault == "store_slow":
            wait = self.rng.choice((300, 2_000, 8_000, 70_000 if process.kind == "bridge" else 4_000))
            self.at(self.now + wait, self._arrive, task, effect, wait // 10)
        else:
            self._stripe(task, fault, effect, lag)
        return None

    def _stripe(self, task: Task, fault: str, effect: Callable[..., Any], lag: int) -> None:
        answer = getattr(effect, "faulty", None)
        assert answer is not None, f"{fault} befalls calls to Stripe only"
        answer(self, task, fault, lag)


def away() -> StoreUnavailable:
    return StoreUnavailable("The session store is away; try again.")
