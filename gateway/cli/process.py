"""The process of a command: its loop, what signals do to it, and where its log goes."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog
import uvloop

from gateway.cli.commands import OK
from gateway.settings import Log

COLLECT_AFTER = (20_000, 20, 50)
T = TypeVar("T")


def once(work: Coroutine[Any, Any, T]) -> T:
    """What the work gives, on a loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def run(work: Coroutine[Any, Any, None]) -> int:
    """Run to the end on uvloop. SIGINT and SIGTERM cancel the work, which then cleans up; a second one ends at once."""

    async def with_signals() -> int:
        loop = asyncio.get_running_loop()
        task = loop.create_task(work, name="main")

        def stop() -> None:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        try:
            await task
        except asyncio.CancelledError:
            structlog.get_logger(__name__).info("stopped")
        return OK

    # What is loaded by now stays; and requests come and go without cycles, so that most collections look for nothing.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(with_signals())


def log_to_stderr(settings: Log) -> None:
    """Ours and the libraries' lines in one form on standard error; standard output stays free for answers."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Plain tracebacks: richer ones print local variables, and those hold tokens, SDP and addresses.
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=32
    )
    last: list[Any] = [console]
    if settings.format == "json":
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
