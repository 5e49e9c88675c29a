"""`make test`: all tests, in three parts side by side, since calls in real time mostly wait, and killed processes, too.

First what is measured on an otherwise idle machine; then the calls, which are held against real time and have the
machine's first attention, and beside them, at the lowest priority, the faults and everything else. What failed is run
once more with nothing beside it. With arguments: pytest with them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

CALLS = ("tests/e2e", "tests/integration", "tests/web")
FAULTS = ("tests/faults",)
BESIDE = {"faults": FAULTS, "rest": tuple(f"--ignore={folder}" for folder in (*CALLS, *FAULTS))}
PYTEST = (sys.executable, "-m", "pytest")


def main(arguments: list[str]) -> int:
    if arguments:
        return subprocess.call([*PYTEST, *arguments])
    begun = time.monotonic()
    codes = {"alone": subprocess.call([*PYTEST, "-m", "alone", *_cache("alone")])}
    codes |= _side_by_side()
    codes = {part: code and _once_more(part) for part, code in codes.items()}
    ended = ", ".join(f"{part} {'passed' if code == 0 else 'failed'}" for part, code in codes.items())
    print(f"{time.monotonic() - begun:.0f} s in all: {ended}")
    return max(codes.values())


def _side_by_side() -> dict[str, int]:
    beside = {part: _begun(part, where) for part, where in BESIDE.items()}
    print("Beside the calls: " + ", ".join(map(str, map(_report, beside))), flush=True)
    try:
        codes = {"calls": subprocess.call([*PYTEST, "-m", "not alone", *_cache("calls"), *CALLS])}
        codes |= {part: process.wait() for part, process in beside.items()}
    finally:
        for process in beside.values():
            process.kill()
    for part in beside:
        sys.stdout.flush()
        sys.stdout.buffer.write(_report(part).read_bytes())
    return codes


def _begun(part: str, where: tuple[str, ...]) -> subprocess.Popen[bytes]:
    _report(part).parent.mkdir(exist_ok=True)
    with _report(part).open("wb") as report:
        return subprocess.Popen(
            [*PYTEST, "-m", "not alone", *_cache(part), "--basetemp", f"build/tmp-{part}", *where],
            stdout=report, stderr=subprocess.STDOUT, preexec_fn=lambda: os.nice(19),
        )  # fmt: skip


def _report(part: str) -> Path:
    return Path(f"build/test-{part}.txt")


def _once_more(part: str) -> int:
    """Real time is what a busy machine takes away: what failed is run again with nothing beside it, and then counts."""
    print(f"Once more, alone, what failed of {part}:", flush=True)
    return subprocess.call([*PYTEST, "--last-failed", "--last-failed-no-failures", "none", *_cache(part)])


def _cache(part: str) -> tuple[str, ...]:
    return "-o", f"cache_dir=build/cache-{part}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
