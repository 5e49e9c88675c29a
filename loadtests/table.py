"""The figures as a table: coloured in the terminal, Markdown in docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from loadtests.figures import Figure, spread
from loadtests.picture import amount

COLUMNS: Final = ("figure", "Parley", "peer", "", "ratio", "quartiles", "must", "aim", "marked")
BEGIN: Final = "<!-- last run: begin -->"
END: Final = "<!-- last run: end -->"


def cells(figure: Figure) -> tuple[str, ...]:
    """One row, in the order of COLUMNS."""
    return (
        figure.figure, amount(figure.ours, figure.unit), figure.peer_name or "", amount(figure.peer, figure.unit),
        times(figure.ratio), _quartiles(figure), _bound(figure, figure.must), _bound(figure, figure.aim),
        f"{sum(one.marked for one in figure.kept)}/{len(figure.kept)}",
    )  # fmt: skip


def times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.3g} ×"


def _quartiles(figure: Figure) -> str:
    edges = spread(figure.ratios if figure.judged_by == "ratio" else [one.ours.value for one in figure.kept])
    return "" if edges is None else f"{edges[0]:.3g} – {edges[1]:.3g}"


def _bound(figure: Figure, bound: float | None) -> str:
    if bound is None:
        return ""
    sign = "≤" if figure.better == "less" else "≥"
    value = times(bound) if figure.judged_by == "ratio" else amount(bound, figure.unit)
    return f"{sign} {value} {'✓' if figure.within(bound) else '✗'}"


def terminal(figures: Sequence[Figure]) -> Table:
    table = Table(title="medians of all rounds but the first", title_justify="left", pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("figure", "peer") else "right")
    for figure in figures:
        reached = figure.within(figure.must)
        table.add_row(*cells(figure), style=None if reached is None else ("green" if reached else "red"))
    return table


def markdown(figures: Sequence[Figure], document: dict[str, Any]) -> str:
    """What stands between the marks in docs/benchmarks.md."""
    machine, method = document["machine"], document["method"]
    head = (
        f"{datetime.now(UTC).date().isoformat()}, {machine['cpu']}, {machine['cores']} cores"
        f"{' (virtual)' if machine['virtual'] else ''}, Linux {machine['kernel']}, Python {machine['python']}; "
        f"{method['rounds']} rounds of {method['seconds']} s. "
        + "; ".join(f"{name}: {about}" for name, about in method["relays"].items())
        + "."
    )
    away = [f"- {name} was not measured: {why}." for name, why in document["missing"].items()]
    columns = [column or "peer's" for column in COLUMNS]
    rows = [columns, ["---"] * len(columns), *(list(cells(figure)) for figure in figures)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "", *lines, *(["", *away] if away else [])])


def publish(text: str, page: Path) -> None:
    """Put it between the marks of the page. Raises ValueError when the marks are not there."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page.name} has no place for the last run")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
