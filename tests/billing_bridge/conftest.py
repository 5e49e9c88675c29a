"""Makes the fixtures of `fixtures` known to the tests of this folder."""

from tests.billing_bridge.fixtures import ask, sandbox, stripe_client, till

__all__ = ["ask", "sandbox", "stripe_client", "till"]
