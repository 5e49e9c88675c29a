"""`asyncio.wait_for` as it is since Python 3.12, for 3.11: there a cancellation that meets the result gets lost.

python/cpython#86296. redis-py sends each command through it and aiosmtplib each line of a mail, so that a loop of ours,
cancelled at such a moment, would run on and whoever stops it would wait for ever; and a time limit around it would not
hold. It saves a task, and a turn of the loop, for each command too.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def wait_for(fut: Awaitable[T], timeout: float | None) -> T:
    """What `fut` gives. Raises TimeoutError after `timeout` seconds; `fut` is cancelled then."""
    async with asyncio.timeout(timeout):
        return await fut


def mend() -> None:
    """Whoever asks asyncio for `wait_for` from now on gets this one, where it is needed."""
    if sys.version_info < (3, 12):
        asyncio.wait_for = wait_for  # type: ignore[assignment]  # typeshed has a union
