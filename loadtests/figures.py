"""What a run found: figures made of rounds, their medians, spreads and ratios, and whether they reach what they must.

Pure. A *sample* is one measurement of one side in one round; a *round* pairs our sample with the peer's of the same
round; the ratio is ours divided by the peer's. The first round is discarded, the others all count, marked or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any, Final, Literal

SCHEMA: Final = 1
DISCARDED: Final = 1
STEAL_LIMIT: Final = 0.03
"""A round in which the hypervisor took more of the measured core than this is marked."""
FOREIGN_LIMIT: Final = 0.10
"""And one in which other processes took more of it than this."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: `value` in the figure's unit, and what may have disturbed it."""

    value: float
    steal: float = 0.0
    foreign: float = 0.0
    about: dict[str, float] = field(default_factory=dict)

    @property
    def marks(self) -> tuple[str, ...]:
        found = {
            "steal": self.steal > STEAL_LIMIT, "foreign": self.foreign > FOREIGN_LIMIT,
            "behind": bool(self.about.get("behind")),
        }  # fmt: skip
        return tuple(name for name, is_so in found.items() if is_so)

    def body(self) -> dict[str, Any]:
        shares = {"steal": round(self.steal, 4), "foreign": round(self.foreign, 4)}
        about = {key: round(number, 4) for key, number in self.about.items()}
        return {"value": rounded(self.value), **shares, **about, "marks": list(self.marks)}


@dataclass(frozen=True, slots=True)
class Round:
    number: int
    ours: Sample
    peer: Sample | None = None

    @property
    def discarded(self) -> bool:
        return self.number < DISCARDED

    @property
    def marked(self) -> bool:
        return bool(self.ours.marks or (self.peer and self.peer.marks))

    @property
    def ratio(self) -> float | None:
        return self.ours.value / self.peer.value if self.peer and self.peer.value else None

    def body(self) -> dict[str, Any]:
        return {
            "round": self.number + 1, "discarded": self.discarded, "marked": self.marked,
            "ours": self.ours.body(), "peer": self.peer.body() if self.peer else None, "ratio": rounded(self.ratio),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """`must` and `aim` bound the ratio if there is a peer to be compared with, else our own value.

    `better`: whether less or more of it is good. `comparison`: the peer's column is for orientation, bounds are ours.
    """

    part: str
    figure: str
    unit: str
    rounds: tuple[Round, ...]
    peer_name: str | None = None
    better: Literal["less", "more"] = "less"
    must: float | None = None
    aim: float | None = None
    comparison: bool = False

    @property
    def kept(self) -> tuple[Round, ...]:
        return tuple(one for one in self.rounds if not one.discarded) or self.rounds

    @property
    def ours(self) -> float:
        return median(one.ours.value for one in self.kept)

    @property
    def peer(self) -> float | None:
        values = [one.peer.value for one in self.kept if one.peer]
        return median(values) if values else None

    @property
    def ratio(self) -> float | None:
        """Median of the rounds' own ratios, so that what slows both sides in one round does not count."""
        values = self.ratios
        return median(values) if values else None

    @property
    def ratios(self) -> list[float]:
        return [one.ratio for one in self.kept if one.ratio is not None]

    @property
    def judged_by(self) -> Literal["ratio", "ours"]:
        return "ratio" if self.peer_name and not self.comparison else "ours"

    @property
    def judged(self) -> float | None:
        return self.ratio if self.judged_by == "ratio" else self.ours

    def within(self, bound: float | None) -> bool | None:
        """Whether the judged median is within the bound; None without one, or without a measurement."""
        if bound is None or self.judged is None:
            return None
        return self.judged <= bound if self.better == "less" else self.judged >= bound

    def body(self) -> dict[str, Any]:
        return {
            "part": self.part, "figure": self.figure, "unit": self.unit, "better": self.better,
            "ours": rounded(self.ours), "ours_quartiles": spread([one.ours.value for one in self.kept]),
            "peer": rounded(self.peer), "peer_name": self.peer_name,
            "peer_quartiles": spread([one.peer.value for one in self.kept if one.peer]),
            "ratio": rounded(self.ratio), "ratio_quartiles": spread(self.ratios),
            "must": self.must, "aim": self.aim, "judged": self.judged_by,
            "reached": self.within(self.must), "aim_reached": self.within(self.aim),
            "marked": sum(one.marked for one in self.kept), "rounds": [one.body() for one in self.rounds],
        }  # fmt: skip


def paired(ours: Sequence[Sample], peer: Sequence[Sample] | None = None) -> tuple[Round, ...]:
    """Rounds of two equally long series; those of ours alone without a peer."""
    if peer is None:
        return tuple(Round(number, sample) for number, sample in enumerate(ours))
    return tuple(Round(number, *pair) for number, pair in enumerate(zip(ours, peer, strict=True)))


def spread(values: Sequence[float]) -> list[float] | None:
    """First and third quartile, None of fewer than two values."""
    if len(values) < 2:
        return None
    low, _, high = quantiles(values, n=4, method="inclusive")
    return [round(low, 6), round(high, 6)]


def rounded(value: float | None) -> float | None:
    """To six significant digits: what is beyond is noise."""
    return None if value is None else float(f"{value:.6g}")


def document(
    figures: Sequence[Figure], machine: dict[str, Any], method: dict[str, Any], missing: dict[str, str]
) -> dict[str, Any]:
    """The whole of `build/bench.json`."""
    return {
        "schema": SCHEMA, "machine": machine, "method": method, "missing": missing,
        "figures": [figure.body() for figure in figures],
    }  # fmt: skip
