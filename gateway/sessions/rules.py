"""What the operator set for all sessions. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.payees.routes import MAIN


@dataclass(frozen=True, slots=True)
class Rules:
    """Durations in ms, minimum charges by platform account and currency in minor units."""

    cap_ms: int = 90 * 60_000
    expires_ms: int = 24 * 3_600_000
    minimums: Mapping[str, Mapping[str, int]] | None = None
    free_window_ms: int = 24 * 3_600_000

    def minimum(self, currency: str, platform: str = MAIN) -> int:
        return (self.minimums or {}).get(platform, {}).get(currency, 0)
