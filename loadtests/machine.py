"""What the machine is, and what its cores and processes did between two instants, as /proc tells it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns
from typing import Any, Final

TICKS: Final = os.sysconf("SC_CLK_TCK")
_PROC: Final = Path("/proc")


def cores() -> tuple[int, int, int]:
    """Core of the measured process, of the generator, of control; the last ones are shared when there are fewer."""
    allowed = sorted(os.sched_getaffinity(0))
    last = len(allowed) - 1
    return allowed[0], allowed[min(1, last)], allowed[min(2, last)]


def describe() -> dict[str, Any]:
    """The machine for the report: no names, no addresses."""
    lines = (line.partition(":") for line in (_PROC / "cpuinfo").read_text().splitlines())
    info = {key.strip(): value.strip() for key, _, value in lines}
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": info.get("model name", platform.machine()),
        "cores": os.cpu_count(),
        "virtual": "hypervisor" in info.get("flags", ""),
        "memory_gib": round(pages / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": [round(value, 2) for value in os.getloadavg()],
    }


def cpu_ns(pids: Iterable[int]) -> int:
    """Time that the processes' threads have run, in nanoseconds; without schedstat, to the scheduler's tick."""
    return sum(_one_cpu_ns(pid) for pid in pids)


def _one_cpu_ns(pid: int) -> int:
    try:
        return sum(int(task.read_text().split()[0]) for task in (_PROC / str(pid) / "task").glob("*/schedstat"))
    except (OSError, IndexError):
        return _ticks_ns(pid)


def _ticks_ns(pid: int) -> int:
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1_000_000_000 // TICKS


def private_octets(pid: int) -> int:
    """Memory that is the process's own: private pages, resident or swapped."""
    kib = 0
    for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:", "Swap:")):
            kib += int(line.split()[1])
    return kib * 1024


@dataclass(frozen=True, slots=True)
class Core:
    """One core's counters at an instant, in nanoseconds."""

    at: int
    busy: int
    softirq: int
    steal: int

    @classmethod
    def read(cls, core: int) -> Core:
        at = monotonic_ns()
        for line in (_PROC / "stat").read_text().splitlines():
            name, *numbers = line.split()
            if name == f"cpu{core}":
                user, nice, system, _, _, irq, softirq, steal = (int(n) * 1_000_000_000 // TICKS for n in numbers[:8])
                return cls(at, user + nice + system + irq + softirq, softirq, steal)
        raise LookupError(f"no core {core}")

    def steal_share(self, before: Core) -> float:
        """Share of the time since `before` in which the hypervisor ran something else (0 to 1)."""
        return (self.steal - before.steal) / max(1, self.at - before.at)

    def foreign_share(self, before: Core, own_ns: int) -> float:
        """Share of the time since `before` in which this core ran something else than `own_ns` of ours; to the tick."""
        return max(0.0, (self.busy - before.busy - own_ns) / max(1, self.at - before.at))
