"""Faults on order: what may go wrong between us and Stripe, made to happen to the requests and events that match.

Requests (`match` "METHOD path", with * as wildcard)
    timeout               nothing is done and nothing is answered
    timeout_after_commit  it is done, the answer never comes
    connection_reset      nothing is done, the connection is cut
    connection_reset_after_commit
    409                   `lock_timeout`'s sibling: another request holds the key (nothing is done)
    429                   `rate_limit`, or `lock_timeout` by `code` (nothing is done)
    500                   nothing is done; kept under the idempotency key as Stripe keeps it, unless `saved` is false
    500_after_commit      it is done, and the key keeps the 500
    slow                  waits `ms` before it begins; its idempotency key is under way meanwhile
Events (`match` "event TYPE")
    duplicate  delivered twice      lose   never delivered (the list of events still has it)
    delay      comes `ms` later     reorder  comes after the next one
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from gateway.dev.sandbox.limits import too_many
from gateway.dev.sandbox.refusals import Refusal

BEFORE = ("timeout", "connection_reset")
AFTER = ("timeout_after_commit", "connection_reset_after_commit")
REQUEST_KINDS = frozenset((*BEFORE, *AFTER, "409", "429", "500", "500_after_commit", "slow"))
EVENT_KINDS = frozenset(("duplicate", "reorder", "lose", "delay"))
_DEFAULT_MS = {"slow": 1_000, "delay": 3_000, "timeout": 120_000, "timeout_after_commit": 120_000}


@dataclass(slots=True)
class Fault:
    """`times`: how often it still happens; `skip`: how many matches pass unharmed first."""

    match: str
    kind: str
    times: int = 1
    skip: int = 0
    ms: int = 0
    code: str | None = None
    saved: bool = True

    def shown(self) -> dict[str, Any]:
        return {"match": self.match, "kind": self.kind, "times": self.times, "skip": self.skip, "ms": self.ms}


def parse(body: Mapping[str, Any]) -> Fault:
    """One order as JSON; raises Refusal for an unknown kind or field."""
    unknown = body.keys() - {"match", "kind", "times", "skip", "ms", "code", "saved"}
    kind, match = str(body.get("kind", "")), str(body.get("match", ""))
    kinds = EVENT_KINDS if match.startswith("event ") else REQUEST_KINDS
    if unknown or kind not in kinds or " " not in match:
        raise Refusal(
            f"A fault is {{match, kind, times, skip, ms, code, saved}}, match 'METHOD path' or 'event TYPE', kind "
            "one of "
            f"{', '.join(sorted(kinds))}."
        )
    return Fault(
        match=match,
        kind=kind,
        times=int(body.get("times", 1)),
        skip=int(body.get("skip", 0)),
        ms=int(body.get("ms", _DEFAULT_MS.get(kind, 0))),
        code=body.get("code"),
        saved=bool(body.get("saved", True)),
    )


@dataclass(slots=True)
class FaultBook:
    """The orders that are still open, in the order in which they came."""

    faults: list[Fault] = field(default_factory=list)

    def take(self, subject: str) -> Fault | None:
        """The first open order that matches "METHOD path" or "event TYPE", counted down."""
        for fault in self.faults:
            if not fnmatchcase(subject, fault.match):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            fault.times -= 1
            if fault.times <= 0:
                self.faults.remove(fault)
            return fault
        return None


def refusal(fault: Fault) -> Refusal:
    """What a 409, 429 or 500 on order says."""
    if fault.kind == "409":
        return Refusal(
            "There is currently another in-progress request using this Idempotent Key (that probably means you "
            "submitted twice, "
            "and the other request is still going through). Please try again later.",
            status=409,
            code="idempotency_key_in_use",
            saved=False,
        )
    if fault.kind == "429" and fault.code == "lock_timeout":
        return Refusal(
            "This object cannot be accessed right now because another API request or Stripe process is currently "
            "accessing it. "
            "If you see this error intermittently, retry the request. If you see this error frequently and are "
            "making multiple "
            "concurrent requests to a single object, make your requests serially or at a lower rate.",
            status=429,
            code="lock_timeout",
            saved=False,
        )
    if fault.kind == "429":
        return too_many("global-rate")
    return unknown_error(saved=fault.saved)


def unknown_error(*, saved: bool) -> Refusal:
    return Refusal(
        "An unknown error occurred",
        status=500,
        kind="api_error",
        saved=saved,
        headers={"stripe-should-retry": str(not saved).lower()},
    )
