"""`python -m loadtests`: runs the parts, shows progress and a table, writes build/bench.json and build/bench.svg."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from loadtests import machine, meter, packages, picture, relay, table
from loadtests.bench import Bench
from loadtests.bridge import settlement, webhooks
from loadtests.figures import DISCARDED, FOREIGN_LIMIT, STEAL_LIMIT, Figure, document
from loadtests.peers.rig import CONTROL_CORE, MEASURED_CORE, OTHER_CORE
from loadtests.processes import FIRST, take_precedence
from loadtests.relay.measuring import LOSS_LIMIT, WINDOW

ROOT: Final = Path(__file__).parents[1]
BUILD: Final = ROOT / "build"
DOCS: Final = ROOT / "docs"
OPEN_FILES: Final = 20_000


@dataclass(frozen=True, slots=True)
class Part:
    """`panels`: which of its figures the picture shows, and how it calls them."""

    run: Callable[[Bench], list[Figure]]
    panels: tuple[tuple[str, str], ...] = ()


PARTS: Final = {
    "relay": Part(relay.run, relay.PANELS),
    "settlement": Part(settlement.run, settlement.PANELS),
    "webhooks": Part(webhooks.run, webhooks.PANELS),
    "meter": Part(meter.run, meter.PANELS),
}


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests", description=__doc__)
    parser.add_argument("--only", action="append", choices=sorted(PARTS), help="this part alone (may be repeated)")
    parser.add_argument("--rounds", type=int, default=7, help="of which the first is discarded (default 7)")
    parser.add_argument("--seconds", type=float, default=1.6, help="of one measurement, at most (default 1.6)")
    parser.add_argument("--minutes", type=float, default=9.5, help="a part takes no longer (default 9.5)")
    parser.add_argument("--quick", action="store_true", help="two short rounds, to see that everything works")
    parser.add_argument("--no-install", action="store_true", help="leave missing Debian packages alone")
    parser.add_argument("--publish", action="store_true", help="also write docs/bench.svg and docs/benchmarks.md")
    chosen = parser.parse_args(words)
    if chosen.quick:
        chosen.rounds, chosen.seconds = 2, 0.5
    if chosen.rounds <= DISCARDED:
        parser.error("at least two rounds: the first is discarded")
    return chosen


def prepare(console: Console, may_install: bool) -> None:
    """Packages, open files, and this process on the core that is not measured."""
    wanted = packages.missing()
    if wanted and may_install and packages.may_install():
        console.print(f"installing {', '.join(wanted)}")
        if not packages.install(wanted):
            console.print("[yellow]apt could not install them; the run goes on without[/]")
    elif wanted:
        console.print(f"[yellow]not installed: {', '.join(wanted)}[/]")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, OPEN_FILES)), hard))
    os.sched_setaffinity(0, {OTHER_CORE})
    take_precedence(FIRST)


@contextlib.contextmanager
def progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, refresh_per_second=2) as shown:
        task = shown.add_task("starting")

        def show(text: str, done: int, planned: int) -> None:
            shown.update(task, description=text, completed=done, total=planned or None)

        yield show


def method(chosen: argparse.Namespace, bench: Bench) -> dict[str, Any]:
    """How it was measured, for the report."""
    return {
        "rounds": chosen.rounds, "discarded": DISCARDED, "seconds": chosen.seconds,
        "took_s": round(time.monotonic() - bench.started), "relay_core": MEASURED_CORE,
        "generator_core": OTHER_CORE, "control_core": CONTROL_CORE,
        "order": "in turn within each round, every other round backwards; ratios are of the same round",
        "cost": "time on the CPU of the relay's processes, less what they use idle, for each packet that arrived",
        "niceness": FIRST, "closed_loop_packets_under_way": WINDOW, "loss_limit": LOSS_LIMIT,
        "marks": f"steal above {STEAL_LIMIT:.0%}, other processes above {FOREIGN_LIMIT:.0%} of the relay's core, or a "
        "generator that fell behind; marked rounds count",
        "relays": dict(bench.notes),
    }  # fmt: skip


def run(chosen: argparse.Namespace, console: Console) -> tuple[list[Figure], dict[str, Any]]:
    about = machine.describe()
    figures: list[Figure] = []
    with progress(console) as show:
        bench = Bench(rounds=chosen.rounds, seconds=chosen.seconds, budget_s=0.0, show=show)
        for name in chosen.only or PARTS:
            bench.budget_s = time.monotonic() - bench.started + 60 * chosen.minutes
            figures += PARTS[name].run(bench)
            bench.planned = bench.done
    about["load_after"] = [round(value, 2) for value in os.getloadavg()]
    return figures, document(figures, about, method(chosen, bench), bench.missing)


def write(figures: Sequence[Figure], report: dict[str, Any], publish: bool) -> None:
    BUILD.mkdir(exist_ok=True)
    (BUILD / "bench.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    wanted = [panel for part in PARTS.values() for panel in part.panels]
    caption = f"Median and quartiles of {report['method']['rounds'] - DISCARDED} rounds on {report['machine']['cpu']}."
    drawn = picture.draw(picture.panels(figures, wanted), f"{caption} docs/benchmarks.md says how.")
    (BUILD / "bench.svg").write_text(drawn)
    if publish:
        (DOCS / "bench.svg").write_text(drawn)
        table.publish(table.markdown(figures, report), DOCS / "benchmarks.md")


def main() -> int:
    chosen = arguments()
    console = Console()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    prepare(console, not chosen.no_install)
    figures, report = run(chosen, console)
    write(figures, report, chosen.publish)
    console.print(table.terminal(figures))
    for name, why in report["missing"].items():
        console.print(f"[yellow]{name} was not measured: {why}[/]")
    console.print(f"{report['method']['took_s']} s; build/bench.json, build/bench.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
