"""Idempotency keys as Stripe keeps them (docs.stripe.com/api/idempotent_requests, stripe.com/blog/idempotency).

The first answer of an endpoint that began is kept with its status, 500s included, and given again for a day to the same
request; the same key with another request is an error, and one whose first request still runs is a conflict.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from gateway.dev.sandbox.refusals import Refusal
from gateway.dev.sandbox.store import SavedAnswer, Store

KEPT_SECONDS = 86_400  # afterwards Stripe may prune the key, and the same key makes a new request
MAX_LENGTH = 255


@dataclass(slots=True)
class KeyBook:
    """Which keys are under way; what is finished lies in the store. Keys belong to one account each."""

    store: Store
    under_way: dict[tuple[str, str], str] = field(default_factory=dict)

    def begin(self, account: str, key: str, target: str, form: str, now: int) -> SavedAnswer | None:
        """The answer to give again, or None to go on; then `finish` is due. Raises Refusal."""
        if len(key) > MAX_LENGTH:
            raise Refusal(f"The idempotency key must be at most {MAX_LENGTH} characters.", saved=False)
        if (account, key) in self.under_way:
            raise _in_use(key)
        known = self.store.saved(account, key)
        if known is not None and now - known.created < KEPT_SECONDS:
            _must_match(known, key, target, fingerprint(target, form))
            return known
        self.under_way[account, key] = target
        return None

    def finish(self, account: str, key: str) -> None:
        self.under_way.pop((account, key), None)


def fingerprint(target: str, form: str) -> str:
    return hashlib.sha256(f"{target}\n{form}".encode()).hexdigest()


def _in_use(key: str) -> Refusal:
    return Refusal(
        "There is currently another in-progress request using this Idempotent Key (that probably means you "
        "submitted twice, and "
        f"the other request is still going through): {key}. Please try again later.",
        status=409,
        code="idempotency_key_in_use",
        saved=False,
        headers={"stripe-should-retry": "true"},
    )


def _must_match(known: SavedAnswer, key: str, target: str, print_: str) -> None:
    if known.target != target:
        raise Refusal(
            "Keys for idempotent requests can only be used for the same endpoint they were first used for "
            f"('{known.target.split()[1]}' vs '{target.split()[1]}'). Try using a key other than '{key}' if you "
            "meant to execute "
            "a different request.",
            kind="idempotency_error",
            saved=False,
        )
    if known.fingerprint != print_:
        raise Refusal(
            "Keys for idempotent requests can only be used with the same parameters they were first used with. "
            "Try using a key "
            f"other than '{key}' if you meant to execute a different request.",
            kind="idempotency_error",
            saved=False,
        )
