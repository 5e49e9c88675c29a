"""What the simulator leaves out of the shells: logs, metrics, words for the pages, the event loop's sleep."""

from __future__ import annotations

import asyncio
import itertools
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from random import Random
from typing import Any
from unittest import mock

from prometheus_client.metrics import MetricWrapperBase

from gateway import journal
from gateway.billing_bridge import audit, parts, stripe_events, worker
from gateway.bookings import booking, bookings
from gateway.meter import flusher as flushing
from gateway.signaling import host as hosting
from gateway.signaling import hosted as hosted_module
from gateway.signaling import telling
from tests.simulation.node import SESSION, QuietHosted
from tests.simulation.store import DebtsModel, IndexModel
from tests.simulation.thaw import thawed
from tests.simulation.world import sleep

REREAD_MS = 10_000  # ticks are some twenty times as long as the real ones
DICE = Random()  # of shells that throw dice; each session begins with its own seed


class Null:
    """A log that keeps only what must never happen."""

    exceptions: list[str] = []  # noqa: RUF012 - shared on purpose

    def __getattr__(self, name: str) -> Callable[..., None]:
        return self._nothing

    def _nothing(self, *_: Any, **__: Any) -> None: ...

    def exception(self, text: str, **_: Any) -> None:
        self.exceptions.append(f"{text}: {traceback.format_exc(limit=-3)}")


class NoMetric:
    """Counter, gauge and histogram at once."""

    def labels(self, *_: Any) -> NoMetric:
        return self

    def inc(self, *_: Any) -> None: ...

    observe = set = inc

    def track_inprogress(self) -> nullcontext[None]:
        return nullcontext()


async def _sleep(seconds: float) -> None:
    await sleep(seconds * 1000)


async def _one_by_one(*works: Any) -> list[Any]:
    left = list(works)
    try:
        return [await left.pop(0) for _ in works]
    finally:
        for work in left:
            work.close()


async def _in_a_thread(work: Callable[..., Any], *given: Any) -> Any:
    await sleep(2)
    return work(*given)


class Words(types.SimpleNamespace):
    """Messages to the pages as plain values; what the real ones look like is `tests/signaling`'s matter."""

    @staticmethod
    def of(kind: str) -> Callable[..., Any]:
        return lambda **fields: types.SimpleNamespace(type=kind, **fields)


_WORDS = Words(**{name: Words.of(name.lower()) for name in ("Status", "Meter", "Ended", "ContinueState")},
               Warn=Words.of("warning"))  # fmt: skip


class NoGauges:
    """Quality of media, of which there is none here."""

    ratings: Mapping[str, Any] = dict.fromkeys(("client", "expert"))

    def heard(self, *_: Any) -> tuple[Any, ...]:
        return ()


async def unwatched(journal: Any, session: Any, ident: str) -> None:
    """Connected accounts have streams of their own; here an account is mended by its event alone."""


@contextmanager
def simulated() -> Iterator[None]:
    """While it lasts, the shells log and measure nothing, ids are counted, and their sleep is the world's."""
    numbers = itertools.count(1)
    clockwork = types.SimpleNamespace(
        Event=asyncio.Event, Semaphore=asyncio.Semaphore, sleep=_sleep, to_thread=_in_a_thread
    )
    together = types.SimpleNamespace(gather=_one_by_one)
    ended, status, welcome = (Words.of(kind) for kind in ("ended", "status", "welcome"))
    swapped: dict[Any, dict[str, Any]] = {
        hosted_module: {"asyncio": clockwork, "wire": _WORDS, "Gauges": NoGauges, "REREAD_MS": REREAD_MS},
        telling: {"welcome": lambda *_: welcome(), "ended": lambda *_: ended(), "status": lambda *_: status()},
        worker: {"asyncio": clockwork, "random": DICE, "Debts": DebtsModel, "Index": IndexModel,
                 "watch": unwatched},
        flushing: {"asyncio": clockwork}, bookings: {"asyncio": together}, parts: {"asyncio": together},
        booking: {"derived_id": _meeting_id}, hosting: {"Hosted": QuietHosted}, stripe_events: {"Index": IndexModel},
        audit: {"Index": IndexModel},
        journal: {"new_id": lambda prefix: f"{prefix}_{next(numbers)}"},
    }  # fmt: skip
    with thawed(), _silence(), ExitStack() as stack:
        for module, names in swapped.items():
            stack.enter_context(mock.patch.multiple(module, **names))
        yield


def _meeting_id(prefix: str, parent: str, number: int) -> str:
    return SESSION if number == 1 else f"{SESSION}{number}"


@contextmanager
def _silence() -> Iterator[None]:
    """Every log and every metric of the gateway's rooms is nobody's for a while."""
    quiet, unmeasured = Null(), NoMetric()
    with ExitStack() as stack:
        for module in [m for name, m in sys.modules.items() if name.startswith("gateway.")]:
            for name, thing in list(vars(module).items()):
                if name == "log":
                    stack.enter_context(mock.patch.object(module, name, quiet))
                elif isinstance(thing, MetricWrapperBase):
                    stack.enter_context(mock.patch.object(module, name, unmeasured))
        yield
