"""When to try again: the schedule of webhooks and mails, what an answer means, and when an item is dead.

Pure: `now` (wall ms) and jitter (0 … 1, uniform) are given. Schedule and meaning of answers: Standard Webhooks 1.0
and 3-contracts (Webhooks).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, Literal

_SECOND: Final = 1_000
_MINUTE: Final = 60 * _SECOND
_HOUR: Final = 60 * _MINUTE

# Wait before each attempt, counted from the end of the one before it: ten attempts over 75 hours.
WEBHOOK_SCHEDULE_MS: Final = (
    0, 5 * _SECOND, 5 * _MINUTE, 30 * _MINUTE, 2 * _HOUR, 5 * _HOUR, 10 * _HOUR, 14 * _HOUR, 20 * _HOUR, 24 * _HOUR,
)  # fmt: skip
# Mail servers greylist for minutes and are down for hours; after two days a receipt is no news any more.
MAIL_SCHEDULE_MS: Final = (
    0, 30 * _SECOND, 5 * _MINUTE, 15 * _MINUTE, 1 * _HOUR, 3 * _HOUR, 8 * _HOUR, 12 * _HOUR, 24 * _HOUR,
)  # fmt: skip

JITTER: Final = 0.2  # of the wait, added: spreads the retries of many events over a receiver's recovery
RETRY_AFTER_MAX_MS: Final = 24 * _HOUR  # a receiver may ask for more patience than the schedule, but not for years

# A receiver that hangs holds a connection for the whole time-out. After so many hangs in a row it gets a pause.
HANGS_BEFORE_PAUSE: Final = 4
PAUSE_MIN_MS: Final = 5 * _SECOND
PAUSE_MAX_MS: Final = 60 * _SECOND

State = Literal["open", "delivered", "dead"]


@dataclass(frozen=True, slots=True)
class Answer:
    """How an attempt ended: an HTTP status, or `fault` (timeout, connection, tls, blocked, …) when there was none."""

    status: int | None = None
    fault: str | None = None
    retry_after_ms: int | None = None

    @property
    def ok(self) -> bool:
        # 3xx is a failure: a signed body must not wander to wherever a redirect points.
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """The receiver says that this endpoint is not there any more: it gets nothing further."""
        return self.status == 410

    @property
    def hung(self) -> bool:
        return self.fault == "timeout"

    @property
    def why(self) -> str:
        return str(self.status) if self.status is not None else self.fault or "unknown"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One item on its way to one receiver: attempts made, and when the next is due (wall ms)."""

    attempts: int = 0
    next_at: int = 0
    state: State = "open"
    why: str = ""


def attempted(
    delivery: Delivery, answer: Answer, now: int, jitter: float, schedule: tuple[int, ...] = WEBHOOK_SCHEDULE_MS
) -> Delivery:
    """The delivery after an attempt that ended with `answer` at `now`."""
    attempts = delivery.attempts + 1
    if answer.ok:
        return replace(delivery, attempts=attempts, state="delivered", why=answer.why)
    if answer.gone or attempts >= len(schedule):
        return replace(delivery, attempts=attempts, state="dead", why=answer.why)
    wait = int(schedule[attempts] * (1 + JITTER * jitter))
    asked = min(answer.retry_after_ms or 0, RETRY_AFTER_MAX_MS)
    return Delivery(attempts, now + max(wait, asked), "open", answer.why)


def retry_after_ms(header: str | None, now: int) -> int | None:
    """A Retry-After header (RFC 9110 section 10.2.3: seconds or a date) as ms from `now`; None if unusable."""
    if not header:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:12]) * _SECOND, RETRY_AFTER_MAX_MS)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # a year that no clock knows
        return None
    at = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(0, int(at.timestamp() * _SECOND) - now), RETRY_AFTER_MAX_MS)


@dataclass(frozen=True, slots=True)
class Health:
    """How a receiver has been lately, in the eyes of one sender: hangs in a row, and until when it is left alone."""

    hangs: int = 0
    paused_until: int = 0

    def after(self, answer: Answer, now: int) -> Health:
        """Only hangs count: a quick refusal costs nothing, and its events have their own schedule."""
        if not answer.hung:
            return Health()
        if self.paused_until > now:  # one of several that hung at the same time
            return self
        hangs = self.hangs + 1
        if hangs < HANGS_BEFORE_PAUSE:
            return Health(hangs)
        doublings = min(hangs - HANGS_BEFORE_PAUSE, 8)
        return Health(hangs, now + min(PAUSE_MIN_MS << doublings, PAUSE_MAX_MS))
