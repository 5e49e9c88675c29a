"""Stripe's rate limits, when asked for: requests a second in all and at one endpoint (docs.stripe.com/rate-limits)."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.dev.sandbox.refusals import Refusal


@dataclass(slots=True)
class _Bucket:
    left: float
    at_ms: int


@dataclass(slots=True)
class Limits:
    """Token buckets of one second's worth; 0 is no limit. In test mode Stripe allows 25 in all and 25 an endpoint."""

    per_second: int = 0
    per_endpoint: int = 0
    buckets: dict[str, _Bucket] = field(default_factory=dict)

    def take(self, endpoint: str, now_ms: int) -> None:
        """Count one request; raises Refusal (429) beyond a limit. `endpoint` is the operation without its ids."""
        for name, rate, reason in (
            ("", self.per_second, "global-rate"),
            (endpoint, self.per_endpoint, "endpoint-rate"),
        ):
            if rate and not self._spend(name, rate, now_ms):
                raise too_many(reason)

    def _spend(self, name: str, rate: int, now_ms: int) -> bool:
        bucket = self.buckets.setdefault(name, _Bucket(rate, now_ms))
        bucket.left = min(rate, bucket.left + (now_ms - bucket.at_ms) * rate / 1_000)
        bucket.at_ms = now_ms
        if bucket.left < 1:
            return False
        bucket.left -= 1
        return True


def too_many(reason: str) -> Refusal:
    return Refusal(
        "Request rate limit exceeded. You can learn more about rate limits here https://stripe.com/docs/rate-limits.",
        status=429,
        code="rate_limit",
        saved=False,
        headers={"Stripe-Rate-Limited-Reason": reason},
    )
