"""Draws bar charts of figures as SVG, by hand: readable on light and dark pages, no scripts, no fonts of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from loadtests.figures import Figure

WIDTH: Final = 860
LABELS: Final = 130
VALUES: Final = 90
ROW: Final = 26
BAR: Final = 16
UNSHOWN: Final = frozenset({"MediaRelay"})
"""Peers beside whose bar no other would be seen."""
STYLE: Final = """
svg{--text:#1f2328;--soft:#59636e;--ours:#0a7a5c;--peer:#b9c2cc;--line:#59636e;background:transparent}
@media(prefers-color-scheme:dark){svg{--text:#e6edf3;--soft:#9198a1;--ours:#3fc79a;--peer:#4a525c;--line:#9198a1}}
text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--text)}
.head{font-weight:600;font-size:14px}.soft{fill:var(--soft)}.us{font-weight:600}
.ours{fill:var(--ours)}.peer{fill:var(--peer)}.spread{stroke:var(--line);stroke-width:1.5;fill:none}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One relay's median, and its quartiles if there are rounds enough."""

    name: str
    value: float
    quartiles: Sequence[float] | None = None
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    unit: str
    better: str
    bars: tuple[Bar, ...]

    @property
    def height(self) -> int:
        return 34 + ROW * len(self.bars) + 18


def panels(figures: Iterable[Figure], wanted: Iterable[tuple[str, str]]) -> list[Panel]:
    """One panel of each wanted figure that was measured: ours first, then each peer that it was measured against."""
    known = list(figures)
    found = ((title, [one for one in known if one.figure == figure]) for figure, title in wanted)
    return [_panel(title, same) for title, same in found if same]


def _panel(title: str, same: Sequence[Figure]) -> Panel:
    ours = Bar("Parley", same[0].ours, same[0].body()["ours_quartiles"], ours=True)
    bars = [ours, *(bar for figure in same if (bar := _peer(figure)) is not None)]
    better = "shorter is better" if same[0].better == "less" else "longer is better"
    return Panel(title, same[0].unit, better, tuple(bars))


def _peer(figure: Figure) -> Bar | None:
    if figure.peer is None or figure.peer_name is None or figure.peer_name in UNSHOWN:
        return None
    return Bar(figure.peer_name, figure.peer, figure.body()["peer_quartiles"])


def draw(shown: Sequence[Panel], caption: str) -> str:
    """The whole picture as SVG text."""
    height = sum(panel.height for panel in shown) + 24
    parts, top = [], 0
    for panel in shown:
        parts += _drawn(panel, top)
        top += panel.height
    label = "; ".join(_told(panel) for panel in shown)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
            f' role="img" aria-label="{escape(label, {chr(34): "&quot;"})}">',
            f"<style>{STYLE}</style>",
            *parts,
            f'<text class="soft" x="0" y="{height - 8}">{escape(caption)}</text>',
            "</svg>\n",
        ]
    )


def _drawn(panel: Panel, top: int) -> list[str]:
    longest = max([bar.value for bar in panel.bars] + [bar.quartiles[1] for bar in panel.bars if bar.quartiles])
    scale = (WIDTH - LABELS - VALUES) / (longest or 1)
    lines = [
        f'<text class="head" x="0" y="{top + 20}">{escape(panel.title)}</text>'
        f'<text class="soft" x="{WIDTH}" y="{top + 20}" text-anchor="end">{panel.better}</text>'
    ]
    for number, bar in enumerate(panel.bars):
        lines.append(_bar(bar, panel.unit, top + 34 + ROW * number, scale))
    return lines


def _bar(bar: Bar, unit: str, y: int, scale: float) -> str:
    middle, end = y + BAR / 2, LABELS + max(1.0, bar.value * scale)
    name = f'<text x="{LABELS - 10}" y="{middle + 4.5}" text-anchor="end"{_class(bar)}>{escape(bar.name)}</text>'
    kind = "ours" if bar.ours else "peer"
    box = f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{end - LABELS:.1f}" height="{BAR}" rx="3"/>'
    whisker = ""
    if bar.quartiles:
        low, high = (LABELS + edge * scale for edge in bar.quartiles)
        end = max(end, high)
        whisker = f'<path class="spread" d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {y + 4}v8M{high:.1f} {y + 4}v8"/>'
    value = f'<text x="{end + 8:.1f}" y="{middle + 4.5}"{_class(bar)}>{amount(bar.value, unit)}</text>'
    return name + box + whisker + value


def _class(bar: Bar) -> str:
    return ' class="us"' if bar.ours else ""


def _told(panel: Panel) -> str:
    bars = ", ".join(f"{bar.name} {amount(bar.value, panel.unit)}" for bar in panel.bars)
    return f"{panel.title}: {bars}"


def amount(value: float | None, unit: str) -> str:
    """A value as people read it: rates in thousands, all to three digits."""
    if value is None:
        return "–"
    if unit == "1/s":
        return f"{value / 1000:,.0f}k/s" if value >= 10_000 else f"{value:,.0f}/s"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
