"""Stripe's API in miniature, for development and tests: the real SDK talks to it by its base address.

It holds state, refuses what Stripe refuses and in Stripe's words, delivers signed events, keeps idempotency keys,
survives `kill -9` with a data directory, and makes faults happen on order (`faults`, `private`). What each behaviour
rests on stands in docs/stripe.md.
"""

from gateway.dev.sandbox.server import PlatformConfig, Sandbox, SandboxConfig

__all__ = ["PlatformConfig", "Sandbox", "SandboxConfig"]
