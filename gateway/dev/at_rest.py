"""What the Stripe sandbox of a data directory has, listed as Stripe lists it, whether it runs or not. It only reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.billing_bridge.outcome import Done, Outcome
from gateway.billing_bridge.stripe_client import OPERATIONS
from gateway.dev.sandbox import answers, routes
from gateway.dev.sandbox.platform import stripe_id, wall_ms
from gateway.dev.sandbox.store import Store
from gateway.dev.sandbox.turn import Terms, Turn
from gateway.errors import GatewayError
from gateway.payees.routes import MAIN


def files(folder: Path) -> dict[str, Path]:
    """The platform accounts that the sandbox of that folder has, by name. Raises GatewayError if there are none."""
    found = {file.stem.removeprefix("stripe").removeprefix("-"): file for file in folder.glob("stripe*.sqlite3")}
    if "" not in found:
        raise GatewayError(f"{folder} has no sandbox of a gateway dev")
    return {name or MAIN: file for name, file in sorted(found.items())}


class AtRest:
    """One platform account's file, asked as `StripeClient` is, for lists only. `close` it."""

    def __init__(self, file: Path) -> None:
        self._store = Store(file)

    async def send(self, operation: str, params: Mapping[str, Any], key: str | None = None) -> Outcome:
        """Raises Refusal."""
        method, path = OPERATIONS[operation]
        found = routes.find(method.upper(), path)
        assert found is not None, operation
        wanted = dict(params)
        expand = wanted.pop("expand", ())
        turn = Turn(self._store, wall_ms() // 1_000, stripe_id, Terms())
        return Done(answers.expanded_page(turn, found[0].endpoint(turn, wanted, *found[1]), expand))

    def close(self) -> None:
        self._store.close()
